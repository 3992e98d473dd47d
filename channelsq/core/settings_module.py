"""The settings module of commands that do not run through manage.py."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

VARIABLE = "DJANGO_SETTINGS_MODULE"


def find_settings(folder: Path) -> tuple[str, str] | None:
    """Return the settings module and the place that names it; None if no place does.

    The places are the environment, then ``manage.py`` in the folder, then ``config.settings`` if it can be found.

    Args:
        folder: the project's folder, which is on the import path.
    """
    given = os.environ.get(VARIABLE)
    if given:
        return given, VARIABLE
    named = named_in(folder / "manage.py")
    if len(named) == 1:
        return named.pop(), "manage.py"
    try:
        found = find_spec("config.settings") is not None
    except ImportError:
        found = False
    return ("config.settings", "config/") if found and not named else None


def named_in(program: Path) -> set[str]:
    """Return the settings modules that a program sets; the program is parsed, not run."""
    try:
        tree = ast.parse(program.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return set()
    return {value for value in map(_literal, _values(tree)) if value}


def _values(tree: ast.Module) -> Iterator[ast.expr]:
    """Yield the variable's values in ``setdefault(VARIABLE, value)`` and ``environ[VARIABLE] = value``."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="setdefault"), args=[key, value]) if _literal(key) == VARIABLE:
                yield value
            case ast.Assign(targets=[ast.Subscript(slice=key)], value=value) if _literal(key) == VARIABLE:
                yield value


def _literal(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
