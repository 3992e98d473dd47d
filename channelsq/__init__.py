"""channelsq: real-time Django for teams that already run Celery.

Every event, an HTTP request or a WebSocket frame, is a message on a named channel (a Kombu queue).  Plain synchronous
consumers (Celery tasks) handle it; answers go to reply channels; groups broadcast.
"""

from typing import TYPE_CHECKING, Any

from channelsq.version import __version__

DEFAULT_CHANNEL_LAYER = "default"

if TYPE_CHECKING:
    from channelsq.asgi import channel_layers
    from channelsq.channel import Channel, Group
    from channelsq.message import Message
    from channelsq.options import consumer
    from channelsq.routing import include, route, route_class
    from channelsq.users import User

__all__ = [
    "DEFAULT_CHANNEL_LAYER",
    "Channel",
    "Group",
    "Message",
    "User",
    "__version__",
    "channel_layers",
    "consumer",
    "include",
    "route",
    "route_class",
]

_HOME = {
    "consumer": "channelsq.options",
    "Channel": "channelsq.channel",
    "Group": "channelsq.channel",
    "Message": "channelsq.message",
    "User": "channelsq.users",
    "channel_layers": "channelsq.asgi",
    "include": "channelsq.routing",
    "route": "channelsq.routing",
    "route_class": "channelsq.routing",
}


if not TYPE_CHECKING:  # with __getattr__, type checkers would accept any name

    def __getattr__(name: str) -> Any:
        # Imported at first use: Django imports this package while it is still loading its apps.
        from importlib import import_module

        if name in _HOME:
            return getattr(import_module(_HOME[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
