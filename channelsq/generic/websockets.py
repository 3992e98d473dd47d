"""Consumers of WebSockets as classes, and several of them on one socket.

A frame on a socket with several consumers is JSON of the form ``{"stream": name, "payload": {…}}``, both ways.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from django.core.serializers.json import DjangoJSONEncoder

from channelsq.auth import (
    channel_and_http_session_user_from_http,
    channel_session_user_from_http,
    channel_session_user_from_token,
)
from channelsq.channel import Channel, Group
from channelsq.core.names import is_short_name
from channelsq.exceptions import BadFrame, DenyConnection, SendNotAvailableOnDemultiplexer
from channelsq.generic.base_consumer import BaseConsumer, overridable
from channelsq.message import Message
from channelsq.sessions import ordered_as_declared

__all__ = [
    "JsonWebsocketConsumer",
    "WebsocketConsumer",
    "WebsocketConsumerDemultiplexer",
    "WebsocketDemultiplexer",
    "WebsocketMultiplexer",
]

logger = logging.getLogger("channelsq.worker")

#: True for a normal closure, or a code (RFC 6455, section 7.4: 1000, or 3000-4999).
Close = bool | int


def _frame(text: Any, data: bytes | None, close: Close) -> dict[str, Any]:
    frame: dict[str, Any] = {"close": close} if close else {}
    if text is not None:
        return {**frame, "text": text}
    if data is not None:
        return {**frame, "bytes": data}
    raise ValueError("there is nothing to send: give text or bytes; to only close a WebSocket, call close()")


class WebsocketConsumer(BaseConsumer):
    """The three events of a WebSocket; override :meth:`connect`, :meth:`receive` and :meth:`disconnect`."""

    method_mapping: ClassVar[Mapping[str, str]] = {
        "websocket.connect": "raw_connect",
        "websocket.receive": "raw_receive",
        "websocket.disconnect": "raw_disconnect",
    }

    #: Whether the browser's user becomes the socket's on connect; implies :attr:`channel_session_user`.
    http_user = False
    #: The same, and ``message.http_session`` is available on every message.
    http_user_and_session = False
    #: Whether the user of the handshake's token becomes the socket's, instead of the browser's; see
    #: :mod:`channelsq.security.tokens`.
    token_user = False
    #: Whether the messages of a socket are handled strictly in order, from any sender.
    strict_ordering = False
    #: The groups that every socket joins.
    groups: ClassVar[Iterable[str] | None] = None

    #: The path of the socket, as in the route.
    path: str

    def get_handler(self, message: Message, **kwargs: Any) -> Callable[..., Any]:
        """Return the method for a message, decorated according to the class attributes.

        Raises:
            ValueError: ``slight_ordering`` is set, which is no longer needed.
        """
        self.path = message.get("path")
        if self.http_user or self.http_user_and_session:
            self.channel_session_user = True
        handler = super().get_handler(message, **kwargs)
        if self.token_user:
            handler = channel_session_user_from_token(handler)
        elif self.http_user_and_session:
            handler = channel_and_http_session_user_from_http(handler)
        elif self.http_user:
            handler = channel_session_user_from_http(handler)
        return ordered_as_declared(self, handler)

    @overridable
    def connection_groups(self, *args: Any, **kwargs: Any) -> Iterable[str]:
        """Return the names of the groups that this socket joins, :attr:`groups` if not overridden.

        Args:
            kwargs: the named groups of the route's filters.
        """
        return self.groups or []

    @overridable
    def raw_connect(self, message: Message, **kwargs: Any) -> None:
        """Join the groups, then call :meth:`connect`.

        Raises:
            DenyConnection: the client's URL yields no valid group name.
        """
        groups = self._connection_groups(**kwargs)
        if groups is None:
            logger.info(
                "%s: refused, %r yields no valid names of groups", type(self).__name__, self.path,
                extra={"action": "bad_group_name", "connection": _client(message).name},
            )  # fmt: skip
            raise DenyConnection("its URL yields no valid names of groups")
        for group in groups:
            group.add(_client(message))
        self.connect(message, **kwargs)

    def _connection_groups(self, **kwargs: Any) -> list[Group] | None:
        """Return the groups; None if the client's URL yields invalid names, which the route's filters let pass."""
        names = self.connection_groups(**kwargs)
        if isinstance(names, (str, bytes)):
            raise TypeError(f"the groups of {type(self).__name__} must be a list of names, not {names!r}")
        try:
            return [Group(name, channel_layer=self.message.channel_layer) for name in names]
        except TypeError:
            if all(is_short_name(value) for value in kwargs.values() if isinstance(value, str)):
                raise
            return None

    # Overrides may name the route's arguments and leave others out: type checkers accept ``*args: Any, **kwargs: Any``
    # for any signature.

    @overridable
    def connect(self, message: Message, *args: Any, **kwargs: Any) -> None:
        """Accept the socket.  An override accepts it, refuses it or raises DenyConnection."""
        _client(message).send({"accept": True})

    @overridable
    def raw_receive(self, message: Message, **kwargs: Any) -> None:
        """Pass the frame of the message to :meth:`receive`."""
        if message.get("text") is not None:
            self.receive(text=message["text"], **kwargs)
        else:
            self.receive(bytes=message["bytes"], **kwargs)

    @overridable
    def receive(self, *args: Any, **kwargs: Any) -> None:
        """Handle a frame; does nothing by default.

        Args:
            args: none.
            kwargs: ``text`` or ``bytes``, the frame's content, and the named groups of the route's filters.
        """

    def send(self, text: str | None = None, bytes: bytes | None = None, close: Close = False) -> None:  # noqa: A002
        """Send a frame to the client.

        Args:
            text: a text frame.
            bytes: a binary frame, if there is no text.
            close: close the socket after it: True, or a code.

        Raises:
            ValueError: there is neither text nor bytes.
            SendNotAvailableOnDemultiplexer: the consumer is one of several on its socket.
        """
        if "multiplexer" in self.kwargs:
            raise SendNotAvailableOnDemultiplexer(
                f"{type(self).__name__} shares its socket with other consumers: send by the argument multiplexer, "
                "multiplexer.send(payload)"
            )
        _client(self.message).send(_frame(text, bytes, close))

    @classmethod
    def group_send(
        cls,
        name: str,
        text: str | None = None,
        bytes: bytes | None = None,  # noqa: A002
        close: Close = False,
    ) -> None:
        """Send a frame to every socket of the group ``name``; arguments and ValueError as in :meth:`send`."""
        Group(name).send(_frame(text, bytes, close))

    def close(self, status: Close = True, reason: str = "") -> None:
        """Close the socket.

        Args:
            status: True, or a code.
            reason: the reason for the client; cut to 123 bytes.
        """
        _client(self.message).send({"close": status, "reason": reason} if reason else {"close": status})

    @overridable
    def raw_disconnect(self, message: Message, **kwargs: Any) -> None:
        """Leave the groups, then call :meth:`disconnect`."""
        for group in self._connection_groups(**kwargs) or ():
            group.discard(_client(message))
        self.disconnect(message, **kwargs)

    @overridable
    def disconnect(self, message: Message, *args: Any, **kwargs: Any) -> None:
        """Handle the end of the socket; does nothing by default."""


def _client(message: Message) -> Channel:
    if message.reply_channel is None:
        raise ValueError(f"{message!r} has no reply_channel, and so no client")
    return message.reply_channel


class JsonWebsocketConsumer(WebsocketConsumer):
    """A WebSocket whose frames are JSON; override :meth:`encode_json` and :meth:`decode_json` for another codec."""

    @overridable
    def raw_receive(self, message: Message, **kwargs: Any) -> None:
        """Decode the frame for :meth:`receive`, or call :meth:`bad_frame` if it is binary or not JSON."""
        if message.get("text") is None:
            self.bad_frame(BadFrame("binary, where text is expected", 1003), **kwargs)
            return
        try:
            content = self.decode_json(message["text"])
        except (ValueError, RecursionError):  # their texts may quote the client's data
            self.bad_frame(BadFrame("text that cannot be decoded"), **kwargs)
            return
        self.receive(content, **kwargs)

    @overridable
    def bad_frame(self, error: BadFrame, **kwargs: Any) -> None:
        """Raise ``error`` for a frame that this consumer cannot read.

        :class:`channelsq.exceptions.BadFrame` then logs it, and closes the socket if it has a code.  An override may
        answer in another way, or do nothing, which keeps the socket open.

        Args:
            error: the problem of the frame.
            kwargs: the named groups of the route's filters.

        Raises:
            BadFrame: always.
        """
        raise error

    @overridable
    def receive(self, content: Any, *args: Any, **kwargs: Any) -> None:
        """Handle a frame; does nothing by default.

        Args:
            content: the frame's content, decoded.
            args: none.
            kwargs: the named groups of the route's filters; ``multiplexer`` on a shared socket.
        """

    def send(self, content: Any, close: Close = False) -> None:  # type: ignore[override]
        """Send ``content`` to the client; ``close`` and errors as in :meth:`WebsocketConsumer.send`."""
        super().send(text=self.encode_json(content), close=close)

    @classmethod
    def decode_json(cls, text: str) -> Any:
        """Return the content of a frame."""
        return json.loads(text)

    @classmethod
    def encode_json(cls, content: Any) -> str:
        """Return the text of a frame."""
        return json.dumps(content)

    @classmethod
    def group_send(cls, name: str, content: Any, close: Close = False) -> None:  # type: ignore[override]
        """Send ``content`` to every socket of the group ``name``; ``close`` as in :meth:`send`."""
        WebsocketConsumer.group_send(name, text=cls.encode_json(content), close=close)


class WebsocketMultiplexer:
    """The sender of one stream of a socket; consumers on shared sockets get it as ``multiplexer``.

    Args:
        stream: the stream's name.
        reply_channel: the socket's channel.
    """

    #: The stream's name.
    stream: str
    #: The socket's channel.
    reply_channel: Channel

    def __init__(self, stream: str, reply_channel: Channel) -> None:
        self.stream = stream
        self.reply_channel = reply_channel

    def send(self, payload: Any) -> None:
        """Send ``payload`` to the client, on this stream."""
        self.reply_channel.send(self.encode(self.stream, payload))

    @classmethod
    def encode_json(cls, content: dict[str, Any]) -> str:
        """Return the text of a frame; dates, decimals and UUIDs are written as Django writes them."""
        return json.dumps(content, cls=DjangoJSONEncoder)

    @classmethod
    def encode(cls, stream: str, payload: Any) -> dict[str, Any]:
        """Return the message for a client: ``payload`` on ``stream``."""
        return {"text": cls.encode_json({"stream": stream, "payload": payload})}

    @classmethod
    def group_send(cls, name: str, stream: str, payload: Any, close: Close = False) -> None:
        """Send ``payload`` on ``stream`` to every socket of the group ``name``; ``close`` closes them afterwards."""
        message = cls.encode(stream, payload)
        if close:
            message["close"] = close
        Group(name).send(message)


class WebsocketDemultiplexer(JsonWebsocketConsumer):
    """Several consumers on one socket, each with a stream.

    A frame goes to the consumer of its stream; ``connect`` and ``disconnect`` go to all.  Each consumer gets
    ``multiplexer`` besides the route's arguments, and the payload as its frame.
    """

    #: The consumer of each stream: a class, or a function such as ``SomeBinding.consumer``.
    consumers: ClassVar[Mapping[str, Callable[..., Any]]] = {}

    #: The class that writes frames.
    multiplexer_class: ClassVar[type[WebsocketMultiplexer]] = WebsocketMultiplexer

    @overridable
    def receive(self, content: Any, *args: Any, **kwargs: Any) -> None:
        """Pass a frame to the consumer of its stream, or to :meth:`bad_frame`.

        JSON without a consumer, or of another form, leaves the socket open: its other streams go on.
        """
        if not isinstance(content, dict) or "stream" not in content or "payload" not in content:
            self.bad_frame(BadFrame('not a JSON object with "stream" and "payload"', None), **kwargs)
            return
        stream, payload = content["stream"], content["payload"]
        if not isinstance(stream, str) or stream not in self.consumers:
            self.bad_frame(BadFrame("for an unknown stream", None), **kwargs)
            return
        if not isinstance(payload, dict):
            self.bad_frame(BadFrame(f"its payload on the stream {stream!r} is not a JSON object", None), **kwargs)
            return
        self.message.content["text"] = self.encode_json(payload)
        self._call(stream, self.message, **kwargs)

    def _call(self, stream: str, message: Message, **kwargs: Any) -> None:
        kwargs["multiplexer"] = self.multiplexer_class(stream, _client(message))
        self.consumers[stream](message, **kwargs)

    @overridable
    def connect(self, message: Message, *args: Any, **kwargs: Any) -> None:
        """Accept the socket, and call every consumer."""
        _client(message).send({"accept": True})
        for stream in self.consumers:
            self._call(stream, message, **kwargs)

    @overridable
    def disconnect(self, message: Message, *args: Any, **kwargs: Any) -> None:
        """Call every consumer."""
        for stream in self.consumers:
            self._call(stream, message, **kwargs)

    def send(self, *args: Any, **kwargs: Any) -> None:
        """Raise an error: a frame belongs to a stream.

        Raises:
            SendNotAvailableOnDemultiplexer: always.
        """
        raise SendNotAvailableOnDemultiplexer(
            f"{type(self).__name__}.send: a frame belongs to a stream; its consumer sends it, multiplexer.send(payload)"
        )

    @classmethod
    def group_send(cls, name: str, stream: str, payload: Any, close: Close = False) -> None:  # type: ignore[override]
        """Raise an error: a frame belongs to a stream.

        Raises:
            SendNotAvailableOnDemultiplexer: always.
        """
        raise SendNotAvailableOnDemultiplexer(
            f"{cls.__name__}.group_send: use {cls.multiplexer_class.__name__}.group_send(name, stream, payload)"
        )


#: Another name for :class:`WebsocketDemultiplexer`.
WebsocketConsumerDemultiplexer = WebsocketDemultiplexer
