"""A channel layer inside one process: for development, tests and single-process deployments."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from channelsq.core import names
from channelsq.exceptions import ChannelFull
from channelsq.layers.contract.layer_contract import BaseChannelLayer
from channelsq.layers.contract.layer_values import ChannelState, Deliver, Listener, Received, Send
from channelsq.layers.contract.source_contract import Source, SourceOptions
from channelsq.layers.groups.begun_marks import MemoryBegun
from channelsq.layers.groups.group_stores import GroupStore, MemoryGroups
from channelsq.layers.groups.records import MemoryRecords
from channelsq.layers.memory_queues import MemoryQueues
from channelsq.layers.memory_source import MemorySource
from channelsq.layers.wire import codec


class _MemoryListener:
    """Delivers in the sender's own thread, one delivery at a time."""

    connected = True

    def __init__(self, layer: InMemoryChannelLayer, prefix: str, deliver: Deliver) -> None:
        self._layer = layer
        self._prefix = prefix
        self._deliver = deliver
        self._lock = threading.RLock()
        self._stopped = False

    def __call__(self, channels: Sequence[str], message: dict[str, Any], group: str | None = None) -> None:
        with self._lock:
            if not self._stopped:
                self._deliver(channels, message, group)

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
        if self._layer._listeners.get(self._prefix) is self:
            del self._layer._listeners[self._prefix]


class InMemoryChannelLayer(BaseChannelLayer):
    """Channels and groups in this process's memory.  Waiting readers wake immediately; nothing polls.

    Messages are packed and unpacked as on a broker, so that code that works here works there.
    """

    @property
    def in_process(self) -> bool:
        return True

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self.queues = MemoryQueues(self.expiry, self.capacity_of)
        self._listeners: dict[str, _MemoryListener] = {}
        self._group_store = MemoryGroups(self.group_expiry)
        self._marks = MemoryBegun()
        self._records = MemoryRecords()

    # -- sending

    def dispatch(self, sends: Sequence[Send]) -> None:
        full: ChannelFull | None = None
        for send in sends:
            if send.group:
                self._dispatch_group(send)
            else:
                try:
                    self._dispatch_one(send.target, send.body, send.delay)
                except ChannelFull as error:
                    full = full or error
        if full is not None:
            raise self.tally.count_full(full)

    def _dispatch_one(self, channel: str, body: bytes, delay: float = 0.0) -> None:
        if names.is_process_channel(channel):
            listener = self._listeners.get(names.process_part(channel))
            if listener is not None:
                listener((channel,), codec.unpack(body))
                return
        self.queues.put(channel, body, delay)

    def _dispatch_group(self, send: Send) -> None:
        listened: dict[str, list[str]] = {}
        for channel in self._groups.members(send.target):
            prefix = names.process_part(channel) if names.is_process_channel(channel) else ""
            if prefix in self._listeners:
                listened.setdefault(prefix, []).append(channel)
                continue
            try:
                self._dispatch_one(channel, send.body)
            except ChannelFull:
                self.note_dropped(send.target, channel)
        for prefix, channels in listened.items():
            listener = self._listeners.get(prefix)
            if listener is not None:
                listener(channels, codec.unpack(send.body), send.target)

    # -- receiving

    def receive(self, channels: Iterable[str], block: bool = False) -> Received:
        found = self.queues.take(self.check_wanted(channels), 1, self.block_timeout if block else 0)
        return (found[0].channel, codec.unpack(found[0].body)) if found else (None, None)

    @contextmanager
    def task_publisher(self, channel: str) -> Iterator[tuple[Any, Any]]:
        from kombu import Exchange, Queue  # not at the top: only Celery's retries need it

        from channelsq.layers.memory_producer import MemoryProducer

        yield MemoryProducer(self.queues), Queue(channel, Exchange(""), routing_key=channel)

    def source(self, options: SourceOptions) -> Source[Any]:
        return MemorySource(self.queues, options)

    def listen(self, prefix: str, deliver: Deliver) -> Listener:
        self.check_wanted([prefix])
        listener = _MemoryListener(self, prefix, deliver)
        with listener._lock:
            with self.queues.changed:
                self._listeners[prefix] = listener
                waiting = self.queues.take_all(prefix)
            for entry in waiting:
                listener((entry.channel,), codec.unpack(entry.body))
        return listener

    # -- groups and housekeeping

    @property
    def _groups(self) -> GroupStore:
        return self._group_store

    @property
    def records(self) -> MemoryRecords:
        return self._records

    @property
    def _begun(self) -> MemoryBegun:
        return self._marks

    def depth(self, channel: str) -> int:
        return self.queues.depth(channel)

    def channel_state(self, channel: str) -> ChannelState:
        waiting, held, oldest, sent = self.queues.state(channel)
        return ChannelState(waiting, held, oldest, None, sent)

    def known_channels(self) -> set[str]:
        with self.queues.changed:
            return set(self.queues.sent)

    def purge(self, channel: str) -> int:
        return len(self.queues.take_all(channel))

    def flush(self) -> None:
        self.queues.clear()
        self._groups.flush()
        self._marks.flush()
        self._records.flush()

    def close(self) -> None:
        self.queues.wake()
