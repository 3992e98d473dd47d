"""Sending on the streams transport without a Kombu producer: one write for all that is sent together."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from kombu.utils.url import maybe_sanitize_url
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from channelsq import names
from channelsq.exceptions import BrokerUnavailable, ChannelFull
from channelsq.layers.capacity import Rooms
from channelsq.layers.streams import StreamCommands
from channelsq.layers.wire import Entry, pack_envelopes
from channelsq.transport.commands import Command, call, run
from channelsq.transport.streams import GROUP, SIZE

if TYPE_CHECKING:
    from channelsq.layers.base import Send
    from channelsq.layers.redis import RedisChannelLayer

#: Commands that are to be run with the acknowledgement of the message that is being handled, in one transaction.
_unit: ContextVar[list[Command] | None] = ContextVar("channelsq_unit", default=None)


@contextmanager
def unit(commands: list[Command]) -> Iterator[None]:
    """Within the block, what a consumer sends on its success is added to ``commands`` instead of being sent."""
    token = _unit.set(commands)
    try:
        yield
    finally:
        _unit.reset(token)


class DirectSender:
    """Sends for a layer whose broker is the streams transport.

    Args:
        layer: the layer.
        connections: how many connections may be in use at once; who needs one more waits.
    """

    def __init__(self, layer: RedisChannelLayer, connections: int) -> None:
        self._layer = layer
        self._lock = threading.RLock()
        self._connections = connections
        self._pid = 0
        self._pool: Any = None
        self._free = threading.BoundedSemaphore(connections)
        self._rooms = Rooms()
        self._commands: StreamCommands | None = None

    @property
    def commands(self) -> StreamCommands:
        """What makes the commands."""
        if self._commands is None:
            prefix = self._layer.transport_options.get("global_keyprefix", "")
            self._commands = StreamCommands(prefix, self._layer.expiry)
        return self._commands

    # -- connections ------------------------------------------------------------------------

    def _connect(self) -> Any:
        with self._lock:
            if self._pid != os.getpid() or self._pool is None:
                # After a fork the parent's sockets are not ours to use or close.
                self._pid = os.getpid()
                self._free = threading.BoundedSemaphore(self._connections)
                self._rooms = Rooms()
                with self._layer.open_connection() as connection:
                    channel: Any = connection.default_channel
                    pool = channel._get_pool()
                # A sender is told soon that the broker is away: redis-py itself would try ten times.
                pool.connection_kwargs["retry"] = Retry(NoBackoff(), 1)
                self._pool = pool
            return self._pool

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        try:
            pool = self._connect()
            with self._free:
                yield pool
        except (RedisError, OSError) as error:
            self._rooms.forget()
            raise BrokerUnavailable(maybe_sanitize_url(self._layer.url), error) from error

    def close(self) -> None:
        """Give back the connections."""
        with self._lock:
            pool, self._pool = self._pool, None
            if pool is not None and self._pid == os.getpid():
                pool.disconnect()

    # -- sending ----------------------------------------------------------------------------

    def dispatch(self, sends: Sequence[Send]) -> None:
        """Send now; see :meth:`BaseChannelLayer.dispatch`."""
        commands, full = self._prepare(sends)
        if commands:
            with self._connected() as pool:
                call(pool, *commands)
        if full is not None:
            raise full

    def settle(self, sends: Sequence[Send]) -> None:
        """Send with the acknowledgement of the message that is being handled; now, if none is."""
        collected = _unit.get()
        if collected is None:
            self.dispatch(sends)
            return
        commands, full = self._prepare(sends)
        collected += commands
        if full is not None:
            raise full

    def send_commands(self, commands: Sequence[Command]) -> None:
        """Run what was collected in a :func:`unit`."""
        with self._connected() as pool:
            call(pool, *commands)

    def _prepare(self, sends: Sequence[Send]) -> tuple[list[Command], ChannelFull | None]:
        """The commands for ``sends``, and ChannelFull for the first that has no room."""
        envelopes: dict[str, list[Entry]] = {}
        messages: list[tuple[str, Send]] = []
        for send in sends:
            if send.group:
                self._layer.gather_group(send, envelopes, messages)
            elif "!" in send.target:
                envelopes.setdefault(names.process_part(send.target), []).append(Entry([send.target], send.body))
            else:
                messages.append((send.target, send))
        commands: list[Command] = []
        full: ChannelFull | None = None
        for prefix, entries in envelopes.items():
            full = self._add_envelopes(commands, prefix, entries) or full
        for channel, send in messages:
            try:
                self._add_message(commands, channel, send)
            except ChannelFull as error:
                if send.group:
                    self._layer.note_dropped(send.target, channel)
                else:
                    full = full or error
        return commands, full

    def _add_envelopes(self, commands: list[Command], prefix: str, entries: list[Entry]) -> ChannelFull | None:
        queue = prefix[:-1]
        refused: ChannelFull | None = None
        for part, body in pack_envelopes(entries):
            try:
                self._admit(queue, self._layer.reply_capacity(prefix), bare=True)
            except ChannelFull as error:
                refused = self._layer.refuse_envelope(part, error.capacity) or refused
                continue
            commands += self.commands.bare(queue, body)
        return refused

    def _add_message(self, commands: list[Command], channel: str, send: Send) -> None:
        bare = names.is_single_reader(channel)
        self._admit(channel, self._layer.capacity_of(channel), bare=bare)
        if bare:
            commands += self.commands.bare(channel, send.body)
        else:
            commands.append(self.commands.task(channel, send.body))

    def _admit(self, queue: str, capacity: int, *, bare: bool) -> None:
        """Raise ChannelFull if ``queue`` has no room for one more."""
        if queue not in self._layer.used:
            self._layer.use(self._layer.queue(queue + "!" if bare and "?" not in queue else queue))

        def depth() -> int:
            try:
                with self._connected() as pool:
                    if bare:
                        return int(call(pool, self.commands.bare_size(queue))[0])
                    return int(run(pool, SIZE, [self.commands.key(queue)], GROUP, 1000))
            except BrokerUnavailable:
                if _unit.get() is None:
                    raise
                return 0  # it waits with the acknowledgement until the broker is back

        self._rooms.admit(queue, capacity, depth)

    def forget_rooms(self) -> None:
        """Trust no measured depth any more."""
        self._rooms.forget()
