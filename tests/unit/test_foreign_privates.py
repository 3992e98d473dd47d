"""Private parts of other libraries are used in ``*_internals.py`` alone, where tests pin them."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kombu.transport import virtual
from kombu.transport.virtual.exchange import FanoutExchange

import channelsq
from tests.support.processes import ROOT

PACKAGE = Path(channelsq.__file__).parent

#: Names with an underscore that their libraries document for everybody's use.
DOCUMENTED = {
    "_asdict", "_fields", "_make", "_replace",  # named tuples
    "_exit", "_getframe",  # os, sys
    "_base_manager", "_default_manager", "_meta", "_state",  # Django's models
}  # fmt: skip

#: Methods that Kombu asks the author of a transport to define, and the class of kombu.transport.virtual that asks.  A
#: subclass may define and call them; on any other object they are private.
KOMBU_HOOKS: dict[str, type] = {
    # "Defining the channel methods you'd usually want to implement in a virtual channel".
    **dict.fromkeys(
        ("_delete", "_get", "_has_queue", "_new_queue", "_poll", "_purge", "_put", "_size"), virtual.AbstractChannel
    ),
    # "Requires that the Channel.supports_fanout attribute is set to true, and the Channel._queue_bind and
    # Channel.get_table methods are implemented"; its deliver() calls Channel._put_fanout, which it does not name.
    **dict.fromkeys(("_put_fanout", "_queue_bind"), FanoutExchange),
}

#: Private names of ours that another module of ours uses, and the module that has them.
OURS = {
    "_run": "channelsq.message",
}

#: What the names of modules with private parts begin with.
LIBRARIES = ("amqp", "billiard", "celery", "django", "kombu", "python", "redis", "sentry", "uvicorn", "websockets")

#: Modules that their libraries do not document, or not as something to use.
UNDOCUMENTED = (
    "billiard.common",
    "celery._state",
    "celery.app.trace",
    "celery.worker.state",
    "uvicorn.protocols",
    "uvicorn.server",
)

MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def is_private(name: str) -> bool:
    """Return whether a name has one underscore in front, or is the mangled form of one with two."""
    return name.startswith("_") and not name.endswith("__") and name != "_"


class Scanner(ast.NodeVisitor):
    """Collects the private names that a module uses of what is not its own.

    Args:
        name: the module's.
        tree: the module's source.
        module: the module; it is imported if it is left out.
    """

    def __init__(self, name: str, tree: ast.Module, module: Any = None) -> None:
        self.found: list[str] = []
        self._name = name
        # Some modules change Celery when they are imported; those have no classes.
        has_classes = any(isinstance(node, ast.ClassDef) for node in ast.walk(tree))
        self._classes: list[Any] = [module or (import_module(name) if has_classes else None)]
        self._own = set(own_names(tree))
        self._foreign = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for alias in node.names
            if not (alias.name if isinstance(node, ast.Import) else str(node.module)).startswith("channelsq")
        }
        self.visit(tree)

    def _note(self, node: ast.AST, what: str) -> None:
        self.found.append(f"{self._name}:{getattr(node, 'lineno', 0)}: {what}")

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Look into a class."""
        found = getattr(self._classes[-1], node.name, None)
        self._classes.append(found)
        of_library = foreign_names(found)
        for each in node.body:
            if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)):
                self._look_at_own(each, each.name, of_library, "defines")
        self.generic_visit(node)
        self._classes.pop()

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """Look at ``something._name``."""
        if is_private(node.attr):
            self._look(node, node.value, node.attr)
        elif (
            isinstance(node.ctx, (ast.Store, ast.Del))
            and isinstance(node.value, ast.Name)
            and node.value.id in self._foreign
        ):
            self._note(node, f"changes {ast.unparse(node)}")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        """Look at ``getattr(something, "_name")`` and the like."""
        match node:
            case ast.Call(
                func=ast.Name(id="getattr" | "hasattr" | "setattr" | "delattr"),
                args=[of, ast.Constant(value=str(name)), *_],
            ) if is_private(name):
                self._look(node, of, name)
        self.generic_visit(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Look at what is imported."""
        for alias in node.names:
            self._look_at_import(node, f"{node.module}.{alias.name}")

    def visit_Import(self, node: ast.Import) -> None:
        """Look at what is imported."""
        for alias in node.names:
            self._look_at_import(node, alias.name)

    def _look_at_import(self, node: ast.AST, name: str) -> None:
        if name.startswith(("channelsq.", "__future__")):
            return
        if any(is_private(part) for part in name.split(".")) or name.startswith(UNDOCUMENTED):
            self._note(node, f"imports {name}")

    def _look(self, node: ast.AST, of: ast.expr, name: str) -> None:
        match of:
            case ast.Name(id="self" | "cls") | ast.Call(func=ast.Name(id="super")):
                self._look_at_own(node, name, foreign_names(self._classes[-1]), "uses its own")
                if name not in DOCUMENTED | KOMBU_HOOKS.keys() | self._own and not inherited(self._classes[-1], name):
                    self._note(node, f"uses an unknown {name}")
            case _ if name not in DOCUMENTED | self._own and name not in OURS:
                self._note(node, f"uses {ast.unparse(of)}.{name}")

    def _look_at_own(self, node: ast.AST, name: str, of_library: set[str], how: str) -> None:
        if is_private(name) and name not in DOCUMENTED | KOMBU_HOOKS.keys() and name in of_library:
            self._note(node, f"{how} {name}, which a library's class has")


def own_names(tree: ast.Module) -> Iterator[str]:
    """Return what a module defines: functions, classes, variables, attributes of ``self``, slots."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Name(id=name, ctx=ast.Store()):
                yield name
            case ast.Attribute(attr=name, value=ast.Name(id="self" | "cls"), ctx=ast.Store()):
                yield name


def is_ours(cls: type) -> bool:
    """Return whether channelsq defines a class."""
    return cls.__module__.partition(".")[0] == "channelsq"


@cache
def source_of(cls: type) -> str:
    """Return the source of a class, for which Python parses the whole file."""
    return inspect.getsource(cls)


def foreign_names(cls: Any) -> set[str]:
    """Return the private names that the classes of libraries among a class's bases have, or set on ``self``."""
    found: set[str] = set()
    for base in inspect.getmro(cls) if isinstance(cls, type) else ():
        if is_ours(base) or base.__module__ in ("abc", "builtins", "typing", "enum", "threading"):
            continue
        found |= {name for name in vars(base) if is_private(name)}
        try:
            found |= set(filter(is_private, re.findall(r"\bself\.(_\w+)", source_of(base))))
        except (OSError, TypeError):  # a class that is written in C
            continue
    return found


def inherited(cls: Any, name: str) -> bool:
    """Return whether one of our classes among a class's bases has a private name of its own."""
    return isinstance(cls, type) and any(
        is_ours(base) and re.search(rf"\b{name}\b", source_of(base)) for base in inspect.getmro(cls)
    )


def found_in(name: str) -> list[str]:
    """Return what a module uses of others' private parts."""
    return Scanner(name, ast.parse(MODULES[name].read_text())).found


INTERNALS = sorted(name for name in MODULES if name.endswith("_internals"))


OTHERS = sorted(MODULES.keys() - INTERNALS)


@pytest.mark.parametrize("name", OTHERS)
def test_private_parts_of_libraries_are_used_in_internals_alone(name: str) -> None:
    assert found_in(name) == []


@pytest.mark.parametrize("name", INTERNALS)
def test_private_parts_are_named_by_library_and_pinned(name: str) -> None:
    """A test says which promise breaks when the library changes."""
    docstring = ast.get_docstring(ast.parse(MODULES[name].read_text())) or ""
    tests = re.findall(r"``(tests/[\w/]+\.py)``", docstring)
    assert tests
    assert not [test for test in tests if not (ROOT / test).exists()]
    if name.rpartition(".")[2].startswith(("celery", "uvicorn", "websockets")):
        # They run on the lowest and the newest versions, too.
        matrix = re.findall(r'"(tests/[\w/]+)', (ROOT / ".ci" / "matrix.py").read_text())
        assert all(any(test.startswith(part) for part in matrix) for test in tests)
    assert name.rpartition(".")[2].startswith(LIBRARIES)


def test_kombus_documentation_asks_transports_for_the_hooks() -> None:
    assert "methods\n    you'd usually want to implement" in str(virtual.AbstractChannel.__doc__)
    abstract = {name for name, owner in KOMBU_HOOKS.items() if owner is virtual.AbstractChannel}
    assert all(vars(virtual.AbstractChannel)[name].__doc__ for name in abstract)
    assert "_queue_bind" in str(FanoutExchange.__doc__)
    assert "_put_fanout" in inspect.getsource(FanoutExchange.deliver)


def test_a_private_part_is_found_wherever_it_is_used() -> None:
    code = """
from celery._state import _tls
from kombu.transport.redis import Channel
import celery

class Ours(Channel):
    def _connparams(self): ...
    def _size(self, queue):
        return super()._size(queue) + self.other._purge(queue)
    def close(self):
        self._closing = True
        self._own = getattr(self.connection, "_avail_channels")
        celery.timeout = 3
"""
    tree = ast.parse(code)
    module = compile(tree, "<ours>", "exec")
    found: dict[str, Any] = {"__name__": "channelsq.ours"}
    exec(module, found)
    scanner = Scanner("channelsq.ours", tree, SimpleNamespace(**found))
    assert [each.partition(": ")[2] for each in scanner.found] == [
        "imports celery._state._tls",
        "defines _connparams, which a library's class has",
        "uses self.other._purge",
        "uses its own _closing, which a library's class has",
        "uses self.connection._avail_channels",
        "changes celery.timeout",
    ]
