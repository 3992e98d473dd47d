"""The source of the in-memory layer, for workers in threads of the same process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from channelsq.layers.contract.source_contract import Plain, Source, SourceOptions, TaskMessage
from channelsq.layers.memory_queues import AGAIN_AFTER, Entry, MemoryQueues
from channelsq.layers.wire import codec


class MemoryMessage:
    """A message of the layer as a Celery task message, which was never packed as a whole.

    Args:
        entry: the message.
    """

    content_type: str | None = None
    body = b""

    def __init__(self, entry: Entry) -> None:
        task = entry.task
        self.headers: dict[str, Any] = {"task": entry.channel, "id": entry.id} if task is None else {**task.headers}
        self._entry = entry

    @property
    def payload(self) -> Any:
        """The task's arguments, the route's arguments, and what Celery embeds."""
        _, _, channel, body, _, task, _ = self._entry
        args = [channel, codec.unpack(body)]
        return (args, {}, {}) if task is None else (args, task.kwargs, task.embed)


class MemorySource(Source[Entry]):
    """Reads channels of the layer.

    Args:
        queues: the layer's.
        options: see :class:`SourceOptions`.
    """

    errors = ()

    def __init__(self, queues: MemoryQueues, options: SourceOptions) -> None:
        self._queues = queues
        self._channels = dict.fromkeys(options.channels)
        self._credit = options.credit
        self._held: dict[int, Entry] = {}
        self._unread: list[Entry] = []
        self._ends = False

    # -- there is no connection

    def connect(self) -> bool:
        return False

    def lost(self) -> None:
        """Do nothing: nothing can be lost."""

    def interrupt(self) -> None:
        self._ends = True
        self._queues.wake()

    def close(self) -> None:
        held, self._held = self._held, {}
        self._queues.give_back(held.values())

    def cut(self) -> None:
        """Do nothing: the messages of the process end with it."""

    def flush(self) -> None:
        """Do nothing: a message is settled immediately."""

    # -- reading

    def read(self, channel: str) -> None:
        self._channels[channel] = None

    def cease(self, channel: str) -> None:
        self._channels.pop(channel, None)

    def poll(self, seconds: float) -> Sequence[Entry]:
        unread, self._unread = self._unread, []
        if unread:
            return unread
        free = max(1, self._credit - len(self._held))
        found = self._queues.take(list(self._channels), free, seconds, lambda: self._ends)
        self._held.update((entry.number, entry) for entry in found)
        return found

    def has_credit(self) -> bool:
        return len(self._held) < self._credit

    def make_room(self, number: int) -> None:
        self._credit += number

    def unread(self, deliveries: Sequence[Entry]) -> None:
        self._unread += deliveries

    # -- the contents of a delivery

    def queue_of(self, delivery: Entry) -> str:
        return delivery.channel

    def plain(self, delivery: Entry) -> Plain | None:
        if delivery.task is not None or delivery.is_redelivered:
            return None
        return delivery.channel, delivery.id, codec.unpack(delivery.body)

    def open(self, delivery: Entry) -> TaskMessage | None:
        return MemoryMessage(delivery)

    def is_redelivered(self, delivery: Entry, message: TaskMessage) -> bool:
        return delivery.is_redelivered

    def is_expired(self, delivery: Entry, message: TaskMessage) -> bool:
        """Return False: the queues drop expired messages."""
        return False

    # -- while it is held

    def is_lost(self, delivery: Entry) -> bool:
        return delivery.number not in self._held

    # -- outcomes

    def outbox(self, delivery: Entry) -> None:
        """Return None: a process that dies loses both its sends and the messages that it holds."""

    def settle(self, delivery: Entry, outbox: object = None) -> None:
        self._held.pop(delivery.number, None)
        self._queues.settled(delivery)

    def drop(self, delivery: Entry) -> None:
        self.settle(delivery)

    def set_aside(self, delivery: Entry, reason: str) -> None:
        """Drop a message: there are no dead letters."""
        self.settle(delivery)

    def acknowledge_first(self, delivery: Entry) -> bool:
        self._held.pop(delivery.number, None)
        return self._queues.settled(delivery)

    def give_back(self, delivery: Entry) -> None:
        self._held.pop(delivery.number, None)
        self._queues.give_back((delivery,), after=0.0 if self._ends else AGAIN_AFTER)

    def abandon(self, delivery: Entry) -> None:
        self._held.pop(delivery.number, None)

    def leave(self, delivery: Entry) -> None:
        self._held.pop(delivery.number, None)
        self._queues.give_back((delivery,), redelivered=False)
