"""The source of a layer on several servers: one thread waits for all of them at once."""

from __future__ import annotations

import logging
import select
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from time import monotonic
from typing import Any, Protocol

from channelsq.core import names
from channelsq.core.bounded import within
from channelsq.exceptions import BrokerUnavailable
from channelsq.layers.contract.broker_urls import shown
from channelsq.layers.contract.outbox import Outbox
from channelsq.layers.contract.source_contract import Plain, Source, TaskMessage, WaitableSource
from channelsq.layers.groups.moved_sockets import moved_order
from channelsq.layers.kombu_broker.broker_access import KombuBroker
from channelsq.layers.shards.homes import Homes
from channelsq.layers.shards.shard_health import ShardHealth
from channelsq.layers.shards.shard_reader import ShardReader
from channelsq.layers.shards.sharded_groups import Servers
from channelsq.layers.shards.sharded_presence import groups_of
from channelsq.layers.wire import codec
from channelsq.layers.wire.wire_forms import CONTENT_TYPE

logger = logging.getLogger("channelsq.worker")

#: Seconds for which a server keeps a request for messages that it has none for.
BLOCK = 1.0

#: Seconds that the first attempts to connect may take before the caller is told.
_FIRST = 0.5

#: The most seconds to wait for the other servers while one has no credit.
_WITHOUT_CREDIT = 0.05

#: Seconds after which outcomes are sent that wait for the answer to earlier ones; twice as many each time.
_AGAIN = 0.001

#: The age, in seconds, from which a socket's message may belong to an epoch that is over: an interface server gives a
#: message up, and moves its socket, only after a longer time.
TRUSTED = 5.0

#: Seconds that a server has to say whether a socket's messages have moved there.
_ASKED_FOR = 0.5

#: Seconds that all servers together have to take what a worker leaves at its end.
_END_WITHIN = 6.0


class Layer(Servers, Protocol):
    """The layer as its source uses it."""

    @property
    def health(self) -> ShardHealth:
        """The servers that are away."""

    @property
    def homes(self) -> Homes:
        """The servers of clients."""


class ShardDelivery:
    """A message as the source of several servers holds it."""

    __slots__ = ("check_at", "client", "entry", "is_void", "order", "reader")

    def __init__(self, reader: ShardReader, entry: Any) -> None:
        self.reader = reader
        #: The delivery of the server's own source.
        self.entry = entry
        #: The socket's reply channel and the order of the message; None if it is no message of a socket.
        self.client: str | None = None
        self.order = 0
        #: The monotonic time from which the message may belong to an epoch that is over.
        self.check_at = 0.0
        #: Whether it does.
        self.is_void = False


class ShardedSource(Source[ShardDelivery]):
    """Reads all servers of a layer.

    A server that is away is connected again by a thread of its own, while the others are read.  Each server's source
    holds as many messages as the credit allows.

    Args:
        layer: the layer.
        sources: the source of each server.
    """

    def __init__(self, layer: Layer, sources: Sequence[WaitableSource[Any]]) -> None:
        self._layer = layer
        self._readers = [
            ShardReader(source, place, shown(layer.shards[place].url), layer.health, self._wake)
            for place, source in enumerate(sources)
        ]
        self._changed = threading.Condition()
        self._started = False
        self._ends = False
        self._unread: deque[ShardDelivery] = deque()
        self._poll = select.poll()
        self._watched: dict[int, ShardReader] = {}
        # Written to when a server is back, and at the end.
        self._woken, self._waker = socket.socketpair()
        for end in (self._woken, self._waker):
            end.setblocking(False)
        self._poll.register(self._woken, select.POLLIN)

    # -- the connections

    @cached_property
    def errors(self) -> tuple[type[BaseException], ...]:
        """The exceptions of the servers' sources."""
        return tuple({error for reader in self._readers for error in reader.source.errors})

    @property
    def _open(self) -> list[ShardReader]:
        return [reader for reader in self._readers if reader.is_open]

    def connect(self) -> bool:
        is_first, self._started = not self._started, True
        if is_first:
            for reader in self._readers:
                reader.connect()
        readers = self._open
        if not readers:
            with self._changed:
                self._changed.wait_for(self._is_known, _FIRST)
            readers = self._open
        if not readers:
            raise self._readers[0].error or ConnectionError("the servers do not answer")
        for reader in readers:
            try:
                reader.source.connect()  # which gives back what could not be given back before
            except self.errors as error:
                reader.lose(error)
        return is_first

    def _is_known(self) -> bool:
        return any(reader.is_open for reader in self._readers) or all(reader.error for reader in self._readers)

    def lost(self) -> None:
        """Do nothing: each server's loss is noticed by itself."""

    def interrupt(self) -> None:
        self._ends = True
        for reader in self._open:
            reader.source.interrupt()
        self._wake()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
        try:
            self._waker.send(b"\0")
        except OSError:  # it is full of earlier ones, or closed
            return

    def close(self) -> None:
        self._ends = True
        self._side_by_side(ShardReader.close, self._readers)
        self._woken.close()
        self._waker.close()

    def cut(self) -> None:
        self._side_by_side(lambda reader: reader.source.cut(), self._open)

    def _side_by_side(self, call: Callable[[ShardReader], None], readers: Iterable[ShardReader]) -> None:
        """Call for each server in a thread: one that is frozen delays the end only for so long."""
        until = monotonic() + _END_WITHIN
        threads = [threading.Thread(target=call, args=(reader,), daemon=True) for reader in readers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, until - monotonic()))

    # -- reading

    def read(self, channel: str) -> None:
        for reader in self._readers:
            reader.order(lambda source=reader.source: source.read(channel))  # type: ignore[misc]

    def cease(self, channel: str) -> None:
        for reader in self._readers:
            reader.order(lambda source=reader.source: source.cease(channel))  # type: ignore[misc]

    def poll(self, seconds: float) -> Sequence[ShardDelivery]:
        until = monotonic() + seconds
        found = list(self._unread)
        self._unread.clear()
        again = _AGAIN
        while True:
            most = until - monotonic()
            watched: dict[int, ShardReader] = {}
            for reader in self._open:
                while reader.brought:
                    found.append(ShardDelivery(reader, reader.brought.popleft()))
                try:
                    handle = reader.begin(BLOCK)
                    if handle is None:
                        found += self._taken(reader)
                        most = min(most, _WITHOUT_CREDIT)
                    else:
                        watched[handle] = reader
                    if not reader.is_flushed:
                        most, again = min(most, again), min(again * 2, _WITHOUT_CREDIT)
                except self.errors as error:
                    reader.lose(error)
            for reader in self._ready(watched, 0.0 if found else max(0.0, most)):
                try:
                    found += self._taken(reader)
                except self.errors as error:
                    reader.lose(error)
            if found or self._ends or monotonic() >= until:
                return found
            if not self._open:
                raise self._readers[0].error or ConnectionError("the servers do not answer")

    def _taken(self, reader: ShardReader) -> list[ShardDelivery]:
        return [ShardDelivery(reader, entry) for entry in reader.source.end_poll() or ()]

    def _ready(self, watched: dict[int, ShardReader], seconds: float) -> list[ShardReader]:
        """Return the servers whose answers arrive within some seconds."""
        if watched.keys() != self._watched.keys():
            for handle in self._watched.keys() - watched.keys():
                self._poll.unregister(handle)
            for handle in watched.keys() - self._watched.keys():
                self._poll.register(handle, select.POLLIN)
        self._watched = watched
        ready = []
        for handle, _ in self._poll.poll(seconds * 1000):
            reader = watched.get(handle)
            if reader is not None:
                ready.append(reader)
            else:
                self._hear()
        return ready

    def _hear(self) -> None:
        try:
            self._woken.recv(4096)
        except OSError:
            return

    def has_credit(self) -> bool:
        """See :meth:`Source.has_credit`; a server without credit has many messages here, which go first."""
        return all(reader.source.has_credit() for reader in self._open)

    def make_room(self, number: int) -> None:
        """See :meth:`Source.make_room`; every server gets the room, as it is not known whose message waits."""
        for reader in self._readers:
            reader.source.make_room(number)

    def unread(self, deliveries: Sequence[ShardDelivery]) -> None:
        self._unread.extendleft(reversed(deliveries))

    # -- the contents of a delivery

    def queue_of(self, delivery: ShardDelivery) -> str:
        return delivery.reader.source.queue_of(delivery.entry)

    def plain(self, delivery: ShardDelivery) -> Plain | None:
        plain = delivery.reader.source.plain(delivery.entry)
        if plain is not None:
            self._note(delivery, plain[2])
        return plain

    def open(self, delivery: ShardDelivery) -> TaskMessage | None:
        message = delivery.reader.source.open(delivery.entry)
        if message is not None and message.content_type == CONTENT_TYPE:
            try:
                (_, content), _, _ = codec.loads(message.body)
            except (TypeError, ValueError):  # the caller refuses it
                return message
            if isinstance(content, dict):
                opened = self._layer.shards[0].protection.encryption.content_of(self.queue_of(delivery), content)
                if opened is not None:
                    self._note(delivery, opened)
        return message

    def _note(self, delivery: ShardDelivery, content: dict[str, Any]) -> None:
        """Remember where a client's messages come from, and when this one must be checked for a later epoch."""
        client = content.get("reply_channel")
        if type(client) is not str or not names.is_process_channel(client):
            return
        reader = delivery.reader
        self._layer.homes.seen(client, reader.place)
        order = content.get("order")
        if type(order) is int and order > 0:
            delivery.client, delivery.order = client, order
            now = monotonic()
            if now >= reader.doubted_until:
                delivery.check_at = now + TRUSTED - reader.source.age(delivery.entry)

    def is_redelivered(self, delivery: ShardDelivery, message: TaskMessage) -> bool:
        return delivery.reader.source.is_redelivered(delivery.entry, message)

    def is_expired(self, delivery: ShardDelivery, message: TaskMessage) -> bool:
        return delivery.reader.source.is_expired(delivery.entry, message)

    # -- while it is held

    def is_lost(self, delivery: ShardDelivery) -> bool:
        """See :meth:`Source.is_lost`; also if the socket's messages have moved to another server since."""
        if delivery.reader.source.is_lost(delivery.entry):
            return True
        if delivery.client is None or monotonic() < delivery.check_at:
            return False
        delivery.is_void = self._has_moved(delivery.client, delivery.order, delivery.reader.place)
        return delivery.is_void

    def _has_moved(self, client: str, order: int, here: int) -> bool:
        """Return whether a socket's message ``order``, or a later one, went to another server than ``here``."""
        for place in range(len(self._layer.shards)):
            if place == here:
                continue
            try:
                since = within(_ASKED_FOR, lambda: self._layer.on(place, _asks_for(client)))  # noqa: B023
            except BrokerUnavailable:  # a socket has not moved to a server that is away
                continue
            except TimeoutError as error:
                self._layer.health.failed(place, BrokerUnavailable(shown(self._layer.shards[place].url), error))
                continue
            if since is not None and since >= order:
                return True
        return False

    def is_deadly(self, delivery: ShardDelivery, message_id: str) -> bool:
        return delivery.reader.source.is_deadly(delivery.entry, message_id)

    # -- outcomes

    def outbox(self, delivery: ShardDelivery) -> Outbox | None:
        return delivery.reader.source.outbox(delivery.entry)

    def settle(self, delivery: ShardDelivery, outbox: Outbox | None) -> None:
        delivery.reader.source.settle(delivery.entry, outbox)

    def acknowledge_first(self, delivery: ShardDelivery) -> bool:
        return delivery.reader.source.acknowledge_first(delivery.entry)

    def give_back(self, delivery: ShardDelivery) -> None:
        delivery.reader.source.give_back(delivery.entry)

    def abandon(self, delivery: ShardDelivery) -> None:
        if not delivery.is_void:
            delivery.reader.source.abandon(delivery.entry)
            return
        logger.warning(
            "%s: message %d was not run, as its socket has gone on with another server", delivery.client,
            delivery.order,
            extra={"action": "moved_message_dropped", "channel": delivery.client},
        )  # fmt: skip
        delivery.reader.source.drop(delivery.entry)

    def leave(self, delivery: ShardDelivery) -> None:
        delivery.reader.source.leave(delivery.entry)

    def drop(self, delivery: ShardDelivery) -> None:
        delivery.reader.source.drop(delivery.entry)

    def set_aside(self, delivery: ShardDelivery, reason: str) -> None:
        delivery.reader.source.set_aside(delivery.entry, reason)

    def flush(self) -> None:
        if self._ends:
            self._side_by_side(lambda reader: reader.source.flush(), self._open)
        else:
            flushed = [reader.source.flush_soon() for reader in self._open]
            if not all(flushed):
                self._wake()  # the next round of the poll sends the rest


def _asks_for(client: str) -> Callable[[KombuBroker], int | None]:
    return lambda shard: moved_order(groups_of(shard), client)
