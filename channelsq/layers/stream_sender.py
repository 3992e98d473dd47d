"""Sending on the streams transport without a Kombu producer: one write for all messages of a send."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from kombu.exceptions import OperationalError
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from channelsq.core import names
from channelsq.core.bounded import within
from channelsq.exceptions import BrokerUnavailable, ChannelFull
from channelsq.layers.contract.broker_urls import shown
from channelsq.layers.contract.capacity import CapacityWindows
from channelsq.layers.contract.layer_values import ChannelState, Send
from channelsq.layers.contract.outbox import Outbox, collected_here
from channelsq.layers.kombu_broker.broker_access import KombuBroker
from channelsq.layers.wire.protection import NONE
from channelsq.layers.wire.stream_commands import StreamCommands
from channelsq.layers.wire.wire_forms import Entry, pack_envelopes
from channelsq.redis_core.channel_state import length, look, waiting
from channelsq.redis_core.commands import Command
from channelsq.redis_core.operations import Operation, ask
from channelsq.redis_io.blocking import carry_out
from channelsq.transport.kombu_pool_internals import new_pool

T = TypeVar("T")

#: A process's reply queue: its key, the lifetime (ms) of messages there, and its name.
Place = tuple[str, int, str]


class StreamOutbox(Outbox):
    """The messages of one consumer, to be sent in one transaction with the acknowledgement of its message."""

    __slots__ = ("commands", "envelopes")

    # Most outboxes have one envelope and no commands; containers are created when they are needed.
    #: The entries for each process's reply queue.
    envelopes: Sequence[tuple[Place, list[Entry]]]
    commands: Sequence[Command]

    def __init__(self, layer: object | None = None) -> None:
        self.layer = layer
        self.envelopes = self.commands = ()

    def add_envelope(self, place: Place, entries: list[Entry]) -> None:
        """Add entries for a process's reply queue."""
        if type(self.envelopes) is list:
            self.envelopes.append((place, entries))
        else:
            self.envelopes = [(place, entries)]

    def add_commands(self, commands: Iterable[Command]) -> None:
        """Add commands."""
        if type(self.commands) is list:
            self.commands.extend(commands)
        else:
            self.commands = list(commands)

    def __bool__(self) -> bool:
        return bool(self.envelopes or self.commands)


#: Seconds that the broker has to say whether a channel is full, for a message that leaves with an acknowledgement.  A
#: thread that waited longer would keep consumers from other servers of the layer.
ASKED_WITHIN = 0.5


class DirectSender:
    """The sender of a layer whose broker is the streams transport.

    Args:
        layer: the layer.
        connections: the most connections that may be in use at once; further threads wait.
    """

    def __init__(self, layer: KombuBroker, connections: int) -> None:
        self._layer = layer
        self._lock = threading.RLock()
        self._connections = connections
        self._pid = 0
        self._pool: Any = None
        self._free = threading.BoundedSemaphore(connections)
        self._windows = CapacityWindows()
        self._commands: StreamCommands | None = None

    @property
    def commands(self) -> StreamCommands:
        """The factory of the commands."""
        if self._commands is None:
            prefix = self._layer.transport_options.get("global_keyprefix", "")
            layer = self._layer
            self._commands = StreamCommands(prefix, layer.expiry, layer.queue_prefix, layer.protection)
        return self._commands

    # -- connections

    def _connect(self) -> Any:
        with self._lock:
            if self._pid != os.getpid() or self._pool is None:
                # After a fork the parent's sockets must be neither used nor closed.
                self._pid = os.getpid()
                self._free = threading.BoundedSemaphore(self._connections)
                self._windows = CapacityWindows()
                with self._layer.open_connection() as connection:
                    pool = new_pool(connection.default_channel)
                # Report soon that the broker is away: redis-py itself would try ten times.
                pool.connection_kwargs["retry"] = Retry(NoBackoff(), 1)
                self._pool = pool
            return self._pool

    def _carry_out(self, operation: Operation[T]) -> T:
        try:
            pool = self._connect()
            with self._free:
                return carry_out(pool, operation)
        except (RedisError, OSError, OperationalError) as error:  # the last one of the first connection
            self._windows.forget()
            if self._pool is not None:
                self._pool.disconnect(inuse_connections=False)  # these connections are probably lost, too
            raise BrokerUnavailable(shown(self._layer.url), error) from error

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            pool, self._pool = self._pool, None
            if pool is not None and self._pid == os.getpid():
                pool.disconnect()

    # -- sending

    def dispatch(self, sends: Sequence[Send]) -> None:
        """Send now; see :meth:`BaseChannelLayer.dispatch`."""
        outbox = StreamOutbox(self._layer)
        full = self._pack(outbox, sends)
        self.send(outbox)
        if full is not None:
            raise self._layer.tally.count_full(full)

    def commands_for(self, sends: Sequence[Send]) -> list[Command]:
        """Return the commands for messages to channels that are not full, for a transaction of the caller's."""
        outbox = StreamOutbox(self._layer)
        self._pack(outbox, sends)
        return self.render((outbox,))

    def settle(self, sends: Sequence[Send]) -> None:
        """Send with the acknowledgement of the current consumer's message; now, if it came from elsewhere."""
        outbox = collected_here.get()
        if not isinstance(outbox, StreamOutbox) or outbox.layer is not self._layer:
            self.dispatch(sends)
            return
        full = self._pack(outbox, sends)
        if full is not None:
            raise self._layer.tally.count_full(full)

    def join_acknowledgement(self, commands: Sequence[Command]) -> bool:
        """Add commands to the acknowledgement of the current consumer's message; return False if there is none."""
        outbox = collected_here.get()
        if not isinstance(outbox, StreamOutbox) or outbox.layer is not self._layer:
            return False
        outbox.add_commands(commands)
        return True

    def send(self, outbox: StreamOutbox) -> None:
        """Send the contents of an outbox now."""
        if outbox:
            self._carry_out(ask(*self.render((outbox,))))

    def render(self, outboxes: Sequence[StreamOutbox]) -> list[Command]:
        """Return the commands for several outboxes; messages to one process share envelopes."""
        envelopes: dict[Place, list[Entry]] = {}
        commands: list[Command] = []
        for outbox in outboxes:
            for place, entries in outbox.envelopes:
                envelopes.setdefault(place, []).extend(entries)
            commands += outbox.commands
        protection = self.commands.protection if envelopes else NONE
        for (key, expiry_ms, queue), entries in envelopes.items():
            for _, body in pack_envelopes(entries):
                if protection.is_on:
                    body = protection.bare(queue, body, expiry_ms)
                commands += self.commands.bare_on(key, body, expiry_ms)
        return commands

    def _pack(self, outbox: StreamOutbox, sends: Sequence[Send]) -> ChannelFull | None:
        """Add ``sends`` to an outbox; return ChannelFull for the first whose channel is full."""
        envelopes, messages = self._layer.sort(sends)
        full: ChannelFull | None = None
        for prefix, entries in envelopes.items():
            if not self._windows.take(prefix[:-1]):
                try:
                    self._admit(prefix[:-1], self._layer.reply_capacity(prefix), bare=True)
                except ChannelFull as error:
                    full = self._layer.refuse_envelope(entries, error.capacity) or full
                    continue
            outbox.add_envelope(self._place(prefix[:-1]), entries)
        for channel, send in messages:
            try:
                self._add_message(outbox, channel, send)
            except ChannelFull as error:
                if send.group:
                    self._layer.note_dropped(send.target, channel)
                else:
                    full = full or error
        return full

    def _place(self, queue: str) -> Place:
        commands = self.commands
        return commands.key(queue), commands.expiry_ms, commands.queue_prefix + queue

    def _add_message(self, outbox: StreamOutbox, channel: str, send: Send) -> None:
        bare = names.is_single_reader(channel)
        self._admit(channel, self._layer.capacity_of(channel), bare=bare)
        if bare:
            outbox.add_commands(self.commands.bare(channel, send.body))
        else:
            outbox.add_commands((self.commands.task(channel, send.body),))

    def _admit(self, queue: str, capacity: int, *, bare: bool) -> None:
        """Raise ChannelFull if ``queue`` is full."""
        if self._layer.queue_prefix + queue not in self._layer.used:
            self._layer.use(self._layer.queue(queue + "!" if bare and "?" not in queue else queue))

        def depth() -> int:
            key = self.commands.key(queue)
            return int(self._carry_out(ask(length(key)))[0]) if bare else self._carry_out(waiting(key))

        def depth_soon() -> int:
            try:
                return within(ASKED_WITHIN, depth)
            except (BrokerUnavailable, TimeoutError):
                return 0  # the message waits with the acknowledgement until the broker is back

        self._windows.admit(queue, capacity, depth if collected_here.get() is None else depth_soon)

    def state(self, queue: str) -> ChannelState:
        """Return the state of a queue that workers consume; see :meth:`BaseChannelLayer.channel_state`."""
        key = self.commands.key(queue)
        return ChannelState(self._carry_out(waiting(key)), *self._carry_out(look(key, self.commands.dead_key(queue))))

    def forget_windows(self) -> None:
        """Invalidate all measured depths."""
        self._windows.forget()
