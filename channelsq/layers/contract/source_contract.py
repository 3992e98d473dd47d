"""The contract of a source: how a worker reads a layer from its broker.

A layer returns its source by :meth:`~channelsq.layers.contract.layer_contract.BaseChannelLayer.source`.  The worker has
one reader, one intake and one class of requests for all of them (:mod:`channelsq.worker.sources`); this contract hides
the differences between brokers.

The life of a message::

    poll()            the source holds the delivery from here on, and it uses credit
    plain(), open()   the intake reads it
    one of            settle(), acknowledge_first(), give_back(), leave(), drop(), set_aside(), abandon()
    poll(), flush()   the outcome is sent: at the latest by the next of these

A delivery is an object of the broker's own code; only its source looks into it.  Connecting, polling and reading
are limited to one thread at a time; outcomes may come from any thread.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from channelsq.layers.contract.outbox import Outbox

#: A message as its source holds it.
Delivery = TypeVar("Delivery")

#: A message in the plain form of layers: its channel, its id, and its content.
Plain: TypeAlias = tuple[str, str, dict[str, Any]]


class TaskMessage(Protocol):
    """A Celery task message, with the attributes of Kombu's messages."""

    #: Readers may replace it.
    headers: dict[str, Any]
    body: Any

    @property
    def content_type(self) -> str | None:
        """The media type of the body."""

    @property
    def payload(self) -> Any:
        """Return the decoded body; raise any exception of its content type's decoder."""


def _tell_nobody(holder: str) -> None:
    """Ignore the name of the holder."""


@dataclass(frozen=True)
class SourceOptions:
    """A worker's options for a source."""

    #: The channels to read at the start.
    channels: Sequence[str]
    #: The most messages that the source may hold at once.
    credit: int
    #: The content types that are decoded.
    accept: Collection[str] = ()
    #: Called at each connection with the broker's name for the holder of the messages, if there is one.
    opened: Callable[[str], None] = _tell_nobody
    #: Seconds for which the first connection does not take over messages of dead workers.
    reluctance: float = 0.0


class Source(ABC, Generic[Delivery]):
    """Reads the channels of one layer for one worker, through its own connection."""

    # -- the connection; only in the polling thread, unless stated otherwise

    @property
    @abstractmethod
    def errors(self) -> tuple[type[BaseException], ...]:
        """The exceptions that the source raises when its connection is lost.  From any thread."""

    @abstractmethod
    def connect(self) -> bool:
        """Connect, unless there is a connection.

        Returns:
            True if the broker has all held messages again and redelivers them.

        Raises:
            errors: the broker is away; the caller tries again soon.
        """

    @abstractmethod
    def lost(self) -> None:
        """React to a call that has raised one of :attr:`errors`."""

    @abstractmethod
    def interrupt(self) -> None:
        """End a waiting poll soon, because the worker ends.  From any thread; raises nothing."""

    @abstractmethod
    def close(self) -> None:
        """Send settled outcomes, give back held messages, and close the connection; raises nothing."""

    @abstractmethod
    def cut(self) -> None:
        """Send settled outcomes and leave running messages to other workers, as the process ends; raises nothing."""

    # -- reading; only in the polling thread

    @abstractmethod
    def read(self, channel: str) -> None:
        """Read one more channel; repeated calls are harmless.

        Raises:
            errors: the connection is lost; the next one reads the channel.
        """

    @abstractmethod
    def cease(self, channel: str) -> None:
        """Stop reading a channel; errors as :meth:`read`."""

    @abstractmethod
    def poll(self, seconds: float) -> Sequence[Delivery]:
        """Send settled outcomes, wait for messages, and return them, in as few round trips as possible.

        Args:
            seconds: the most seconds to wait; with 0 the source does not wait.

        Raises:
            errors: the connection is lost.
        """

    @abstractmethod
    def has_credit(self) -> bool:
        """Return whether another message may be requested.  From any thread."""

    @abstractmethod
    def make_room(self, number: int) -> None:
        """Raise the credit by a number, perhaps negative, for messages that wait in the worker for their ETA.

        Raises:
            errors: the connection is lost.
        """

    @abstractmethod
    def unread(self, deliveries: Sequence[Delivery]) -> None:
        """Make the next :meth:`poll` return deliveries of the last one again, before others."""

    # -- the contents of a delivery; only in the polling thread

    @abstractmethod
    def queue_of(self, delivery: Delivery) -> str:
        """Return the name of the queue that a message came from."""

    @abstractmethod
    def plain(self, delivery: Delivery) -> Plain | None:
        """Return a message in the plain form if it can run immediately and its signature is right.

        Return None for anything else: another try, delayed, redelivered, expired, not or wrongly signed or encrypted,
        unreadable.  The caller then calls :meth:`open`, whose message is encrypted as it was sent.
        """

    @abstractmethod
    def open(self, delivery: Delivery) -> TaskMessage | None:
        """Return a message; None if it is unreadable, which the source has logged and settled.

        Raises:
            NewerWire: only a newer worker can read it.
            errors: the connection is lost.
        """

    @abstractmethod
    def is_redelivered(self, delivery: Delivery, message: TaskMessage) -> bool:
        """Return whether an opened message was delivered before, as far as the broker knows."""

    @abstractmethod
    def is_expired(self, delivery: Delivery, message: TaskMessage) -> bool:
        """Return whether an opened message expired before its first delivery."""

    # -- while a delivery is held; from any thread

    @abstractmethod
    def is_lost(self, delivery: Delivery) -> bool:
        """Return whether the broker redelivers the message because its connection is lost."""

    def is_deadly(self, delivery: Delivery, message_id: str) -> bool:
        """Return whether so many processes died with a redelivered message that it must not run again.

        The caller asks before it runs the message, and drops it if so.  Brokers that count deaths themselves do not
        deliver such a message.  Raises nothing.
        """
        return False

    # -- outcomes; from any thread, and without exceptions unless stated otherwise

    @abstractmethod
    def outbox(self, delivery: Delivery) -> Outbox | None:
        """Return an outbox for the sends of a message's consumer, for :meth:`settle`.

        Return None if the broker cannot send and acknowledge in one write: then the sends leave before the settlement.
        """

    @abstractmethod
    def settle(self, delivery: Delivery, outbox: Outbox | None) -> None:
        """Acknowledge a message with the next :meth:`poll` or :meth:`flush`, in one write with its outbox.

        Another worker runs a message that is lost (:meth:`is_lost`), so its outbox is not sent.
        """

    @abstractmethod
    def acknowledge_first(self, delivery: Delivery) -> bool:
        """Acknowledge a message that runs at most once, before its consumer begins.

        Returns:
            True if the broker has acknowledged it and it may begin.  Otherwise the source has settled it.
        """

    @abstractmethod
    def give_back(self, delivery: Delivery) -> None:
        """Have the broker redeliver a message to any worker."""

    @abstractmethod
    def abandon(self, delivery: Delivery) -> None:
        """Drop the record of a lost message, see :meth:`is_lost`."""

    @abstractmethod
    def leave(self, delivery: Delivery) -> None:
        """Have the broker deliver a message, unmarked, to newer workers.  In the polling thread.

        Raises:
            errors: the connection is lost; the message is still held.
        """

    @abstractmethod
    def drop(self, delivery: Delivery) -> None:
        """Acknowledge a message without running it."""

    @abstractmethod
    def set_aside(self, delivery: Delivery, reason: str) -> None:
        """Move a message that cannot run to the dead letters if the broker has them; otherwise drop it.

        Args:
            delivery: the message.
            reason: one line for operators; the caller logs it.

        Raises:
            errors: the connection is lost; the message is still held.
        """

    @abstractmethod
    def flush(self) -> None:
        """Send settled outcomes, unless another thread is about to."""


class WaitableSource(Source[Delivery]):
    """A source whose polls can be waited for together with those of others, in one thread.

    ::

        begin_poll()      the settled outcomes and the request for messages leave
        wait_handle()     is readable when there may be an answer
        end_poll()        returns the messages, or None if there is no answer yet
    """

    @abstractmethod
    def begin_poll(self, seconds: float) -> None:
        """Send settled outcomes and request messages; the broker answers within so many seconds.

        It does nothing while an earlier request has no answer.

        Raises:
            errors: the connection is lost.
        """

    @abstractmethod
    def wait_handle(self) -> int | None:
        """Return the file descriptor on which the answer arrives; None if :meth:`end_poll` need not wait for it.

        Raises:
            errors: the broker has been silent for so long that the connection counts as lost.
        """

    @abstractmethod
    def end_poll(self) -> Sequence[Delivery] | None:
        """Return the messages that were requested, without waiting; None if there is no answer yet; errors as above."""

    @abstractmethod
    def age(self, delivery: Delivery) -> float:
        """Return the seconds from the time at which a message was sent to the last poll, by the broker's clock."""

    @abstractmethod
    def flush_soon(self) -> bool:
        """Send settled outcomes, unless the answer to earlier ones is still out; never wait, and raise nothing.

        For outcomes while a request for messages is out; :meth:`begin_poll` sends the others.

        Returns:
            True if none is left.
        """
