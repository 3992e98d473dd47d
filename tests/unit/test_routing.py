from __future__ import annotations

import functools
import re
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from channelsq.asgi import ChannelLayerWrapper
from channelsq.exceptions import InvalidRouting
from channelsq.handler import ViewConsumer
from channelsq.layers import InMemoryChannelLayer
from channelsq.message import Message
from channelsq.routing import (
    Include,
    Route,
    RouteClass,
    Router,
    connect_consumer,
    include,
    null_consumer,
    route,
    route_class,
)
from tests.support.ids import steady_repr
from tests.support.layers import wrapped

LAYER = wrapped()


def first(message: Message, **kwargs: Any) -> None:
    """A consumer."""


def second(message: Message, **kwargs: Any) -> None:
    """Another."""


def third(message: Message, **kwargs: Any) -> None:
    """And one more."""


class Chat:
    """A consumer class as route_class wants it."""

    @classmethod
    def channel_names(cls) -> set[str]:
        return {"websocket.connect", "websocket.receive"}

    def __init__(self, message: Message, **kwargs: Any) -> None:
        self.message = message


routing_list = [route("a", first), route("b", second)]
routing_dict = {"a": first, "b": f"{__name__}.second"}
not_a_routing = 5


def message(channel: str, **content: Any) -> Message:
    return Message(content, channel, LAYER)


@pytest.fixture
def module() -> Iterator[types.ModuleType]:
    """An empty module ``routing_under_test`` to name things in."""
    made = types.ModuleType("routing_under_test")
    sys.modules["routing_under_test"] = made
    yield made
    del sys.modules["routing_under_test"]


# -- the forms of a routing ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "routing",
    [
        routing_list,
        tuple(routing_list),
        routing_dict,
        f"{__name__}.routing_list",
        f"{__name__}.routing_dict",
        [include(routing_list)],
        [include(routing_dict)],
        [include(f"{__name__}.routing_dict")],
        [include([include([include(routing_list)])])],
        [route("a", f"{__name__}.first"), route("b", f"{__name__}.second")],
    ],
    ids=["list", "tuple", "dict", "path-list", "path-dict", "inc-list", "inc-dict", "inc-path", "nested", "paths"],
)
def test_every_form_reads_alike(routing: Any) -> None:
    router = Router(routing)
    assert router.channels == {"a", "b"}
    assert router.match(message("a")) == (first, {})
    assert router.match(message("b")) == (second, {})
    assert router.match(message("c")) is None
    assert [entry.consumer for entry in router.routes()] == [first, second]


def test_an_empty_routing_claims_nothing() -> None:
    routings: tuple[Any, ...] = ([], {}, (), [include([])])
    for routing in routings:
        router = Router(routing)
        assert router.channels == set()
        assert router.match(message("a")) is None


def test_the_names_of_channels_1() -> None:
    assert route is Route
    assert route_class is RouteClass
    assert include is Include
    assert issubclass(RouteClass, Route)


def test_a_router_does_not_change_the_list_it_was_given() -> None:
    mine = [route("a", first)]
    router = Router(mine)
    router.add_route(route("b", second))
    assert len(mine) == 1
    assert router.channels == {"a", "b"}
    assert router.match(message("b")) == (second, {})


def test_the_first_entry_that_matches_wins() -> None:
    router = Router([route("a", first, path="^/x"), include([route("a", second)], path="^/xy"), route("a", third)])
    assert router.match(message("a", path="/xyz")) == (first, {})
    assert router.match(message("a", path="/q")) == (third, {})
    assert router.match(message("a")) == (third, {})
    # What is added goes below everything else, and an added include counts too.
    router.add_route(include([route("d", first)]))
    assert router.match(message("d")) == (first, {})
    assert "d" in router.channels


def test_several_channels_on_one_route() -> None:
    for channels in (["a", "b"], ("a", "b"), {"a", "b"}, iter(["a", "b"])):
        entry = route(channels, first)
        assert entry.channel_names() == {"a", "b"}
        assert entry.match(message("b")) == (first, {})
        assert entry.match(message("ab")) is None


# -- filters ------------------------------------------------------------------------------------


def test_named_groups_become_keyword_arguments() -> None:
    entry = route("a", first, path=r"^/chat/(?P<room>[^/]+)/(?P<page>\d+)?$", method=r"(?P<verb>GET|PUT)")
    assert entry.match(message("a", path="/chat/tea/", method="GET")) == (
        first,
        {"room": "tea", "page": None, "verb": "GET"},
    )
    assert entry.match(message("a", path="/chat/tea/7", method="PUT")) == (
        first,
        {"room": "tea", "page": "7", "verb": "PUT"},
    )
    assert entry.match(message("a", path="/chat/tea/", method="POST")) is None
    assert entry.match(message("a", path="/chat/tea/")) is None


def test_filters_match_from_the_start_and_need_no_end() -> None:
    entry = route("a", first, path="/chat")
    assert entry.match(message("a", path="/chat/and/more"))
    assert entry.match(message("a", path="x/chat")) is None


@pytest.mark.parametrize(
    ("value", "matches"),
    [
        ("héllo", True),
        ("héllo".encode(), True),
        (b"\xff", False),
        (b"h", False),
        ("", False),
        (5, False),
        (None, False),
        (["héllo"], False),
        (True, False),
    ],
    ids=repr,
)
def test_text_and_bytes_are_matched_and_nothing_else_is(value: Any, matches: bool) -> None:
    assert (route("a", first, key="hé").match(message("a", key=value)) is not None) is matches
    assert (include([route("a", first)], key="hé").match(message("a", key=value)) is not None) is matches


def test_groups_of_bytes_are_text() -> None:
    entry = route("http.request", first, query_string=r"session_key=(?P<key>\w+)")
    assert entry.match(message("http.request", query_string=b"session_key=abc")) == (first, {"key": "abc"})


@pytest.mark.parametrize("pattern", [b"^/(?P<x>.)", "^/(?P<x>.)", re.compile("^/(?P<x>.)")], ids=repr)
def test_a_filter_may_be_text_bytes_or_compiled(pattern: Any) -> None:
    assert route("a", first, path=pattern).match(message("a", path="/b")) == (first, {"x": "b"})


def test_flags_of_a_compiled_filter_hold() -> None:
    assert route("a", first, path=re.compile("^/CHAT", re.IGNORECASE)).match(message("a", path="/chat"))


def test_non_capturing_groups_are_no_positional_ones() -> None:
    assert route("a", first, path=r"(?:x|y)(?P<n>\d)(?=z)").match(message("a", path="y3z")) == (first, {"n": "3"})


@pytest.mark.parametrize("make", [lambda **f: route("a", first, **f), lambda **f: include([], **f)])
@pytest.mark.parametrize("pattern", [r"^/(\d+)", r"(?P<named>a)(b)", re.compile("(x)"), b"(x)"], ids=repr)
def test_positional_groups_are_refused(make: Any, pattern: Any) -> None:
    with pytest.raises(ValueError, match="positional groups") as raised:
        make(path=pattern)
    text = str(raised.value)
    assert "path=" in text
    assert "(?P<name>...)" in text
    assert "(?:...)" in text


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("[", "not a regular expression"),
        ("(?P<1>x)", "not a regular expression"),
        ("(?P<a>x)(?P<a>y)", "not a regular expression"),
        (5, "in a str"),
        (None, "in a str"),
        (["x"], "in a str"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("make", [lambda **f: route("some.channel", first, **f), lambda **f: include([], **f)])
def test_bad_filters(make: Any, pattern: Any, says: str) -> None:
    with pytest.raises(InvalidRouting, match=says) as raised:
        make(path=pattern)
    assert f"path={pattern!r}" in str(raised.value)
    assert ("the route some.channel" in str(raised.value)) or ("an include" in str(raised.value))


# -- include ------------------------------------------------------------------------------------


def test_prefixes_are_taken_off_before_the_inner_match() -> None:
    router = Router(
        [
            include(
                [route("a", first, path=r"^/(?P<page>\d+)$"), route("a", second, path=r"^$")],
                path=r"^/chat/(?P<room>\w+)",
            ),
            route("a", third, path="^/chat"),
        ]
    )
    assert router.match(message("a", path="/chat/tea/7")) == (first, {"room": "tea", "page": "7"})
    assert router.match(message("a", path="/chat/tea")) == (second, {"room": "tea"})
    assert router.match(message("a", path="/chat/tea/x")) == (third, {})


def test_nested_prefixes() -> None:
    router = Router(
        [
            include(
                [include([route("a", first, path="^c$", method="^T$")], path="^b/", method="GE")],
                path="^/a/",
            )
        ]
    )
    assert router.match(message("a", path="/a/b/c", method="GET")) == (first, {})
    assert router.match(message("a", path="/a/c", method="GET")) is None
    assert router.match(message("a", path="/a/b/c", method="PUT")) is None
    assert router.match(message("a", path="/a/b/c")) is None


def test_a_prefix_of_bytes() -> None:
    router = Router([include([route("a", first, query_string="(?P<rest>.*)")], query_string="é=")])
    assert router.match(message("a", query_string="é=1".encode())) == (first, {"rest": "1"})


@pytest.mark.parametrize(
    ("path", "root_path", "forced", "claimed"),
    [
        ("/app/room/a/", "/app", None, {"name": "a"}),
        ("/app/room/a/", "/app/", None, {"name": "a"}),
        ("/app/room/a/", None, "/app", {"name": "a"}),
        ("/forced/room/a/", "/app", "/forced", {"name": "a"}),
        ("/room/a/", "/app", None, {"name": "a"}),  # the proxy has taken it off
        ("/application/room/a/", "/app", None, None),
        ("/app/app/room/a/", "/app", None, None),
        ("/app/room/a/", "", None, None),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_paths_are_those_below_the_prefix_under_which_the_site_is_mounted(
    settings: Any, path: str, root_path: str | None, forced: str | None, claimed: dict[str, str] | None, nested: bool
) -> None:
    settings.FORCE_SCRIPT_NAME = forced
    plain = [route("websocket.receive", first, path=r"^/room/(?P<name>\w+)/$")]
    inner = [route("websocket.receive", first, path=r"^/(?P<name>\w+)/$")]
    router = Router([include(inner, path="^/room")] if nested else plain)
    content = {"path": path, **({} if root_path is None else {"root_path": root_path})}
    for _ in range(2):  # by looking, and as it is known then
        asked = message("websocket.receive", **content)
        resolved = router.resolve(asked)
        assert (None if resolved is None else resolved.kwargs) == claimed
        assert (router.match(asked) or (None, None))[1] == claimed
        assert asked["path"] == path


def test_an_include_does_not_change_the_message() -> None:
    mine = message("a", path="/x/y", query_string=b"q")
    router = Router([include([route("b", first), include([route("a", second)], path="^/y")], path="^/x")])
    assert router.match(mine) == (second, {})
    assert mine.content == {"path": "/x/y", "query_string": b"q"}


def test_a_failed_include_leaves_the_message_whole_for_the_next() -> None:
    router = Router([include([route("b", first)], path="^/x"), route("a", second, path="^/x/y$")])
    assert router.match(message("a", path="/x/y")) == (second, {})


def test_inner_groups_win_over_outer_ones_of_the_same_name() -> None:
    router = Router([include([route("a", first, path="^(?P<n>.)")], path="^(?P<n>.)")])
    assert router.match(message("a", path="12")) == (first, {"n": "2"})


def test_only_the_prefix_is_stripped_not_later_repeats() -> None:
    router = Router([include([route("a", first, path="^(?P<left>.*)$")], path="/x")])
    assert router.match(message("a", path="/x/x/x")) == (first, {"left": "/x/x"})


# -- route_class, ordered, match and resolve ----------------------------------------------------


@pytest.mark.parametrize("consumer", [Chat, f"{__name__}.Chat"], ids=["class", "path"])
def test_route_class(consumer: Any) -> None:
    entry = route_class(consumer, path="^/(?P<room>.+)")
    assert entry.channel_names() == {"websocket.connect", "websocket.receive"}
    assert entry.match(message("websocket.receive", path="/tea")) == (Chat, {"room": "tea"})
    assert entry.match(message("websocket.disconnect", path="/tea")) is None


@pytest.mark.parametrize(
    ("consumer", "named"),
    [(first, "first"), (f"{__name__}.first", "first"), (5, "5"), (object, "object")],
    ids=steady_repr,
)
def test_route_class_refuses_what_names_no_channels(consumer: Any, named: str) -> None:
    with pytest.raises(InvalidRouting, match=named):
        route_class(consumer)


def test_route_class_says_what_to_use_instead() -> None:
    with pytest.raises(InvalidRouting, match=r"channel_names\(\).*use route\(\)"):
        route_class(first)


def test_ordered() -> None:
    assert route("a", first).ordered is True
    assert route_class(Chat).ordered is True
    assert route("a", first, ordered=False).ordered is False
    assert route_class(Chat, ordered=False).ordered is False
    # An option, not a filter on a key of that name.
    assert route("a", first, ordered=False).filters == {}


def test_resolve_gives_the_route_where_match_gives_the_consumer() -> None:
    inner = route("a", first, ordered=False, path="^(?P<x>.)")
    for holder in (inner, include([inner]), Router([include([inner])])):
        resolved = holder.resolve(message("a", path="q"))
        assert resolved is not None
        assert resolved.route is inner
        assert resolved.kwargs == {"x": "q"}
        assert holder.match(message("a", path="q")) == (first, {"x": "q"})
        assert holder.resolve(message("b")) is None
        assert holder.match(message("b")) is None


def test_matches_do_not_share_their_arguments() -> None:
    router = Router([route("a", first)])
    one, two = router.match(message("a")), router.match(message("a"))
    assert one is not None
    assert two is not None
    one[1]["more"] = 1
    assert two[1] == {}


def test_a_route_that_matches_in_its_own_way() -> None:
    class Secure(Route):
        def match(self, message: Message) -> Any:
            return super().match(message) if message.get("scheme") == "wss" else None

    router = Router([include([Secure("a", first, path="^/(?P<x>.)")], path="^/in"), route("a", second)])
    for _ in range(2):  # no answer is kept for another message
        for scheme, found in (("wss", (first, {"x": "q"})), ("ws", (second, {}))):
            asked = message("a", path="/in/q", scheme=scheme)
            assert router.match(asked) == found
            resolved = router.resolve(asked)
            assert resolved is not None
            assert (resolved.route.consumer, resolved.kwargs) == found


def test_what_channels_1_had_on_routes_includes_and_routers() -> None:
    entry = route(["a", "b"], first, path="^/x")
    assert entry.channels == ["a", "b"]
    assert entry.consumer is first
    assert entry.filters["path"].pattern == "^/x"
    assert entry.channel_names() == {"a", "b"}
    outer = include([entry], path=b"^/y", method="^GET$")
    assert {name: prefix.pattern for name, prefix in outer.prefixes.items()} == {"path": "^/y", "method": "^GET$"}
    assert outer.routing == [entry]
    assert outer.channel_names() == {"a", "b"}
    router = Router([outer])
    assert router.root.routing == [outer]
    router.add_route(route("c", second))
    assert router.channels == {"a", "b", "c"}
    assert Router.resolve_routing({"a": first})[0].consumer is first  # type: ignore[union-attr]
    assert (Router.normalise_re_arg(b"^/x"), Router.normalise_re_arg("^/x")) == ("^/x", "^/x")
    assert Router.normalise_re_arg(None) is None


def test_a_message_may_be_matched_on_any_layer() -> None:
    asked = Message({"path": "/in/q"}, "a", channel_layer="none that is")  # type: ignore[arg-type]
    assert Router([include([route("a", first, path="^/q")], path="^/in")]).match(asked) == (first, {})


@pytest.mark.parametrize(
    "make",
    [lambda: route_class(first), lambda: route("a", first, path="(.)"), lambda: Router(5)],
    ids=["class", "group", "routing"],
)
def test_what_cannot_be_read_is_a_value_error_as_in_channels_1(make: Any) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        make()


def test_str_of_a_route() -> None:
    text = str(route(["a", "b"], first, path="^/x"))
    assert text == f"a/b path='^/x' -> {first.__module__}.first"


# -- wrong routings -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channel", "named"),
    [("a b", "'a b'"), ("", "''"), ("a!", "'a!'"), (["a", "é"], "'é'"), ([5], "5"), (b"a", "b'a'"), ([None], "None")],
    ids=repr,
)
def test_bad_channels_of_a_route(channel: Any, named: str) -> None:
    with pytest.raises(InvalidRouting, match=named) as raised:
        route(channel, first)
    assert "first" in str(raised.value)


@pytest.mark.parametrize("channel", [5, None, 1.5, first], ids=steady_repr)
def test_channels_that_are_not_even_several(channel: Any) -> None:
    with pytest.raises(InvalidRouting, match="must be a channel name or several") as raised:
        route(channel, first)
    assert repr(channel) in str(raised.value)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("nowhere.at.all", "No module named 'nowhere'"),
        (f"{__name__}.missing", "has nothing called 'missing'"),
        ("plain", "is not a dotted path"),
        ("", "is not a dotted path"),
        (".relative.path", "is not a dotted path"),
        ("..x", "is not a dotted path"),
        ("a..b", "is not a dotted path"),
        ("os.", "is not a dotted path"),
    ],
)
def test_dotted_paths_to_nothing(path: str, says: str) -> None:
    routes: tuple[Callable[[], object], ...] = (lambda: route("a", path), lambda: route_class(path))
    for make in routes:
        with pytest.raises(InvalidRouting, match=f"the consumer {path!r}.*{says}"):
            make()
    routings: tuple[Callable[[], object], ...] = (
        lambda: Router(path), lambda: include(path), lambda: Router([include(path)]),
    )  # fmt: skip
    for make in routings:
        with pytest.raises(InvalidRouting, match=f"the routing {path!r}.*{says}"):
            make()


@pytest.mark.parametrize("consumer", [5, None, [], f"{__name__}.not_a_routing"], ids=repr)
def test_consumers_that_cannot_be_called(consumer: Any) -> None:
    with pytest.raises(InvalidRouting, match=r"consumer of some\.channel must be callable or a dotted path") as raised:
        route("some.channel", consumer)
    assert repr(consumer) in str(raised.value)
    with pytest.raises(InvalidRouting, match=r"some\.channel"):
        Router({"some.channel": consumer})


@pytest.mark.parametrize(
    "routing", [5, None, b"x", {"a"}, iter([]), f"{__name__}.not_a_routing", first], ids=steady_repr
)
def test_what_is_no_routing(routing: Any) -> None:
    for make in (Router, include, lambda routing: Router([include(routing)])):
        with pytest.raises(InvalidRouting, match=r"a routing must be a list of route\(\) and include\(\), a dict"):
            make(routing)


def test_an_entry_that_is_no_route_is_named(module: types.ModuleType) -> None:
    for entry in (first, "app.routing", ("a", first), None, [route("a", first)]):
        with pytest.raises(InvalidRouting, match=r"holds route\(\), route_class\(\) and include\(\)") as raised:
            Router([route("a", first), entry])
        assert repr(entry) in str(raised.value)
    module.routing = [None]  # type: ignore[attr-defined]
    with pytest.raises(InvalidRouting, match=r"\(in 'routing_under_test\.routing'\)"):
        Router("routing_under_test.routing")


# -- what is claimed by default -----------------------------------------------------------------


def test_defaults_claim_what_the_application_leaves() -> None:
    router = Router([route("websocket.connect", first, path="^/mine"), route("jobs", second)])
    router.check_default()
    assert router.channels == {
        "jobs", "http.request", "http.disconnect", "websocket.connect", "websocket.receive", "websocket.disconnect",
        "channelsq.delayed",
    }  # fmt: skip
    assert router.match(message("websocket.connect", path="/mine")) == (first, {})
    consumers = {}
    for channel in sorted(router.channels):
        found = router.match(message(channel, path="/other"))
        assert found is not None
        consumers[channel] = found[0]
    assert isinstance(consumers["http.request"], ViewConsumer)
    assert consumers["jobs"] is second
    assert consumers["websocket.receive"] is consumers["websocket.disconnect"]


def test_default_websockets_are_accepted_or_refused_and_their_frames_dropped() -> None:
    for unrouted, answer in (("accept", {"accept": True}), ("refuse", {"close": True})):
        layer = wrapped(unrouted=unrouted)
        router = Router([])
        router.check_default()
        reply = layer.new_channel("websocket.send!")
        for channel in ("websocket.connect", "websocket.receive", "websocket.disconnect"):
            mine = Message({"reply_channel": reply, "path": "/"}, channel, layer)
            found = router.match(mine)
            assert found is not None
            found[0](mine, **found[1])
        assert layer.receive([reply]) == (reply, answer)
        assert layer.receive([reply]) == (None, None)


def test_the_default_consumers_can_be_routed_to() -> None:
    layer = wrapped()
    router = Router([route("websocket.connect", connect_consumer), route("noise", "channelsq.routing.null_consumer")])
    assert router.match(Message({}, "noise", layer)) == (null_consumer, {})
    null_consumer(Message({}, "noise", layer), room="tea")
    asked = Message({"reply_channel": layer.new_channel("websocket.send!")}, "websocket.connect", layer)
    connect_consumer(asked, room="tea")
    assert layer.receive([str(asked.reply_channel)])[1] == {"accept": True}
    with pytest.raises(ValueError, match="no reply_channel"):
        connect_consumer(Message({}, "websocket.connect", layer))


def test_check_default_is_done_once() -> None:
    router = Router([])
    router.check_default(first)
    entries = list(router.routes())
    router.check_default()
    router.check_default(second)
    assert list(router.routes()) == entries
    assert router.match(message("http.request")) == (first, {})


def test_an_application_that_claims_everything_keeps_it() -> None:
    claimed = ["http.request", "http.disconnect", "websocket.connect", "websocket.receive", "websocket.disconnect"]
    router = Router([route(claimed, first)])
    router.check_default(second)
    for channel in claimed:
        assert router.match(message(channel)) == (first, {})


def test_a_consumer_may_be_any_callable() -> None:
    class Instance:
        def __call__(self, message: Message) -> None: ...

        def method(self, message: Message) -> None: ...

    one = Instance()
    for consumer in (one, one.method, functools.partial(first, extra=1), lambda message: None, Chat):
        assert route("a", consumer).match(message("a")) == (consumer, {})


# -- sockets that nothing handles


@pytest.mark.parametrize(
    ("routing", "shown"),
    [
        ([route("websocket.connect", print, path="^ws/$")], "the routes of websocket.* have path='^ws/$'"),
        ([route("websocket.receive", print, path="^/chat/")], "the routes of websocket.* have path='^/chat/'"),
        ([include([route("websocket.connect", print, path="^/x/$")], path="^/chat")], "have path='^/x/$'"),
        ([route("http.request", print)], "there are none"),
        ([], "there are none"),
    ],
)
def test_a_socket_without_routes_is_told_of(routing: Any, shown: str, caplog: pytest.LogCaptureFixture) -> None:
    layer = layer_with(routing)
    for path in ("/ws/", "/ws/", "/other/"):
        connect_consumer(Message({"reply_channel": "a!b", "path": path}, "websocket.connect", layer))
    texts = [record.getMessage() for record in caplog.records]
    assert [text.partition(":")[0] for text in texts] == [
        "no route claims the WebSocket '/ws/'",
        "no route claims the WebSocket '/other/'",
    ]
    assert all(text.endswith(shown) for text in texts)
    for number in range(100):
        connect_consumer(Message({"reply_channel": "a!b", "path": f"/{number}/"}, "websocket.connect", layer))
    assert len(caplog.records) == 20


@pytest.mark.parametrize(
    "routing",
    [
        [route("websocket.receive", print, path="^/ws/$")],
        [include([route("websocket.receive", print, path="^/$")], path="^/ws")],
        [route("websocket.receive", print, text="^{")],
    ],
)
def test_a_socket_whose_frames_are_handled_is_none_of_those(routing: Any, caplog: pytest.LogCaptureFixture) -> None:
    layer = layer_with(routing)
    connect_consumer(Message({"reply_channel": "a!b", "path": "/ws/"}, "websocket.connect", layer))
    assert caplog.records == []


def test_a_layer_that_refuses_them_needs_no_word(caplog: pytest.LogCaptureFixture) -> None:
    layer = layer_with([], unrouted="refuse")
    connect_consumer(Message({"reply_channel": "a!b", "path": "/ws/"}, "websocket.connect", layer))
    assert caplog.records == []


def layer_with(routing: Any, **config: Any) -> ChannelLayerWrapper:
    """Return a layer with a routing, as workers have it."""
    layer = ChannelLayerWrapper(InMemoryChannelLayer(capacity=1000, **config), "default", routing)
    layer.router.check_default()
    return layer
