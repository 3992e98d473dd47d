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
    """Return the method itself; to type checkers, one that takes any arguments.

    An overriding method names those of its route, ``def connect(self, message: Message, room: str)``, where the
    overridden one has ``**kwargs``.
    """
    return method


class BaseConsumer:
    """A class whose methods handle the messages of its channels; each message has an instance of its own.

    In a routing it stands in ``route_class(TheConsumer, path=…)`` or as ``TheConsumer.as_route(path=…)``.

    Args:
        message: what is handled, which happens right here.
        kwargs: the named groups of the route's filters.
    """

    #: The name of the method for each channel.
    method_mapping: ClassVar[Mapping[str, str]] = {}
    #: Whether methods find ``message.channel_session``.
    channel_session = False
    #: Whether they find ``message.user`` in it, too.
    channel_session_user = False

    def __init__(self, message: Message, **kwargs: Any) -> None:
        #: What is handled.
        self.message = message
        #: The named groups of the route's filters.
        self.kwargs = kwargs
        self.dispatch(message, **kwargs)

    @classmethod
    def channel_names(cls) -> set[str]:
        """The channels of :attr:`method_mapping`."""
        return set(cls.method_mapping)

    @classmethod
    def as_route(cls, attrs: Mapping[str, Any] | None = None, **kwargs: Any) -> RouteClass:
        """A route to this class.

        Args:
            attrs: class attributes that differ on this route.
            kwargs: the route's filters and options, as :func:`channelsq.route_class` takes them.

        Raises:
            TypeError: ``attrs`` is no mapping.
        """
        if not attrs:
            return route_class(cls, **kwargs)
        if not isinstance(attrs, Mapping):
            raise TypeError(f"attrs must be a dict of class attributes, not {attrs!r}")
        own_name = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
        return route_class(type(cls.__name__, (cls,), {**own_name, **attrs}), **kwargs)

    def get_handler(self, message: Message, **kwargs: Any) -> Callable[..., Any]:
        """The method for a message, decorated as the class attributes say."""
        handler: Callable[..., Any] = getattr(self, self.method_mapping[message.channel_name])
        if self.channel_session_user:
            return channel_session_user(handler)
        if self.channel_session:
            return channel_session(handler)
        return handler

    def dispatch(self, message: Message, **kwargs: Any) -> Any:
        """Have the message handled."""
        return self.get_handler(message, **kwargs)(message, **kwargs)
