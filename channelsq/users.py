"""Users as targets of sends: all sockets that a user has open, on every interface server.

With ``CHANNEL_USERS = {"join": True}`` the sockets of a user join the user's group by themselves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, overload

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError

from channelsq import conf
from channelsq.channel import Group
from channelsq.conf import DEFAULT_CHANNEL_LAYER
from channelsq.core import names
from channelsq.delivery.pending import Pending, held_here
from channelsq.layers.wire import codec

if TYPE_CHECKING:
    from channelsq.delayed import DelayedSend
    from channelsq.message import Message

__all__ = ["User"]

#: The prefixes of groups: with a user's primary key, and with a hash of it.
_PLAIN, _HASHED = "channelsq.user.", "channelsq.user-"

#: The prefix of the reply channels of WebSockets.
_SOCKETS = "websocket.send."


class User:
    """All sockets of a user: those that have joined the user's group.

    Args:
        user_or_pk: a user, such as ``request.user`` or ``message.user``, or the primary key of one.
        alias: the entry of ``CHANNEL_LAYERS``.

    Raises:
        TypeError: it is an anonymous or unsaved user, or not a primary key.
        InvalidChannelLayerError: there is no such layer.
    """

    def __init__(self, user_or_pk: Any, alias: str | None = DEFAULT_CHANNEL_LAYER) -> None:
        #: The group behind it; ``group.add(message.reply_channel)`` makes a socket one of the user's.
        self.group = Group(_group_name(user_or_pk), alias)

    def __str__(self) -> str:
        return str(self.group)

    def __repr__(self) -> str:
        return f"User(<{self.group.name}>)"

    @overload
    def send(self, content: dict[str, Any], immediately: bool = False, *, delay: None = None) -> None: ...
    @overload
    def send(self, content: dict[str, Any], immediately: bool = False, *, delay: float) -> DelayedSend: ...

    def send(
        self, content: dict[str, Any], immediately: bool = False, *, delay: float | None = None
    ) -> DelayedSend | None:
        """Send a message to every socket of the user; see :meth:`channelsq.Group.send`."""
        if delay is None:
            self.group.send(content, immediately)
            return None
        return self.group.send(content, immediately, delay=delay)

    def render(
        self,
        template: str | list[str] | tuple[str, ...] | None,
        context: dict[str, Any] | None = None,
        *,
        target: str = "",
        action: str = "",
        using: str | None = None,
        immediately: bool = False,
    ) -> None:
        """Change the user's pages that have ``{% live user %}``; see :meth:`channelsq.Group.render`."""
        self.group.render(template, context, target=target, action=action, using=using, immediately=immediately)

    def sockets(self) -> list[str]:
        """Return the names of the reply channels of the user's sockets.

        Raises:
            BrokerUnavailable: the layer does not answer.
        """
        return sorted(self.group.channel_layer.group_channels(self.group.name))

    def disconnect(self, code: int = 1000, reason: str = "", immediately: bool = False) -> None:
        """Close every socket of the user, after the messages that were sent before.

        Args:
            code: a close code.  With the default the browser library does not connect again; with 1012 it does.
            reason: for the page; cut to 123 bytes.
            immediately: see :meth:`channelsq.Group.send`.

        Raises:
            ValueError: an application cannot send the code.
            TypeError: ``reason`` is not a str.
            BrokerUnavailable: the layer does not answer.
        """
        self.group.send(closing(code, reason), immediately)


def closing(code: int, reason: str = "") -> dict[str, Any]:
    """Return the message that closes a socket; errors as :meth:`User.disconnect`."""
    allowed = code in (1000, *range(1008, 1015)) or 3000 <= code <= 4999 if type(code) is int else False
    if not allowed:
        raise ValueError(f"{code!r} is not a close code: use 1000, 1008 to 1014, or 3000 to 4999")
    if not isinstance(reason, str):
        raise TypeError(f"the reason of a close must be a str, not {reason!r}")
    return {"close": code, "reason": reason} if reason else {"close": code}


def is_user(thing: Any) -> bool:
    """Return whether a thing is a user of Django, logged in or anonymous."""
    return hasattr(thing, "is_authenticated")


def _group_name(user_or_pk: Any) -> str:
    model: Any = get_user_model()
    field = model._meta.pk
    if is_user(user_or_pk):
        if not user_or_pk.is_authenticated:
            raise TypeError("User() takes a user who is logged in, not an anonymous one")
        if not isinstance(user_or_pk, model):  # of an authentication backend with a model of its own
            model, field = type(user_or_pk), user_or_pk._meta.pk
        value = getattr(user_or_pk, field.attname)
    else:
        value = user_or_pk
    try:
        value = None if isinstance(value, bool) else field.to_python(value)
    except (ValidationError, TypeError, ValueError):
        value = None
    if value is None or value == "":
        raise TypeError(f"User() takes a saved user or the primary key of one, not {user_or_pk!r}")
    text = value.hex() if isinstance(value, (bytes, memoryview)) else str(value)
    label = model._meta.label_lower
    try:
        return names.check_group_name(f"{_PLAIN}{label}.{text}")
    except TypeError:  # too long, or with other characters
        return _HASHED + hashlib.sha256(f"{label}.{text}".encode("utf-8", "surrogatepass")).hexdigest()


# -- sockets that join by themselves ---------------------------------------------------------------


def join_later(message: Message, before: Any = None) -> None:
    """Let the socket of a message join the group of ``message.user`` when the consumer has succeeded.

    It does not if the consumer closes the socket, if the user is anonymous, or unless ``CHANNEL_USERS`` says so.  A
    socket joins only then: a message to a group would accept a handshake that the consumer is about to refuse.

    Args:
        message: a message whose ``user`` is set, or will be.
        before: the primary key of the user that the socket had before.
    """
    pending = held_here.get()
    if pending is None or pending.closed or not conf.user_settings().join or not _is_of_socket(message):
        return
    pending.call_before(("channelsq.users", id(message)), _joining(message, before))


def _is_of_socket(message: Message) -> bool:
    channel, reply_channel = message.channel_name, message.reply_channel
    if reply_channel is None or channel == names.WEBSOCKET_DISCONNECT:
        return False
    return channel in (names.WEBSOCKET_CONNECT, names.WEBSOCKET_RECEIVE) or reply_channel.name.startswith(_SOCKETS)


def _joining(message: Message, before: Any) -> Callable[[Pending], None]:
    def join(pending: Pending) -> None:
        user = getattr(message, "user", None)
        channel = message.reply_channel
        if user is None or not user.is_authenticated or _is_closed(pending, channel.name):
            return
        layer = channel.channel_layer
        group = _on(layer, user)
        if before is not None:
            old = _on(layer, before)
            if old.name != group.name:
                old.discard(channel)
        group.add(channel)

    return join


def _on(layer: Any, user_or_pk: Any) -> Group:
    return Group(_group_name(user_or_pk), channel_layer=layer)


def _is_closed(pending: Pending, channel: str) -> bool:
    """Return whether a consumer's sends close, or refuse, the client of a channel."""
    for sends in pending.values():
        for send in sends:
            if send.target == channel and not send.group and codec.unpack(send.body).get("close"):
                return True
    return False
