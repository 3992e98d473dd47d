"""Sending into the site's file: the messages of one send are written in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

from channelsq.core import names
from channelsq.exceptions import ChannelFull
from channelsq.ipc.messages import MOST_DELAYED, Message, Transaction
from channelsq.ipc.store import Store
from channelsq.layers.contract.capacity import CapacityWindows
from channelsq.layers.contract.layer_values import Send
from channelsq.layers.contract.outbox import Outbox, collected_here
from channelsq.layers.ipc_broker.store_errors import store_errors
from channelsq.layers.kombu_broker.broker_access import QUEUE_EXPIRES, KombuBroker
from channelsq.layers.wire.compact_messages import CompactMessages
from channelsq.layers.wire.wire_forms import Entry, pack_envelopes

#: The entries for the reply queue of each process, and the messages for other channels.
Sorted = tuple[Mapping[str, list[Entry]], Sequence[tuple[str, Send]]]


class StoreOutbox(Outbox):
    """The messages of one consumer, to be written in one transaction with the end of its message."""

    __slots__ = ("envelopes", "marks", "messages")

    # Most have one envelope and nothing else.
    envelopes: Mapping[str, list[Entry]]
    messages: Sequence[tuple[str, Send]]
    #: The marks of runs that have ended, see :mod:`channelsq.layers.groups.begun_marks`.
    marks: tuple[str, ...]

    def __init__(self, layer: object | None = None) -> None:
        super().__init__(layer)
        self.envelopes, self.messages, self.marks = {}, (), ()

    def add(self, envelopes: Mapping[str, list[Entry]], messages: Sequence[tuple[str, Send]]) -> None:
        """Add messages."""
        if not self.envelopes:
            self.envelopes = envelopes
        else:
            self.envelopes = {**self.envelopes}
            for prefix, entries in envelopes.items():
                self.envelopes[prefix] = [*self.envelopes.get(prefix, ()), *entries]
        self.messages = [*self.messages, *messages]


class Part(NamedTuple):
    """One message of a :class:`Put`, to report that its queue was full."""

    #: The entries of an envelope; None for another message.
    entries: list[Entry] | None
    #: The channel and the send of another message.
    channel: str = ""
    send: Send | None = None


class Put(NamedTuple):
    """Messages for one queue."""

    queue: str
    messages: list[Message]
    parts: list[Part]
    capacity: int
    #: The seconds that the queue lives without a reader; None for ever.
    lifetime: float | None = None
    #: The delay of the only message in seconds.
    delay: float = 0.0

    def write(self, tx: Transaction) -> int:
        """Write the messages; return how many, the first ones, were accepted."""
        if self.delay:
            return int(tx.delay(self.queue, self.messages[0], self.capacity, self.delay))
        return tx.put(self.queue, self.messages, self.capacity, self.lifetime)


class StoreSender:
    """The sender of a layer.

    Args:
        layer: the layer.
    """

    def __init__(self, layer: KombuBroker) -> None:
        self._layer = layer
        self._windows = CapacityWindows()

    @cached_property
    def compact(self) -> CompactMessages:
        """The encoder of the messages."""
        layer = self._layer
        return CompactMessages(layer.expiry, layer.queue_prefix, layer.protection)

    def forget_windows(self) -> None:
        """Invalidate all that was known of the size of queues."""
        self._windows.forget()

    # -- sending now

    def dispatch(self, store: Store, sends: Sequence[Send]) -> None:
        """Send now; see :meth:`BaseChannelLayer.dispatch`."""
        puts = self.render([self._layer.sort(sends)])
        if not puts:
            return
        with store_errors(store.path):
            counts = store.write(lambda tx: [put.write(tx) for put in puts], adds=True)
            store.sweep()
        full = self.refused(puts, counts)
        if full is not None:
            raise self._layer.tally.count_full(full)

    def render(self, sorted_sends: Iterable[Sorted]) -> list[Put]:
        """Return the writes: messages to one queue are together, and those to one process share an envelope."""
        envelopes: dict[str, list[Entry]] = {}
        puts: dict[str, Put] = {}
        delayed: list[Put] = []
        for by_process, messages in sorted_sends:
            for prefix, entries in by_process.items():
                found = envelopes.get(prefix)
                envelopes[prefix] = entries if found is None else found + entries
            for channel, send in messages:
                self._add(puts, delayed, channel, send)
        layer = self._layer
        for prefix, entries in envelopes.items():
            name = prefix[:-1]
            parts, made = [], []
            for part, body in pack_envelopes(entries):
                parts.append(Part(part))
                made.append(Message(self.compact.bare(name, body), layer.expiry))
            self._use(prefix, name)
            queue = layer.queue_prefix + name
            puts[queue] = Put(queue, made, parts, layer.reply_capacity(prefix), QUEUE_EXPIRES)
        return [*puts.values(), *delayed]

    def _add(self, puts: dict[str, Put], delayed: list[Put], channel: str, send: Send) -> None:
        layer, bare = self._layer, names.is_single_reader(channel)
        self._use(channel, channel)
        queue = layer.queue_prefix + channel
        if bare:
            payload = self.compact.bare(channel, send.body)
        else:
            payload = self.compact.task(channel, send.body, send.identity, send.delay)
        message, part = Message(payload, layer.expiry), Part(None, channel, send)
        found = puts.get(queue)
        if send.delay:
            delayed.append(Put(queue, [message], [part], layer.capacity_of(channel), None, send.delay))
        elif found is None:
            lifetime = QUEUE_EXPIRES if bare else None
            puts[queue] = Put(queue, [message], [part], layer.capacity_of(channel), lifetime)
        else:
            found.messages.append(message)
            found.parts.append(part)

    def _use(self, channel: str, name: str) -> None:
        if self._layer.queue_prefix + name not in self._layer.used:
            self._layer.use(self._layer.queue(channel))

    def refused(self, puts: Sequence[Put], counts: Sequence[int]) -> ChannelFull | None:
        """Count refused messages to groups; return ChannelFull for the first other refused message."""
        full: ChannelFull | None = None
        for put, count in zip(puts, counts, strict=True):
            if count == len(put.messages):
                continue
            capacity = MOST_DELAYED if put.delay else put.capacity
            for entries, channel, send in put.parts[count:]:
                if entries is not None:
                    full = self._layer.refuse_envelope(entries, capacity) or full
                elif send is not None and send.group:
                    self._layer.note_dropped(send.target, channel)
                else:
                    full = full or ChannelFull(channel, capacity)
        return full

    # -- sending with the end of a message

    def settle(self, store: Store, sends: Sequence[Send]) -> None:
        """Send with the end of the current consumer's message; now, if there is none or it came from another layer."""
        outbox = collected_here.get()
        if not isinstance(outbox, StoreOutbox) or outbox.layer is not self._layer:
            self.dispatch(store, sends)
            return
        envelopes, messages = self._layer.sort(sends)
        full: ChannelFull | None = None
        for prefix, entries in list(envelopes.items()):
            if not self._has_room(store, prefix[:-1], self._layer.reply_capacity(prefix)):
                del envelopes[prefix]
                full = self._layer.refuse_envelope(entries, self._layer.reply_capacity(prefix)) or full
        taken = []
        for channel, send in messages:
            capacity = self._layer.capacity_of(channel)
            if send.delay or self._has_room(store, channel, capacity):
                taken.append((channel, send))
            elif send.group:
                self._layer.note_dropped(send.target, channel)
            else:
                full = full or ChannelFull(channel, capacity)
        outbox.add(envelopes, taken)
        if full is not None:
            raise self._layer.tally.count_full(full)

    def _has_room(self, store: Store, name: str, capacity: int) -> bool:
        """Return whether a queue has space, as far as is known; the later transaction checks exactly."""
        queue = self._layer.queue_prefix + name

        def depth() -> int:
            with store_errors(store.path):
                found: int = store.waiting(queue)
            return found

        try:
            self._windows.admit(queue, capacity, depth)
        except ChannelFull:
            return False
        return True

    def tell_late(self, puts: Sequence[Put], counts: Sequence[int]) -> None:
        """Log messages that were refused although their queues had space when their consumers returned."""
        full = self.refused(puts, counts)
        if full is not None:
            late = (part for put, count in zip(puts, counts, strict=True) for part in put.parts[count:])
            self._layer.note_unsent([part.send or Send(full.channel, b"") for part in late], full)
