"""The contract of a channel layer: all that the rest of channelsq knows about one.

It is the channel-layer API of ASGI 1.0 (``send``, ``receive``, ``new_channel``, groups, ``flush``)
plus what workers and interface servers need to be quick and tidy: sends that are prepared first and
dispatched together, a listener instead of a polling loop, and ``forget_channel``.

A concrete layer implements :meth:`~BaseChannelLayer.dispatch`, :meth:`~BaseChannelLayer.receive`,
:meth:`~BaseChannelLayer.listen`, :meth:`~BaseChannelLayer.flush` and :meth:`~BaseChannelLayer.close`, and
says where its groups are kept.
"""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from channelsq import exceptions
from channelsq.core import names
from channelsq.diagnostics import misuse
from channelsq.layers.contract.async_calls import AsyncCalls
from channelsq.layers.contract.layer_settings import LayerSettings
from channelsq.layers.contract.layer_values import ChannelState, Deliver, Listener, Received, Send
from channelsq.layers.groups.begun_marks import KEPT_AFTER
from channelsq.layers.wire import codec

if TYPE_CHECKING:
    from channelsq.layers.contract.source_contract import Source, SourceOptions
    from channelsq.layers.groups.begun_marks import BegunStore
    from channelsq.layers.groups.group_stores import GroupSizes, GroupStore
    from channelsq.layers.groups.presence import Presence
    from channelsq.layers.wire.shared_clock import Clock
    from channelsq.layers.wire.signing import Signing

#: What clients' channels begin with.
_CLIENTS = "websocket.send.", "http.response."

logger = logging.getLogger("channelsq.layers")


class BaseChannelLayer(LayerSettings, AsyncCalls):
    """A channel layer.  Every method is safe to call from any thread, and after a fork.

    Args:
        settings: see :class:`~channelsq.layers.contract.layer_settings.LayerSettings`.
    """

    extensions: ClassVar[tuple[str, ...]] = ("groups", "flush")

    #: Seconds that ``receive(block=True)`` waits before it gives ``(None, None)``.
    block_timeout: ClassVar[float] = 1.0

    #: What the names of queues have in front of those of channels.
    queue_prefix: str = ""

    #: What signs messages, and looks at signatures; None for nothing.
    signing: Signing | None = None

    #: The clock by which messages expire that workers take; None where the layer itself drops those that have.
    expiry_clock: Clock | None = None

    #: Is called, in any thread, for each message on a reply queue that is none of channelsq's.
    foreign_listener: Callable[[], None] | None = None

    ChannelFull = exceptions.ChannelFull
    MessageTooLarge = exceptions.MessageTooLarge

    @property
    def in_process(self) -> bool:
        """Whether only this process can see the layer's channels."""
        return False

    def is_on(self, url: str) -> bool:
        """Whether ``url`` is that of the layer's broker, as Celery's workers reach it; perhaps written differently."""
        return False

    @property
    def has_source(self) -> bool:
        """Whether a worker in another process can read the layer."""
        return False

    # -- for tools and tests ----------------------------------------------------------------

    @property
    def file(self) -> Path | None:
        """The file on this machine that holds the channels; None if a server or this process holds them.

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

    # -- sending ----------------------------------------------------------------------------

    def prepare(self, channel: str, message: dict[str, Any], *, delay: float = 0.0) -> Send:
        """Check and pack a message for ``channel``; send it later with :meth:`dispatch`.

        Args:
            delay: seconds to hold it back; not for ``!`` and ``?`` channels.

        Raises:
            TypeError: a bad channel name or message.
            ValueError: a bad delay.
            MessageTooLarge: over ``message_size_limit``.
        """
        names.check_channel_name(channel)
        if delay:
            if isinstance(delay, bool) or not isinstance(delay, (int, float)) or not 0 <= delay < math.inf:
                raise ValueError(f"delay must be seconds, 0 or more, not {delay!r}")
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
        """Send what was prepared, in order, in as few writes as the layer can.

        Every send is tried.  A member of a group whose channel is full is skipped, counted in
        :attr:`dropped` and logged.

        Raises:
            ChannelFull: a channel (not a group member) was full; what the others were sent stays sent.
            BrokerUnavailable: the broker does not answer.
        """

    def submit(self, sends: Sequence[Send], told: Callable[[int, Exception | None], None]) -> None:
        """Send each of many by itself, in order, for a caller that need not wait for each.

        Args:
            sends: what was prepared.
            told: called with a send's place and what :meth:`dispatch` raises for it, or None when it is sent; from any
                thread, perhaps after this has returned.
        """
        away: exceptions.BrokerUnavailable | None = None
        for place, send in enumerate(sends):
            error: Exception | None = away  # an attempt at a lost broker takes seconds: others are told its answer
            if away is None:
                try:
                    self.dispatch((send,))
                except Exception as raised:
                    error = raised
                    away = raised if isinstance(raised, exceptions.BrokerUnavailable) else None
            told(place, error)

    def settle(self, sends: Sequence[Send]) -> None:
        """Send what a consumer sent, now that it has returned; errors as :meth:`dispatch`.

        A layer that can do so sends it together with the acknowledgement of the consumer's message.
        """
        self.dispatch(sends)

    def send(self, channel: str, message: dict[str, Any], *, delay: float = 0.0) -> None:
        """Send ``message`` to ``channel``; errors as :meth:`prepare` and :meth:`dispatch`."""
        self.dispatch((self.prepare(channel, message, delay=delay),))

    def send_group(self, group: str, message: dict[str, Any]) -> None:
        """Send ``message`` to every member of ``group``; never raises ChannelFull."""
        self.dispatch((self.prepare_group(group, message),))

    def note_dropped(self, group: str, channel: str) -> None:
        """Count a group message that ``channel`` had no room for; log it, at most once a second."""
        self.dropped += 1
        if self._drops.allows():
            logger.warning(
                "group %s: a message was dropped because channel %s is full (%d dropped by this process so far)",
                group,
                channel,
                self.dropped,
                extra={"action": "group_message_dropped"},
            )

    def note_unsent(self, sends: Sequence[Send], error: Exception) -> None:
        """Count and log that not all of ``sends`` could be sent, after the commit that they waited for."""
        self.unsent += 1
        logger.error(
            "%d messages after a commit, the first to %s, were not all sent: %s (%d such failures in this process)",
            len(sends),
            sends[0].target,
            error,
            self.unsent,
            extra={"action": "send_failed"},
        )

    # -- receiving --------------------------------------------------------------------------

    @abstractmethod
    def receive(self, channels: Iterable[str], block: bool = False) -> Received:
        """The next message of any of ``channels``, as ``(channel, message)``.

        ``"name!"`` stands for every ``name!…`` channel.  Gives ``(None, None)`` if there is none,
        with ``block`` only after :attr:`block_timeout` seconds.

        Raises:
            TypeError: a bad channel name.
            ChannelNotLocal: a ``!`` channel that is not this process's.
            BrokerUnavailable: the broker does not answer.
        """

    def receive_many(self, channels: Iterable[str], block: bool = False) -> Received:
        """The older name of :meth:`receive`."""
        return self.receive(channels, block)

    @abstractmethod
    def listen(self, prefix: str, deliver: Deliver) -> Listener:
        """Call ``deliver(channels, message, group)`` for everything sent to ``prefix``'s channels.

        Args:
            prefix: ``"name.<process>!"``, of this process.
            deliver: called from any thread, never twice at once; must be quick and must not raise.

        The listener outlives a lost broker: it reconnects by itself and logs both.
        """

    def queue_name(self, channel: str) -> str:
        """The name of the queue that carries a channel which workers consume."""
        return self.queue_prefix + channel

    def task_publisher(self, channel: str) -> AbstractContextManager[tuple[Any, Any]]:
        """Return a Kombu producer, and the queue of a channel that workers consume, for further tries of its consumers.

        Raises:
            BrokerUnavailable: also in the block; the broker does not answer.
            NotImplementedError: the layer cannot be read by workers.
        """
        raise NotImplementedError(f"{type(self).__name__} takes no tasks")

    def source(self, options: SourceOptions) -> Source[Any]:
        """Return a new source of the layer for a worker; it connects when it is told to.

        Raises:
            NotImplementedError: the layer cannot be read by workers.
        """
        raise NotImplementedError(f"{type(self).__name__} has no source for workers")

    def check_wanted(self, channels: Iterable[str]) -> list[str]:
        """What :meth:`receive` was asked for, checked; raises as it does."""
        if isinstance(channels, (str, bytes)):
            raise TypeError(f"receive() takes a list of channel names, not {channels!r}; write [{channels!r}]")
        wanted = [names.check_channel_name(channel, receive=True) for channel in channels]
        return [self.check_local(name) if names.is_process_channel(name) else name for name in wanted]

    def check_local(self, channel: str) -> str:
        """``channel``, if its ``!`` part is this process's; else raises ChannelNotLocal."""
        if not channel.partition("!")[0].endswith("." + self.process):
            raise exceptions.ChannelNotLocal(channel)
        return channel

    # -- groups -----------------------------------------------------------------------------

    @property
    @abstractmethod
    def _groups(self) -> GroupStore:
        """Where the groups are kept."""

    def group_add(self, group: str, channel: str) -> None:
        """Make ``channel`` a member of ``group``, or renew its membership.  TypeError for a bad name."""
        self._groups.add(names.check_group_name(group), names.check_channel_name(channel))

    def group_discard(self, group: str, channel: str) -> None:
        """End a membership; no error if there was none.  TypeError for a bad name."""
        self._groups.discard(names.check_group_name(group), names.check_channel_name(channel))

    def group_channels(self, group: str) -> list[str]:
        """The members of ``group``, in no order.  TypeError for a bad name."""
        return self._groups.members(names.check_group_name(group))

    def forget_channel(self, channel: str) -> None:
        """Take ``channel`` out of every group: its socket is gone."""
        self._groups.forget(channel)

    def forget_channels(self, channels: Sequence[str]) -> None:
        """:meth:`forget_channel` for many at once."""
        for channel in channels:
            self.forget_channel(channel)

    # -- processes that live ------------------------------------------------------------------

    @property
    def presence(self) -> Presence | None:
        """Which processes of the site live; None if the layer cannot know."""
        return None

    def restore_memberships(
        self, memberships: Iterable[tuple[str, str, float]], ended: Iterable[tuple[str, str]] = ()
    ) -> None:
        """Write memberships down that the layer has lost, and end those that it should not have; tell nobody.

        A layer with :attr:`presence` implements it.

        Args:
            memberships: each a group, a channel, and the seconds until it ends.
            ended: each a group and a channel.

        Raises:
            BrokerUnavailable: the broker does not answer; some of it may be done.
        """
        raise NotImplementedError

    def delete_reply_queues(self, process: str) -> None:
        """Delete what waits for the clients of a process that is dead.

        A layer with :attr:`presence` implements it.

        Raises:
            BrokerUnavailable: the broker does not answer.
        """
        raise NotImplementedError

    def warn_operator(self) -> None:
        """Log what an operator should change about the layer's servers.  May wait for them some seconds."""

    # -- runs that must not be repeated ------------------------------------------------------

    @property
    def _begun(self) -> BegunStore | None:
        """Where the marks of runs are kept; None if the layer has no place for them."""
        return None

    def begin(self, mark: str) -> bool | None:
        """Write down that a run begins; return False if that was written down before, None if it cannot be.

        Args:
            mark: of a message and its try, see :func:`channelsq.delivery.attempts.begin`.

        Raises:
            BrokerUnavailable: the store of the marks does not answer.
        """
        store = self._begun
        return None if store is None else store.begin(mark)

    def end(self, mark: str, *, at_once: bool = False) -> None:
        """Forget a mark, with the acknowledgement of its message where the layer can do that; errors as :meth:`begin`.

        Args:
            at_once: now, as the same message is to run again.
        """
        store = self._begun
        if store is not None:
            store.end(mark, 0.0 if at_once else self._kept_after)

    #: Seconds that a mark outlives its run: until then the message may come again, its acknowledgement being lost.
    _kept_after: float = KEPT_AFTER

    # -- housekeeping -----------------------------------------------------------------------

    def depth(self, channel: str) -> int | None:
        """About how many messages wait in a channel that workers consume, without those that they have taken.

        None if the layer cannot tell.

        Raises:
            BrokerUnavailable: the broker does not answer.
        """
        return None

    def channel_state(self, channel: str) -> ChannelState:
        """What is in a channel that workers consume; errors as :meth:`depth`."""
        return ChannelState(self.depth(channel))

    def purge(self, channel: str) -> int:
        """Delete the messages that wait in a channel that workers consume; return how many.

        Raises:
            BrokerUnavailable: the broker does not answer.
            NotImplementedError: the layer cannot do it.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot purge a channel")

    def group_sizes(self, most: int, seconds: float) -> GroupSizes:
        """Some of the layer's groups, in no order, with the numbers of their members.

        Args:
            most: how many groups are looked at.
            seconds: for how long is looked.

        Raises:
            BrokerUnavailable: the store of the groups does not answer.
        """
        return self._groups.sizes(most, seconds)

    def some_members(self, group: str, most: int) -> tuple[list[str], int]:
        """Some members of a group, in no order, and the number of all; errors as :meth:`group_channels`."""
        return self._groups.some_members(names.check_group_name(group), most)

    def probe(self, channel: str) -> None:
        """Ask whether a message for a channel would be taken now.

        Raises:
            BrokerUnavailable: the broker does not answer, or refuses.
        """
        self.depth(channel)

    @abstractmethod
    def flush(self) -> None:
        """Delete every message and every group of this layer (its prefix), nothing else."""

    @abstractmethod
    def close(self) -> None:
        """Give back connections and wake whoever waits; the layer can be used again after it."""
