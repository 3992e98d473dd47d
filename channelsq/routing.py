"""Routing: from a message to the consumer that handles it.

A *routing* is a list of routes and includes, a dict of ``{channel: consumer}``, or a dotted path to
either.  The first entry that matches wins.
"""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from channelsq import conf
from channelsq.core import names
from channelsq.core.contracts import AnyMessage
from channelsq.diagnostics.causes import explained
from channelsq.exceptions import InvalidRouting
from channelsq.matching.filters import as_text, below_mount_point, compiled
from channelsq.matching.known_answers import KnownAnswers
from channelsq.utils import name_that_thing

__all__ = [
    "Include",
    "Route",
    "RouteClass",
    "Router",
    "connect_consumer",
    "include",
    "null_consumer",
    "route",
    "route_class",
]

logger = logging.getLogger("channelsq.worker")

# The default consumer of HTTP requests.  A dotted path, as its module is above this one.
_VIEWS = "channelsq.handler.ViewConsumer"

# The consumer of the doctor's WebSockets, and their paths; dotted paths for the same reason.
_PROBE, _PROBE_PATH = "channelsq.doctor.probe.probe_consumer", "channelsq.doctor.probe.PATH"

# The channel of delayed messages, and its consumer; dotted paths for the same reason.
_DELAYED, _DELAYED_CHANNEL = "channelsq.delayed.deliver", "channelsq.delayed.CHANNEL"

# The consumer of frames about live tasks.
_LIVE = "channelsq.live.consumers.receive"

# The consumer of the WebSockets of pages without one of their own.
_LIVE_CONNECT = "channelsq.live.consumers.connect"

Consumer = Callable[..., Any]
Match = tuple[Consumer, dict[str, Any]]


class Resolved(NamedTuple):
    """The route that claims a message, and the keyword arguments for its consumer."""

    route: Route
    kwargs: dict[str, Any]


class Route:
    """A route from one or more channels, narrowed by filters, to a consumer.

    Args:
        channels: a channel name or several.
        consumer: a callable ``consumer(message, **kwargs)``, or a dotted path to one.
        ordered: False lets a WebSocket's next message be handled at the same time.
        filters: regular expressions on message keys, all of which must match from the start of the value;
            their named groups become the consumer's keyword arguments.

    Raises:
        InvalidRouting: a channel name, dotted path or filter cannot be used.
        ValueError: a filter has positional groups.
    """

    def __init__(
        self, channels: str | Iterable[str], consumer: Consumer | str, *, ordered: bool = True, **filters: Any
    ) -> None:
        if not isinstance(channels, Iterable):
            raise InvalidRouting(f"route to {consumer!r}: channels must be a channel name or several, not {channels!r}")
        self.channels = [channels] if isinstance(channels, (str, bytes)) else list(channels)
        for channel in self.channels:
            try:
                names.check_channel_name(channel)
            except TypeError as error:
                raise InvalidRouting(f"route to {consumer!r}: {error}") from error
        self.consumer = self._resolve(consumer)
        self.ordered = ordered
        where = f"the route {', '.join(self.channels)}"
        self.filters = {name: compiled(name, pattern, where) for name, pattern in filters.items()}

    def _resolve(self, consumer: Consumer | str) -> Consumer:
        found: Any = consumer
        if isinstance(consumer, str):
            try:
                found = conf.import_dotted(consumer)
            except Exception as error:  # also any error of the consumer's module
                raise InvalidRouting(f"cannot import the consumer {consumer!r}: {explained(error)}") from error
        if not callable(found):
            raise InvalidRouting(
                f"the consumer of {', '.join(self.channels)} must be callable or a dotted path to one, not {consumer!r}"
            )
        return found  # type: ignore[no-any-return]

    def channel_names(self) -> set[str]:
        """Return the channels whose messages this entry may claim."""
        return set(self.channels)

    def match(self, message: AnyMessage) -> Match | None:
        """Return ``(consumer, kwargs)``, or None if this route does not match.

        Override it to match by other means than filters; workers run the route's own consumer.
        """
        if message.channel_name not in self.channels:
            return None
        kwargs: dict[str, Any] = {}
        for name, regex in self.filters.items():
            value = as_text(message.get(name))
            match = regex.match(value) if value is not None else None
            if match is None:
                return None
            kwargs.update(match.groupdict())
        return self.consumer, kwargs

    def resolve(self, message: AnyMessage) -> Resolved | None:
        """Return this route and its consumer's keyword arguments, or None if it does not match."""
        found = self.match(message)
        return None if found is None else Resolved(self, found[1])

    def __str__(self) -> str:
        filters = "".join(f" {name}={regex.pattern!r}" for name, regex in self.filters.items())
        return f"{'/'.join(self.channels)}{filters} -> {name_that_thing(self.consumer)}"


class RouteClass(Route):
    """A route for a consumer class that names its own channels (``channel_names()``)."""

    def __init__(self, consumer: Any, *, ordered: bool = True, **filters: Any) -> None:
        found = self._import(consumer)
        super().__init__(found.channel_names(), found, ordered=ordered, **filters)

    def _import(self, consumer: Any) -> Any:
        self.channels: list[str] = []
        found = self._resolve(consumer)
        if not hasattr(found, "channel_names"):
            raise InvalidRouting(
                f"route_class needs a consumer class with channel_names(), not {consumer!r}; "
                "use route() for a plain consumer"
            )
        return found


class Include:
    """Another routing, with filters that narrow and strip.

    Args:
        routing: a routing or a dotted path to one.
        filters: regular expressions on message keys.  The matched part is removed from the front of the value before
            the inner routes see it, and named groups become keyword arguments.
    """

    def __init__(self, routing: Any, **filters: Any) -> None:
        self.routing = Router.resolve_routing(routing)
        self.prefixes = {name: compiled(name, pattern, "an include") for name, pattern in filters.items()}

    def channel_names(self) -> set[str]:
        """Return the channels whose messages this entry may claim."""
        return set().union(*(entry.channel_names() for entry in self.routing))

    def resolve(self, message: AnyMessage) -> Resolved | None:
        """Return the inner route that matches the values without their prefixes, or None."""
        kwargs: dict[str, Any] = {}
        if self.prefixes:
            message = copy.copy(message)
            message.content = message.content.copy()
            for name, regex in self.prefixes.items():
                value = as_text(message.get(name))
                match = regex.match(value) if value is not None else None
                if match is None:
                    return None
                kwargs.update(match.groupdict())
                message[name] = value[match.end() :] if value is not None else None
        for entry in self.routing:
            resolved = entry.resolve(message)
            if resolved is not None:
                return Resolved(resolved.route, {**kwargs, **resolved.kwargs})
        return None

    def match(self, message: AnyMessage) -> Match | None:
        """Return ``(consumer, kwargs)``, or None if no inner route matches."""
        resolved = self.resolve(message)
        return None if resolved is None else (resolved.route.consumer, resolved.kwargs)


#: The most paths of unrouted WebSockets that are logged.
_MOST_UNROUTED = 20


def _looked_at(entry: Route | Include, channel: str) -> list[str] | None:
    """Return the keys of an entry's filters for a channel; None for an entry that matches by other means."""
    if type(entry) is Include:
        found = dict.fromkeys(entry.prefixes)
        for inner in entry.routing:
            keys = _looked_at(inner, channel)
            if keys is None:
                return None
            found.update(dict.fromkeys(keys))
        return list(found)
    if type(entry) in (Route, RouteClass):
        return list(entry.filters) if channel in entry.channels else []  # type: ignore[union-attr]
    return None


class Router:
    """A whole routing, ready to match messages.

    Args:
        routing: a list, a dict, or a dotted path to either.

    Raises:
        InvalidRouting: it cannot be read; the text names the entry and the remedy.
    """

    def __init__(self, routing: Any) -> None:
        self.root = Include(routing)
        #: The channels whose messages the routing may claim.
        self.channels = self.root.channel_names()
        self._answers: dict[str, KnownAnswers] = {}
        self._has_defaults = False
        #: The routes of the doctor's WebSocket, and of pages without one of their own.
        self._own: tuple[Route, ...] = ()
        #: The route of frames about live tasks and pages.
        self._live: Resolved | None = None
        self._unrouted: set[object] = set()

    def add_route(self, route: Route | Include) -> None:
        """Add an entry below all others."""
        self.root.routing.append(route)
        self.channels = self.root.channel_names()
        self._answers = {}

    def resolve(self, message: AnyMessage) -> Resolved | None:
        """Return the route for ``message`` with its consumer's keyword arguments, which must not be changed; or None.

        Filters get the path below the prefix under which the site is mounted, as Django's URLs do.
        """
        channel = message.channel_name
        if channel == names.WEBSOCKET_RECEIVE and self._is_live(message):
            return self._live
        message = below_mount_point(message)
        answers = self._answers.get(channel)
        if answers is None:
            if channel not in self.channels:
                return None
            answers = self._answers[channel] = KnownAnswers(_looked_at(self.root, channel))
        try:
            asked = answers.question(message.content)
            known: Resolved | None = answers.known[asked]
            return known
        except KeyError:
            found = self.root.resolve(message)
            answers.note(asked, found)
            return found
        except TypeError:  # a value that is not a str, or a route that matches by other means
            return self.root.resolve(message)

    def match(self, message: AnyMessage) -> Match | None:
        """Return ``(consumer, kwargs)`` for ``message``, or None if no route claims it."""
        if message.channel_name == names.WEBSOCKET_RECEIVE and self._is_live(message):
            return None if self._live is None else (self._live.route.consumer, {})
        return self.root.match(below_mount_point(message))

    def _is_live(self, message: AnyMessage) -> bool:
        """Return whether a frame is about live tasks or pages.

        Not by a filter: the cache of answers would have an entry for each different text.
        """
        text = message.get("text")
        return type(text) is str and self._live is not None and text.startswith((names.LIVE_FRAME, names.PAGE_FRAME))

    def routes(self) -> Iterable[Route]:
        """Return every route, in order."""
        return _flatten(self.root.routing)

    def check_default(self, http_consumer: Consumer | None = None) -> None:
        """Add routes for messages that the application's own routes leave, and for channelsq's own.

        HTTP requests go to Django's views, WebSockets are accepted, and their frames and disconnects are dropped.
        channelsq's own are for live tasks (:mod:`channelsq.live.consumers`), for the doctor's WebSocket
        (:mod:`channelsq.doctor.probe`) and for delayed messages (:mod:`channelsq.delayed`).

        Further calls change nothing.

        Args:
            http_consumer: the consumer of HTTP requests instead of Django's views.
        """
        if self._has_defaults:
            return
        self._has_defaults = True
        of_sockets = [names.WEBSOCKET_CONNECT, names.WEBSOCKET_RECEIVE, names.WEBSOCKET_DISCONNECT]
        probe = Route(of_sockets, conf.import_dotted(_PROBE), path=conf.import_dotted(_PROBE_PATH))
        live_path = f"^{re.escape(conf.live_settings().path)}$"
        self._own = (probe, Route(names.WEBSOCKET_CONNECT, conf.import_dotted(_LIVE_CONNECT), path=live_path))
        self.root.routing[:0] = self._own
        self.add_route(Route(names.HTTP_REQUEST, http_consumer or conf.import_dotted(_VIEWS)()))
        self.add_route(Route(names.WEBSOCKET_CONNECT, connect_consumer))
        ignored = [names.WEBSOCKET_RECEIVE, names.WEBSOCKET_DISCONNECT, names.HTTP_DISCONNECT]
        self.add_route(Route(ignored, null_consumer))
        self.add_route(Route(conf.import_dotted(_DELAYED_CHANNEL), conf.import_dotted(_DELAYED)))
        live = Route(names.WEBSOCKET_RECEIVE, conf.import_dotted(_LIVE))
        self.add_route(live)  # below all others: resolve() knows its frames
        self._live = Resolved(live, {})

    def tell_unrouted(self, message: AnyMessage) -> None:
        """Log an accepted WebSocket whose frames no route claims either; once a path, for some paths.

        Args:
            message: the connect of the WebSocket.
        """
        path = message.get("path")
        if path in self._unrouted or len(self._unrouted) >= _MOST_UNROUTED:
            return
        frame = copy.copy(message)
        frame.channel_name = names.WEBSOCKET_RECEIVE
        resolved = self.resolve(frame)
        if resolved is not None and resolved.route.consumer is not null_consumer:
            return
        wanted = {names.WEBSOCKET_CONNECT, names.WEBSOCKET_RECEIVE}
        mine = [each for each in self.routes() if wanted & set(each.channels) and each not in self._own]
        if any(key not in message for each in mine for key in each.filters):
            return  # a frame has more keys, and may match
        self._unrouted.add(path)
        filters = sorted({f"{name}={regex.pattern!r}" for each in mine for name, regex in each.filters.items()})
        known = f"the routes of websocket.* have {', '.join(filters)[:500]}" if filters else "there are none"
        logger.warning(
            "no route claims the WebSocket %s: it is accepted, and its frames are dropped; %s",
            repr(path)[:200], known, extra={"action": "unrouted_socket"},
        )  # fmt: skip

    @classmethod
    def resolve_routing(cls, routing: Any) -> list[Route | Include]:
        """Return a routing of any form as a new list; raise InvalidRouting."""
        found = routing
        if isinstance(routing, str):
            try:
                found = conf.import_dotted(routing)
            except Exception as error:  # also any error of the routing's module
                raise InvalidRouting(f"cannot import the routing {routing!r}: {explained(error)}") from error
        if isinstance(found, dict):
            return [Route(channel, consumer) for channel, consumer in found.items()]
        if not isinstance(found, Sequence) or isinstance(found, (str, bytes)):
            raise InvalidRouting(
                f"a routing must be a list of route() and include(), a dict of channels to consumers, or a "
                f"dotted path to either, not {found!r}"
            )
        for entry in found:
            if not isinstance(entry, (Route, Include)):
                raise InvalidRouting(
                    f"a routing holds route(), route_class() and include(), not {entry!r}"
                    + (f" (in {routing!r})" if isinstance(routing, str) else "")
                )
        return list(found)

    @classmethod
    def normalise_re_arg(cls, value: Any) -> Any:
        """Return a filter or a message value as the str to match: bytes are decoded, other values unchanged."""
        text = as_text(value)
        return value if text is None else text


def consumed_channels(router: Router) -> list[str]:
    """Return the channels of a routing that workers consume: all but reply and single-reader channels."""
    return sorted(
        channel
        for channel in router.channels
        if not names.is_process_channel(channel) and not names.is_single_reader(channel)
    )


def _flatten(entries: Iterable[Route | Include]) -> Iterable[Route]:
    for entry in entries:
        if isinstance(entry, Include):
            yield from _flatten(entry.routing)
        else:
            yield entry


def connect_consumer(message: AnyMessage, **kwargs: Any) -> None:
    """Accept a WebSocket that no route claims, or refuse it if the layer's ``unrouted`` says so."""
    if message.reply_channel is None:
        raise ValueError(f"{message!r} has no reply_channel, so there is no client to accept")
    refused = message.channel_layer.unrouted == "refuse"
    if not refused:
        message.channel_layer.router.tell_unrouted(message)
    message.reply_channel.send({"close" if refused else "accept": True})


def null_consumer(*args: Any, **kwargs: Any) -> None:
    """Drop a message; unclaimed frames and disconnects would otherwise fill their channels."""


#: The name of :class:`Route` in routings.
route = Route
#: The name of :class:`RouteClass` in routings.
route_class = RouteClass
#: The name of :class:`Include` in routings.
include = Include
