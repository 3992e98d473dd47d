"""The turns of one socket's messages, for consumers that must run in the order of their messages.

The interface server publishes a socket's messages one after another, so they are in order already.  This module is for
others: from routes with ``ordered=False``, from other senders, and made by hand.

A separate session of each socket stores its next ``order``.  Only the consumer whose turn it is writes it, and it
never decreases.  A message that arrives early waits on the socket's wait channel, from which the consumer that has
finished puts it back.
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

#: Message key: earlier messages are given up, so this one is handled at once.
LET_THROUGH = "channelsq.let_through"

#: The key of Channels 1's count in the channel session; applications set it to skip messages that will not come.
CHANNELS_1_COUNT = "__channels_next_order"

_NEXT = "next"

#: Reply channels of sockets of an interface server.
_SOCKET = re.compile(r"websocket\.send\.[^!]+!")


def wait_channel_name(reply_channel: str) -> str:
    """Return the name of the channel on which early messages of a socket wait.

    Args:
        reply_channel: the name of the socket's reply channel.
    """
    # Any process may read it, so it is not a "!" channel like the reply channel.
    return f"__wait__.{reply_channel.replace('!', '?')}"


def requeue_messages(message: Message) -> None:
    """Put the waiting messages of the socket of ``message`` back on their original channels.

    Raises:
        ChannelFull: one of the channels has no room; the remaining messages wait on.
    """
    for waiting in _waiting(message):
        _put_back(message, waiting)


def _waiting(message: Message) -> Iterator[dict[str, Any]]:
    """Take the messages off the wait channel, one after another."""
    wait_channel = wait_channel_name(_reply_channel(message))
    while True:
        _, content = message.channel_layer.receive([wait_channel])
        if content is None:
            return
        yield content


def _put_back(message: Message, waiting: dict[str, Any]) -> None:
    """Send a waiting message to its original channel; if that is full it waits on, and ChannelFull is raised."""
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


class MessageOrder:
    """The order of one socket's messages.

    Args:
        message: one of them; it has a reply channel.
    """

    def __init__(self, message: Message) -> None:
        self.message = message
        self._session = self._open()
        #: The order of the next message to handle.
        self.noted = self._read()

    def _open(self) -> ChannelSession:
        return session_for_reply_channel(f"{_reply_channel(self.message)}.order")

    def _read(self) -> int:
        noted = self._session.get(_NEXT)
        if noted is not None:
            return int(noted)
        # An interface server publishes a socket's frames only after the accept.  So if nothing is stored, the connect
        # consumer is not decorated, and has ended.
        return 1 if self._is_socket else 0

    @property
    def _is_socket(self) -> bool:
        return _SOCKET.match(_reply_channel(self.message)) is not None

    def begin(self, order: int) -> None:
        """Prepare for the message of ``order``, which is handled next."""
        if order == 0 and self._is_socket and _NEXT not in self._session:
            self._note(0)  # a connect consumer that accepts at once may be overtaken while it still runs

    def passed(self, order: int) -> None:
        """Record that the message of ``order`` was handled, and let the next one run."""
        # Another worker may have advanced the order: this message may have been given up, or run in two workers.
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
        """Put back the messages whose turn it is.  The others wait on; otherwise each would return at every turn."""
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
            # A worker that advanced the order meanwhile did not find the messages held here.
            self._session = self._open()
            self.noted = self._read()
            if self.noted == noted:
                return

    def _wait_on(self, waiting: dict[str, Any]) -> None:
        layer = self.message.channel_layer
        try:
            layer.send(wait_channel_name(_reply_channel(self.message)), waiting)
        except ChannelFull:  # other messages arrived meanwhile
            layer.send(waiting[ORIGINAL_CHANNEL], {k: v for k, v in waiting.items() if k != ORIGINAL_CHANNEL})

    def _log_full(self, error: ChannelFull) -> None:
        logger.warning(
            "%s: the waiting messages stay until their reminder: %s", _reply_channel(self.message), error,
            extra={"action": "order_requeue_full", "channel": self.message.channel_name},
        )  # fmt: skip

    @property
    def _wait(self) -> float:
        """Seconds until a reminder; waiting messages must not expire before."""
        expiry: float = self.message.channel_layer.expiry
        return min(conf.ordering_wait(), expiry / 2)

    def park(self) -> None:
        """Let the message wait until earlier ones have been handled, or count as lost.

        Raises:
            ConsumeLater: the wait channel is full.
        """
        message, layer = self.message, self.message.channel_layer
        # Without its order, the reminder is neither handled as the message itself nor reported as done.
        reminder = {**message.content, MISSING: self.noted}
        del reminder["order"]
        try:
            # The reminder first: a message that waits without one could wait for ever.
            layer.send(message.channel_name, reminder, delay=self._wait)
            waiting = {**message.content, ORIGINAL_CHANNEL: message.channel_name}
            layer.send(wait_channel_name(_reply_channel(message)), waiting)
        except ChannelFull as error:
            raise ConsumeLater from error
        if self._was_moved_on():
            # The worker that advanced the order may have read the wait channel before this message was there.
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
        """Handle a reminder: if no message was handled since it was sent, give up the missing one."""
        waiting = sorted(_waiting(self.message), key=_order_of)
        if waiting and self.noted == self.message[MISSING] and _order_of(waiting[0]) > self.noted:
            self._give_up(_order_of(waiting[0]))
            # With a session store that forgets, it would wait again and again.
            waiting[0][LET_THROUGH] = True
        # All of them: their entries in the wait channel expire, too.
        for content in waiting:
            try:
                _put_back(self.message, content)
            except ChannelFull as error:
                self._log_full(error)

    def _give_up(self, first: int) -> None:
        logger.warning(
            "%s: message %d did not arrive within %g s; the waiting messages are handled now, from %d on",
            _reply_channel(self.message), self.noted, self._wait, first,
            extra={"action": "order_given_up", "channel": self.message.channel_name},
        )  # fmt: skip
        self._note(first)
