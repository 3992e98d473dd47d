"""Additions to Kombu's Redis transport for servers that refuse commands for a while: on streams and on lists.

A refusal counts as a lost connection (see :mod:`channelsq.redis_core.server_errors`), and a connection is not
established before the server would accept writes again.  The few commands that a consumer needs to continue are also
sent to a server whose memory is full: without them no message would ever be removed.
"""

from __future__ import annotations

from typing import Any, TypeVar

from kombu.transport import redis as kombu_redis

from channelsq.redis_core.commands import Command
from channelsq.redis_core.operations import Operation, exchange, run
from channelsq.redis_core.scripts import SETTLE, settle_args
from channelsq.redis_core.server_errors import MAY_WRITE_IF_FULL
from channelsq.redis_io.away import ServerAway, watch
from channelsq.redis_io.blocking import carry_out
from channelsq.transport.kombu_pool_internals import PooledChannel

T = TypeVar("T")


class EnduringChannel(PooledChannel):
    """A channel of Kombu's whose connections raise ServerAway."""

    def pool_params(self, params: dict[str, Any]) -> dict[str, Any]:
        """Have connections raise ServerAway."""
        return watch(super().pool_params(params))

    def carry_out(self, operation: Operation[T]) -> T:
        """Carry out an operation on Redis, and return its result; see :func:`channelsq.redis_io.blocking.carry_out`."""
        return carry_out(self.pool, operation)

    def check(self) -> None:
        """Raise ServerAway if the server does not accept writes now; a server with full memory passes."""
        self.carry_out(exchange(MAY_WRITE_IF_FULL))  # ignores the error of an old server without flags

    def write_if_full(self, *commands: Command) -> None:
        """Carry out commands as one, also on a server with full memory.  Keys include the global prefix."""
        self.carry_out(run(SETTLE, (), *settle_args(commands)))

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        try:
            super()._queue_bind(exchange, routing_key, pattern, queue)  # type: ignore[misc]
        except ServerAway as error:
            if not error.full:
                raise
            key = self.global_keyprefix + self.keyprefix_queue % (exchange,)
            member = self.sep.join([routing_key or "", pattern or "", queue or ""])
            self.write_if_full(("SADD", key, member))


class EnduringTransport(kombu_redis.Transport):
    """A transport that connects only to a server that accepts writes."""

    cycle: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Checked channels that are not in use yet.
        self._checked: list[Any] = []

    def establish_connection(self) -> Any:
        """Connect.

        Raises:
            ServerAway: the server answers, and refuses writes.
        """
        connection = super().establish_connection()
        channel = self.create_channel(connection)  # Kombu has just made it, as the next to be used
        try:
            channel.check()
        except BaseException:
            channel.close()
            raise
        self._checked.append(channel)
        return connection

    def create_channel(self, connection: Any) -> Any:
        """Return a channel: one that was checked when the connection was established, or a new one."""
        try:
            return self._checked.pop()
        except IndexError:
            return super().create_channel(connection)

    def close_connection(self, connection: Any) -> None:
        """Close the channels."""
        self._checked.clear()
        super().close_connection(connection)
