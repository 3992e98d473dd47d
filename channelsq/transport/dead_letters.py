"""The move of a message to the dead letters; :mod:`channelsq.transport.dead_letter_store` reads and replays them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from channelsq.core.wire_version import teller
from channelsq.redis_core.commands import Argument
from channelsq.redis_core.compact import NewerPayload
from channelsq.redis_core.entries import DEAD_PREFIX, Entry
from channelsq.redis_core.operations import Operation
from channelsq.redis_core.stream_consumer import StreamConsumer
from channelsq.transport.payloads import Payload

logger = logging.getLogger("channelsq.transport")

T = TypeVar("T")

#: Called with the queue and the Kombu payload of each message that this process moves to the dead letters.
Listener = Callable[[str, Payload], None]

_listeners: list[Listener] = []


class Holder(Protocol):
    """A channel that consumes the queue of a message that becomes a dead letter."""

    streams: StreamConsumer
    max_dead_letters: int

    def queue_of(self, key: str) -> str:
        """Return the queue that a stream belongs to."""

    def carry_out(self, operation: Operation[T]) -> T:
        """Carry out an operation on Redis, and return its result."""


def listen(listener: Listener) -> None:
    """Register ``listener(queue, payload)`` for each message that this process moves to the dead letters.

    The consuming thread calls it; its exceptions are logged.  Repeated registration is harmless.
    """
    if listener not in _listeners:
        _listeners.append(listener)


def count_death(message: Any, reason: str) -> None:
    """Record, before the rejection, that a delivered Kombu message killed the process that worked on it."""
    message.death = reason


def death_of(message: Any) -> str | None:
    """Return the reason that :func:`count_death` recorded, or None."""
    death: str | None = getattr(message, "death", None)
    return death


def dead_letter(channel: Holder, entry: Entry, payload: Payload, reason: str) -> None:
    """Move an entry that the channel holds to the dead letters of its queue.

    Args:
        channel: a channel that consumes the queue.
        entry: its data is sent again by a replay.
        payload: the entry's payload.
        reason: one line for people.
    """
    if not _move(channel, entry, reason):
        return
    queue, headers = channel.queue_of(entry.key), payload["headers"]
    logger.error(
        "%d consumers died with the message %s of queue %s (task %s): %s; it is a dead letter now",
        entry.deaths, headers.get("id"), queue, headers.get("task"), reason,
        extra={"action": "dead_letter", "queue": queue},
    )  # fmt: skip
    tell(queue, payload)


def tell(queue: str, payload: Payload) -> None:
    """Call the listeners of dead letters; log their exceptions."""
    for listener in _listeners:
        try:
            listener(queue, payload)
        except Exception:
            logger.exception("%r failed on a dead letter of queue %s", listener, queue)


def set_aside(channel: Holder, entry: Entry, reason: str) -> None:
    """Move an entry that cannot be processed to the dead letters of its queue.

    Args:
        channel: a channel that consumes the queue, and holds the entry.
        entry: an entry with which no consumer died.
        reason: one line for people; the caller logs it.
    """
    _move(channel, entry._replace(deaths=0), reason)


def keep_newer(channel: Holder, entry: Entry, error: NewerPayload) -> None:
    """Move an entry that only a newer process can read to the dead letters of its queue, and log that.

    Args:
        channel: a channel that consumes the queue.
        entry: the entry.
        error: contains the version that the entry needs.
    """
    if _move(channel, entry, str(error)):
        teller.tell(channel.queue_of(entry.key), error, "is kept as a dead letter")


def _move(channel: Holder, entry: Entry, reason: str) -> bool:
    """Move an entry to the dead letters; return False if another consumer took it over meanwhile."""
    queue = channel.queue_of(entry.key)
    stream = entry.key.removeprefix(channel.streams.key(""))
    fields: tuple[Argument, ...] = ("m", entry.data, "s", stream, "d", entry.deaths, "r", reason)
    dead = channel.streams.prefix + DEAD_PREFIX + queue
    return channel.carry_out(channel.streams.dead_letter(entry, dead, channel.max_dead_letters, fields))
