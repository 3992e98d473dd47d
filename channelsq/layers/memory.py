"""A channel layer inside one process: for development, tests and single-process deployments."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from channelsq.core import names
from channelsq.exceptions import ChannelFull
from channelsq.layers.contract.layer_contract import BaseChannelLayer, ChannelState, Deliver, Listener, Received, Send
from channelsq.layers.groups.begun_marks import MemoryBegun
from channelsq.layers.groups.group_stores import GroupStore, MemoryGroups
from channelsq.layers.wire import codec

#: How many messages may be held back by a delay, on all channels together.
MOST_DELAYED = 10_000


class _Entry(NamedTuple):
    number: int
    deadline: float
    channel: str
    body: bytes


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
    """Channels and groups in this process's memory.  Waiting readers wake at once; nothing polls.

    Messages are packed and unpacked as on a broker, so that what works here works there.
    """

    @property
    def in_process(self) -> bool:
        return True

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        # By full name; all of a process's "!" channels share the queue of their prefix.
        self._queues: dict[str, deque[_Entry]] = {}
        self._unread: Counter[str] = Counter()
        self._delayed: list[tuple[float, int, Send]] = []
        self._listeners: dict[str, _MemoryListener] = {}
        self._group_store = MemoryGroups(self.group_expiry)
        self._marks = MemoryBegun()
        self._swept = time.monotonic()
        self._closed = 0

    # -- sending ----------------------------------------------------------------------------

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
            raise full

    def _dispatch_one(self, channel: str, body: bytes, delay: float = 0.0) -> None:
        if names.is_process_channel(channel):
            listener = self._listeners.get(names.process_part(channel))
            if listener is not None:
                listener((channel,), codec.unpack(body))
                return
        with self._changed:
            if delay:
                if len(self._delayed) >= MOST_DELAYED:
                    raise ChannelFull(channel, MOST_DELAYED)
                due = time.monotonic() + delay
                heapq.heappush(self._delayed, (due, next(self._numbers), Send(channel, body)))
            else:
                self._put(channel, body)
            self._changed.notify_all()

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

    def _put(self, channel: str, body: bytes) -> None:
        self._sweep()
        key = names.process_part(channel) if names.is_process_channel(channel) else channel
        queue = self._queues.setdefault(key, deque())
        self._drop_expired(key, queue)
        capacity = self.capacity_of(channel)
        if self._unread[channel] >= capacity:
            raise ChannelFull(channel, capacity)
        queue = self._queues.setdefault(key, queue)
        queue.append(_Entry(next(self._numbers), time.monotonic() + self.expiry, channel, body))
        self._unread[channel] += 1

    # -- receiving --------------------------------------------------------------------------

    def receive(self, channels: Iterable[str], block: bool = False) -> Received:
        wanted = self.check_wanted(channels)
        deadline = time.monotonic() + (self.block_timeout if block else 0)
        with self._changed:
            closed = self._closed
            while True:
                wake_at = self._release_delayed()
                entry = self._take(wanted)
                if entry is not None:
                    return entry.channel, codec.unpack(entry.body)
                wait = min(deadline, wake_at) - time.monotonic()
                if time.monotonic() >= deadline or closed != self._closed:
                    return None, None
                self._changed.wait(max(0.0, wait))

    def _release_delayed(self) -> float:
        """Put what is due on its channel; gives the time at which the next one is."""
        now = time.monotonic()
        while self._delayed and self._delayed[0][0] <= now:
            _due, number, send = heapq.heappop(self._delayed)
            try:
                self._put(send.target, send.body)
            except ChannelFull:
                # Its sender is long gone, so nobody could be told: hold it back until there is room.
                heapq.heappush(self._delayed, (now + 0.1, number, send))
        return self._delayed[0][0] if self._delayed else float("inf")

    def _take(self, wanted: Sequence[str]) -> _Entry | None:
        """The oldest entry of the wanted channels, so that no channel starves another."""
        best: tuple[_Entry, str] | None = None
        for channel in wanted:
            key = names.process_part(channel) if names.is_process_channel(channel) else channel
            queue = self._queues.get(key)
            if queue is None or not self._drop_expired(key, queue):
                continue
            entry = queue[0] if channel == key else next((entry for entry in queue if entry.channel == channel), None)
            if entry is not None and (best is None or entry.number < best[0].number):
                best = entry, key
        if best is None:
            return None
        entry, key = best
        self._queues[key].remove(entry)
        self._forget_entry(key, entry)
        return entry

    def _drop_expired(self, key: str, queue: deque[_Entry]) -> bool:
        """Drop what is too old; gives whether anything is left."""
        now = time.monotonic()
        while queue and queue[0].deadline <= now:
            self._forget_entry(key, queue.popleft())
        return bool(queue)

    def _sweep(self) -> None:
        """Drop what expired on channels that nobody reads or sends to any more, such as a request's body."""
        now = time.monotonic()
        if now - self._swept >= self.expiry:
            self._swept = now
            for key, queue in list(self._queues.items()):
                self._drop_expired(key, queue)

    def _forget_entry(self, key: str, entry: _Entry) -> None:
        self._unread[entry.channel] -= 1
        if not self._unread[entry.channel]:
            del self._unread[entry.channel]
        if not self._queues.get(key):
            self._queues.pop(key, None)

    def listen(self, prefix: str, deliver: Deliver) -> Listener:
        self.check_wanted([prefix])
        listener = _MemoryListener(self, prefix, deliver)
        with listener._lock:
            with self._changed:
                self._listeners[prefix] = listener
                queue = self._queues.get(prefix, deque())
                self._drop_expired(prefix, queue)
                waiting = list(queue)
                for entry in waiting:
                    self._queues[prefix].remove(entry)
                    self._forget_entry(prefix, entry)
            for entry in waiting:
                listener((entry.channel,), codec.unpack(entry.body))
        return listener

    # -- groups and housekeeping ------------------------------------------------------------

    @property
    def _groups(self) -> GroupStore:
        return self._group_store

    @property
    def _begun(self) -> MemoryBegun:
        return self._marks

    def depth(self, channel: str) -> int:
        with self._changed:
            queue = self._queues.get(channel)
            if queue is not None:
                self._drop_expired(channel, queue)
            return self._unread[channel]

    def channel_state(self, channel: str) -> ChannelState:
        with self._changed:
            waiting = self.depth(channel)
            queue = self._queues.get(channel)
            oldest = time.monotonic() + self.expiry - queue[0].deadline if queue else None
            return ChannelState(waiting, None, oldest)

    def purge(self, channel: str) -> int:
        with self._changed:
            waiting = list(self._queues.get(channel, ()))
            for entry in waiting:
                self._queues[channel].remove(entry)
                self._forget_entry(channel, entry)
            return len(waiting)

    def flush(self) -> None:
        with self._changed:
            self._queues.clear()
            self._unread.clear()
            self._delayed.clear()
        self._groups.flush()
        self._marks.flush()

    def close(self) -> None:
        with self._changed:
            self._closed += 1
            self._changed.notify_all()
