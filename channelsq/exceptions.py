"""Every exception of channelsq.

::

    ChannelsqError                     base of all of them
    ├── InvalidChannelLayerError       a CHANNEL_LAYERS entry cannot be used (ImproperlyConfigured, ValueError)
    ├── InvalidRouting                 a routing cannot be read (ImproperlyConfigured, ValueError)
    ├── InvalidSessionEngine           a session engine cannot do what is asked (ImproperlyConfigured, ValueError)
    ├── ChannelLayerError              a layer could not do what it was asked
    │   ├── ChannelFull                the channel is at its capacity
    │   ├── MessageTooLarge            the message is over message_size_limit (ValueError)
    │   ├── ChannelNotLocal            a ``!`` channel of another process was asked for (ValueError)
    │   └── BrokerUnavailable          the broker or the groups' Redis does not answer (ConnectionError)
    ├── ConsumeLater                   raised by a consumer: hand me this message again later
    ├── ResponseLater                  raised by a view or consumer: somebody else answers
    ├── RequestTimeout                 an HTTP body did not arrive in time
    ├── RequestAborted                 the client went away while its body was read
    ├── RequestIncomplete              a part of an HTTP body was lost
    ├── SendNotAvailableOnDemultiplexer
    ├── DenyConnection                 raised by a consumer: refuse the WebSocket handshake
    │   └── InvalidToken               the handshake's token opens no socket
    └── ChannelSocketException         raised by a consumer: do something to the socket
        ├── WebsocketCloseException    close the WebSocket with a code
        └── BadFrame                   a frame is not what its consumer takes (ValueError)

What the second half of them does, and where each may be raised, is in docs/exceptions.md.

A wrong *type or name* (a channel called ``"a b"``, a message that is no dict) is
always a plain :class:`TypeError`, as the ASGI channel-layer specification asks.
"""

from __future__ import annotations

import logging
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from channelsq.core.contracts import AnyMessage
from channelsq.core.logs import LogLimit
from channelsq.core.names import WEBSOCKET_CONNECT, WEBSOCKET_DISCONNECT, WEBSOCKET_RECEIVE

__all__ = [
    "BadFrame",
    "BrokerUnavailable",
    "ChannelFull",
    "ChannelLayerError",
    "ChannelNotLocal",
    "ChannelSocketException",
    "ChannelsqError",
    "ConsumeLater",
    "DenyConnection",
    "InvalidChannelLayerError",
    "InvalidRouting",
    "InvalidSessionEngine",
    "InvalidToken",
    "MessageTooLarge",
    "RequestAborted",
    "RequestIncomplete",
    "RequestTimeout",
    "ResponseLater",
    "SendNotAvailableOnDemultiplexer",
    "WebsocketCloseException",
]

logger = logging.getLogger("channelsq.worker")

_WEBSOCKET_CHANNELS = frozenset({WEBSOCKET_CONNECT, WEBSOCKET_RECEIVE, WEBSOCKET_DISCONNECT})


class ChannelsqError(Exception):
    """Base of every exception that channelsq raises on its own account."""


class InvalidChannelLayerError(ChannelsqError, ImproperlyConfigured, ValueError):
    """An entry of ``CHANNEL_LAYERS`` is missing or cannot be turned into a layer."""


class InvalidRouting(ChannelsqError, ImproperlyConfigured, ValueError):
    """A routing, or something in it, cannot be read."""


class InvalidSessionEngine(ChannelsqError, ImproperlyConfigured, ValueError):
    """``SESSION_ENGINE`` or ``CHANNEL_SESSION_ENGINE`` cannot keep the session that was to be kept."""


class ChannelLayerError(ChannelsqError):
    """A channel layer could not do what it was asked.

    Those with arguments of their own say how they are pickled: they travel from Celery's pool processes.
    """


class ChannelFull(ChannelLayerError):
    """The channel holds as many unread messages as its capacity allows; the message was not sent."""

    def __init__(self, channel: str = "", capacity: int | None = None) -> None:
        self.channel = channel
        self.capacity = capacity
        limit = "" if capacity is None else f" ({capacity} messages)"
        super().__init__(f"channel {channel!r} is at its capacity{limit}; the message was not sent")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.channel, self.capacity)


class MessageTooLarge(ChannelLayerError, ValueError):
    """The packed message is over the layer's ``message_size_limit`` (bytes); it was not sent."""

    def __init__(self, size: int = 0, limit: int = 0) -> None:
        self.size = size
        self.limit = limit
        super().__init__(
            f"the message takes {size} bytes, over the layer's message_size_limit of {limit}; "
            "send it in parts or raise message_size_limit in CHANNEL_LAYERS"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.size, self.limit)


class ChannelNotLocal(ChannelLayerError, ValueError):
    """A process-specific (``!``) channel was to be read by a process that does not own it."""

    def __init__(self, channel: str) -> None:
        self.channel = channel
        super().__init__(
            f"channel {channel!r} belongs to another process; a process can only read "
            "'!' channels that its own new_channel() made"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.channel,)


class BrokerUnavailable(ChannelLayerError, ConnectionError):
    """The broker (or the Redis that holds the groups) cannot be reached; nothing was sent."""

    def __init__(self, url: str, reason: object) -> None:
        self.url = url
        self.reason = str(reason)
        super().__init__(
            f"no connection to {url}: {reason}; start it, or correct the URL in "
            "CHANNEL_LAYERS['default']['CONFIG'] (the demo project reads REDIS_URL)"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.url, self.reason)


class ConsumeLater(ChannelsqError):
    """Raised by a consumer to have the message put back on its channel and handed out again later.

    The number of times is bounded (``CONFIG["consume_later_limit"]``, default 10); the wait grows each time.
    """


class ResponseLater(ChannelsqError):
    """Raised by a view or an HTTP consumer: the response is sent later, by somebody else.

    Also ``AsgiRequest.ResponseLater``.  What the consumer had sent goes out, and it counts as done.  Raised where
    there is no HTTP client to answer it is a failure as any other.
    """


class RequestTimeout(ChannelsqError):
    """The rest of an HTTP request's body did not arrive within ``body_receive_timeout`` seconds."""


class RequestAborted(ChannelsqError):
    """The client went away while its request's body was being read."""


class RequestIncomplete(ChannelsqError):
    """A part of an HTTP request's body was lost on the way, and the interface server could not send it again.

    Django's views do not run on such a request; its client gets 503.
    """


class SendNotAvailableOnDemultiplexer(ChannelsqError):
    """``WebsocketDemultiplexer.send`` was called; a demultiplexer sends through its multiplexer."""


class DenyConnection(ChannelsqError):
    """Raised in a ``websocket.connect`` consumer: the handshake is refused with HTTP 403.

    What the consumer had sent goes out before; if that opened the socket, it is closed instead.
    """

    def run(self, message: AnyMessage) -> None:
        """Refuse the handshake that ``message`` is about.

        Raises:
            ValueError: it is no ``websocket.connect`` message, or has nobody to refuse.
        """
        if message.channel.name != WEBSOCKET_CONNECT or message.reply_channel is None:
            raise ValueError(
                f"DenyConnection was raised on {message.channel.name!r}; "
                "it can only be raised from a websocket.connect consumer"
            )
        message.reply_channel.send({"close": True})


class InvalidToken(DenyConnection):
    """The token of a handshake opens no socket: it has expired, say, or was not made here.  The text says which."""


class ChannelSocketException(ChannelsqError):
    """Base of exceptions that a consumer raises to act on the socket it serves.

    The worker catches it, lets out what the consumer had sent before, and calls :meth:`run`.
    """

    def run(self, message: AnyMessage) -> None:
        """Act on the client that ``message`` came from; ``message.reply_channel`` is its socket."""
        raise NotImplementedError


class WebsocketCloseException(ChannelSocketException):
    """Raised in a consumer that serves a WebSocket, on whichever channel: the socket is closed with ``code``.

    Before the socket was accepted it is refused with HTTP 403, as there is nobody yet who could read a code.

    Args:
        code: 1000 or 3000-4999 (RFC 6455, section 7.4.2, and the WebSocket API), or None for 1000.
        reason: tells the client why; cut to 123 bytes.

    Raises:
        ValueError: for any other code.
    """

    def __init__(self, code: int | None = None, reason: str = "") -> None:
        if code is not None and (
            isinstance(code, bool) or not isinstance(code, int) or not (code == 1000 or 3000 <= code <= 4999)
        ):
            raise ValueError(f"{code!r} is not a close code that an application may send; use 1000 or 3000-4999")
        self.code = code
        self.reason = reason
        super().__init__(code, reason)

    def run(self, message: AnyMessage) -> None:
        """Close the socket that ``message`` came from.

        Raises:
            ValueError: it came from no WebSocket: neither it nor its reply channel is one's.
        """
        reply_channel = message.reply_channel
        if reply_channel is None or not (
            message.channel.name in _WEBSOCKET_CHANNELS or reply_channel.name.startswith("websocket.")
        ):
            raise ValueError(
                f"WebsocketCloseException was raised on {message.channel.name!r} with the reply channel "
                f"{None if reply_channel is None else reply_channel.name!r}; "
                "it can only be raised from a websocket consumer"
            )
        content: dict[str, Any] = {"close": True if self.code is None else self.code}
        reply_channel.send({**content, "reason": self.reason} if self.reason else content)


class BadFrame(ChannelSocketException, ValueError):
    """A client sent a frame that its consumer does not take: that is noted in the log.

    Args:
        reason: what is wrong with it, without what it says; the client is told if the socket is closed.
        code: the socket is closed with this code (RFC 6455, section 7.4.1): 1007 for what cannot be read, 1003 for a
            kind that is not taken.  None if the socket stays open, for what can be read and means nothing here: a page
            that was loaded before a deploy would send it again on its next socket.
    """

    def __init__(self, reason: str, code: int | None = 1007) -> None:
        self.reason = reason
        self.code = code
        super().__init__(reason, code)

    def __str__(self) -> str:
        return self.reason

    def run(self, message: AnyMessage) -> None:
        """Close the socket that ``message`` came from, if there is one and it is not to stay open."""
        reply_channel = message.reply_channel
        name = "" if reply_channel is None else reply_channel.name
        if self.code is None:
            _log_ignored(self.reason, name, message.channel.name)
            return
        logger.info(
            "%s: closed with %d, a bad frame on %s: %s", name or "?", self.code, message.channel.name, self.reason,
            extra={"action": "bad_frame", "connection": name, "channel": message.channel.name},
        )  # fmt: skip
        if reply_channel is not None:
            reply_channel.send({"close": self.code, "reason": self.reason})


_ignored = 0

# A client may send many such frames.
_ignored_frames = LogLimit()


def _log_ignored(reason: str, connection: str, channel: str) -> None:
    global _ignored
    _ignored += 1
    if not _ignored_frames.allows():
        return
    logger.warning(
        "%s: a frame on %s was ignored: %s (%d ignored by this process so far)",
        connection or "?", channel, reason, _ignored,
        extra={"action": "frame_ignored", "connection": connection, "channel": channel},
    )  # fmt: skip
