"""``python -m channelsq``: channelsq's commands where there is no manage.py, or where settings cannot be loaded."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from channelsq.doctor import loading
from channelsq.doctor.command import Doctor, add_arguments
from channelsq.doctor.findings import Level
from channelsq.start.command import main as startproject
from channelsq.version import __version__

_USAGE = """usage: python -m channelsq COMMAND [OPTIONS]

  startproject  writes a new project that runs at once
  doctor        checks whether the site works, and suggests remedies
  channels      channels, workers, interface servers, groups, dead letters
  deadletters   messages that killed their workers
  interface     the interface server, as python -m channelsq.interface

The settings are those of DJANGO_SETTINGS_MODULE, else those that manage.py in this folder names.
`python -m channelsq COMMAND --help` lists the options."""

#: The commands of Django's manage.py.
_COMMANDS = ("channels", "deadletters")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    name, rest = (given[0], given[1:]) if given else ("", [])
    if name in ("", "-h", "--help", "help"):
        print(_USAGE)  # noqa: T201
        return 0 if name else 2
    if name == "--version":
        print(__version__)  # noqa: T201
        return 0
    if name == "startproject":
        return startproject(rest)
    if name == "doctor":
        return _doctor(rest)
    if name == "interface":
        from channelsq.interface.__main__ import main as interface

        return interface(rest)
    if name in _COMMANDS:
        return _command(name, rest)
    print(f"there is no command {name!r}\n\n{_USAGE}", file=sys.stderr)  # noqa: T201
    return 2


def _doctor(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m channelsq doctor", description="Check whether the site works, and suggest remedies if not."
    )
    add_arguments(parser)
    return Doctor(vars(parser.parse_args(argv)), sys.stdout, Path.cwd()).run()


def _command(name: str, argv: list[str]) -> int:
    for finding in loading.load(Path.cwd()):
        if finding.level is Level.ERROR:
            print(f"{finding.text}  {finding.remedy}", file=sys.stderr)  # noqa: T201
            return 2
    from django.core.management import execute_from_command_line

    execute_from_command_line(["python -m channelsq", name, *argv])
    return 0


if __name__ == "__main__":
    sys.exit(main())
