"""Loads the test suite's cases, which are written for Python 2.

Python 2's ``str`` holds bytes.  Here its place is taken by a ``str`` of the characters U+0000 to U+00FF, one for each
byte: the sources are read as Latin-1, and :mod:`tests.autobahn.client` converts where octets go to the wire and come
from it.  What is left to change is in :data:`_CHANGES`.

This and the client run in ``.venv-autobahn``, where nothing of channelsq is installed.
"""

from __future__ import annotations

import binascii
import builtins
import importlib.abc
import importlib.machinery
import importlib.util
import re
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

#: Python 2 to Python 3, in the order in which they are made.
_CHANGES = (
    (r"\.encode\((['\"])utf-?8\1\)", ".encode('utf-8').decode('latin-1')"),
    (r"\.decode\((['\"])utf-?8\1\)", ".encode('latin-1').decode('utf-8')"),
    (r"open\(fn, 'rb'\)\.read\(\)", "open(fn, 'rb').read().decode('latin-1')"),
    (r"\bm\.update\(msg\)", "m.update(msg.encode('latin-1'))"),
    (r"\bv\.validate\((.*?)\)$", r"v.validate((\1).encode('latin-1'))"),
    (r"len\(self\.payload\) / ", "len(self.payload) // "),
    (r"^(\s*)print (.*)$", r"\1print(\2)"),
    (r"^(\s*)print$", r"\1print()"),
    (r"pickle\.dumps\(obj1\) == pickle\.dumps\(obj2\)", "obj1 == obj2"),
    (r"^(\s*)implements\(.*\)$", r"\1pass"),
    (r"binascii\.(?:b2a_hex|hexlify)\(", "hex_of("),
    # Names that the client has changed since.
    (r"\brequestNoContextTakeover\b", "request_no_context_takeover"),
    (r"\brequestMaxWindowBits\b", "request_max_window_bits"),
    (r"\(object, Case, \)", "(Case,)"),
    (r"^from zope\.interface import implements$", ""),
)

#: A case is one of Case1_1_1 to Case13_7_18.
_NAME = re.compile(r"Case(\d+(?:_\d+)+)")


class _Loader(importlib.abc.SourceLoader):
    def __init__(self, path: Path) -> None:
        self.path = path

    def get_filename(self, fullname: str) -> str:
        return str(self.path)

    def get_data(self, path: str) -> bytes:
        source = Path(path).read_text("latin-1")
        source = re.sub(r"coding[:=]\s*[-\w]+", "", source)
        for pattern, replacement in _CHANGES:
            source = re.sub(pattern, replacement, source, flags=re.MULTILINE)
        return source.encode("utf-8")

    def path_stats(self, path: str) -> dict[str, Any]:
        raise OSError  # nothing compiled is kept


class _Finder(importlib.abc.MetaPathFinder):
    """The cases import each other without a package."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        file = self.directory / f"{fullname}.py"
        if fullname == "cases_of_autobahn":
            file = self.directory / "__init__.py"
        elif not fullname.startswith("case") or not file.exists():
            return None
        return importlib.util.spec_from_loader(fullname, _Loader(file))


def _shims(package: Path) -> None:
    resources = types.ModuleType("pkg_resources")
    resources.resource_filename = lambda _, name: str(package / name)  # type: ignore[attr-defined]
    sys.modules["pkg_resources"] = resources
    builtins.xrange = range  # type: ignore[attr-defined]
    builtins.unichr = chr  # type: ignore[attr-defined]
    builtins.hex_of = _hex  # type: ignore[attr-defined]


def _hex(data: str | bytes) -> str:
    return binascii.hexlify(data.encode("latin-1") if isinstance(data, str) else data).decode()


def load() -> dict[str, Any]:
    """Every case's class by its id, as ``1.1.1``, in the suite's order."""
    spec = importlib.util.find_spec("autobahntestsuite")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    _shims(package)
    sys.meta_path.insert(0, _Finder(package / "case"))
    module = importlib.import_module("cases_of_autobahn")
    found = {}
    for case in module.Cases:
        match = _NAME.fullmatch(case.__name__)
        assert match is not None
        found[match[1].replace("_", ".")] = case
    return found
