"""``@enforce_ordering``: in order, and never stuck."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
from celery.exceptions import Reject, Retry

from channelsq import Channel
from channelsq.asgi import ChannelLayerWrapper
from channelsq.exceptions import ChannelFull, ConsumeLater
from channelsq.layers import InMemoryChannelLayer
from channelsq.message import Message, pending_message_store
from channelsq.session_support.ordering import MessageOrder
from channelsq.sessions import (
    channel_session,
    enforce_ordering,
    requeue_messages,
    session_for_reply_channel,
    wait_channel_name,
)
from tests.support.layers import drain
from tests.support.waiting import wait_until
from tests.unit.test_sessions import engine as engine

pytestmark = pytest.mark.django_db

CHANNEL = "websocket.receive"


@pytest.fixture
def memory_sessions(settings: Any) -> None:
    """Sessions that threads share outside of the test's transaction."""
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "order"}}


@pytest.fixture
def handled() -> list[int]:
    return []


@pytest.fixture
def handle(handled: list[int]) -> Any:
    @enforce_ordering
    def handle(message: Any) -> str:
        handled.append(message["order"])
        return f"did {message['order']}"

    return handle


def message(layer: ChannelLayerWrapper, order: int | None, reply_channel: str | None = "reply", **more: Any) -> Any:
    content = {"order": order, "reply_channel": reply_channel, **more}
    return Message({key: value for key, value in content.items() if value is not None}, CHANNEL, layer)


def waiting(layer: ChannelLayerWrapper, reply_channel: str = "reply") -> list[int]:
    return [int(content["order"]) for content in drain(layer, wait_channel_name(reply_channel))]


def run_all(layer: ChannelLayerWrapper, handle: Any) -> None:
    """Handle what is on the channel until there is nothing."""
    while True:
        channel, content = layer.receive([CHANNEL])
        if channel is None or content is None:
            return
        handle(Message(content, channel, layer))


def run_until(condition: Callable[[], bool], layer: ChannelLayerWrapper, handle: Any) -> None:
    """Handle what is on the channel, and comes on it, until ``condition`` holds."""

    def holds() -> bool:
        run_all(layer, handle)
        return condition()

    wait_until(holds, "the messages to be handled")


def test_messages_in_order_are_handled(channel_layer: ChannelLayerWrapper, handle: Any, handled: list[int]) -> None:
    assert [handle(message(channel_layer, order)) for order in range(3)] == ["did 0", "did 1", "did 2"]
    assert handled == [0, 1, 2]
    assert waiting(channel_layer) == []


def test_a_message_that_comes_early_waits(channel_layer: ChannelLayerWrapper, handle: Any, handled: list[int]) -> None:
    handle(message(channel_layer, 0))
    handle(message(channel_layer, 2))
    assert handled == [0]
    (content,) = drain(channel_layer, wait_channel_name("reply"))
    assert content == {"order": 2, "reply_channel": "reply", "original_channel": CHANNEL}


@pytest.mark.parametrize("orders", [(2, 1, 0), (1, 0, 2), (0, 3, 2, 1), (5, 4, 3, 2, 1, 0)], ids=str)
def test_messages_that_waited_are_handled_in_order(
    channel_layer: ChannelLayerWrapper, handle: Any, handled: list[int], orders: tuple[int, ...]
) -> None:
    for order in orders:
        handle(message(channel_layer, order))
    run_all(channel_layer, handle)
    assert handled == sorted(orders)
    assert waiting(channel_layer) == []


def test_sockets_do_not_wait_for_each_other(
    channel_layer: ChannelLayerWrapper, handle: Any, handled: list[int]
) -> None:
    handle(message(channel_layer, 1, "one"))
    handle(message(channel_layer, 0, "other"))
    assert handled == [0]
    assert waiting(channel_layer, "one") == [1]


def test_a_message_that_comes_again_is_handled_again(
    channel_layer: ChannelLayerWrapper, handle: Any, handled: list[int]
) -> None:
    for order in (0, 1, 0, 2):
        handle(message(channel_layer, order))
    assert handled == [0, 1, 0, 2]


def test_a_consumer_that_fails_lets_the_next_message_come(
    channel_layer: ChannelLayerWrapper, handled: list[int]
) -> None:
    @enforce_ordering
    def handle(message: Any) -> None:
        handled.append(message["order"])
        if message["order"] == 0:
            raise KeyError("broken")

    handle(message(channel_layer, 1))
    with pytest.raises(KeyError):
        handle(message(channel_layer, 0))
    run_all(channel_layer, handle)
    assert handled == [0, 1]


def test_a_message_that_is_put_back_is_waited_for(channel_layer: ChannelLayerWrapper, handled: list[int]) -> None:
    tries = iter([True, False])

    @enforce_ordering
    def handle(message: Any) -> None:
        if message["order"] == 0 and next(tries):
            raise ConsumeLater
        handled.append(message["order"])

    with pytest.raises(ConsumeLater):
        handle(message(channel_layer, 0))
    handle(message(channel_layer, 1))
    assert handled == []
    handle(message(channel_layer, 0))
    run_all(channel_layer, handle)
    assert handled == [0, 1]


def test_a_lost_message_is_given_up(
    channel_layer: ChannelLayerWrapper,
    handle: Any,
    handled: list[int],
    settings: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings.CHANNEL_ORDERING_WAIT = 0.05
    handle(message(channel_layer, 0))
    for order in (4, 3):  # 1 and 2 never come
        handle(message(channel_layer, order))
    with caplog.at_level(logging.WARNING, "channelsq.ordering"):
        run_until(lambda: len(handled) == 3, channel_layer, handle)
    assert handled == [0, 3, 4]
    assert [getattr(record, "action", "") for record in caplog.records] == ["order_given_up"]
    assert "message 1 did not arrive" in caplog.text
    assert waiting(channel_layer) == []


def test_a_reminder_does_nothing_while_it_moves(
    channel_layer: ChannelLayerWrapper, handle: Any, handled: list[int], settings: Any, caplog: Any
) -> None:
    settings.CHANNEL_ORDERING_WAIT = 0.05
    handle(message(channel_layer, 1))
    handle(message(channel_layer, 0))
    received: list[dict[str, Any]] = []

    def reminded() -> bool:
        channel, content = channel_layer.receive([CHANNEL])
        if channel is not None and content is not None:
            received.append(content)
            handle(Message(content, channel, channel_layer))
        return any("order" not in content for content in received)

    wait_until(reminded, "the reminder")
    assert handled == [0, 1]
    assert not caplog.records


def test_what_waits_is_not_handled_in_vain_at_each_turn(channel_layer: ChannelLayerWrapper, handled: list[int]) -> None:
    calls = []

    @enforce_ordering
    def handle(message: Any) -> None:
        handled.append(message["order"])

    def call(message: Any) -> None:
        calls.append(message["order"])
        handle(message)

    for order in reversed(range(50)):
        call(message(channel_layer, order))
    run_all(channel_layer, call)
    assert handled == list(range(50))
    assert len(calls) < 2 * 50


def test_what_is_not_due_waits_on_while_the_next_is_handled(
    channel_layer: ChannelLayerWrapper, handle: Any, handled: list[int]
) -> None:
    for order in (3, 2, 1, 0):
        handle(message(channel_layer, order))
    assert [content["order"] for content in drain(channel_layer, CHANNEL)] == [1]
    assert waiting(channel_layer) == [3, 2]


@pytest.mark.usefixtures("engine")
def test_order_is_kept_by_every_session_engine(
    channel_layer: ChannelLayerWrapper, handle: Any, handled: list[int]
) -> None:
    for order in (1, 0, 3, 2):
        handle(message(channel_layer, order))
        run_all(channel_layer, handle)
    assert handled == [0, 1, 2, 3]


def test_a_store_that_forgets_delays_and_does_not_stop(
    channel_layer: ChannelLayerWrapper, handle: Any, handled: list[int], settings: Any
) -> None:
    settings.CHANNEL_ORDERING_WAIT = 0.05
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
    for order in (0, 2, 1):
        handle(message(channel_layer, order, text="hello"))
    run_until(lambda: len(handled) == 3, channel_layer, handle)
    assert handled == [0, 1, 2]


def test_a_message_that_was_given_up_and_comes_late_does_not_turn_the_count_back(
    channel_layer: ChannelLayerWrapper, handled: list[int]
) -> None:
    @enforce_ordering
    def handle(message: Any) -> None:
        if message["order"] == 0 and not handled:
            handled.append(0)
            for order in (0, 1, 2):  # again in another worker, and those after it, while this one still runs
                handle(Message({**message.content, "order": order}, CHANNEL, channel_layer))
        else:
            handled.append(message["order"])

    handle(message(channel_layer, 0))
    handle(message(channel_layer, 3))
    assert handled == [0, 0, 1, 2, 3]


def test_the_channel_session_is_saved_before_the_next_message_may_come(
    channel_layer: ChannelLayerWrapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []
    passed = MessageOrder.passed

    def look_and_pass(self: MessageOrder, order: int) -> None:
        found.append(session_for_reply_channel("reply")["n"])
        passed(self, order)

    @enforce_ordering
    def handle(message: Any) -> None:
        message.channel_session["n"] = message["order"]

    monkeypatch.setattr(MessageOrder, "passed", look_and_pass)
    for decorated in (handle, channel_session(handle)):
        decorated(message(channel_layer, 0))
        decorated(message(channel_layer, 1))
    assert found == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("error", "waited_for"),
    [(ConsumeLater(), True), (Retry(), True), (Reject(requeue=True), True), (Reject(), False), (KeyError(), False)],
    ids=["ConsumeLater", "Retry", "Reject requeue", "Reject", "KeyError"],
)
def test_which_failures_are_waited_for(channel_layer: ChannelLayerWrapper, error: Exception, waited_for: bool) -> None:
    @enforce_ordering
    def handle(message: Any) -> None:
        raise error

    handle(message(channel_layer, 1))
    with pytest.raises(type(error)):
        handle(message(channel_layer, 0))
    assert waiting(channel_layer) == ([1] if waited_for else [])


def test_a_consumer_whose_sends_fail_lets_the_next_message_come(channel_layer: ChannelLayerWrapper) -> None:
    @enforce_ordering
    def handle(message: Any) -> None:
        Channel("full").send({})

    for _ in range(100):
        Channel("full").send({})
    handle(message(channel_layer, 1))
    with pytest.raises(ChannelFull), pending_message_store.holding():
        handle(message(channel_layer, 0))
    assert waiting(channel_layer) == []


# -- the connect consumer


def test_the_connect_consumer_of_a_socket_needs_no_decorator(
    channel_layer: ChannelLayerWrapper, handle: Any, handled: list[int]
) -> None:
    socket = channel_layer.new_channel("websocket.send!")
    for order in (2, 1):
        handle(message(channel_layer, order, socket))
        run_all(channel_layer, handle)
    assert handled == [1, 2]


def test_a_decorated_connect_consumer_that_accepts_at_once_is_waited_for(channel_layer: ChannelLayerWrapper) -> None:
    socket = channel_layer.new_channel("websocket.send!")
    events = []

    @enforce_ordering
    def handle(message: Any) -> None:
        events.append(("begin", message["order"]))
        if message["order"] == 0:  # here it accepts, and the first frame is handled by another worker
            handle(Message({"order": 1, "reply_channel": socket}, CHANNEL, channel_layer))
        events.append(("end", message["order"]))

    handle(message(channel_layer, 0, socket))
    run_all(channel_layer, handle)
    assert events == [("begin", 0), ("end", 0), ("begin", 1), ("end", 1)]


def test_a_count_that_the_application_gives_in_the_channel_session(
    channel_layer: ChannelLayerWrapper, handle: Any, handled: list[int]
) -> None:
    """As applications for Channels 1 do whose connect consumer is not decorated."""

    @channel_session
    def connect(message: Any) -> None:
        message.channel_session["__channels_next_order"] = 1

    connect(message(channel_layer, 0))
    for order in (2, 1):
        handle(message(channel_layer, order))
        run_all(channel_layer, handle)
    assert handled == [1, 2]


def test_when_too_many_wait_the_message_is_put_back(channel_layer: ChannelLayerWrapper, handle: Any) -> None:
    for order in range(1, 101):
        handle(message(channel_layer, order))
    with pytest.raises(ConsumeLater):
        handle(message(channel_layer, 101))
    assert len(waiting(channel_layer)) == 100


def test_what_a_consumer_sends_leaves_before_the_next_may_come(channel_layer: ChannelLayerWrapper) -> None:
    @enforce_ordering
    def handle(message: Any) -> None:
        Channel("log").send({"did": message["order"]})

    handle(message(channel_layer, 1))
    with pending_message_store.holding():
        handle(message(channel_layer, 0))
        assert drain(channel_layer, CHANNEL)[-1]["order"] == 1
        assert drain(channel_layer, "log") == [{"did": 0}]


def test_what_a_consumer_sends_does_not_wait_for_its_acknowledgement() -> None:
    """A layer may send that with the acknowledgement, which would be after the next consumer's answers."""
    settled = []

    class LazyLayer(InMemoryChannelLayer):
        def settle(self, sends: Any) -> None:
            settled.extend(sends)

    @enforce_ordering
    def answer(message: Any) -> None:
        message.reply_channel.send({"text": "done"})

    layer = ChannelLayerWrapper(LazyLayer(), "default", ())
    with pending_message_store.holding():
        answer(message(layer, 0))
        assert drain(layer, "reply") == [{"text": "done"}]
    assert settled == []


def test_requeue_messages_puts_back_what_waits(channel_layer: ChannelLayerWrapper, handle: Any) -> None:
    handle(message(channel_layer, 7, text="seven"))
    requeue_messages(message(channel_layer, 0))
    assert drain(channel_layer, CHANNEL) == [{"order": 7, "reply_channel": "reply", "text": "seven"}]
    assert waiting(channel_layer) == []


def test_requeue_messages_to_a_full_channel_loses_nothing(channel_layer: ChannelLayerWrapper, handle: Any) -> None:
    for order in (5, 6):
        handle(message(channel_layer, order))
    for _ in range(100):
        Channel(CHANNEL).send({})
    with pytest.raises(ChannelFull):
        requeue_messages(message(channel_layer, 0))
    assert sorted(waiting(channel_layer)) == [5, 6]


def test_a_message_without_an_order_is_refused(channel_layer: ChannelLayerWrapper, handle: Any) -> None:
    with pytest.raises(ValueError, match="no 'order'"):
        handle(message(channel_layer, None))
    with pytest.raises(ValueError, match="no reply_channel"):
        handle(message(channel_layer, 0, None))


def test_slight_ordering_is_gone() -> None:
    with pytest.raises(ValueError, match="slight=True"):
        enforce_ordering(slight=True)


def test_with_brackets_and_on_methods(channel_layer: ChannelLayerWrapper) -> None:
    class Consumer:
        seen: list[int]

        @enforce_ordering()
        def method(self, message: Any) -> None:
            message.channel_session["there"] = True

    Consumer().method(message(channel_layer, 0))
    assert session_for_reply_channel("reply")["there"]


@pytest.mark.parametrize("seconds", [0, -1, "30", True, float("inf")])
def test_a_wait_that_is_none(channel_layer: ChannelLayerWrapper, handle: Any, settings: Any, seconds: Any) -> None:
    settings.CHANNEL_ORDERING_WAIT = seconds
    with pytest.raises(Exception, match="CHANNEL_ORDERING_WAIT must be seconds"):
        handle(message(channel_layer, 1))


@pytest.mark.usefixtures("memory_sessions")
def test_threads_that_race_lose_nothing_and_keep_the_order(channel_layer: ChannelLayerWrapper) -> None:
    """Eight threads take the messages of twenty sockets, which were sent in reverse."""
    sockets, orders = 20, 5
    handled: dict[str, list[int]] = {}
    problems: list[BaseException] = []

    @enforce_ordering
    def handle(message: Any) -> None:
        handled.setdefault(message.reply_channel.name, []).append(message["order"])

    def work() -> None:
        while sum(map(len, handled.values())) < sockets * orders and not problems:
            channel, content = channel_layer.receive([CHANNEL], block=True)
            if channel is not None and content is not None:
                try:
                    handle(Message(content, channel, channel_layer))
                except BaseException as error:
                    problems.append(error)

    for order in reversed(range(orders)):
        for number in range(sockets):
            channel_layer.send(CHANNEL, {"order": order, "reply_channel": f"socket{number}"})
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not problems
    assert handled == {f"socket{number}": list(range(orders)) for number in range(sockets)}
