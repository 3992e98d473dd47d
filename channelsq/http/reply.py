"""Response messages to a client, at the client's pace."""

from __future__ import annotations

import logging
import time
from typing import Any

from channelsq.channel import Channel
from channelsq.delivery import shutdown
from channelsq.delivery.attempts import PART, wait_for
from channelsq.exceptions import ChannelFull, ChannelLayerError

logger = logging.getLogger("channelsq.http")


class Reply:
    """One response on its way to the client of ``reply_channel``.

    A long response must not pile up in the interface server, and its producer must learn that the client has left.  So
    some messages carry a ``credit_channel``, and the next message waits until the interface server answers there:
    ``credit`` when it has written all parts so far, ``gone`` when the client has left.

    Args:
        reply_channel: the client's channel.
        credit_bytes: bytes of content between two such messages.
        credit_messages: the same, in messages.
        credit_seconds: the same, in seconds: a slow series of small parts must also notice that the client has left.
        credit_timeout: seconds to wait for the interface server's answer.
        full_timeout: seconds to wait for room on a full reply channel.
        immediately: whether a response of one message leaves at once, and not with the acknowledgement of the request
            if the layer supports that.
    """

    #: Seconds between two tries on a full channel: the first wait, and the longest.
    _WAITS = 0.005, 0.25

    #: Seconds to wait for room for the message that a response failed.
    _FAIL_TIMEOUT = 5.0

    def __init__(
        self,
        reply_channel: Channel,
        *,
        credit_bytes: int,
        credit_messages: int,
        credit_seconds: float,
        credit_timeout: float,
        full_timeout: float,
        immediately: bool = False,
    ) -> None:
        self.reply_channel = reply_channel
        self.immediately = immediately
        self.credit_bytes = credit_bytes
        self.credit_messages = credit_messages
        self.credit_seconds = credit_seconds
        self.credit_timeout = credit_timeout
        self.full_timeout = full_timeout
        #: The number of messages sent.
        self.sent = 0
        #: Whether the last message of the response was sent.
        self.complete = False
        self._credit_channel = ""
        self._restart_credit()

    def _restart_credit(self) -> None:
        self._bytes = self._messages = 0
        self._since = time.monotonic()

    def send(self, content: dict[str, Any]) -> bool:
        """Send one response message; return False if the client has left and the rest is not needed.

        Raises:
            ChannelFull: the reply channel had no room for ``full_timeout`` seconds.
            BrokerUnavailable: the broker does not answer.
            MessageTooLarge: it is over the layer's ``message_size_limit``.
        """
        more = bool(content.get("more_content"))
        if self.reply_channel.attempt is not None:
            content = {**content, PART: self.sent}
        self._bytes += len(content.get("content") or b"")
        self._messages += 1
        wait = more and self._credit_due()
        if wait:
            layer = self.reply_channel.channel_layer
            self._credit_channel = self._credit_channel or layer.new_channel("http.response.credit?")
            content = {**content, "credit_channel": self._credit_channel}
        # The last message costs the worker no wait for the broker.
        self._put(content, self.full_timeout, immediately=more or self.sent > 0 or self.immediately)
        self.sent += 1
        self.complete = not more
        return self._await_credit() if wait else True

    def fail(self) -> None:
        """End a response that cannot continue: with status 500, or, once it has begun, by cutting it off."""
        if self.complete:
            return
        message: dict[str, Any] = {"content": b"", "more_content": False, "abort": True}
        if not self.sent:
            message = {
                "status": 500,
                "headers": [[b"Content-Type", b"text/plain; charset=utf-8"]],
                "content": b"500 Internal Server Error",
                "more_content": False,
            }
        try:
            self._put(message, min(self.full_timeout, self._FAIL_TIMEOUT))
        except ChannelLayerError as error:
            self._log(logging.WARNING, "response_not_ended", "failed and cannot be ended (%s)", error)
        self.complete = True

    def cut(self, reason: str) -> None:
        """Cut off a response that has begun, and log it."""
        self._log(logging.WARNING, "response_cut", "is cut off: %s", reason)
        self.fail()

    def _credit_due(self) -> bool:
        # Never with the first two messages: most responses have no more, and must not wait.
        return self.sent >= 2 and (
            self._bytes >= self.credit_bytes
            or self._messages >= self.credit_messages
            or time.monotonic() - self._since >= self.credit_seconds
        )

    def _put(self, content: dict[str, Any], full_timeout: float, *, immediately: bool = True) -> None:
        wait, longest = self._WAITS
        deadline = time.monotonic() + full_timeout
        layer, sends = self.reply_channel.channel_layer, (self.reply_channel.prepare(content),)
        while True:
            try:
                return layer.dispatch(sends) if immediately else layer.settle(sends)
            except ChannelFull:
                if time.monotonic() + wait > deadline:
                    raise
            time.sleep(wait)
            wait = min(wait * 2, longest)

    def _await_credit(self) -> bool:
        layer = self.reply_channel.channel_layer
        answer = wait_for(layer, self._credit_channel, self.credit_timeout, shutdown.is_over)
        if answer is None and shutdown.is_over():
            raise shutdown.ShuttingDown("the worker is shutting down")
        if answer is None:
            self._log(logging.WARNING, "response_stalled", "was not read for %s s", self.credit_timeout)
            return False
        if answer.get("gone"):
            self._log(logging.INFO, "response_gone", "was not wanted any more: the client left")
            return False
        self._restart_credit()
        return True

    def _log(self, level: int, action: str, text: str, *args: object) -> None:
        logger.log(
            level,
            "the response to %s " + text + "; its producer is closed after %d messages",
            self.reply_channel,
            *args,
            self.sent,
            extra={"action": action, "connection": self.reply_channel.name},
        )
