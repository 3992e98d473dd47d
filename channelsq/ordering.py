"""Whose turn it is on one socket, for consumers that are to run in the order of their messages.

The interface server hands out a socket's messages one after another, so they come in order by themselves.  This
is for those that do not: from routes with ``ordered=False``, from other senders, and made by hand.

What is noted is the next ``order`` of each socket, in a session of its own.  Only the consumer whose turn it is
writes it, so that no two writes can meet.  A message that comes early waits on the socket's wait channel, from
which whoever has finished takes it back.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from channelsq import conf
from channelsq.exceptions import ChannelFull, ConsumeLater
from channelsq.message import Message
from channelsq.session_stores import ChannelSession, session_for_reply_channel

logger = logging.getLogger("channelsq.ordering")

#: Message key: the channel that a waiting message goes back to.
ORIGINAL_CHANNEL = "original_channel"

#: Message key of a reminder: the order that its socket waited for when it was sent.
MISSING = "channelsq.missing"

_NEXT = "next"


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
    layer = message.channel_layer
    wait_channel = wait_channel_name(_reply_channel(message))
    for waiting in _waiting(message):
        content = {**waiting}
        channel = str(content.pop(ORIGINAL_CHANNEL))
        try:
            layer.send(channel, content)
        except ChannelFull:
            layer.send(wait_channel, waiting)
            raise


def _waiting(message: Message) -> Iterator[dict[str, Any]]:
    """Take one after another off the wait channel."""
    wait_channel = wait_channel_name(_reply_channel(message))
    while True:
        _, content = message.channel_layer.receive([wait_channel])
        if content is None:
            return
        yield content


def _reply_channel(message: Message) -> str:
    assert message.reply_channel is not None
    return message.reply_channel.name


class Turns:
    """The order of one socket's messages.

    Args:
        message: one of them; it has a reply channel.
    """

    def __init__(self, message: Message) -> None:
        self.message = message
        self.session = self._open()
        #: The order that is to be handled next.
        self.noted = int(self.session.get(_NEXT, 0))

    def _open(self) -> ChannelSession:
        return session_for_reply_channel(f"{_reply_channel(self.message)}.order")

    def passed(self, order: int) -> None:
        """The message of ``order`` was handled: let the next one come."""
        if order == self.noted:
            self._note(order + 1)
        self._requeue()

    def _note(self, order: int) -> None:
        self.session[_NEXT] = self.noted = order
        self.session.save()

    def _requeue(self) -> None:
        try:
            requeue_messages(self.message)
        except ChannelFull as error:
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
        if int(self._open().get(_NEXT, 0)) != self.noted:
            # Who moved it on may have looked at the wait channel before this message was there.
            self._requeue()

    def remind(self) -> None:
        """The message is a reminder: if nothing was handled since it was sent, give up what is waited for."""
        if self.noted == self.message[MISSING]:
            waiting = list(_waiting(self.message))
            for content in waiting:
                self.message.channel_layer.send(wait_channel_name(_reply_channel(self.message)), content)
            if waiting:
                first = min(int(content["order"]) for content in waiting)
                self._give_up(first)
        self._requeue()

    def _give_up(self, first: int) -> None:
        logger.warning(
            "%s: message %d was waited for in vain for %g s; those that wait are handled now, from %d on",
            _reply_channel(self.message), self.noted, self._wait, first,
            extra={"action": "order_given_up", "channel": self.message.channel_name},
        )  # fmt: skip
        self._note(first)
