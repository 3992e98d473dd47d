"""The contract of a source: what a worker needs of a broker to read a layer.

A layer returns its source by :meth:`~channelsq.layers.contract.layer_contract.BaseChannelLayer.source`.  The worker has
one reader, one intake and one class of requests for all of them (:mod:`channelsq.worker.sources`); whatever differs
from broker to broker is behind this contract.

The life of a message::

    poll()            the source holds the delivery from here on, and it takes credit
    plain(), open()   the intake reads it
    one of            settle(), acknowledge_first(), give_back(), leave(), drop(), set_aside(), abandon()
    poll(), flush()   the outcome is sent: by the next of these at the latest

A delivery is whatever object the broker's own code makes; only its source looks into it.  One thread at a time
connects, polls and reads; outcomes may come from any thread.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from channelsq.layers.contract.outbox import Outbox

#: A message as its source holds it.
Delivery = TypeVar("Delivery")

#: A message as layers send it: its channel, its id, and its content.
Plain: TypeAlias = tuple[str, str, dict[str, Any]]


class TaskMessage(Protocol):
    """A Celery task message, as Kombu's messages have it."""

    #: May be replaced by its reader.
    headers: dict[str, Any]
    body: Any

    @property
    def content_type(self) -> str | None:
        """The media type of the body."""

    @property
    def payload(self) -> Any:
        """The decoded body; raises whatever the decoder of its content type raises."""


def _tell_nobody(holder: str) -> None:
    """Ignore the name of the holder."""


@dataclass(frozen=True)
class SourceOptions:
    """What a worker chooses about a source."""

    #: The channels that are read at first.
    channels: Sequence[str]
    #: How many messages the source may hold at once.
    credit: int
    #: The content types that are decoded.
    accept: Collection[str] = ()
    #: Is told the name under which the broker knows the holder of the messages, at each connection, if it has one.
    opened: Callable[[str], None] = _tell_nobody
    #: Seconds for which the first connection leaves to others what dead workers held.
    reluctance: float = 0.0


class Source(ABC, Generic[Delivery]):
    """Reads the channels of one layer for one worker, through a connection of its own."""

    # -- the connection; in the thread that polls, if nothing else is said

    @property
    @abstractmethod
    def errors(self) -> tuple[type[BaseException], ...]:
        """What the source raises when its connection is lost.  From any thread."""

    @abstractmethod
    def connect(self) -> bool:
        """Connect, if there is no connection.

        Returns:
            whether all that was held is the broker's again, which delivers it anew.

        Raises:
            errors: the broker is away; the caller tries again soon.
        """

    @abstractmethod
    def lost(self) -> None:
        """Note that a call has raised one of :attr:`errors`."""

    @abstractmethod
    def interrupt(self) -> None:
        """Have a poll that waits return soon, as the worker ends.  From any thread; raises nothing."""

    @abstractmethod
    def close(self) -> None:
        """Send what is settled, give back what is held, and close the connection; raises nothing."""

    @abstractmethod
    def cut(self) -> None:
        """Send what is settled, and leave to other workers what runs, as the process ends now; raises nothing."""

    # -- reading; in the thread that polls

    @abstractmethod
    def read(self, channel: str) -> None:
        """Read one more channel; harmless to repeat.

        Raises:
            errors: the connection is lost; the next one reads the channel.
        """

    @abstractmethod
    def cease(self, channel: str) -> None:
        """Read a channel no more; errors as :meth:`read`."""

    @abstractmethod
    def poll(self, seconds: float) -> Sequence[Delivery]:
        """Send what is settled, wait for messages, and return them, in as few round trips as the broker allows.

        Args:
            seconds: how long to wait at most; with 0 the source asks for what is there.

        Raises:
            errors: the connection is lost.
        """

    @abstractmethod
    def has_credit(self) -> bool:
        """Return whether another message may be taken.  From any thread."""

    @abstractmethod
    def make_room(self, number: int) -> None:
        """Raise the credit by a number, which may be negative, for messages that wait in the worker for their time.

        Raises:
            errors: the connection is lost.
        """

    @abstractmethod
    def unread(self, deliveries: Sequence[Delivery]) -> None:
        """Have the next :meth:`poll` return deliveries of the last one again, in front of others."""

    # -- what a delivery says; in the thread that polls

    @abstractmethod
    def queue_of(self, delivery: Delivery) -> str:
        """Return the name of the queue that a message came from."""

    @abstractmethod
    def plain(self, delivery: Delivery) -> Plain | None:
        """Return a message in the form in which layers send it, if it can be run at once and its signature is right.

        Return None for anything else: another try, delayed, redelivered, expired, not or wrongly signed, unreadable.
        The caller asks :meth:`open` then.
        """

    @abstractmethod
    def open(self, delivery: Delivery) -> TaskMessage | None:
        """Return a message; None if it cannot be read, which is logged, and the source has dealt with it.

        Raises:
            NewerWire: only a newer worker can read it.
            errors: the connection is lost.
        """

    @abstractmethod
    def is_redelivered(self, delivery: Delivery, message: TaskMessage) -> bool:
        """Return whether a message that was opened was delivered before, as far as the broker knows."""

    @abstractmethod
    def is_expired(self, delivery: Delivery, message: TaskMessage) -> bool:
        """Return whether a message that was opened was never delivered in its time."""

    # -- while a delivery is held; from any thread

    @abstractmethod
    def is_lost(self, delivery: Delivery) -> bool:
        """Return whether the broker delivers the message anew, as the connection that it came by is lost."""

    def is_deadly(self, delivery: Delivery, message_id: str) -> bool:
        """Return whether so many processes died with a redelivered message that it must not run again.

        The caller asks before the message runs, and drops it then.  Brokers that count deaths themselves deliver no
        such message.  Raises nothing.
        """
        return False

    # -- outcomes; from any thread, and if nothing else is said they raise nothing

    @abstractmethod
    def outbox(self) -> Outbox | None:
        """Return what collects the sends of a consumer for :meth:`settle`.

        Return None if the broker cannot write both at once: the consumer's sends have left when it is settled then.
        """

    @abstractmethod
    def settle(self, delivery: Delivery, outbox: Outbox | None) -> None:
        """Acknowledge a message with the next :meth:`poll` or :meth:`flush`, in one write with what is in its outbox.

        A message that is lost (:meth:`is_lost`) is run by another worker, so nothing of its outbox is sent.
        """

    @abstractmethod
    def acknowledge_first(self, delivery: Delivery) -> bool:
        """Acknowledge a message that runs at most once, before its consumer begins.

        Returns:
            whether the broker has acknowledged it, and it may begin.  If not, the source has dealt with it.
        """

    @abstractmethod
    def give_back(self, delivery: Delivery) -> None:
        """Have the broker deliver a message again, to any worker."""

    @abstractmethod
    def abandon(self, delivery: Delivery) -> None:
        """Forget a message that is lost, see :meth:`is_lost`."""

    @abstractmethod
    def leave(self, delivery: Delivery) -> None:
        """Have the broker deliver a message again as if it never had, for newer workers.  In the thread that polls.

        Raises:
            errors: the connection is lost; the message is still held.
        """

    @abstractmethod
    def drop(self, delivery: Delivery) -> None:
        """Acknowledge a message that is not run."""

    @abstractmethod
    def set_aside(self, delivery: Delivery, reason: str) -> None:
        """Keep a message that cannot be run among the dead letters, if the broker has those; else drop it.

        Args:
            delivery: the message.
            reason: one line for people; the caller logs it.

        Raises:
            errors: the connection is lost; the message is still held.
        """

    @abstractmethod
    def flush(self) -> None:
        """Send what is settled, if no other thread is about to."""
