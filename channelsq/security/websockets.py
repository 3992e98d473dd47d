"""Decorators for ``websocket.connect`` consumers that check the origin of a socket.

A browser lets any page open a WebSocket to any site, and sends that site's cookies along.  But no page can change the
``Origin`` header, which names the page's own scheme, host and port (RFC 6455, section 10.2).

::

    @allowed_hosts_only
    def ws_connect(message): ...

    @method_decorator(allowed_hosts_only, name="connect")
    class Chat(WebsocketConsumer): ...
"""

from __future__ import annotations

import copy
import functools
import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from channelsq.core import names
from channelsq.exceptions import DenyConnection
from channelsq.security.origins import allowed_hosts, host_is_allowed

if TYPE_CHECKING:
    from channelsq.message import Message
    from channelsq.routing import RouteClass

__all__ = ["AllowedHostsOnlyOriginValidator", "BaseOriginValidator", "allowed_hosts_only"]

logger = logging.getLogger("channelsq.security")

C = TypeVar("C", bound=Callable[..., Any])


class BaseOriginValidator:
    """A consumer that runs another one only for sockets from an origin that :meth:`validate_origin` accepts.

    Other sockets get DenyConnection, so HTTP 403, and the consumer does not run.  So do sockets without an ``Origin``,
    from programs other than browsers: override :meth:`get_origin` to accept those.

    Args:
        func: a consumer function, a generic consumer's method, or a generic consumer class.  For a class only
            ``websocket.connect`` messages are checked, as no others carry headers.
    """

    def __init__(self, func: Callable[..., Any]) -> None:
        # A class keeps its own attributes: they would hide the methods here.
        functools.update_wrapper(self, func, updated=() if inspect.isclass(func) else functools.WRAPPER_UPDATES)
        #: The decorated consumer.
        self.func = func
        if inspect.isclass(func) and hasattr(func, "channel_names"):
            #: The class's method, so that ``route_class`` accepts this in its place.
            self.channel_names: Callable[[], Iterable[str]] = func.channel_names
            #: The class's method, with this validator.
            self.as_route: Callable[..., RouteClass] = self._as_route
            self._only_connect = True
        else:
            self._only_connect = False

    def __call__(self, message: Message, *args: Any, **kwargs: Any) -> Any:
        """Run the consumer, if the origin is accepted.

        Raises:
            DenyConnection: it is not.
        """
        if not (self._only_connect and message.channel_name != names.WEBSOCKET_CONNECT):
            origin = self.get_origin(message)
            if not self.validate_origin(message, origin):
                raise _denied(message, f"the origin {origin!r} is not allowed")
        return self.func(message, *args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Bind the validator as a method of a generic consumer."""
        if instance is None:
            return self
        bound = copy.copy(self)
        bound.func = self.func.__get__(instance, owner)
        return bound

    def _as_route(self, attrs: dict[str, Any] | None = None, **kwargs: Any) -> RouteClass:
        route: RouteClass = self.func.as_route(attrs, **kwargs)  # type: ignore[attr-defined]
        route.consumer = type(self)(route.consumer)
        return route

    def get_header(self, message: Message, name: bytes) -> list[bytes]:
        """Return the values of a header, in their order.

        Args:
            message: a ``websocket.connect`` message; its headers are pairs of bytes, or, in tests, a dict.
            name: the header's name in lower case.

        Raises:
            KeyError: there is no such header.
        """
        values = header_values(message, name)
        if not values:
            raise KeyError(f"there is no header {name.decode(errors='replace')!r}")
        return values

    def get_origin(self, message: Message) -> str:
        """Return the ``Origin`` of a ``websocket.connect`` message, such as ``"https://example.com"``.

        Raises:
            DenyConnection: there is none, there are several, or it is empty or not ASCII.
        """
        try:
            values = self.get_header(message, b"origin")
        except KeyError:
            raise _denied(message, "there is no Origin header") from None
        if len(values) > 1:
            raise _denied(message, "there are several Origin headers")
        try:
            origin = values[0].decode("ascii")
        except UnicodeDecodeError:
            raise _denied(message, f"the Origin header {values[0]!r} is not ASCII") from None
        if not origin:
            raise _denied(message, "the Origin header is empty")
        return origin

    def validate_origin(self, message: Message, origin: str) -> bool:
        """Return whether a socket from ``origin`` may be opened; subclasses implement it.

        Args:
            message: the ``websocket.connect`` message.
            origin: as the browser sent it; ``"null"`` from sandboxed frames, ``file:`` and ``data:`` pages.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a validate_origin(message, origin) of its own")


class AllowedHostsOnlyOriginValidator(BaseOriginValidator):
    """A validator that accepts origins whose host is in ``ALLOWED_HOSTS``, by Django's rules for the ``Host`` header.

    So ``"*"`` and ``".example.com"`` have Django's meaning; case, a trailing dot, the port and the scheme do not count;
    and an empty list under ``DEBUG`` means localhost.  ``null`` is never accepted.
    """

    def validate_origin(self, message: Message, origin: str) -> bool:
        """Return whether the origin's host is allowed."""
        return host_is_allowed(origin, allowed_hosts())


if TYPE_CHECKING:

    def allowed_hosts_only(func: C) -> C:
        """Run a consumer only for sockets from :class:`AllowedHostsOnlyOriginValidator`'s hosts."""

else:
    #: :class:`AllowedHostsOnlyOriginValidator`, with the name for decorators.
    allowed_hosts_only = AllowedHostsOnlyOriginValidator


def header_values(message: Message, name: bytes) -> list[bytes]:
    """Return the values of a ``websocket.connect`` message's header, in their order; an empty list without it."""
    headers = message.get("headers") or ()
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return [
        _as_bytes(pair[1])
        for pair in pairs
        if isinstance(pair, (list, tuple)) and len(pair) == 2 and _as_bytes(pair[0]).lower() == name
    ]


def _as_bytes(value: object) -> bytes:
    if isinstance(value, str):
        return value.encode()
    return value if isinstance(value, bytes) else b""


def _denied(message: Message, reason: str) -> DenyConnection:
    """Return the exception to raise, and log the reason, as the client gets nothing but 403."""
    logger.warning(
        "a WebSocket on %r was refused: %s",
        message.get("path", ""),
        reason,
        extra={"action": "origin_refused", "connection": str(message.reply_channel)},
    )
    return DenyConnection(reason)
