"""The command that writes a new project from the template beside this module."""

from __future__ import annotations

import argparse
import secrets
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from channelsq.version import __version__

TEMPLATE = Path(__file__).parent / "template"

#: The suffix of the template's files, so that no tool takes them for parts of channelsq.
_SUFFIX = "-tpl"

#: The words that are replaced in all files.
_NAME, _KEY, _VERSION = "{project}", "{development_key}", "{channelsq_version}"

#: Files of a project that are programs.
_PROGRAMS = ("manage.py", "bin/release")

#: Names that a folder for a new project may have already.
_MAY_EXIST = {".git", ".venv", "venv"}

_ENVIRONMENT = "python -m venv .venv && . .venv/bin/activate"

_NEXT = """\
pip install -r requirements.txt -r requirements-dev.txt
python manage.py migrate
python manage.py runserver        # http://127.0.0.1:8000/
pytest                            # the tests
"""


def main(argv: Sequence[str]) -> int:
    """Write a project; return the exit code: 0, or 2 after a one-line error message."""
    parser = argparse.ArgumentParser(
        prog="python -m channelsq startproject", description="Write a new project: pages, sockets, tasks and tests."
    )
    parser.add_argument("name", help="the name of the project, for its pages and its README")
    parser.add_argument("folder", nargs="?", type=Path, help="where to write it; by default a new folder of that name")
    options = parser.parse_args(argv)
    folder: Path = options.folder or Path(options.name)
    problem = _problem(options.name, folder)
    if problem:
        print(f"channelsq startproject: {problem}", file=sys.stderr)  # noqa: T201
        return 2
    write(options.name, folder)
    commands = [] if _is_here(folder) else [f"cd {folder}"]
    if sys.prefix == sys.base_prefix:  # else a virtual environment is active
        commands.append(_ENVIRONMENT)
    commands += _NEXT.splitlines()
    print("\n".join([f"{options.name} is ready.  Next:\n", *(f"  {each}" for each in commands)]))  # noqa: T201
    return 0


def _is_here(folder: Path) -> bool:
    return folder.resolve() == Path.cwd()


def _problem(name: str, folder: Path) -> str:
    """Return the reason why a project cannot be written; "" if it can."""
    if not name.isidentifier() or not name.isascii():
        return f"{name!r} is not a name: use ASCII letters, digits and '_', a letter first"
    if folder.exists() and not folder.is_dir():
        return f"{str(folder)!r} is a file: choose another folder"
    found = sorted({each.name for each in folder.iterdir()} - _MAY_EXIST) if folder.exists() else []
    if found:
        return f"{str(folder)!r} is not an empty folder, there is {found[0]!r}: choose another one"
    return ""


def write(name: str, folder: Path) -> None:
    """Write the files of a project.

    Args:
        name: the project's name.
        folder: a folder that does not exist, or that is empty but for a virtual environment and git's folder.
    """
    words = {_NAME: name, _KEY: f"insecure-{secrets.token_urlsafe(30)}", _VERSION: __version__}
    for source, path in files():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        text = source.read_text(encoding="utf-8")
        for word, value in words.items():
            text = text.replace(word, value)
        target.write_text(text, encoding="utf-8")
    for program in _PROGRAMS:
        (folder / program).chmod(0o755)


def files() -> Iterator[tuple[Path, Path]]:
    """Yield the files of the template, each with its path in a project."""
    for source in sorted(TEMPLATE.rglob(f"*{_SUFFIX}")):
        relative = source.relative_to(TEMPLATE)
        yield source, relative.with_name(relative.name.removesuffix(_SUFFIX))
