"""A consumer that is a class, with a method for each channel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from channelsq.auth import channel_session_user
from channelsq.message import Message
from channelsq.routing import RouteClass, route_class
from channelsq.sessions import channel_session

R = TypeVar("R")


def overridable(method: Callable[..., R]) -> Callable[..., R]:
    """Return the method itself, with a type that accepts any arguments.

    So an override may name the arguments of its route, ``def connect(self, message: Message, room: str)``, where the
    overridden method has ``**kwargs``.
    """
    return method


class BaseConsumer:
    """A class whose methods handle the messages of its channels; each message has a new instance.

    Write it in a routing as ``route_class(TheConsumer, path=…)`` or ``TheConsumer.as_route(path=…)``.

    Args:
        message: the message; the constructor handles it.
        kwargs: the named groups of the route's filters.
    """

    #: The name of the method for each channel.
    method_mapping: ClassVar[Mapping[str, str]] = {}
    #: Whether methods have ``message.channel_session``.
    channel_session = False
    #: Whether they have ``message.user`` from it, too.
    channel_session_user = False

    def __init__(self, message: Message, **kwargs: Any) -> None:
        #: The message.
        self.message = message
        #: The named groups of the route's filters.
        self.kwargs = kwargs
        self.dispatch(message, **kwargs)

    @classmethod
    def channel_names(cls) -> set[str]:
        """Return the channels of :attr:`method_mapping`."""
        return set(cls.method_mapping)

    @classmethod
    def as_route(cls, attrs: Mapping[str, Any] | None = None, **kwargs: Any) -> RouteClass:
        """Return a route to this class.

        Args:
            attrs: class attributes that differ on this route.
            kwargs: the route's filters and options, as :func:`channelsq.route_class` takes them.

        Raises:
            TypeError: ``attrs`` is not a mapping.
        """
        if not attrs:
            return route_class(cls, **kwargs)
        if not isinstance(attrs, Mapping):
            raise TypeError(f"attrs must be a dict of class attributes, not {attrs!r}")
        own_name = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
        return route_class(type(cls.__name__, (cls,), {**own_name, **attrs}), **kwargs)

    def get_handler(self, message: Message, **kwargs: Any) -> Callable[..., Any]:
        """Return the method for a message, decorated according to the class attributes."""
        handler: Callable[..., Any] = getattr(self, self.method_mapping[message.channel_name])
        if self.channel_session_user:
            return channel_session_user(handler)
        if self.channel_session:
            return channel_session(handler)
        return handler

    def dispatch(self, message: Message, **kwargs: Any) -> Any:
        """Call the method for the message."""
        return self.get_handler(message, **kwargs)(message, **kwargs)
