"""Whose turn it is on one socket, for consumers that are to run in the order of their messages.

The interface server hands out a socket's messages one after another, so they come in order by themselves.  This
is for those that do not: from routes with ``ordered=False``, from other senders, and made by hand.

What is noted is the next ``order`` of each socket, in a session of its own.  Only the consumer whose turn it is
writes it, and it never goes back.  A message that comes early waits on the socket's wait channel, from which whoever
has finished takes it back.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any

from channelsq import conf
from channelsq.exceptions import ChannelFull, ConsumeLater
from channelsq.message import Message
from channelsq.session_support.session_stores import ChannelSession, session_for_reply_channel

logger = logging.getLogger("channelsq.ordering")

#: Message key: the channel that a waiting message goes back to.
ORIGINAL_CHANNEL = "original_channel"

#: Message key of a reminder: the order that its socket waited for when it was sent.
MISSING = "channelsq.missing"

#: Message key: those before it are given up, so it is handled whatever is noted.
LET_THROUGH = "channelsq.let_through"

#: Where Channels 1 kept its count in the channel session; applications set it there to skip what will not come.
CHANNELS_1_COUNT = "__channels_next_order"

_NEXT = "next"

#: Reply channels of sockets that an interface server holds.
_SOCKET = re.compile(r"websocket\.send\.[^!]+!")


def wait_channel_name(reply_channel: str) -> str:
    """The name of the channel on which early messages of a socket wait.

    Args:
        reply_channel: the name of the socket's reply channel.
    """
    # Any process may read it, so it is no "!" channel as the reply channel is.
    return f"__wait__.{reply_channel.replace('!', '?')}"


def requeue_messages(message: Message) -> None:
    """Put what waits for the socket of ``message`` back on the channels that it came from.

    Raises:
        ChannelFull: one of those has no room; what could not be put back waits on.
    """
    for waiting in _waiting(message):
        _put_back(message, waiting)


def _waiting(message: Message) -> Iterator[dict[str, Any]]:
    """Take one after another off the wait channel."""
    wait_channel = wait_channel_name(_reply_channel(message))
    while True:
        _, content = message.channel_layer.receive([wait_channel])
        if content is None:
            return
        yield content


def _put_back(message: Message, waiting: dict[str, Any]) -> None:
    """Send what waited to where it came from; if there is no room it waits on, and ChannelFull is raised."""
    content = {**waiting}
    channel = str(content.pop(ORIGINAL_CHANNEL))
    try:
        message.channel_layer.send(channel, content)
    except ChannelFull:
        message.channel_layer.send(wait_channel_name(_reply_channel(message)), waiting)
        raise


def _reply_channel(message: Message) -> str:
    assert message.reply_channel is not None
    return message.reply_channel.name


def _order_of(waiting: dict[str, Any]) -> int:
    return int(waiting["order"])


class Turns:
    """The order of one socket's messages.

    Args:
        message: one of them; it has a reply channel.
    """

    def __init__(self, message: Message) -> None:
        self.message = message
        self._session = self._open()
        #: The order that is to be handled next.
        self.noted = self._read()

    def _open(self) -> ChannelSession:
        return session_for_reply_channel(f"{_reply_channel(self.message)}.order")

    def _read(self) -> int:
        noted = self._session.get(_NEXT)
        if noted is not None:
            return int(noted)
        # An interface server hands out a socket's frames once the socket is accepted, so if nothing is noted the
        # connect consumer is not decorated, and is past.
        return 1 if self._is_socket else 0

    @property
    def _is_socket(self) -> bool:
        return _SOCKET.match(_reply_channel(self.message)) is not None

    def begin(self, order: int) -> None:
        """The message of ``order`` is about to be handled."""
        if order == 0 and self._is_socket and _NEXT not in self._session:
            self._note(0)  # a connect consumer that accepts at once may be overtaken while it still runs

    def passed(self, order: int) -> None:
        """The message of ``order`` was handled: let the next one come."""
        # Others may have moved it on: this one may have been given up, or be in two workers' hands.
        self._session = self._open()
        self.noted = self._read()
        if order >= self.noted:
            self._note(order + 1)
        try:
            self._requeue_due()
        except ChannelFull as error:
            self._log_full(error)

    def _note(self, order: int) -> None:
        self._session[_NEXT] = self.noted = order
        self._session.save()

    def _requeue_due(self) -> None:
        """Put back those whose turn it is.  The others wait on, or each would be handled in vain once a turn."""
        while True:
            noted = self.noted
            due: list[dict[str, Any]] = []
            later: list[dict[str, Any]] = []
            try:
                for waiting in _waiting(self.message):
                    (later if _order_of(waiting) > noted else due).append(waiting)
                    if _order_of(waiting) == noted:
                        break
            finally:
                for waiting in later:
                    self._wait_on(waiting)
            for waiting in due:
                _put_back(self.message, waiting)
            if not later:
                return
            # Who has moved it on meanwhile did not find what was held here.
            self._session = self._open()
            self.noted = self._read()
            if self.noted == noted:
                return

    def _wait_on(self, waiting: dict[str, Any]) -> None:
        layer = self.message.channel_layer
        try:
            layer.send(wait_channel_name(_reply_channel(self.message)), waiting)
        except ChannelFull:  # others came meanwhile
            layer.send(waiting[ORIGINAL_CHANNEL], {k: v for k, v in waiting.items() if k != ORIGINAL_CHANNEL})

    def _log_full(self, error: ChannelFull) -> None:
        logger.warning(
            "%s: what waited stays where it is until its reminder: %s", _reply_channel(self.message), error,
            extra={"action": "order_requeue_full", "channel": self.message.channel_name},
        )  # fmt: skip

    @property
    def _wait(self) -> float:
        """Seconds until a reminder; what waits must not expire before."""
        expiry: float = self.message.channel_layer.expiry
        return min(conf.ordering_wait(), expiry / 2)

    def park(self) -> None:
        """Let the message wait until those before it have been handled, or are taken for lost.

        Raises:
            ConsumeLater: as many messages wait as their channel holds.
        """
        message, layer = self.message, self.message.channel_layer
        # Without its order nobody takes it for the message itself, nor reports that one as done.
        reminder = {**message.content, MISSING: self.noted}
        del reminder["order"]
        try:
            # First: what waits without one could wait for ever.
            layer.send(message.channel_name, reminder, delay=self._wait)
            waiting = {**message.content, ORIGINAL_CHANNEL: message.channel_name}
            layer.send(wait_channel_name(_reply_channel(message)), waiting)
        except ChannelFull as error:
            raise ConsumeLater from error
        if self._was_moved_on():
            # Who did it may have looked at the wait channel before this message was there.
            try:
                requeue_messages(message)
            except ChannelFull as error:
                self._log_full(error)

    def _was_moved_on(self) -> bool:
        before = self.noted
        self._session = self._open()
        self.noted = self._read()
        own: ChannelSession | None = getattr(self.message, "channel_session", None)
        session = session_for_reply_channel(_reply_channel(self.message)) if own is None else own
        given = int(session.load().get(CHANNELS_1_COUNT, 0))
        if given > self.noted:
            self._note(given)
        return self.noted != before

    def remind(self) -> None:
        """The message is a reminder: if nothing was handled since it was sent, give up what is waited for."""
        waiting = sorted(_waiting(self.message), key=_order_of)
        if waiting and self.noted == self.message[MISSING] and _order_of(waiting[0]) > self.noted:
            self._give_up(_order_of(waiting[0]))
            # A session store that forgets would have it wait again and again.
            waiting[0][LET_THROUGH] = True
        # All of them: their places in the wait channel expire, too.
        for content in waiting:
            try:
                _put_back(self.message, content)
            except ChannelFull as error:
                self._log_full(error)

    def _give_up(self, first: int) -> None:
        logger.warning(
            "%s: message %d was waited for in vain for %g s; those that wait are handled now, from %d on",
            _reply_channel(self.message), self.noted, self._wait, first,
            extra={"action": "order_given_up", "channel": self.message.channel_name},
        )  # fmt: skip
        self._note(first)
