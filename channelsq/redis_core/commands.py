"""Redis commands as tuples and as bytes, and the package's Lua scripts.

All keys include the global prefix.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cached_property
from importlib import resources
from typing import Any, TypeAlias

from hiredis import pack_command

#: None, int, bytes, list, dict (RESP3), or an error as a value: redis-py's ResponseError or hiredis's ReplyError.
Reply: TypeAlias = Any
Argument: TypeAlias = str | bytes | int
Command: TypeAlias = tuple[Argument, ...]


class Script:
    """A Lua script of the package's ``lua`` folder.

    Args:
        name: the file's name without ``.lua``.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = resources.files("channelsq.redis_core.lua").joinpath(f"{name}.lua").read_text(encoding="utf-8")
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def command(self, keys: Sequence[str], args: Iterable[Argument]) -> Command:
        """Return the command that runs the script; a server that does not know the script answers NOSCRIPT."""
        return ("EVALSHA", self.sha, len(keys), *keys, *args)

    def full_command(self, keys: Sequence[str], args: Iterable[Argument]) -> Command:
        """Return the command that sends the script's text and runs it; the server knows the script from then on."""
        return ("EVAL", self.text, len(keys), *keys, *args)

    @cached_property
    def load_command(self) -> Command:
        """The command that loads the script into the server."""
        return ("SCRIPT", "LOAD", self.text)


def pack(commands: Iterable[Command | bytes]) -> bytes:
    """Return commands as the bytes of one write; items that are bytes are packed already."""
    return b"".join(
        [command if type(command) is bytes else pack_command(command) for command in commands]  # type: ignore[arg-type]
    )
