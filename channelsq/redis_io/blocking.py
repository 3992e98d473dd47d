"""The blocking shell: carries out operations of :mod:`channelsq.redis_core` on redis-py's connections.

Commands bypass redis-py's clients for two reasons: ``send_packed_command`` makes one system call for each item of a
list, and Kombu's prefixing client does not know the commands for streams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import redis
from redis.exceptions import ResponseError

from channelsq.redis_core.commands import Command, Reply, pack
from channelsq.redis_core.operations import Operation

T = TypeVar("T")

#: An argument that redis-py's pools require before 5.3, and warn about since.
_COMMAND_NAME = () if redis.VERSION >= (5, 3) else ("_",)


def take_connection(pool: Any) -> Any:
    """Take a connection out of a redis-py pool; return it with ``pool.release``."""
    return pool.get_connection(*_COMMAND_NAME)


def read(connection: Any) -> Reply:
    """Return the next reply of a connection; an error reply is returned, not raised.

    Raises:
        redis.ConnectionError: the connection is lost.
        ServerAway: the server is away for now, and the pool's connections are watched.
    """
    try:
        return connection.read_response(disable_decoding=True)
    except ResponseError as error:
        return error


def send(connection: Any, commands: Iterable[Command | bytes]) -> None:
    """Write commands to a connection without reading their replies.

    No health check precedes it: its PING would be read as one of the replies.
    """
    connection.send_packed_command([pack(commands)], check_health=False)


def exchange_on(connection: Any, commands: Sequence[Command]) -> list[Reply]:
    """Send commands and return their replies, errors among them; close a connection that fails."""
    try:
        send(connection, commands)
        return [read(connection) for _ in commands]
    except BaseException:
        connection.disconnect()  # replies may follow, and no code would read them
        raise


def carry_out(pool: Any, operation: Operation[T]) -> T:
    """Carry out an operation on a connection of a pool, and return its result.

    Raises:
        redis.ResponseError: the server answered with an error, and the operation raises it.
        redis.ConnectionError: the connection broke; any of the commands may have run.
        ServerAway: the server is away and refused a command; later commands may have run.
    """
    connection = take_connection(pool)
    try:
        return _carry_out_on(connection, operation)
    finally:
        pool.release(connection)


def carry_out_again(pool: Any, make: Callable[[], Operation[T]]) -> T:
    """Carry out an operation; retry by the pool's policy while the connection is lost.

    Args:
        pool: a pool whose connections have redis-py's ``retry``.
        make: returns the operation, which may run twice.
    """
    connection = take_connection(pool)
    try:
        result: T = connection.retry.call_with_retry(
            lambda: _carry_out_on(connection, make()), lambda error: connection.disconnect()
        )
        return result
    finally:
        pool.release(connection)


def _carry_out_on(connection: Any, operation: Operation[T]) -> T:
    try:
        commands = next(operation)
        while True:
            commands = operation.send(exchange_on(connection, commands))
    except StopIteration as done:
        result: T = done.value
        return result
