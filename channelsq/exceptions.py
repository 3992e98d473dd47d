"""Every exception of channelsq.

::

    ChannelsqError                     base of all of them
    ├── InvalidChannelLayerError       a CHANNEL_LAYERS entry cannot be used (ImproperlyConfigured, ValueError)
    ├── InvalidRouting                 a routing cannot be read (ImproperlyConfigured, ValueError)
    ├── InvalidSessionEngine           a session engine does not support the request (ImproperlyConfigured, ValueError)
    ├── ChannelLayerError              a layer could not do what was requested
    │   ├── ChannelFull                the channel is at its capacity
    │   ├── MessageTooLarge            the message is over message_size_limit (ValueError)
    │   ├── ChannelNotLocal            a ``!`` channel belongs to another process (ValueError)
    │   └── BrokerUnavailable          the broker or the groups' Redis does not answer (ConnectionError)
    ├── InvalidTicket                  a ticket of a live task or page is invalid, or has expired
    ├── PublicError                    raised by a live task: its text is shown to the task's audience
    ├── ConsumeLater                   raised by a consumer: redeliver this message later
    ├── ResponseLater                  raised by a view or consumer: the response is sent elsewhere
    ├── RequestTimeout                 an HTTP body did not arrive in time
    ├── RequestAborted                 the client went away while its body was read
    ├── RequestIncomplete              a part of an HTTP body was lost
    ├── SendNotAvailableOnDemultiplexer
    ├── DenyConnection                 raised by a consumer: refuse the WebSocket handshake
    │   └── InvalidToken               the handshake's token is invalid
    └── ChannelSocketException         raised by a consumer: act on the socket
        ├── WebsocketCloseException    close the WebSocket with a code
        └── BadFrame                   the consumer cannot read a frame (ValueError)

docs/reference/exceptions.md describes the effects of the second half, and where each may be raised.

A wrong *type or name* (a channel called ``"a b"``, a message that is not a dict) is always a plain :class:`TypeError`,
as the ASGI channel-layer specification requires.
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
    "InvalidTicket",
    "InvalidToken",
    "MessageTooLarge",
    "PublicError",
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
    """Base of every exception that channelsq itself raises."""


class InvalidChannelLayerError(ChannelsqError, ImproperlyConfigured, ValueError):
    """An entry of ``CHANNEL_LAYERS`` is missing or cannot be turned into a layer."""


class InvalidRouting(ChannelsqError, ImproperlyConfigured, ValueError):
    """A routing, or something in it, cannot be read."""


class InvalidSessionEngine(ChannelsqError, ImproperlyConfigured, ValueError):
    """``SESSION_ENGINE`` or ``CHANNEL_SESSION_ENGINE`` cannot keep the requested session."""


class InvalidTicket(ChannelsqError):
    """A ticket of a live task or page is invalid, or has expired.

    Args:
        text: the reason.
        expired: whether it was valid once.
    """

    def __init__(self, text: str, *, expired: bool = False) -> None:
        super().__init__(text)
        self.expired = expired


class PublicError(ChannelsqError):
    """The text of this error is shown to the audience of the live task that raises it.

    Other exceptions are reported as "The task failed.", because their texts may contain secrets.
    """


class ChannelLayerError(ChannelsqError):
    """A channel layer could not do what was requested.

    Subclasses with their own arguments define how they are pickled: they travel from Celery's pool processes.
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
    """A process tried to read a process-specific (``!``) channel of another process."""

    def __init__(self, channel: str) -> None:
        self.channel = channel
        super().__init__(
            f"channel {channel!r} belongs to another process; a process can only read "
            "'!' channels that its own new_channel() made"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.channel,)


class BrokerUnavailable(ChannelLayerError, ConnectionError):
    """The broker (or the Redis that holds the groups) cannot be reached; nothing was sent.

    Args:
        url: the server, without a password.
        reason: what happened.
        remedy: what the operator can do.
        group: the group that is on this one of several servers; None if the failure concerns no single group.
    """

    def __init__(self, url: str, reason: object, remedy: str = "", group: str | None = None) -> None:
        self.url = url
        self.reason = str(reason)
        self.group = group
        self.remedy = remedy or (
            "start it, or correct the URL in CHANNEL_LAYERS['default']['CONFIG'] (the demo project reads REDIS_URL)"
        )
        what = "" if group is None else f", which has the group {group!r}"
        super().__init__(f"no connection to {url}{what}: {reason}; {self.remedy}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.url, self.reason, self.remedy, self.group)


class ConsumeLater(ChannelsqError):
    """Raised by a consumer to put the message back on its channel for a later redelivery.

    The number of times is limited (``CONFIG["consume_later_limit"]``, default 10); the wait grows each time.
    """


class ResponseLater(ChannelsqError):
    """Raised by a view or an HTTP consumer when another part of the application sends the response later.

    Also available as ``AsgiRequest.ResponseLater``.  The consumer's earlier sends leave, and it counts as done.
    Without an HTTP client it is a failure like any other exception.
    """


class RequestTimeout(ChannelsqError):
    """The rest of an HTTP request's body did not arrive within ``body_receive_timeout`` seconds."""


class RequestAborted(ChannelsqError):
    """The client disconnected while its request's body was being read."""


class RequestIncomplete(ChannelsqError):
    """A part of an HTTP request's body was lost on the way, and the interface server could not send it again.

    Django's views do not run on such a request; its client gets 503.
    """


class SendNotAvailableOnDemultiplexer(ChannelsqError):
    """``WebsocketDemultiplexer.send`` was called; a demultiplexer sends through its multiplexer."""


class DenyConnection(ChannelsqError):
    """Raised in a ``websocket.connect`` consumer to refuse the handshake with HTTP 403.

    The consumer's earlier sends leave first; if they opened the socket, it is closed instead.
    """

    def run(self, message: AnyMessage) -> None:
        """Refuse the handshake of ``message``.

        Raises:
            ValueError: the message is not from ``websocket.connect``, or has no reply channel.
        """
        if message.channel.name != WEBSOCKET_CONNECT or message.reply_channel is None:
            raise ValueError(
                f"DenyConnection was raised on {message.channel.name!r}; "
                "it can only be raised from a websocket.connect consumer"
            )
        message.reply_channel.send({"close": True})


class InvalidToken(DenyConnection):
    """The token of a handshake is invalid, for example expired or forged; the text has the reason."""


class ChannelSocketException(ChannelsqError):
    """Base of exceptions that a consumer raises to act on its socket.

    The worker catches it, sends the consumer's earlier sends, and calls :meth:`run`.
    """

    def run(self, message: AnyMessage) -> None:
        """Act on the client that ``message`` came from; ``message.reply_channel`` is its socket."""
        raise NotImplementedError


class WebsocketCloseException(ChannelSocketException):
    """Raised in a consumer of a message from a WebSocket, on any channel, to close the socket with ``code``.

    Before the accept the handshake is refused with HTTP 403, as the client cannot read a code yet.
    Args:
        code: 1000 or 3000-4999 (RFC 6455, section 7.4.2, and the WebSocket API), or None for 1000.
        reason: the reason for the client; cut to 123 bytes.

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
            ValueError: neither its channel nor its reply channel belongs to a WebSocket.
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
    """A client sent a frame that its consumer cannot read; the worker logs it.

    Args:
        reason: the problem, without the frame's content; the client gets it if the socket is closed.
        code: the close code of the socket (RFC 6455, section 7.4.1): 1007 for a frame that cannot be decoded, 1003 for
            an unsupported kind.  None keeps the socket open, for a frame that can be decoded but has no meaning here: a
            page that was loaded before a deploy would send it again on its next socket.
    """

    def __init__(self, reason: str, code: int | None = 1007) -> None:
        self.reason = reason
        self.code = code
        super().__init__(reason, code)

    def __str__(self) -> str:
        return self.reason

    def run(self, message: AnyMessage) -> None:
        """Close the socket of ``message``, unless it stays open or the message has none."""
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
