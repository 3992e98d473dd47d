from __future__ import annotations

import copy
import pickle
import re
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import override_settings

from channelsq.asgi import (
    ChannelLayerManager,
    ChannelLayerWrapper,
    InvalidChannelLayerError,
    channel_layers,
    check_queues_apart,
    get_channel_layer,
)
from channelsq.exceptions import ChannelFull, InvalidRouting
from channelsq.layers import InMemoryChannelLayer, RedisChannelLayer
from channelsq.routing import Router
from tests.support.layers import installed, wrapped

MEMORY = "channelsq.layers.InMemoryChannelLayer"
REDIS = "channelsq.layers.RedisChannelLayer"
LAYERS = {
    "default": {"BACKEND": MEMORY, "ROUTING": [], "CONFIG": {"capacity": 7}, "TEST_CONFIG": {"capacity": 3}},
    "other": {"BACKEND": MEMORY, "ROUTING": []},
}


@pytest.fixture
def manager() -> Iterator[ChannelLayerManager]:
    with override_settings(CHANNEL_LAYERS=LAYERS):
        yield ChannelLayerManager()


# -- the manager --------------------------------------------------------------------------------


def test_a_layer_is_made_once_and_when_asked_for(manager: ChannelLayerManager) -> None:
    layer = manager["default"]
    assert isinstance(layer, ChannelLayerWrapper)
    assert isinstance(layer.channel_layer, InMemoryChannelLayer)
    assert (layer.alias, layer.routing, layer.capacity) == ("default", [], 7)
    assert manager["default"] is layer
    assert manager["other"] is not layer
    assert manager["other"].capacity == 100
    assert manager.configs == LAYERS


def test_threads_that_ask_together_get_the_same_layer(manager: ChannelLayerManager) -> None:
    together = threading.Barrier(8)
    found: list[ChannelLayerWrapper] = []

    def ask() -> None:
        together.wait(10)
        found.append(manager["default"])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


def test_contains(manager: ChannelLayerManager) -> None:
    assert "default" in manager
    assert "nowhere" not in manager
    with override_settings(CHANNEL_LAYERS={}):
        assert "default" not in manager


def test_set(manager: ChannelLayerManager) -> None:
    mine = wrapped()
    first = manager["default"]
    assert manager.set("default", mine) is first
    assert manager["default"] is mine
    assert manager.set("default", None) is mine
    assert manager.set("default", None) is None
    assert manager["default"] is not first
    assert manager.set("elsewhere", mine) is None
    assert manager["elsewhere"] is mine


def test_backends_are_new_each_time(manager: ChannelLayerManager) -> None:
    assert manager.make_backend("default") is not manager.make_backend("default")
    assert manager.make_backend("default").capacity == 7
    test = manager.make_test_backend("default")
    assert test.capacity == 3
    assert (test.alias, test.routing) == ("default", [])
    assert manager["default"].capacity == 7


def test_no_test_config(manager: ChannelLayerManager) -> None:
    with pytest.raises(InvalidChannelLayerError, match=r"CHANNEL_LAYERS\['other'\] has no 'TEST_CONFIG'; add one"):
        manager.make_test_backend("other")
    with pytest.raises(InvalidChannelLayerError, match="no layer 'nowhere'"):
        manager.make_test_backend("nowhere")


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"BACKEND": "nowhere.Layer"}, ["'nowhere.Layer' cannot be imported", "No module named", "RedisChannelLayer"]),
        ({"BACKEND": "channelsq.layers.NoLayer"}, ["has nothing called 'NoLayer'", "InMemoryChannelLayer"]),
        ({"BACKEND": "Layer"}, ["'Layer' cannot be imported", "not a dotted path", "KombuChannelLayer"]),
        ({"BACKEND": "collections.OrderedDict"}, ["OrderedDict' is not a channel layer", "RedisChannelLayer"]),
        ({"BACKEND": "os.path"}, ["does not fit os.path", "not callable"]),
        ({"BACKEND": MEMORY, "CONFIG": {"hosts": []}}, ["['CONFIG'] does not fit", MEMORY, "'hosts'"]),
        ({"BACKEND": "channelsq.layers.RedisChanelLayer"}, ["has nothing called", "did you mean 'RedisChannelLayer'?"]),
        ({"BACKEND": REDIS, "CONFIG": {"ulr": "redis://a"}}, ["unknown key 'ulr'; did you mean 'url'?; it takes cap"]),
        ({"BACKEND": REDIS, "CONFIG": {"hosts": "a"}}, ["CHANNEL_LAYERS['default']: RedisChannelLayer's CONFIG["]),
        ({"BACKEND": REDIS, "ROUTES": []}, ["unknown keys ['ROUTES']", "did you mean 'ROUTING'?"]),
        ({"BACKEND": MEMORY, "CONFIG": {"size": 5}}, ["'size'", "; it takes capacity, channel_capacity, consume"]),
        ({"BACKEND": REDIS, "CONFIG": {"prefx": "a"}}, ["'prefx'", "; it takes capacity, ", ", prefix, ", ", url"]),
        ({"BACKEND": MEMORY, "CONFIG": {1: 2}}, ["['CONFIG'] does not fit", "must be strings"]),
        ({"BACKEND": MEMORY, "CONFIG": {"capacity": 0}}, ["CONFIG['capacity']", "above 0", "not 0"]),
        ({"BACKEND": MEMORY, "CONFIG": {"expiry": "60"}}, ["CONFIG['expiry']", "not '60'"]),
        ({"BACKEND": MEMORY, "CONFIG": {"expiry": float("nan")}}, ["CONFIG['expiry']", "not nan"]),
        ({"BACKEND": MEMORY, "CONFIG": {"unrouted": "drop"}}, ["'accept' or 'refuse'", "'drop'"]),
        ({"BACKEND": MEMORY, "CONFIG": {"channel_capacity": {"a*": "many"}}}, ["['channel_capacity']['a*']", "'many'"]),
        ({"BACKEND": MEMORY, "CONFIG": {"channel_capacity": {"a*": 0}}}, ["['channel_capacity']['a*']", "not 0"]),
        ({"BACKEND": MEMORY, "CONFIG": {"channel_capacity": {5: 1}}}, ["does not fit"]),
        ({"BACKEND": MEMORY, "CONFIG": {"channel_capacity": 5}}, ["does not fit"]),
    ],
    ids=lambda value: "" if isinstance(value, list) else repr(value)[:60],
)  # fmt: skip
def test_layers_that_cannot_be_made(entry: dict[str, Any], says: list[str]) -> None:
    manager = ChannelLayerManager()
    with override_settings(CHANNEL_LAYERS={"default": {"ROUTING": [], **entry}}):
        for make in (manager.make_backend, manager.__getitem__):
            with pytest.raises(InvalidChannelLayerError) as raised:
                make("default")
            for part in says:
                assert part in str(raised.value)
    # A failure is not remembered.
    with override_settings(CHANNEL_LAYERS=LAYERS):
        assert manager["default"].capacity == 7


def test_get_channel_layer() -> None:
    layer = wrapped()
    with installed(layer):
        assert get_channel_layer() is get_channel_layer("default") is channel_layers["default"] is layer
    with pytest.raises(InvalidChannelLayerError, match="'nowhere'"):
        get_channel_layer("nowhere")


# -- the wrapper --------------------------------------------------------------------------------


def test_the_layers_own_attributes() -> None:
    layer = wrapped(capacity=1)
    inner = layer.channel_layer
    assert isinstance(inner, InMemoryChannelLayer)
    assert layer.capacity == 1
    assert layer.extensions is inner.extensions
    assert layer.in_process is True
    assert layer.new_channel("a!").startswith("a.")
    layer.send("a", {"n": 1})
    with pytest.raises(layer.ChannelFull):
        layer.send("a", {"n": 2})
    assert layer.ChannelFull is ChannelFull
    assert inner.receive(["a"]) == ("a", {"n": 1})
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        layer.nothing_of_the_kind  # noqa: B018
    assert not hasattr(layer, "nothing_of_the_kind")


def test_what_the_wrapper_spells_out_is_the_layers() -> None:
    layer = wrapped()
    layer.group_add("room", "a")
    layer.dispatch([layer.prepare("a", {"n": 1}), layer.prepare_group("room", {"n": 2})])
    assert layer.receive(["a"]) == ("a", {"n": 1})
    assert layer.receive(["a"], block=True) == ("a", {"n": 2})
    layer.group_discard("room", "a")
    assert layer.group_channels("room") == []
    assert layer.prepare("a", {}, delay=2).delay == 2


def test_str_names_the_alias_and_the_class() -> None:
    layer = ChannelLayerWrapper(InMemoryChannelLayer(), "mine", [])
    assert str(layer) == "mine (channelsq.layers.memory.InMemoryChannelLayer)"
    assert layer.described == "mine (InMemoryChannelLayer)"


def test_a_layers_description_has_its_server_and_no_password() -> None:
    layer = ChannelLayerWrapper(RedisChannelLayer(url="redis://few:s3cr3t@127.0.0.1:6379/5"), "default", [])
    assert layer.described == "default (RedisChannelLayer at redis-streams://few:**@127.0.0.1:6379/5)"


def test_a_wrapper_can_be_copied_and_fails_to_pickle_plainly() -> None:
    layer = wrapped([])
    assert copy.copy(layer).channel_layer is layer.channel_layer
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(layer)


def test_the_router_is_read_once_and_late() -> None:
    layer = wrapped("nowhere.at_all")
    with pytest.raises(InvalidRouting, match=r"'nowhere\.at_all'"):
        layer.router  # noqa: B018
    layer = wrapped([])
    assert isinstance(layer.router, Router)
    assert layer.router is layer.router


def test_a_routing_that_names_a_missing_consumer_says_so(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # An AttributeError inside the property must not come out as "the layer has no attribute 'router'".
    (tmp_path / "routing_with_a_typo.py").write_text("import os\nrouting = [os.no_such_consumer]\n")
    monkeypatch.syspath_prepend(tmp_path)
    layer = wrapped("routing_with_a_typo.routing")
    with pytest.raises(InvalidRouting, match="no_such_consumer") as raised:
        layer.router  # noqa: B018
    assert "routing_with_a_typo.routing" in str(raised.value)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (
            "from channelsq import route\nrouting = [route('a', 'os.getppidd')]",
            "cannot import the consumer 'os.getppidd': module 'os' has nothing called 'getppidd'; did you mean "
            "'getppid'? (routing_that_fails.py, line 2)",
        ),
        (
            "from channelsq import include\nrouting = [include('nowhere.at_all')]",
            "cannot import the routing 'nowhere.at_all': No module named 'nowhere' (routing_that_fails.py, line 2)",
        ),
        ("import os\nrouting = [os.nothing]", "has no attribute 'nothing' (routing_that_fails.py, line 2)"),
        ("import nowhere", "No module named 'nowhere' (routing_that_fails.py, line 1)"),
        ("routing = [\n", "SyntaxError: '[' was never closed (routing_that_fails.py, line 1)"),
        ("raise KeyError('KEY')", "KeyError: 'KEY' (routing_that_fails.py, line 1)"),
        ("import json\njson.loads('{')", "(routing_that_fails.py, line 2)"),
        ("assert False", ": AssertionError (routing_that_fails.py, line 1)"),
        (
            "from channelsq import route\nrouting = [route('a', print, path='(x)')]",
            "ValueError: the filter path='(x)' on the route a has positional groups; write them as named groups, "
            "(?P<name>...), or as (?:...) (routing_that_fails.py, line 2)",
        ),
    ],
)
def test_a_routing_that_cannot_be_imported_says_where(
    code: str, says: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "routing_that_fails.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "routing_that_fails", raising=False)
    with pytest.raises(InvalidRouting) as raised:
        wrapped("routing_that_fails.routing").router  # noqa: B018
    text = str(raised.value)
    start = (
        "CHANNEL_LAYERS['default']['ROUTING'] cannot be read: cannot import the routing 'routing_that_fails.routing': "
    )
    assert text.startswith(start)
    assert f"{says}; correct that: ROUTING is a list of route() and include()" in text


@pytest.mark.parametrize(
    ("routing", "says"),
    [
        ("os.sep", "['ROUTING'] 'os.sep' cannot be read: a routing must be a list"),
        ([5], "['ROUTING'] cannot be read: a routing holds route(), route_class() and include(), not 5; correct that"),
        (
            "os.path.nothing",
            "['ROUTING'] cannot be read: cannot import the routing 'os.path.nothing': module 'os.path' has",
        ),
    ],
)
def test_a_routing_that_is_none(routing: Any, says: str) -> None:
    with pytest.raises(InvalidRouting) as raised:
        wrapped(routing).router  # noqa: B018
    assert says in str(raised.value)


def test_capacity_patterns() -> None:
    layer = wrapped(
        capacity=10,
        channel_capacity={
            "a.exact": 1,
            "b.*": 2,
            re.compile(r"c\.\d+$"): 3,
            "b.special": 4,
            "reply*": 5,
            "body[?]*": 6,
        },
    )
    wanted = {
        "a.exact": 1, "a.exact2": 10, "b.x": 2, "b.special": 2, "c.12": 3, "c.x": 10, "reply.x!y": 5, "reply?z": 5,
        "body": 10, "body?x": 6,
    }  # fmt: skip
    for _ in range(2):
        assert {name: layer.capacity_of(name) for name in wanted} == wanted


def test_a_layer_of_the_applications_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(InMemoryChannelLayer):
        pass

    module = types.ModuleType("layer_of_my_own")
    module.Mine = Mine  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "layer_of_my_own", module)
    with override_settings(CHANNEL_LAYERS={"default": {"BACKEND": "layer_of_my_own.Mine", "ROUTING": []}}):
        assert type(ChannelLayerManager()["default"].channel_layer) is Mine


def test_overridden_settings_make_new_layers() -> None:
    before = channel_layers["default"]
    with override_settings(CHANNEL_LAYERS=LAYERS):
        assert channel_layers["default"] is not before
        assert channel_layers["default"].capacity == 7
    assert channel_layers["default"].capacity == 100


# -- several layers -----------------------------------------------------------------------------


def test_local_only_as_in_channels_1() -> None:
    assert wrapped().local_only() is True
    remote = {"BACKEND": REDIS, "ROUTING": [], "CONFIG": {"url": "redis://redis.example"}}
    with override_settings(CHANNEL_LAYERS={"default": remote}):
        assert ChannelLayerManager()["default"].local_only() is False


def test_backends_are_the_layers_that_were_made(manager: ChannelLayerManager) -> None:
    assert manager.backends == {}
    layer = manager["other"]
    assert manager.backends == {"other": layer}


def test_channels_and_groups_of_an_alias(manager: ChannelLayerManager) -> None:
    from channelsq import Channel, Group

    with override_settings(CHANNEL_LAYERS=LAYERS):
        for kind in (Channel, Group):
            assert kind("a").channel_layer.alias == "default"
            assert kind("a", alias="other").channel_layer is channel_layers["other"]
            assert kind("a", "other").channel_layer is channel_layers["other"]
            assert kind("a", alias="other", channel_layer=manager["default"]).channel_layer is manager["default"]
            with pytest.raises(InvalidChannelLayerError, match="no layer 'nowhere'"):
                kind("a", alias="nowhere")


def test_a_consumers_sends_wait_on_every_layer(manager: ChannelLayerManager) -> None:
    from channelsq import Channel, Group
    from channelsq.delivery.pending import pending_message_store

    with override_settings(CHANNEL_LAYERS=LAYERS):
        one, two = channel_layers["default"], channel_layers["other"]
        two.group_add("room", "member")
        pending_message_store.prepare()
        Channel("a").send({"n": 1})
        Group("room", alias="other").send({"n": 2})
        assert one.receive(["a"]) == two.receive(["member"]) == (None, None)
        pending_message_store.send_and_flush()
        assert one.receive(["a"]) == ("a", {"n": 1})
        assert two.receive(["member"]) == ("member", {"n": 2})
        assert one.receive(["member"]) == (None, None)


def test_a_test_backend_takes_the_place_of_its_layer(manager: ChannelLayerManager) -> None:
    before = manager["default"]
    test = manager.make_test_backend("default")
    assert manager.set("default", test) is before
    assert manager["default"].capacity == 3
    assert manager.set("default", before) is test
    assert manager["default"] is before


def remote_layers(**prefixes: str | None) -> dict[str, Any]:
    return {
        alias: {
            "BACKEND": REDIS,
            "ROUTING": [],
            "CONFIG": {"url": "redis-streams://redis.example/0", **({"prefix": prefix} if prefix else {})},
        }
        for alias, prefix in prefixes.items()
    }


def test_a_wrapper_of_a_wrapper_is_one_of_the_layer(manager: ChannelLayerManager) -> None:
    inner = manager.make_test_backend("default")
    outer = ChannelLayerWrapper(channel_layer=inner, alias="mine", routing=inner.routing[:])
    assert outer.channel_layer is inner.channel_layer
    assert (outer.alias, outer.routing, outer.capacity) == ("mine", [], 3)


def test_layers_of_one_broker_need_different_prefixes() -> None:
    for layers, apart in (
        (remote_layers(default=None, other=None), False),
        (remote_layers(default="a", other="a"), False),
        (remote_layers(default=None, other="channelsq"), False),
        (remote_layers(default=None, other="b"), True),
        (remote_layers(default="a", other="b"), True),
    ):
        with override_settings(CHANNEL_LAYERS=layers):
            made = [ChannelLayerManager()[alias] for alias in layers]
            if apart:
                check_queues_apart(made)
            else:
                with pytest.raises(InvalidChannelLayerError, match=r"\['default'\] and CHANNEL_LAYERS\['other'\]"):
                    check_queues_apart(made)
    elsewhere = remote_layers(default=None, other=None)
    elsewhere["other"]["CONFIG"]["url"] = "redis-streams://redis.example/1"
    with override_settings(CHANNEL_LAYERS=elsewhere):
        check_queues_apart([ChannelLayerManager()[alias] for alias in elsewhere])


@pytest.mark.parametrize("prefix", ["", "a b", "é", "x" * 65, 5, None])
def test_bad_prefixes(prefix: Any) -> None:
    layers = {"default": {"BACKEND": REDIS, "ROUTING": [], "CONFIG": {"prefix": prefix}}}
    with override_settings(CHANNEL_LAYERS=layers), pytest.raises(InvalidChannelLayerError, match=r"CONFIG\['prefix'\]"):
        ChannelLayerManager()["default"]
