"""The delivered and the acknowledged messages of a channel; Redis's pending list is the permanent record."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from channelsq.redis_core.compact import ForeignPayload
from channelsq.redis_core.entries import Copy, Entry, parse_tag
from channelsq.transport import dead_letters, payloads
from channelsq.transport.kombu_channel_internals import raw_payload
from channelsq.transport.recording_qos import RecordingQoS

logger = logging.getLogger("channelsq.transport")


class Ack(NamedTuple):
    """An acknowledgement that waits to be sent."""

    key: str
    id: str
    #: The commands for the same transaction, as :attr:`ConsumingChannel.render` reads them; None for none.
    outbox: Any = None
    #: Whether it was sent before and the answer was lost: it may have been carried out.
    doubtful: bool = False


#: Creates a named tuple from a tuple that has all of its fields.
_tuple = tuple.__new__


class Keeper(dead_letters.Holder, Protocol):
    """The channel as its QoS uses it."""

    closed: bool
    do_restore: bool
    max_deaths: int | None

    def acks_wait(self) -> None:
        """Have acknowledgements sent soon."""

    def give_back(self, copies: list[Copy]) -> None:
        """Put held messages at the end of their queues."""

    def sending(self) -> AbstractContextManager[Any]:
        """Return the lock under which acknowledgements are taken and sent."""

    def server_time(self) -> int:
        """Return the server's time in ms since 1970."""


class QoS(RecordingQoS):
    """Prefetch and acknowledgements of a channel.

    Acknowledgements may come from any thread.  They are collected here; the channel sends them.
    """

    channel: Keeper  # type: ignore[assignment]  # Kombu's own type is less precise

    def __init__(self, channel: Keeper, prefetch_count: int = 0) -> None:
        super().__init__(channel, prefetch_count)
        self._acks: deque[Ack] = deque()
        #: ``(key, id)`` of the messages given back while their consumers may still have been running.
        self._returned: set[tuple[str, str]] = set()

    @property
    def waiting(self) -> bool:
        """True if acknowledgements wait to be sent."""
        return bool(self._acks)

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message."""
        held = parse_tag(delivery_tag)
        if held is not None and not self.channel.closed:
            self._acks.append(Ack(*held))
        super().ack(delivery_tag)
        if held is not None:
            self.channel.acks_wait()

    def hold(self, entries: Iterable[Entry]) -> None:
        """Record entries that are delivered as they are, to a source that settles each with :meth:`settle`."""
        unacked = self._unacked
        for entry in entries:
            unacked[entry.tag] = entry

    def release(self, tag: str) -> None:
        """Remove an entry that a source does not hold any more; Redis knows, or :meth:`drop` tells it."""
        self._unacked.pop(tag, None)

    def settle(self, key: str, entry: str, delivery_tag: str, outbox: Any) -> None:
        """Acknowledge an entry, in one transaction with the outbox of its consumer.

        Nothing is sent before :meth:`ConsumingChannel.flush_acks` or the next poll.  Nothing at all is sent for an
        entry that is not held any more, because another consumer has it.
        """
        # One atomic step for all threads.
        if self._unacked.pop(delivery_tag, None) is not None and not self.channel.closed:
            self._acks.append(_tuple(Ack, (key, entry, outbox, False)))

    def drop(self, entry: Entry) -> None:
        """Acknowledge an entry that is not delivered as a message, or whose consumer is ``no_ack``."""
        self._acks.append(Ack(entry.key, entry.id))

    def take_acks(self) -> list[Ack]:
        """Return all acknowledgements since the last call; call :meth:`put_back` if sending fails."""
        taken: list[Ack] = []
        try:
            while True:
                taken.append(self._acks.popleft())
        except IndexError:
            pass
        returned = self._returned
        # Another consumer will run a message that was given back: this consumer's outbox must not be sent as well.
        return [ack for ack in taken if (ack.key, ack.id) not in returned] if returned else taken

    def put_back(self, acks: list[Ack], *, doubtful: bool = True) -> None:
        """Keep acknowledgements for the next attempt.

        Args:
            doubtful: whether they may have been carried out already.
        """
        self._acks.extendleft(ack._replace(doubtful=doubtful and ack.outbox is not None) for ack in reversed(acks))

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Reject a message; with ``requeue`` it goes to the end of its queue, marked redelivered."""
        held = self._copy_of(delivery_tag)
        if not requeue or held is None:
            self.ack(delivery_tag)
            return
        message = self._unacked[delivery_tag]
        death = dead_letters.death_of(message)
        limit = self.channel.max_deaths
        if death and limit and held.deaths >= limit:
            entry = Entry(held.key, held.id, held.data, True, held.deaths)
            dead_letters.dead_letter(self.channel, entry, raw_payload(message), death)
        else:
            self.channel.give_back([held])
        self.discard(delivery_tag)

    def discard(self, delivery_tag: str) -> None:
        """Remove a message that is not held any more; Redis knows already."""
        super().ack(delivery_tag)

    def restore_unacked(self) -> None:
        """Put everything that is delivered and not acknowledged back into its queue."""
        with self.channel.sending():  # no thread may send an outbox between the choice and the end of this
            copies = [copy for copy in map(self._copy_of, list(self._unacked)) if copy is not None]
            self._returned.update((copy.key, copy.id) for copy in copies)
        self.channel.give_back(copies)
        self._unacked.clear()

    def restore_visible(self, start: int = 0, num: int | None = None, interval: int | None = None) -> None:
        """Do nothing: Kombu's poller calls this regularly, but a channel's own polls take over when that is due."""

    def forget(self) -> None:
        """Drop all records, without telling Redis."""
        self._unacked.clear()
        self._acks.clear()

    def delivered_tags(self) -> set[str]:
        """Return the tags of delivered messages that are not acknowledged."""
        return set(self._unacked)

    def _copy_of(self, tag: str) -> Copy | None:
        """Return a delivered message for redelivery; None if it has no entry, or is acknowledged."""
        message, held = self._unacked.get(tag), parse_tag(tag)
        if message is None or held is None:
            return None
        key, entry = held
        if type(message) is Entry:
            try:
                payload = payloads.delivered(payloads.decode(message.data), message)
            except ForeignPayload:  # not read yet, or only a newer process can read it
                return Copy(key, entry, message.data, None, message.deaths)
        else:
            payload = raw_payload(message)
        if dead_letters.death_of(message):
            payload = payloads.with_death(payload)
        return Copy(key, entry, *payloads.again(payload, entry, self.channel.server_time()), payloads.deaths(payload))
