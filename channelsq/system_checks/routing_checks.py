"""Checks of routes for silent mistakes: a channel may have any name, and a consumer may be any callable."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterator
from typing import Any

from django.core import checks
from django.core.checks import CheckMessage

from channelsq.asgi import channel_layers
from channelsq.core import names
from channelsq.exceptions import ChannelsqError
from channelsq.routing import Route, RouteClass
from channelsq.utils import name_that_thing

#: The channels that the interface server sends to.
_EVENTS = (
    names.HTTP_REQUEST,
    names.HTTP_DISCONNECT,
    names.WEBSOCKET_CONNECT,
    names.WEBSOCKET_RECEIVE,
    names.WEBSOCKET_DISCONNECT,
)

#: The similarity from which one name counts as a misspelling of the other, from 0 to 1.
_ALIKE = 0.8

#: Methods of generic consumers besides those of their ``method_mapping``.
_METHODS = ("connect", "receive", "disconnect", "dispatch", "connection_groups", "bad_frame")


def check_routes() -> list[CheckMessage]:
    """Return E008, W009 and W011."""
    found: list[CheckMessage] = []
    for alias in channel_layers.configs:
        try:
            routes = list(channel_layers[alias].router.routes())
        except ChannelsqError:
            continue  # another check says so
        for route in routes:
            found += [_misspelt(route, channel, event) for channel, event in _misspellings(route)]
            if name := _coroutine_function(route.consumer):
                found.append(_is_async(route, name))
        found += _half_routed(routes)
    return found


def _misspellings(route: Route) -> Iterator[tuple[str, str]]:
    for channel in route.channels:
        if channel in _EVENTS:
            continue
        events = difflib.get_close_matches(channel, _EVENTS, 1, _ALIKE)
        if not events and channel.startswith(("websocket.", "http.")):
            events = [", ".join(event for event in _EVENTS if event.startswith(channel.partition(".")[0]))]
        if events:
            yield channel, events[0]


def _misspelt(route: Route, channel: str, event: str) -> CheckMessage:
    return checks.Warning(
        f"The route {route} is for the channel {channel!r}, to which no interface server sends.",
        hint=f"If it is meant for messages of browsers, write {event}. A channel of your own needs a name that is "
        "less similar.",
        id="channelsq.W009",
    )


def _coroutine_function(consumer: Any) -> str | None:
    """Return the name of a consumer's coroutine function; None if it has none."""
    if inspect.iscoroutinefunction(inspect.unwrap(consumer)):
        return name_that_thing(consumer)
    mapping = getattr(consumer, "method_mapping", None)
    if not inspect.isclass(consumer) or not isinstance(mapping, dict):
        return None
    for method in (*mapping.values(), *_METHODS):
        function = getattr(consumer, method, None)
        if callable(function) and inspect.iscoroutinefunction(inspect.unwrap(function)):
            return f"{name_that_thing(consumer)}.{method}"
    return None


def _half_routed(routes: list[Route]) -> Iterator[CheckMessage]:
    """Yield W011 for classes that get only some of their channels because of ``route()``."""
    channels: dict[int, set[str]] = {}
    for route in routes:
        channels.setdefault(id(route.consumer), set()).update(route.channels)
    for route in routes:
        consumer: Any = route.consumer
        if isinstance(route, RouteClass) or not inspect.isclass(consumer) or not hasattr(consumer, "channel_names"):
            continue
        if missing := set(consumer.channel_names()) - channels.pop(id(consumer), set(consumer.channel_names())):
            name = name_that_thing(consumer)
            yield checks.Warning(
                f"The route {route} is for {', '.join(route.channels)} alone, and {name} also handles "
                f"{', '.join(sorted(missing))}, which it never gets.",
                hint=f"Write route_class({consumer.__name__}, …), which is for all channels of a class.",
                id="channelsq.W011",
            )


def _is_async(route: Route, name: str) -> CheckMessage:
    return checks.Error(
        f"{name}, of the route {route}, is a coroutine function (async def), which no worker awaits.",
        hint="Write it with def. Workers run consumers in threads or processes, so that it may block.",
        id="channelsq.E008",
    )
