"""What API.md promises of a channel layer, held against every layer there is."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from channelsq.exceptions import ChannelFull, ChannelNotLocal, InvalidChannelLayerError, MessageTooLarge
from channelsq.layers import BaseChannelLayer
from tests.support.ids import steady_repr
from tests.support.waiting import wait_until

Unique = Callable[[str], str]


def receive(layer: BaseChannelLayer, *channels: str, timeout: float = 5.0) -> tuple[str, dict[str, Any]]:
    """The next message; AssertionError if none comes in time."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        channel, message = layer.receive(channels, block=True)
        if channel is not None and message is not None:
            return channel, message
    raise AssertionError(f"nothing came on {channels}")


# -- sending and receiving ----------------------------------------------------------------------


def test_a_message_comes_out_as_it_went_in(layer: BaseChannelLayer, unique: Unique) -> None:
    message: dict[str, Any] = {
        "text": "é ✓ 𝄞", "bytes": b"\x00\xff\x80", "none": None, "true": True, "int": -(2**63), "max": 2**63 - 1,
        "float": 1.5, "list": [1, [b"a", "b"]], "dict": {"k": {"deep": []}}, "empty": {},
    }  # fmt: skip
    layer.send(unique("c"), message)
    assert receive(layer, unique("c")) == (unique("c"), message)


def test_tuples_arrive_as_lists(layer: BaseChannelLayer, unique: Unique) -> None:
    layer.send(unique("c"), {"pair": (b"a", b"b")})
    assert receive(layer, unique("c"))[1] == {"pair": [b"a", b"b"]}


def test_first_in_first_out(layer: BaseChannelLayer, unique: Unique) -> None:
    for number in range(20):
        layer.send(unique("c"), {"n": number})
    assert [receive(layer, unique("c"))[1]["n"] for _ in range(20)] == list(range(20))


def test_nothing_there(layer: BaseChannelLayer, unique: Unique) -> None:
    assert layer.receive([unique("c")]) == (None, None)
    assert layer.receive([]) == (None, None)


def test_blocking_receive_gives_up(make_layer: Callable[..., BaseChannelLayer], unique: Unique) -> None:
    layer = make_layer()
    started = time.monotonic()
    assert layer.receive([unique("c")], block=True) == (None, None)
    assert time.monotonic() - started >= layer.block_timeout * 0.9


def test_blocking_receive_wakes_for_a_message(layer: BaseChannelLayer, unique: Unique) -> None:
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(receive(layer, unique("c"))))
    thread.start()
    layer.send(unique("c"), {"n": 1})
    thread.join(5)
    assert got == [(unique("c"), {"n": 1})]


def test_each_message_goes_to_one_reader(layer: BaseChannelLayer, unique: Unique) -> None:
    got: list[int] = []
    lock = threading.Lock()

    def read() -> None:
        while True:
            _channel, message = layer.receive([unique("c")])
            with lock:
                if message is not None:
                    got.append(message["n"])
                elif len(got) >= 60:
                    return

    for number in range(60):
        layer.send(unique("c"), {"n": number})
    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(got) == list(range(60))


def test_several_channels_at_once(layer: BaseChannelLayer, unique: Unique) -> None:
    layer.send(unique("a"), {"n": 1})
    layer.send(unique("b"), {"n": 2})
    got = dict(receive(layer, unique("a"), unique("b"), unique("c")) for _ in range(2))
    assert got == {unique("a"): {"n": 1}, unique("b"): {"n": 2}}


@pytest.mark.parametrize("channels", ["abc", b"abc"])
def test_receive_takes_a_list(layer: BaseChannelLayer, channels: Any) -> None:
    with pytest.raises(TypeError, match=re.escape(f"[{channels!r}]")):
        layer.receive(channels)


def test_receive_many_is_receive(layer: BaseChannelLayer, unique: Unique) -> None:
    layer.send(unique("c"), {"n": 1})
    assert wait_until(lambda: layer.receive_many([unique("c")])[1], "the message") == {"n": 1}


def test_changing_the_dict_after_the_send_changes_nothing(layer: BaseChannelLayer, unique: Unique) -> None:
    message: dict[str, Any] = {"list": [1]}
    layer.send(unique("c"), message)
    message["list"].append(2)
    message["more"] = True
    assert receive(layer, unique("c"))[1] == {"list": [1]}


def test_a_delayed_message_waits(layer: BaseChannelLayer, unique: Unique) -> None:
    prepared = layer.prepare(unique("c"), {"n": 1}, delay=0.3)
    assert prepared.delay == 0.3
    with pytest.raises(ValueError, match="delay"):
        layer.prepare(unique("c"), {}, delay=-1)
    with pytest.raises(ValueError, match="delay"):
        layer.prepare(layer.new_channel("reply!"), {}, delay=1)


# -- single-reader and process-specific channels --------------------------------------------------


def test_new_channels_are_new_and_keep_their_type(layer: BaseChannelLayer) -> None:
    for pattern in ("reply!", "body?"):
        first, second = layer.new_channel(pattern), layer.new_channel(pattern)
        assert first != second
        assert first.startswith(pattern[:-1])
        assert pattern[-1] in first[:-1]
    with pytest.raises(TypeError, match="'plain'"):
        layer.new_channel("plain")


def test_single_reader_channel(layer: BaseChannelLayer) -> None:
    channel = layer.new_channel("body?")
    layer.send(channel, {"content": b"x"})
    assert receive(layer, channel) == (channel, {"content": b"x"})


def test_process_channel_by_full_name_and_by_prefix(layer: BaseChannelLayer) -> None:
    one, two = layer.new_channel("reply!"), layer.new_channel("reply!")
    prefix = one[: one.index("!") + 1]
    layer.send(one, {"n": 1})
    layer.send(two, {"n": 2})
    layer.send(one, {"n": 3})
    assert receive(layer, two) == (two, {"n": 2})
    assert receive(layer, prefix) == (one, {"n": 1})
    assert receive(layer, prefix) == (one, {"n": 3})


@pytest.mark.parametrize("channel", ["reply.somebodyelse!", "reply.somebodyelse!x"])
def test_a_process_channel_of_another_process_is_refused(layer: BaseChannelLayer, channel: str) -> None:
    with pytest.raises(ChannelNotLocal, match=re.escape(repr(channel))):
        layer.receive([channel])


def test_a_send_to_another_process_is_no_error(layer: BaseChannelLayer) -> None:
    layer.send("reply.somebodyelse!x", {"text": "hello"})


def test_listener(layer: BaseChannelLayer) -> None:
    one, two = layer.new_channel("reply!"), layer.new_channel("reply!")
    prefix = one[: one.index("!") + 1]
    got: list[tuple[list[str], dict[str, Any], str | None]] = []
    listener = layer.listen(prefix, lambda channels, message, group: got.append((sorted(channels), message, group)))
    try:
        for number in range(10):
            layer.send(one, {"n": number})
        layer.group_add("both", one)
        layer.group_add("both", two)
        layer.send_group("both", {"text": "to both"})
        wait_until(lambda: sum(len(channels) for channels, _, _ in got) == 12, "all messages")
        assert [message["n"] for channels, message, group in got if channels == [one] and group is None] == list(
            range(10)
        )
        # One delivery for all members in this process, so that a frame is made once.
        assert got[-1] == (sorted([one, two]), {"text": "to both"}, "both")
    finally:
        listener.stop()
    layer.send(one, {"n": 99})
    assert receive(layer, one) == (one, {"n": 99})
    assert got[-1][1] == {"text": "to both"}


def test_dispatch_keeps_order_and_snapshots(layer: BaseChannelLayer, unique: Unique) -> None:
    reply = layer.new_channel("reply!")
    layer.group_add("room", reply)
    layer.dispatch(
        [
            layer.prepare(reply, {"n": 1}),
            layer.prepare_group("room", {"n": 2}),
            layer.prepare(unique("work"), {"n": 0}),
            layer.prepare(reply, {"n": 3}),
        ]
    )
    found = [receive(layer, reply)[1]["n"] for _ in range(3)]
    assert sorted(found) == [1, 2, 3]
    # On several servers a message to a group and one to a channel have no order.
    assert [number for number in found if number != 2 or len(layer.parts) == 1] == sorted(
        {1, 3} if len(layer.parts) > 1 else {1, 2, 3}
    )
    assert receive(layer, unique("work"))[1] == {"n": 0}


# -- names and types --------------------------------------------------------------------------------

BAD_NAMES = [
    "",
    "a b",
    "a/b",
    "é",
    "a!b!c",
    "a?b!c",
    "x" * 100,
    "!a",
    "?a",
    "a?",
    "a\n",
    5,
    None,
    b"bytes",
    ["a"],
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
def test_bad_channel_names(layer: BaseChannelLayer, name: Any) -> None:
    with pytest.raises(TypeError, match=re.escape(repr(name))):
        layer.send(name, {})
    with pytest.raises(TypeError, match=re.escape(repr(name))):
        layer.receive([name])
    with pytest.raises(TypeError, match=re.escape(repr(name))):
        layer.group_add("room", name)
    with pytest.raises(TypeError, match=re.escape(repr(name))):
        layer.group_discard("room", name)


@pytest.mark.parametrize("name", [*BAD_NAMES, "a!b", "a?b"], ids=repr)
def test_bad_group_names(layer: BaseChannelLayer, name: Any) -> None:
    for call in (
        lambda: layer.group_add(name, "channel"),
        lambda: layer.group_discard(name, "channel"),
        lambda: layer.group_channels(name),
        lambda: layer.send_group(name, {}),
    ):
        with pytest.raises(TypeError, match=re.escape(repr(name))):
            call()


def test_a_prefix_is_not_something_to_send_to(layer: BaseChannelLayer) -> None:
    with pytest.raises(TypeError, match=r"'reply\.x!'"):
        layer.send("reply.x!", {})


@pytest.mark.parametrize(
    ("message", "named"),
    [
        ("text", "str"),
        (None, "NoneType"),
        ({1: "x"}, "1"),
        ({"key": object()}, "'key'"),
        ({"key": {2: "x"}}, "2"),
        ({"a": {"b": [1, {1, 2}]}}, "['b'][1]"),
        ({"big": 2**63}, "'big'"),
        ({"small": -(2**63) - 1}, "'small'"),
        ({"key": bytearray(b"x")}, "'key'"),
        ({"key": "\ud800"}, "UTF-8"),
    ],
    ids=steady_repr,
)
def test_messages_that_cannot_be_sent(layer: BaseChannelLayer, unique: Unique, message: Any, named: str) -> None:
    with pytest.raises(TypeError, match=re.escape(named)):
        layer.send(unique("c"), message)
    with pytest.raises(TypeError, match=re.escape(named)):
        layer.send_group("room", message)
    assert layer.receive([unique("c")]) == (None, None)


def test_a_message_that_holds_itself(layer: BaseChannelLayer, unique: Unique) -> None:
    message: dict[str, Any] = {}
    message["self"] = message
    with pytest.raises(TypeError, match="nested"):
        layer.send(unique("c"), message)


def test_message_size_limit(make_layer: Callable[..., BaseChannelLayer], unique: Unique) -> None:
    layer = make_layer(message_size_limit=1000)
    with pytest.raises(MessageTooLarge, match="1000") as raised:
        layer.send(unique("c"), {"bytes": b"x" * 1000})
    assert raised.value.limit == 1000
    assert raised.value.size > 1000
    assert isinstance(raised.value, layer.MessageTooLarge)
    layer.send(unique("c"), {"bytes": b"x" * 900})
    assert len(receive(layer, unique("c"))[1]["bytes"]) == 900


def test_a_message_of_the_default_limit_travels(layer: BaseChannelLayer, unique: Unique) -> None:
    body = bytes(range(256)) * 4000
    layer.send(unique("c"), {"bytes": body})
    assert receive(layer, unique("c"))[1]["bytes"] == body


# -- capacity and expiry ------------------------------------------------------------------------------


def test_capacity(make_layer: Callable[..., BaseChannelLayer], unique: Unique) -> None:
    layer = make_layer(capacity=3)
    for number in range(3):
        layer.send(unique("c"), {"n": number})
    with pytest.raises(ChannelFull, match=re.escape(unique("c"))) as raised:
        layer.send(unique("c"), {"n": 3})
    assert isinstance(raised.value, layer.ChannelFull)
    assert [receive(layer, unique("c"))[1]["n"] for _ in range(3)] == [0, 1, 2]
    layer.send(unique("c"), {"n": 4})
    assert receive(layer, unique("c"))[1]["n"] == 4


def test_the_default_capacity_is_a_hundred(layer: BaseChannelLayer, unique: Unique) -> None:
    for number in range(100):
        layer.send(unique("c"), {"n": number})
    with pytest.raises(ChannelFull, match="100"):
        layer.send(unique("c"), {"n": 100})


def test_channel_capacity_by_pattern(make_layer: Callable[..., BaseChannelLayer], unique: Unique) -> None:
    layer = make_layer(capacity=5, channel_capacity={"*.small": 1, re.compile(r".*\.big$"): 7})
    assert [layer.capacity_of(unique(name)) for name in ("small", "big", "other")] == [1, 7, 5]
    layer.send(unique("small"), {})
    with pytest.raises(ChannelFull):
        layer.send(unique("small"), {})


def test_one_full_channel_does_not_keep_the_others_from_theirs(
    make_layer: Callable[..., BaseChannelLayer], unique: Unique
) -> None:
    layer = make_layer(capacity=1)
    layer.send(unique("full"), {})
    with pytest.raises(ChannelFull, match=re.escape(unique("full"))):
        layer.dispatch([layer.prepare(unique("full"), {}), layer.prepare(unique("free"), {"n": 1})])
    assert receive(layer, unique("free"))[1] == {"n": 1}


def test_messages_expire(make_layer: Callable[..., BaseChannelLayer], unique: Unique) -> None:
    layer = make_layer(expiry=0.2)
    reply, body = layer.new_channel("reply!"), layer.new_channel("body?")
    for channel in (unique("c"), reply, body):
        layer.send(channel, {"n": 1})
    threading.Event().wait(0.3)  # the time itself is what is tested
    for channel in (unique("c"), reply, body):
        assert layer.receive([channel]) == (None, None)


def test_expired_messages_make_room(make_layer: Callable[..., BaseChannelLayer], unique: Unique) -> None:
    layer = make_layer(expiry=1, capacity=2)  # in which the last one is received, also on a busy machine
    layer.send(unique("c"), {"n": 1})
    layer.send(unique("c"), {"n": 2})

    def send() -> bool:
        try:
            layer.send(unique("c"), {"n": 3})
        except ChannelFull:
            return False
        return True

    wait_until(send, "room for a message", timeout=5, interval=0.1)
    assert receive(layer, unique("c"))[1]["n"] == 3


# -- groups ---------------------------------------------------------------------------------------------


def test_extensions(layer: BaseChannelLayer) -> None:
    assert {"groups", "flush"} <= set(layer.extensions)
    assert layer.group_expiry == 86_400
    assert layer.expiry == 60
    assert layer.capacity == 100
    assert layer.channel_capacity == {}


def test_group_send_reaches_members_of_every_kind(layer: BaseChannelLayer, unique: Unique) -> None:
    members = [layer.new_channel("reply!"), layer.new_channel("body?"), unique("work")]
    outsider = unique("other")
    for member in members:
        layer.group_add("room", member)
        layer.group_add("room", member)
    assert sorted(layer.group_channels("room")) == sorted(members)
    layer.send_group("room", {"text": "hello"})
    for member in members:
        assert receive(layer, member) == (member, {"text": "hello"})
        assert layer.receive([member]) == (None, None)
    assert layer.receive([outsider]) == (None, None)


def test_discard(layer: BaseChannelLayer, unique: Unique) -> None:
    layer.group_add("room", unique("a"))
    layer.group_add("room", unique("b"))
    layer.group_discard("room", unique("a"))
    layer.group_discard("room", unique("never"))
    layer.send_group("room", {"n": 1})
    assert receive(layer, unique("b"))[1] == {"n": 1}
    assert layer.receive([unique("a")]) == (None, None)
    assert layer.group_channels("room") == [unique("b")]


def test_send_to_an_empty_group(layer: BaseChannelLayer) -> None:
    layer.send_group("nobody", {"text": "hello"})
    assert layer.group_channels("nobody") == []


def test_groups_do_not_mix(layer: BaseChannelLayer, unique: Unique) -> None:
    layer.group_add("one", unique("a"))
    layer.group_add("two", unique("b"))
    layer.send_group("one", {"n": 1})
    assert receive(layer, unique("a"))[1] == {"n": 1}
    assert layer.receive([unique("b")]) == (None, None)


def test_forget_channel_ends_every_membership(layer: BaseChannelLayer, unique: Unique) -> None:
    for group in ("one", "two", "three"):
        layer.group_add(group, unique("gone"))
        layer.group_add(group, unique("stays"))
    layer.forget_channel(unique("gone"))
    assert [layer.group_channels(group) for group in ("one", "two", "three")] == [[unique("stays")]] * 3
    layer.forget_channel(unique("never"))


def test_membership_expires(make_layer: Callable[..., BaseChannelLayer], unique: Unique) -> None:
    layer = make_layer(group_expiry=0.6)
    started = time.monotonic()
    layer.group_add("room", unique("old"))
    layer.group_add("room", unique("renewed"))
    wait_until(lambda: time.monotonic() - started > 0.4, "most of the expiry to pass")
    layer.group_add("room", unique("renewed"))
    wait_until(lambda: layer.group_channels("room") == [unique("renewed")], "the old member to go", timeout=2)
    wait_until(lambda: layer.group_channels("room") == [], "the renewed member to go", timeout=3)


def test_a_full_member_is_skipped_counted_and_logged(
    make_layer: Callable[..., BaseChannelLayer], unique: Unique, caplog: pytest.LogCaptureFixture
) -> None:
    layer = make_layer(capacity=1)
    layer.group_add("room", unique("full"))
    layer.group_add("room", unique("free"))
    layer.send(unique("full"), {"n": 0})
    with caplog.at_level(logging.WARNING, "channelsq"):
        layer.send_group("room", {"n": 1})
    assert layer.dropped == 1
    assert unique("full") in caplog.text
    assert receive(layer, unique("free"))[1] == {"n": 1}
    assert receive(layer, unique("full"))[1] == {"n": 0}


# -- housekeeping -------------------------------------------------------------------------------------


def test_depth_is_what_no_worker_has_taken(layer: BaseChannelLayer, unique: Unique) -> None:
    channel, other = unique("counted"), unique("other")
    assert layer.depth(channel) == 0
    for n in range(5):
        layer.send(channel, {"n": n})
    layer.send(other, {})
    # A broker that confirms nothing may count a little later.
    wait_until(lambda: layer.depth(channel) == 5, "a depth of 5")
    receive(layer, channel)
    wait_until(lambda: layer.depth(channel) == 4, "a depth of 4")
    assert layer.depth(other) == 1


def test_the_state_of_a_channel(layer: BaseChannelLayer, unique: Unique) -> None:
    channel = unique("jobs")
    assert layer.channel_state(channel)[:3] in ((0, None, None), (0, 0, None))
    layer.send(channel, {"number": 1})
    layer.send(channel, {"number": 2})
    state = wait_until(lambda: state if (state := layer.channel_state(channel)).waiting == 2 else None, "both")
    assert state.oldest is None or 0 <= state.oldest < 10  # AMQP does not tell
    assert not state.held
    assert not state.dead
    again = layer.channel_state(channel)
    assert state.oldest is None or again.oldest is None or again.oldest >= state.oldest
    for _ in range(2):
        receive(layer, channel)
    assert wait_until(lambda: not layer.channel_state(channel).waiting, "none")
    assert layer.channel_state(channel).oldest is None


def test_purge(layer: BaseChannelLayer, unique: Unique) -> None:
    channel, other = unique("jobs"), unique("others")
    assert layer.purge(channel) == 0
    for number in range(3):
        layer.send(channel, {"number": number})
        layer.send(other, {"number": number})
    wait_until(lambda: layer.depth(channel) == 3, "all of them")
    assert layer.purge(channel) == 3
    assert layer.depth(channel) == 0
    assert layer.receive([channel]) == (None, None)
    layer.send(channel, {"number": 4})
    assert wait_until(lambda: layer.depth(channel) == 1, "the next one")
    assert wait_until(lambda: layer.depth(other) == 3, "the others")


def test_sizes_of_groups(layer: BaseChannelLayer) -> None:
    assert layer.group_sizes(10, 1) == ({}, False)
    assert layer.some_members("room", 10) == ([], 0)
    channels = [layer.new_channel("websocket.send!") for _ in range(5)]
    for number in range(5):
        for channel in channels[: number + 1]:
            layer.group_add(f"room-{number}", channel)
    assert layer.group_sizes(5, 5) == ({f"room-{number}": number + 1 for number in range(5)}, False)
    some, cut = layer.group_sizes(2, 5)
    assert cut
    assert len(some) == 2
    members, total = layer.some_members("room-4", 2)
    assert total == 5
    assert len(members) == 2
    assert set(members) < set(channels)
    assert sorted(layer.some_members("room-4", 100)[0]) == sorted(channels)


def test_flush(layer: BaseChannelLayer, unique: Unique) -> None:
    reply = layer.new_channel("reply!")
    layer.send(unique("c"), {})
    layer.send(reply, {})
    layer.group_add("room", unique("c"))
    layer.flush()
    assert layer.receive([unique("c"), reply]) == (None, None)
    assert layer.group_channels("room") == []


def test_usable_after_close(layer: BaseChannelLayer, unique: Unique) -> None:
    layer.group_add("room", unique("c"))
    layer.send(unique("c"), {"n": 1})
    layer.close()
    assert receive(layer, unique("c"))[1] == {"n": 1}
    assert layer.group_channels("room") == [unique("c")]


def test_async_callers(layer: BaseChannelLayer, unique: Unique) -> None:
    async def use() -> None:
        await layer.asend(unique("c"), {"n": 1})
        await layer.agroup_add("room", unique("c"))
        await layer.asend_group("room", {"n": 2})
        await layer.agroup_discard("room", unique("c"))

    asyncio.run(use())
    assert [receive(layer, unique("c"))[1]["n"] for _ in range(2)] == [1, 2]
    assert layer.group_channels("room") == []


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"expiry": 0}, "expiry"),
        ({"capacity": "many"}, "'many'"),
        ({"message_size_limit": -1}, "message_size_limit"),
        ({"unrouted": "maybe"}, "'maybe'"),
        ({"group_expiry": True}, "group_expiry"),
    ],
    ids=repr,
)
def test_bad_configuration(make_layer: Callable[..., BaseChannelLayer], config: Any, named: str) -> None:
    with pytest.raises(InvalidChannelLayerError, match=named):
        make_layer(**config)
