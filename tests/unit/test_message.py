from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async

from channelsq import Channel, Group
from channelsq.asgi import ChannelLayerWrapper, channel_layers
from channelsq.exceptions import ChannelFull
from channelsq.message import Message, pending_message_store
from tests.support.layers import drain, installed, wrapped


@pytest.fixture
def layer() -> Iterator[ChannelLayerWrapper]:
    layer = wrapped(capacity=6)
    with installed(layer):
        yield layer


# -- the message --------------------------------------------------------------------------------


def test_a_message(layer: ChannelLayerWrapper) -> None:
    content = {"reply_channel": "reply.x!y", "text": "hello"}
    message = Message(content, "websocket.receive", layer)
    assert message.content is content
    assert message.channel_layer is layer
    assert isinstance(message.channel, Channel)
    assert message.channel.name == "websocket.receive"
    assert message.channel.channel_layer is layer
    assert message.reply_channel is not None
    assert message.reply_channel.name == "reply.x!y"
    assert message.reply_channel.channel_layer is layer
    assert "websocket.receive" in repr(message)
    assert "hello" not in repr(message)


@pytest.mark.parametrize("content", [{}, {"reply_channel": None}, {"reply_channel": ""}])
def test_a_message_without_a_reply_channel(layer: ChannelLayerWrapper, content: dict[str, Any]) -> None:
    assert Message(content, "a", layer).reply_channel is None


def test_mapping_access(layer: ChannelLayerWrapper) -> None:
    message = Message({"a": 1, "b": None}, "c", layer)
    assert message["a"] == 1
    assert "b" in message
    assert "c" not in message
    assert message.get("b", 2) is None
    assert message.get("c") is None
    assert message.get("c", 2) == 2
    assert list(message.keys()) == list(message) == ["a", "b"]
    assert list(message.values()) == [1, None]
    assert list(message.items()) == [("a", 1), ("b", None)]
    assert dict(message) == {"a": 1, "b": None}
    with pytest.raises(KeyError, match="c"):
        message["c"]
    message["c"] = 3
    assert message.content["c"] == 3


def test_copy(layer: ChannelLayerWrapper) -> None:
    class Mine(Message):
        pass

    message = Mine({"a": 1, "reply_channel": "reply.x!y"}, "c", layer)
    copy = message.copy()
    copy["a"] = 2
    assert message["a"] == 1
    assert type(copy) is Mine
    assert copy.channel.name == "c"
    assert copy.channel_layer is layer
    assert str(copy.reply_channel) == "reply.x!y"


def test_a_copy_shares_nothing_that_can_be_changed(layer: ChannelLayerWrapper) -> None:
    message = Message({"headers": [[b"host", b"x"]]}, "c", layer)
    copy = message.copy()
    copy["headers"][0][1] = b"y"
    assert message["headers"] == [[b"host", b"x"]]
    assert copy.id == message.id


def test_a_message_may_name_no_layer_then_it_is_the_default_one(layer: ChannelLayerWrapper) -> None:
    message = Message({"reply_channel": "reply.x!y"}, "c", None)
    assert message.reply_channel is not None
    assert message.reply_channel.channel_layer is message.channel.channel_layer is layer


def test_every_message_has_an_id_of_its_own(layer: ChannelLayerWrapper) -> None:
    first, second = Message({}, "c", layer), Message({}, "c", layer)
    assert first.id == first.id != second.id
    assert first.copy().id == first.id


# -- sends that wait ----------------------------------------------------------------------------


def send_each(content: dict[str, Any], *channels: Channel) -> None:
    for channel in channels:
        channel.send(content)


def run(consumer: Callable[[], Any]) -> None:
    """Do as a worker: hold sends, call the consumer, and send after a success."""
    with pending_message_store.holding():
        consumer()
        pending_message_store.send_and_flush()


def test_outside_a_consumer_sends_go_at_once(layer: ChannelLayerWrapper) -> None:
    assert not pending_message_store.active
    Channel("a").send({"n": 1})
    pending_message_store.append(Channel("a"), {"n": 2})
    pending_message_store.send_and_flush()
    pending_message_store.discard()
    assert drain(layer, "a") == [{"n": 1}, {"n": 2}]


def test_sends_wait_for_the_consumers_end_and_go_in_one_write(layer: ChannelLayerWrapper) -> None:
    seen: list[Any] = []

    def consumer() -> None:
        Group("room").add("b")  # acts at once
        Channel("a").send({"n": 1})
        Group("room").send({"n": 2})
        Channel("a").send({"n": 3})
        seen.append((layer.writes[:], drain(layer, "a"), layer.group_channels("room")))

    run(consumer)
    assert seen == [([], [], ["b"])]
    assert layer.writes == [["a", "room", "a"]]
    assert drain(layer, "a") == [{"n": 1}, {"n": 3}]
    assert drain(layer, "b") == [{"n": 2}]
    assert not pending_message_store.active


def test_immediately(layer: ChannelLayerWrapper) -> None:
    def consumer() -> None:
        Channel("a").send({"n": 1})
        Channel("a").send({"n": 2}, immediately=True)
        Group("room").add("b")
        Group("room").send({"n": 3}, immediately=True)
        assert drain(layer, "a") == [{"n": 2}]
        assert drain(layer, "b") == [{"n": 3}]
        raise LookupError

    with pytest.raises(LookupError):
        run(consumer)
    assert drain(layer, "a", "b") == []


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(1), KeyboardInterrupt()], ids=repr)
def test_a_failed_consumer_sends_nothing(layer: ChannelLayerWrapper, error: BaseException) -> None:
    def consumer() -> None:
        Channel("a").send({"n": 1})
        Group("room").send({"n": 1})
        raise error

    with pytest.raises(type(error)):
        run(consumer)
    assert layer.writes == []
    assert not pending_message_store.active
    Channel("a").send({"n": 2})
    assert drain(layer, "a") == [{"n": 2}]


def certainly(target: Channel | Group, **content: Any) -> None:
    pending_message_store.hold_certain(target.channel_layer, [target.prepare(content)])


def test_what_is_certain_takes_its_turn(layer: ChannelLayerWrapper) -> None:
    def consumer() -> None:
        Channel("a").send({"n": 1})
        certainly(Channel("a"), n=2)
        Channel("a").send({"n": 3})
        assert layer.writes == []

    run(consumer)
    assert drain(layer, "a") == [{"n": 1}, {"n": 2}, {"n": 3}]
    certainly(Channel("a"), n=4)  # outside a consumer it goes at once
    assert drain(layer, "a") == [{"n": 4}]


@pytest.mark.parametrize("discarded", [False, True], ids=["failed", "discarded"])
def test_what_is_certain_goes_out_whatever_becomes_of_the_rest(layer: ChannelLayerWrapper, discarded: bool) -> None:
    def consumer() -> None:
        Channel("a").send({"n": 1})
        certainly(Channel("a"), n=1)
        certainly(Group("room"), n=2)
        Channel("a").send({"n": 1})
        certainly(Channel("a"), n=3)
        if not discarded:
            raise LookupError
        pending_message_store.discard()

    with contextlib.nullcontext() if discarded else pytest.raises(LookupError):
        run(consumer)
    assert layer.writes == [["a", "room", "a"]]
    assert drain(layer, "a") == [{"n": 1}, {"n": 3}]
    assert not pending_message_store.active


def test_what_is_held_is_what_was_sent_then(layer: ChannelLayerWrapper) -> None:
    def consumer() -> None:
        content = {"list": [1]}
        Channel("a").send(content)
        content["list"].append(2)
        with pytest.raises(TypeError, match="'bad'"):
            Channel("a").send({"bad": object()})

    run(consumer)
    assert drain(layer, "a") == [{"list": [1]}]


def test_nested_consumers_are_units_of_their_own(layer: ChannelLayerWrapper) -> None:
    def inner_fails() -> None:
        Channel("a").send({"inner": "failed"})
        raise LookupError

    def outer() -> None:
        Channel("a").send({"outer": 1})
        run(lambda: Channel("a").send({"inner": "ok"}))
        assert drain(layer, "a") == [{"inner": "ok"}]
        with pytest.raises(LookupError):
            run(inner_fails)
        assert pending_message_store.active
        Channel("a").send({"outer": 2})
        assert drain(layer, "a") == []

    run(outer)
    assert drain(layer, "a") == [{"outer": 1}, {"outer": 2}]


def test_the_store_by_hand(layer: ChannelLayerWrapper) -> None:
    pending_message_store.prepare()
    assert pending_message_store.active
    Channel("a").send({"n": 1})
    pending_message_store.append(Group("room"), {"n": 2})
    pending_message_store.append(Channel("a"), {"n": 3})
    assert layer.writes == []
    pending_message_store.send_and_flush()
    assert layer.writes == [["a", "room", "a"]]
    assert not pending_message_store.active
    pending_message_store.prepare()
    Channel("a").send({"n": 4})
    pending_message_store.discard()
    pending_message_store.send_and_flush()
    assert drain(layer, "a") == [{"n": 1}, {"n": 3}]


def test_a_full_channel_does_not_cost_the_others_theirs(layer: ChannelLayerWrapper) -> None:
    for _ in range(6):
        Channel("full").send({})

    def consumer() -> None:
        Channel("a").send({"n": 1})
        Channel("full").send({"n": 1})
        Channel("a").send({"n": 2})
        Group("room").add("full")
        Group("room").send({"n": 3})

    with pytest.raises(ChannelFull, match="'full'"):
        run(consumer)
    assert drain(layer, "a") == [{"n": 1}, {"n": 2}]
    assert layer.dropped == 1
    assert not pending_message_store.active


def test_several_layers_get_a_write_each(layer: ChannelLayerWrapper) -> None:
    other = wrapped(alias="other", capacity=1)

    def consumer() -> None:
        Channel("a").send({"n": 1})
        Channel("a", channel_layer=other).send({"n": 2})
        Channel("b").send({"n": 3})

    run(consumer)
    assert layer.writes == [["a", "b"]]
    assert other.writes == [["a"]]
    # One that is full, or fails, keeps nothing from the other, whichever comes first.
    with pytest.raises(ChannelFull):
        run(consumer)
    assert drain(layer, "a", "b") == [{"n": 1}, {"n": 3}] * 2
    with pytest.raises(ChannelFull):
        run(lambda: send_each({"n": 4}, Channel("a", channel_layer=other), Channel("a")))
    assert drain(layer, "a") == [{"n": 4}]


def test_every_layer_that_failed_is_named() -> None:
    one, two = wrapped(capacity=1), wrapped(capacity=1)
    for layer in (one, two):
        layer.send("a", {})
    with pytest.raises(ChannelFull) as raised:
        run(lambda: send_each({}, Channel("a", channel_layer=one), Channel("a", channel_layer=two)))
    assert "another channel layer: channel 'a' is at its capacity" in raised.value.__notes__[0]


class BrokenLayerError(Exception):
    """Something no layer is known to raise."""


def test_an_error_nobody_foresaw_keeps_nothing_from_the_other_layer(layer: ChannelLayerWrapper) -> None:
    broken = wrapped()

    def dispatch(sends: Any) -> None:
        raise BrokenLayerError

    broken.channel_layer.dispatch = dispatch  # type: ignore[method-assign]
    with pytest.raises(BrokenLayerError):
        run(lambda: send_each({"n": 1}, Channel("a", channel_layer=broken), Channel("a")))
    assert drain(layer, "a") == [{"n": 1}]


# -- threads and event loops --------------------------------------------------------------------


def test_sends_from_async_code_in_a_consumer_wait_too(layer: ChannelLayerWrapper) -> None:
    def deep() -> None:
        Channel("a").send({"n": 2})

    async def code() -> None:
        Channel("a").send({"n": 1})
        await sync_to_async(deep)()
        await sync_to_async(deep, thread_sensitive=False)()
        await asyncio.create_task(asyncio.to_thread(deep))
        Channel("a").send({"n": 3})

    def consumer() -> None:
        async_to_sync(code)()
        assert layer.writes == []
        Channel("a").send({"n": 4})

    run(consumer)
    assert layer.writes == [["a"] * 6]
    assert [message["n"] for message in drain(layer, "a")] == [1, 2, 2, 2, 3, 4]


def test_async_code_that_fails_sends_nothing(layer: ChannelLayerWrapper) -> None:
    async def code() -> None:
        Channel("a").send({"n": 1})
        await sync_to_async(lambda: Channel("a").send({"n": 2}))()
        raise LookupError

    with pytest.raises(LookupError):
        run(lambda: async_to_sync(code)())
    assert layer.writes == []
    assert not pending_message_store.active


def test_a_consumer_inside_an_event_loops_thread(layer: ChannelLayerWrapper) -> None:
    async def code() -> None:
        await sync_to_async(run)(lambda: Channel("a").send({"n": 1}))
        # Nothing leaked back into the loop's context.
        assert not pending_message_store.active
        await asyncio.gather(*(asyncio.to_thread(run, lambda: Channel("b").send({})) for _ in range(3)))

    asyncio.run(code())
    assert len(layer.writes) == 4


def test_each_thread_has_its_own(layer: ChannelLayerWrapper) -> None:
    together = threading.Barrier(4)

    def work(number: int) -> None:
        def consumer() -> None:
            for _ in range(3):
                Channel(f"c{number}").send({"n": number})
                together.wait(10)
            if number % 2:
                raise LookupError

        with contextlib.suppress(LookupError):
            run(consumer)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(layer.writes) == [["c0"] * 3, ["c2"] * 3]


def test_a_thread_that_a_consumer_starts_sends_for_itself(layer: ChannelLayerWrapper) -> None:
    def consumer() -> None:
        thread = threading.Thread(target=contextvars.Context().run, args=(lambda: Channel("a").send({"n": 1}),))
        thread.start()
        thread.join(10)
        raise LookupError

    with pytest.raises(LookupError):
        run(consumer)
    assert drain(layer, "a") == [{"n": 1}]


@pytest.mark.parametrize("fails", [False, True])
def test_what_outlives_its_consumer_is_not_lost(layer: ChannelLayerWrapper, fails: bool) -> None:
    # asyncio.to_thread, executors that copy the context and, on free-threaded Python, every thread.
    left_behind: list[contextvars.Context] = []

    def consumer() -> None:
        Channel("a").send({"n": 1})
        left_behind.append(contextvars.copy_context())
        if fails:
            raise LookupError

    try:
        run(consumer)
    except LookupError:
        assert fails
    left_behind[0].run(lambda: Channel("a").send({"n": 2}))
    assert drain(layer, "a") == ([{"n": 2}] if fails else [{"n": 1}, {"n": 2}])


def test_a_message_made_by_hand_needs_neither_channel_nor_layer() -> None:
    message = Message({"reply_channel": "some"}, None, None)
    assert message.channel_layer is channel_layers["default"]
    assert message.reply_channel is not None
    assert repr(message) == "<Message from no channel with ['reply_channel']>"
    assert message.copy().channel_name == ""
    assert message.channel_layer.router.match(message) is None
    with pytest.raises(TypeError, match="'' is not a channel name"):
        message.channel  # noqa: B018
