"""The contract of a channel layer: its complete interface for the rest of channelsq.

It is the channel-layer API of ASGI 1.0 (``send``, ``receive``, ``new_channel``, groups, ``flush``).  For workers and
interface servers it adds sends that are prepared first and dispatched together, a listener instead of a polling loop,
and ``forget_channel``.

A concrete layer implements :meth:`~BaseChannelLayer.dispatch`, :meth:`~BaseChannelLayer.receive`,
:meth:`~BaseChannelLayer.listen`, :meth:`~BaseChannelLayer.flush` and :meth:`~BaseChannelLayer.close`, and
returns the store of its groups.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from channelsq import exceptions
from channelsq.core import names
from channelsq.diagnostics import misuse
from channelsq.layers.contract.async_calls import AsyncCalls
from channelsq.layers.contract.layer_values import ChannelState, Deliver, Listener, Received, Send, check_delay
from channelsq.layers.contract.statistics import Statistics
from channelsq.layers.groups.begun_marks import KEPT_AFTER
from channelsq.layers.wire import codec
from channelsq.layers.wire.protection import NONE, Protection

if TYPE_CHECKING:
    from channelsq.layers.contract.source_contract import Source, SourceOptions
    from channelsq.layers.groups.begun_marks import BegunStore
    from channelsq.layers.groups.group_stores import GroupSizes, GroupStore
    from channelsq.layers.groups.presence import Presence
    from channelsq.layers.groups.records import RecordStore
    from channelsq.layers.wire.shared_clock import Clock
    from channelsq.layers.wire.signing import Signing

#: The prefixes of clients' channels.
_CLIENTS = "websocket.send.", "http.response."

logger = logging.getLogger("channelsq.layers")


class BaseChannelLayer(Statistics, AsyncCalls):
    """A channel layer.  Every method is safe to call from any thread, and after a fork.

    Args:
        settings: see :class:`~channelsq.layers.contract.layer_settings.LayerSettings`.
    """

    extensions: ClassVar[tuple[str, ...]] = ("groups", "flush", "statistics")

    #: Seconds that ``receive(block=True)`` waits before it returns ``(None, None)``.
    block_timeout: ClassVar[float] = 1.0

    #: The prefix of queue names before channel names.
    queue_prefix: str = ""

    #: Signs messages and verifies signatures; None without signing.
    signing: Signing | None = None

    #: Encrypts and signs messages, decrypts and verifies them; off where messages stay in the process.
    protection: Protection = NONE

    #: The clock by which workers' messages expire; None if the layer itself drops expired ones.
    expiry_clock: Clock | None = None

    #: Called, in any thread, for each message on a reply queue that is not channelsq's.
    foreign_listener: Callable[[], None] | None = None

    ChannelFull = exceptions.ChannelFull
    MessageTooLarge = exceptions.MessageTooLarge

    @property
    def in_process(self) -> bool:
        """True if only this process can see the layer's channels."""
        return False

    def is_on(self, url: str) -> bool:
        """Return whether ``url`` is the layer's broker, as Celery's workers connect to it; the spelling may differ."""
        return False

    @property
    def parts(self) -> Sequence[BaseChannelLayer]:
        """The layers that this one is composed of, one for each server; only itself if it is on one."""
        return (self,)

    @property
    def has_source(self) -> bool:
        """True if a worker in another process can read the layer."""
        return False

    # -- for tools and tests

    @property
    def file(self) -> Path | None:
        """The file on this machine with the channels; None if a server or this process holds them.

        Raises:
            InvalidChannelLayerError, BrokerUnavailable: the file cannot be used.
        """
        return None

    def broker_connection(self) -> Any | None:
        """Return a new Kombu connection to the layer's broker, not connected yet; None if the layer has no broker."""
        return None

    @contextmanager
    def separate_config(self) -> Iterator[dict[str, Any]]:
        """Return a context manager with the changes of ``CONFIG`` that keep another layer apart from this one.

        Their data may be deleted at the end of the block.
        """
        yield {}

    def delete_queues(self, channels: Iterable[str]) -> None:
        """Delete the queues of ``channels``, and those that this process has used.

        Raises:
            BrokerUnavailable: the broker does not answer.
        """

    # -- sending

    def prepare(self, channel: str, message: dict[str, Any], *, delay: float = 0.0) -> Send:
        """Check and pack a message for ``channel``; send it later with :meth:`dispatch`.

        Args:
            delay: seconds before workers may run it; not for ``!`` and ``?`` channels.

        Raises:
            TypeError: the channel's name or the message is invalid.
                ValueError: the delay is invalid.
                MessageTooLarge: the message is over ``message_size_limit``.
        """
        names.check_channel_name(channel)
        if delay:
            check_delay(delay)
            if names.is_process_channel(channel) or names.is_single_reader(channel):
                raise ValueError(f"delay is for channels that workers consume, not for {channel!r}")
        packed = codec.pack(message, self.message_size_limit)
        if "type" in message and channel.startswith(_CLIENTS):
            misuse.sent_type("channel", channel, message)
        return Send(channel, packed, False, delay)

    def prepare_group(self, group: str, message: dict[str, Any]) -> Send:
        """Check and pack a message for every member of ``group``; errors as :meth:`prepare`."""
        names.check_group_name(group)
        packed = codec.pack(message, self.message_size_limit)
        if "type" in message:
            misuse.sent_type("group", group, message)
        return Send(group, packed, True)

    @abstractmethod
    def dispatch(self, sends: Sequence[Send]) -> None:
        """Send prepared messages, in order, in as few writes as the layer can.

        Every send is attempted.  A member of a group whose channel is full is skipped, counted in :attr:`dropped` and
        logged.

        Raises:
            ChannelFull: a channel (not a group member) was full; the other messages were sent.
                BrokerUnavailable: the broker does not answer.
        """

    def submit(self, sends: Sequence[Send], told: Callable[[int, Exception | None], None]) -> None:
        """Send each of many messages by itself, in order, without waiting for each.

        Args:
            sends: the prepared messages.
            told: called with the index of a send and the exception of :meth:`dispatch` for it, or None when it is
                sent; from any thread, perhaps after this method has returned.
        """
        away: exceptions.BrokerUnavailable | None = None
        for place, send in enumerate(sends):
            error: Exception | None = away  # an attempt at a lost broker takes seconds, so the others get its result
            if away is None:
                try:
                    self.dispatch((send,))
                except Exception as raised:
                    error = raised
                    away = raised if isinstance(raised, exceptions.BrokerUnavailable) else None
            told(place, error)

    def settle(self, sends: Sequence[Send]) -> None:
        """Send the messages of a consumer that has returned; errors as :meth:`dispatch`.

        If it can, a layer sends them together with the acknowledgement of the consumer's message.
        """
        self.dispatch(sends)

    def send(self, channel: str, message: dict[str, Any], *, delay: float = 0.0) -> None:
        """Send ``message`` to ``channel``; errors as :meth:`prepare` and :meth:`dispatch`."""
        self.dispatch((self.prepare(channel, message, delay=delay),))

    def send_group(self, group: str, message: dict[str, Any]) -> None:
        """Send ``message`` to every member of ``group``; never raises ChannelFull."""
        self.dispatch((self.prepare_group(group, message),))

    def note_dropped(self, group: str, channel: str) -> None:
        """Count a group message that was dropped because ``channel`` is full; log that at most once a second."""
        self._counts.dropped += 1
        if self._drops.allows():
            logger.warning(
                "group %s: a message was dropped because channel %s is full (%d dropped by this process so far)",
                group,
                channel,
                self.dropped,
                extra={"action": "group_message_dropped"},
            )

    def note_unsent(self, sends: Sequence[Send], error: Exception) -> None:
        """Count and log that not all of ``sends`` could be sent after a commit."""
        self._counts.unsent += 1
        logger.error(
            "%d messages after a commit, the first to %s, were not all sent: %s (%d such failures in this process)",
            len(sends),
            sends[0].target,
            error,
            self.unsent,
            extra={"action": "send_failed"},
        )

    # -- receiving

    @abstractmethod
    def receive(self, channels: Iterable[str], block: bool = False) -> Received:
        """Return the next message of any of ``channels``, as ``(channel, message)``.

        ``"name!"`` stands for every ``name!…`` channel.  Without a message it returns ``(None, None)``; with ``block``
        only after :attr:`block_timeout` seconds.

        Raises:
            TypeError: a channel's name is invalid.
                ChannelNotLocal: a ``!`` channel belongs to another process.
            BrokerUnavailable: the broker does not answer.
        """

    def receive_many(self, channels: Iterable[str], block: bool = False) -> Received:
        """Return the next message; the older name of :meth:`receive`."""
        return self.receive(channels, block)

    @abstractmethod
    def listen(self, prefix: str, deliver: Deliver) -> Listener:
        """Call ``deliver(channels, message, group)`` for every message sent to ``prefix``'s channels.

        Args:
            prefix: ``"name.<process>!"``, of this process.
            deliver: called from any thread, never concurrently; it must be quick and must not raise.

        The listener survives the loss of the broker: it reconnects by itself and logs both.
        """

    def queue_name(self, channel: str) -> str:
        """Return the name of the queue of a channel that workers consume."""
        return self.queue_prefix + channel

    def task_publisher(self, channel: str) -> AbstractContextManager[tuple[Any, Any]]:
        """Return a Kombu producer and the queue of a channel that workers consume, for Celery's retries.

        Raises:
            BrokerUnavailable: also in the block; the broker does not answer.
                NotImplementedError: workers cannot read the layer.
        """
        raise NotImplementedError(f"{type(self).__name__} takes no tasks")

    def source(self, options: SourceOptions) -> Source[Any]:
        """Return a new source of the layer for a worker; it is not connected yet.

        Raises:
            NotImplementedError: workers cannot read the layer.
        """
        raise NotImplementedError(f"{type(self).__name__} has no source for workers")

    def check_wanted(self, channels: Iterable[str]) -> list[str]:
        """Return the channels of a call of :meth:`receive` after checks; raise its errors."""
        if isinstance(channels, (str, bytes)):
            raise TypeError(f"receive() takes a list of channel names, not {channels!r}; write [{channels!r}]")
        wanted = [names.check_channel_name(channel, receive=True) for channel in channels]
        return [self.check_local(name) if names.is_process_channel(name) else name for name in wanted]

    def check_local(self, channel: str) -> str:
        """Return ``channel``; raise ChannelNotLocal if its ``!`` part belongs to another process."""
        if not channel.partition("!")[0].endswith("." + self.process):
            raise exceptions.ChannelNotLocal(channel)
        return channel

    # -- groups

    @property
    @abstractmethod
    def _groups(self) -> GroupStore:
        """The store of the groups."""

    def group_add(self, group: str, channel: str) -> None:
        """Make ``channel`` a member of ``group``, or renew its membership; raise TypeError for an invalid name."""
        self._groups.add(names.check_group_name(group), names.check_channel_name(channel))

    def group_discard(self, group: str, channel: str) -> None:
        """End a membership, if there is one; raise TypeError for an invalid name."""
        self._groups.discard(names.check_group_name(group), names.check_channel_name(channel))

    def group_channels(self, group: str) -> list[str]:
        """Return the members of ``group``, in no order; raise TypeError for an invalid name."""
        return self._groups.members(names.check_group_name(group))

    def forget_channel(self, channel: str) -> None:
        """End every membership of ``channel``, because its socket is closed."""
        self._groups.forget(channel)

    def forget_channels(self, channels: Sequence[str]) -> None:
        """End every membership of several channels."""
        for channel in channels:
            self.forget_channel(channel)

    # -- presence

    @property
    def presence(self) -> Presence | None:
        """The running processes of the site; None if the layer does not record them."""
        return None

    def restore_memberships(
        self, memberships: Iterable[tuple[str, str, float]], ended: Iterable[tuple[str, str]] = ()
    ) -> None:
        """Write memberships that the layer has lost, and end obsolete ones, without membership notes.

        A layer with :attr:`presence` implements it.

        Args:
            memberships: each a group, a channel, and the seconds until it ends.
            ended: each a group and a channel.

        Raises:
            BrokerUnavailable: the broker does not answer; a part may be done.
        """
        raise NotImplementedError

    def end_reply_queues(self, process: str) -> None:
        """Let the messages that wait for the clients of a process end, soon or at once, because it seems dead.

        If it is alive after all, it should read them: they report which of its clients' messages are done.  A layer
        with :attr:`presence` implements it.

        Raises:
            BrokerUnavailable: the broker does not answer.
        """
        raise NotImplementedError

    def warn_operator(self) -> None:
        """Log what an operator should change about the layer's servers.  It may wait for them for some seconds."""

    # -- records

    @property
    def records(self) -> RecordStore | None:
        """Small documents that processes share for a limited time; None if the layer has no place for them."""
        return None

    # -- runs that must not be repeated

    @property
    def _begun(self) -> BegunStore | None:
        """The store of the marks of runs; None if the layer has none."""
        return None

    def begin(self, mark: str) -> bool | None:
        """Record that a run begins; return False if that was recorded before, None if the layer cannot record it.

        Args:
            mark: the mark of a message and its try, see :func:`channelsq.delivery.attempts.begin`.

        Raises:
            BrokerUnavailable: the store of the marks does not answer.
        """
        store = self._begun
        return None if store is None else store.begin(mark)

    def has_begun(self, mark: str) -> bool | None:
        """Return whether a mark exists; None if the layer has none; errors as :meth:`begin`."""
        store = self._begun
        return None if store is None else store.has(mark)

    def end(self, mark: str, *, at_once: bool = False) -> None:
        """Delete a mark, if possible with the acknowledgement of its message; errors as :meth:`begin`.

        Args:
            at_once: immediately, because the same message is to run again.
        """
        store = self._begun
        if store is not None:
            store.end(mark, 0.0 if at_once else self._kept_after)

    #: Seconds that a mark outlives its run: a message whose acknowledgement is lost may be redelivered until then.
    _kept_after: float = KEPT_AFTER

    # -- housekeeping

    def depth(self, channel: str) -> int | None:
        """Return about how many messages wait in a worker's channel, without those that workers hold.

        Return None if the layer cannot tell.

        Raises:
            BrokerUnavailable: the broker does not answer.
        """
        return None

    def channel_state(self, channel: str) -> ChannelState:
        """Return the state of a channel that workers consume; errors as :meth:`depth`."""
        return ChannelState(self.depth(channel))

    def purge(self, channel: str) -> int:
        """Delete the waiting messages of a channel that workers consume; return how many.

        Raises:
            BrokerUnavailable: the broker does not answer.
            NotImplementedError: the layer does not support it.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot purge a channel")

    def group_sizes(self, most: int, seconds: float) -> GroupSizes:
        """Return some of the layer's groups, in no order, with the numbers of their members.

        Args:
            most: the most groups to return.
            seconds: the time limit of the scan.

        Raises:
            BrokerUnavailable: the store of the groups does not answer.
        """
        return self._groups.sizes(most, seconds)

    def some_members(self, group: str, most: int) -> tuple[list[str], int]:
        """Return some members of a group, in no order, and the number of all; errors as :meth:`group_channels`."""
        return self._groups.some_members(names.check_group_name(group), most)

    def probe(self, channel: str) -> None:
        """Check whether the broker would accept a message for a channel now.

        Raises:
            BrokerUnavailable: the broker does not answer, or refuses.
        """
        self.depth(channel)

    @abstractmethod
    def flush(self) -> None:
        """Delete every message and every group of this layer (its prefix), nothing else."""

    @abstractmethod
    def close(self) -> None:
        """Close connections and wake waiting readers; the layer can be used again afterwards."""
