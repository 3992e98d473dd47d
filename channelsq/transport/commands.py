"""Redis commands in one write, and the package's Lua scripts.

Commands go past redis-py's clients, for two reasons: ``send_packed_command`` makes one system call of each item
of a list, and Kombu's prefixing client knows none of the commands for streams.  Keys are therefore given with
their global prefix on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any, TypeAlias

from hiredis import pack_command
from redis.exceptions import NoScriptError, ResponseError

from channelsq.transport.kombu_channel import take_connection
from channelsq.transport.old_server import TOO_OLD, is_too_old

#: What redis-py reads: None, int, bytes, list, dict (RESP3), or an error as a value.
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
        self.text = resources.files("channelsq.transport.lua").joinpath(f"{name}.lua").read_text(encoding="utf-8")
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def command(self, keys: Sequence[str], args: Iterable[Argument], *, load: bool = False) -> Command:
        """The command that runs it; with ``load`` the server is sent the text and keeps it."""
        start: Command = ("EVAL", self.text) if load else ("EVALSHA", self.sha)
        return (*start, len(keys), *keys, *args)


def pack(commands: Iterable[Command | bytes]) -> bytes:
    """Commands as the bytes of one write; bytes are commands that are packed already."""
    return b"".join(
        [command if type(command) is bytes else pack_command(command) for command in commands]  # type: ignore[arg-type]
    )


def read(connection: Any) -> Reply:
    """The next reply of a connection; an error that the server answered is given, not raised.

    Raises:
        redis.ConnectionError: the connection is lost.
        ServerAway: the server is away for now, if the pool's connections are watched.
    """
    try:
        return connection.read_response(disable_decoding=True)
    except ResponseError as error:
        return error


def send(connection: Any, commands: Iterable[Command | bytes]) -> None:
    """Write commands to a connection without reading their replies.

    No health check goes before it: its own PING would be read as one of the replies.
    """
    connection.send_packed_command([pack(commands)], check_health=False)


def exchange(pool: Any, commands: Sequence[Command]) -> list[Reply]:
    """Send commands on a connection of a pool and read their replies; errors are among the replies.

    Raises:
        redis.ConnectionError: also for a connection that broke half way, when any of them may have run.
        ServerAway: one was refused, as the server is away for now; those behind it may have run.
    """
    connection = take_connection(pool)
    try:
        send(connection, commands)
        return [read(connection) for _ in commands]
    except BaseException:
        connection.disconnect()  # replies may be under way that nobody would read
        raise
    finally:
        pool.release(connection)


def call(pool: Any, *commands: Command) -> list[Reply]:
    """As :func:`exchange`, but an error that the server answered is raised."""
    replies = exchange(pool, commands)
    for reply in replies:
        if isinstance(reply, ResponseError):
            raise reply
    return replies


def run(pool: Any, script: Script, keys: Sequence[str], *args: Argument) -> Reply:
    """Run a script, which the server is given if it does not know it.

    Raises:
        redis.ResponseError: the script failed, or the server is older than Redis 7.0; the text says so.
        redis.ConnectionError: as :func:`exchange`.
    """
    try:
        return call(pool, script.command(keys, args))[0]
    except NoScriptError:
        pass
    try:
        return call(pool, script.command(keys, args, load=True))[0]
    except ResponseError as error:
        if is_too_old(error):
            raise ResponseError(TOO_OLD) from error
        raise


def load(pool: Any, script: Script) -> None:
    """Give the server a script."""
    call(pool, ("SCRIPT", "LOAD", script.text))
