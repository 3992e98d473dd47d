"""The command line and environment of an interface server: options in, checked values out."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from channelsq.interface.basis.server_options import Option, shown_size, switch

#: The prefix of the environment variables of options.
VARIABLES = "CHANNELSQ_"


class ConfigError(Exception):
    """An unusable setting; the text names its value and the remedy."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


def parser_of(
    options: Sequence[Option], defaults: object, *, program: str, description: str, variables: str = VARIABLES
) -> argparse.ArgumentParser:
    """Return the parser of a command's options; every value stays text.

    Args:
        options: the options.
        defaults: has their default values as attributes.
        program: the command.
        description: the text for ``--help``.
        variables: the prefix of their environment variables.
    """
    result = _Parser(
        prog=program,
        description=description,
        epilog="An option on the command line counts before its environment variable.",
        allow_abbrev=False,
    )
    for option in options:
        default = option.shown_default or _shown(getattr(defaults, option.name), option.metavar)
        text = f"{option.help} [env {option.variable_of(variables)}, default {default}]"
        flags = [option.short, option.flag] if option.short else [option.flag]
        if option.read is switch:
            no = "--no-" + option.flag[2:]
            result.add_argument(*flags, dest=option.name, action="store_const", const="1", help=text)
            result.add_argument(no, dest=option.name, action="store_const", const="0", help=argparse.SUPPRESS)
        else:
            result.add_argument(*flags, dest=option.name, metavar=option.metavar, help=text)
    return result


def _shown(value: Any, metavar: str | None) -> str:
    if metavar == "BYTES":
        return shown_size(value)
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def read_values(
    options: Sequence[Option],
    parser: argparse.ArgumentParser,
    argv: Sequence[str],
    environ: Mapping[str, str],
    variables: str = VARIABLES,
) -> dict[str, Any]:
    """Return the values of the options that are given, by name.

    Args:
        options: the options.
        parser: the result of :func:`parser_of` for them.
        argv: the command line, without the program's name.
        environ: the environment.
        variables: the prefix of their environment variables.

    Raises:
        ConfigError: a value cannot be used, or an option is unknown.
        SystemExit: after ``--help``.
    """
    given = vars(parser.parse_args(list(argv)))
    values: dict[str, Any] = {}
    port_variable = environ.get("PORT", "")
    for option in options:
        text, source = given[option.name], option.flag
        if text is None:
            text, source = environ.get(option.variable_of(variables)), option.variable_of(variables)
        if text is None and option.name == "port" and port_variable:
            text, source = port_variable, "PORT"
        if text is None:
            continue
        try:
            values[option.name] = option.read(text)
        except ValueError as error:
            raise ConfigError(f"{source} cannot be {text!r}: {error}") from None
    if "host" not in values and port_variable:
        # A platform that chooses the port routes to it from outside this machine.
        values["host"] = "0.0.0.0"  # noqa: S104
    return values
