"""Error texts for a project's own modules: the cause, its line, and the name that was probably meant."""

from __future__ import annotations

import difflib
import os
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path

from channelsq.exceptions import ChannelsqError

#: Folders whose files do not belong to the project: Python's, those of installed packages, and this one.
_FOREIGN = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_OWN = str(Path(__file__).parent.parent) + os.sep


def explained(error: BaseException) -> str:
    """Return an error in one line, with the line of the project's code that caused it, if there is one."""
    text = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    if not isinstance(error, (ChannelsqError, ImportError)):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    place = _place(error)
    return f"{text} ({place})" if place and place not in text else text


def _place(error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f"{short(error.filename)}, line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        if not is_foreign(frame.filename):
            return f"{short(frame.filename)}, line {frame.lineno}"
    return ""


def is_foreign(name: str) -> bool:
    """Return whether a file is outside the project: Python's, an installed package's, or channelsq's."""
    return name.startswith(("<", _OWN)) or name.startswith(_FOREIGN)


def short(name: str) -> str:
    """Return a file's path relative to the current folder, if it is below that."""
    try:
        return str(Path(name).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return name


def meant(name: object, known: Iterable[str]) -> str:
    """Return ``"; did you mean …?"`` for an unknown name; empty if no known name is similar."""
    found = difflib.get_close_matches(name, list(known), 1) if isinstance(name, str) else []
    return f"; did you mean {found[0]!r}?" if found else ""
