"""The table of the page code-map says where the code lives, and which way imports run."""

from __future__ import annotations

import ast
import re
from collections.abc import Container, Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import channelsq
from tests.support.markdown import doc_page

PACKAGE = Path(channelsq.__file__).parent

#: Every module by its name.
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def imports(path: Path, modules: Container[str]) -> Iterator[str]:
    """The modules that one imports, wherever in it that stands, and for type checkers, too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in modules else str(node.module)


@cache
def graph() -> dict[str, set[str]]:
    """Return what each module imports of the package.  Not made with this module, which every process imports."""
    return {
        name: {found for found in imports(path, MODULES) if found in MODULES and found != name}
        for name, path in MODULES.items()
    }


def place_of(module: str) -> str:
    """Return the place of a module in the table: its own, or its folder's."""
    path = MODULES[module].relative_to(PACKAGE)
    return path.name if path.parent == Path() else f"{path.parent.as_posix()}/"


def table() -> dict[str, int]:
    """Each path of the table, and the number of its row."""
    _, _, text = doc_page("code-map").read_text().partition("| path | content |")
    rows = [row.split("|")[1] for row in text.splitlines() if row.startswith("| `")]
    places = [(place, number) for number, row in enumerate(rows) for place in re.findall(r"`([^`]+)`", row)]
    assert len(places) == len(dict(places)), "a path stands in two rows"
    return dict(places)


def test_imports_run_one_way() -> None:
    assert "channelsq.asgi" in graph()["channelsq.channel"]
    list(TopologicalSorter(graph()).static_order())  # raises CycleError, which names the circle
    # The names of the package are for applications; they are looked up when asked for.
    assert not [name for name, found in graph().items() if "channelsq" in found]


def test_folders_import_one_way() -> None:
    folders: dict[str, set[str]] = {}
    for module, found in graph().items():
        folders.setdefault(place_of(module), set()).update(map(place_of, found))
    for place, found in folders.items():
        found.discard(place)
    list(TopologicalSorter(folders).static_order())


def test_everything_has_its_row_and_imports_from_above() -> None:
    rows = table()
    assert {place_of(module) for module in MODULES} | {"static/"} == rows.keys()
    wrong = [
        f"{module} imports {other}"
        for module, found in graph().items()
        for other in found
        if rows[place_of(other)] > rows[place_of(module)]
    ]
    assert not wrong


def test_workers_and_interface_servers_do_not_know_each_other() -> None:
    for module, found in graph().items():
        if module.startswith("channelsq.worker"):
            assert not [other for other in found if other.startswith("channelsq.interface")], module
        elif module.startswith("channelsq.interface") and module != "channelsq.interface.__main__":
            assert not [other for other in found if other.startswith("channelsq.worker")], module


def test_interface_servers_of_different_protocols_do_not_know_each_other() -> None:
    shared = {"basis", "link", "presence", "supervision", "gateway"}
    for module, found in graph().items():
        _, server, protocol, *_ = [*module.split("."), "", "", ""]
        if server == "interface" and protocol in {"gateway", "sms", "email"}:
            parts = {other.split(".")[2] for other in found if other.startswith("channelsq.interface.")}
            assert parts <= (shared | {protocol}), module


def test_no_folder_is_a_crowd() -> None:
    modules = [path.relative_to(PACKAGE).parent.as_posix() for path in MODULES.values() if path.name != "__init__.py"]
    crowded = {folder for folder in modules if modules.count(folder) > 22}
    assert crowded <= {"."}  # what applications import by the names that Channels 1 gave it
