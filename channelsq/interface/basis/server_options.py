"""The options of the interface server, and the functions that read their values from text."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_SHIFTS = {"": 0, "k": 10, "m": 20, "g": 30}


def integer(low: int, high: int, remedy: str) -> Callable[[str], int]:
    """Return a reader of a whole number from ``low`` to ``high``."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ValueError(remedy) from None
        if not low <= value <= high:
            raise ValueError(remedy)
        return value

    return read


def seconds(*, zero: bool, remedy: str) -> Callable[[str], float]:
    """Return a reader of a time; ``zero`` says whether 0 is valid."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ValueError(remedy) from None
        # This also refuses "nan", which compares false with every number.
        if not (0 < value <= 86_400 or (zero and value == 0)):
            raise ValueError(remedy)
        return value

    return read


def size(high: int, *, zero: str = "") -> Callable[[str], int]:
    """Return a reader of a number of bytes up to ``high``; ``zero`` describes the meaning of 0, if 0 is valid."""
    remedy = f"give bytes, 1 to {shown_size(high)}, such as 1048576, 64k or 1m" + (f"; or 0 {zero}" if zero else "")

    def read(text: str) -> int:
        match = re.fullmatch(r"(\d{1,15})([kKmMgG]?)", text)
        value = int(match[1]) << _SHIFTS[match[2].lower()] if match else -1
        if not (1 <= value <= high or (zero and value == 0)):
            raise ValueError(remedy)
        return value

    return read


def shown_size(value: int) -> str:
    """Return a number of bytes in the notation of options, in the largest unit that divides it."""
    for unit, shift in reversed(_SHIFTS.items()):
        if value and value % (1 << shift) == 0:
            return f"{value >> shift}{unit}"
    return str(value)


def switch(text: str) -> bool:
    """Read on or off."""
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off", ""):
        return False
    raise ValueError("give 1 or 0, true or false, yes or no, on or off")


def host(text: str) -> str:
    """Read a host name or address."""
    if not text or any(c.isspace() or c == "/" for c in text):
        raise ValueError("give a host name or an IP address, such as 127.0.0.1, 0.0.0.0 or ::")
    return text.strip("[]")


def socket_path(text: str) -> str:
    """Read the path of a socket file."""
    if not text or "\0" in text or len(text.encode()) > 100:
        raise ValueError("give the path of a socket file, at most 100 bytes")
    return text


def alias(text: str) -> str:
    """Read the name of a layer."""
    if not text:
        raise ValueError("give a key of CHANNEL_LAYERS, such as default")
    return text


def root_path(text: str) -> str:
    """Read a path, and remove its last slash."""
    if text in ("", "/"):
        return ""
    if not re.fullmatch(r"(/[^/\s?#]+)+/?", text):
        raise ValueError("give a path that starts with a slash, such as /app")
    return text.rstrip("/")


def who_answers(text: str) -> str:
    """Read ``channel`` or ``direct``."""
    if text not in ("channel", "direct"):
        raise ValueError("give channel, for the workers, or direct, for Django's views in this process")
    return text


def status_path(text: str) -> str:
    """Read a path, or ``none``."""
    if text.lower() in ("", "none"):
        return ""
    if not re.fullmatch(r"(/[^/\s?#]+)+", text):
        raise ValueError("give a path such as /-, or none to disable these pages")
    return text


def flag_of(name: str) -> str:
    """Return the option on the command line that has a name."""
    return "--" + name.replace("_", "-")


TIME = "give seconds above 0, such as 30"
TIME_OR_OFF = "give seconds above 0, or 0 to turn it off"


@dataclass(frozen=True, slots=True)
class Option:
    """One setting that the command line and the environment can set.

    Args:
        name: the name of its field in ``InterfaceConfig``.
        read: converts its text to a value; raises ValueError with the remedy if it cannot.
        help: the text for ``--help``.
        metavar: the name of its value in ``--help``.
        short: another flag.
        shown_default: the default in ``--help``, if it differs from the field's.
    """

    name: str
    read: Callable[[str], Any]
    help: str
    metavar: str | None = None
    short: str | None = None
    shown_default: str | None = None

    @property
    def flag(self) -> str:
        """The option on the command line."""
        return flag_of(self.name)

    @property
    def variable(self) -> str:
        """The variable in the environment."""
        return self.variable_of("CHANNELSQ_")

    def variable_of(self, prefix: str) -> str:
        """Return the variable in the environment of a server whose variables have a prefix of their own."""
        return prefix + self.name.upper()
