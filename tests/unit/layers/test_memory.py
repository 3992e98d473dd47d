"""The data that the in-memory layer keeps, which the contract's tests cannot see."""

from __future__ import annotations

import math
import threading
from typing import Any

import pytest

from channelsq.exceptions import ChannelFull
from channelsq.layers import InMemoryChannelLayer
from channelsq.layers.memory_queues import MOST_DELAYED
from tests.support.waiting import wait_until


def is_empty(layer: InMemoryChannelLayer) -> bool:
    queues = layer.queues
    return not (queues.queues or queues.unread or queues.delayed or queues.held)


def test_nothing_stays_of_what_was_read() -> None:
    layer = InMemoryChannelLayer()
    reply, body = layer.new_channel("reply!"), layer.new_channel("body?")
    for channel in ("a", reply, body):
        layer.send(channel, {"n": 1})
        layer.send(channel, {"n": 2})
    assert not is_empty(layer)
    for channel in ("a", reply, body, "a", reply, body):
        assert layer.receive([channel])[0] == channel
    assert is_empty(layer)


def test_nothing_stays_of_groups_that_ended() -> None:
    layer = InMemoryChannelLayer()
    layer.group_add("room", "a")
    layer.group_add("hall", "a")
    layer.group_add("room", "b")
    layer.group_discard("room", "b")
    layer.forget_channel("a")
    groups: Any = layer._groups
    assert not groups._groups
    assert not groups._channels


def test_what_expires_unread_on_channels_that_nobody_uses_again_is_dropped() -> None:
    # A request's body channel has a name of its own: nobody looks at it after the request.
    layer = InMemoryChannelLayer(expiry=0.05)
    for _ in range(50):
        layer.send(layer.new_channel("http.request.body?"), {"content": b"x"})
        layer.send(layer.new_channel("http.response!"), {"content": b"x"})

    def sent_on() -> bool:
        layer.send("other", {})
        assert layer.receive(["other"])[1] == {}
        return is_empty(layer)

    wait_until(sent_on, "what expired to be dropped")


def test_a_refused_message_leaves_nothing() -> None:
    layer = InMemoryChannelLayer(capacity=1)
    layer.send("a", {})
    for _ in range(3):
        with pytest.raises(ChannelFull):
            layer.send("a", {})
    assert layer.receive(["a"])[1] == {}
    assert is_empty(layer)


def test_capacity_is_of_each_client_not_of_its_process() -> None:
    layer = InMemoryChannelLayer(capacity=1)
    one, two = layer.new_channel("reply!"), layer.new_channel("reply!")
    layer.send(one, {"n": 1})
    layer.send(two, {"n": 2})
    with pytest.raises(ChannelFull, match=two.replace(".", r"\.")):
        layer.send(two, {"n": 3})
    prefix = one[: one.index("!") + 1]
    assert layer.receive([prefix])[1] == {"n": 1}
    layer.send(one, {"n": 4})
    assert [layer.receive([prefix])[1] for _ in range(2)] == [{"n": 2}, {"n": 4}]
    assert is_empty(layer)


def test_the_oldest_message_comes_first_whatever_its_channel() -> None:
    layer = InMemoryChannelLayer()
    for number, channel in enumerate(["b", "a", "c", "a", "b"]):
        layer.send(channel, {"n": number})
    assert [layer.receive(["a", "b", "c"])[1] for _ in range(5)] == [{"n": number} for number in range(5)]


# -- delayed messages -------------------------------------------------------------------------------


def test_a_delayed_message_waits_for_room_and_holds_up_no_other() -> None:
    layer = InMemoryChannelLayer(capacity=1)
    layer.send("full", {"n": 0})
    for number in range(5):
        layer.send("full", {"n": number + 1}, delay=0.01)
    layer.send("free", {"n": 9}, delay=0.02)
    # One look at the heap after all are due gives the free channel its message, past those that wait.
    threading.Event().wait(0.05)  # the time itself is what is tested
    assert layer.receive(["free"])[1] == {"n": 9}
    got = [wait_until(lambda: layer.receive(["full"], block=True)[1], "room") for _ in range(6)]
    assert sorted(message["n"] for message in got) == list(range(6))
    assert is_empty(layer)


def test_a_reader_sleeps_until_the_delayed_message_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = InMemoryChannelLayer()
    waits: list[float] = []
    wait = layer.queues.changed.wait

    def note(timeout: float | None = None) -> bool:
        waits.append(math.inf if timeout is None else timeout)
        return wait(timeout)

    monkeypatch.setattr(layer.queues.changed, "wait", note)
    layer.send("a", {"n": 1}, delay=0.1)
    assert layer.receive(["a"], block=True)[1] == {"n": 1}
    assert 1 <= len(waits) <= 3
    assert max(waits) <= 0.1


# -- waking -----------------------------------------------------------------------------------------


def test_close_wakes_every_reader() -> None:
    layer = InMemoryChannelLayer()
    layer.block_timeout = 3600  # type: ignore[misc]
    got: list[Any] = []
    threads = [threading.Thread(target=lambda: got.append(layer.receive(["a"], block=True))) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(layer.queues.changed._waiters) == 3, "the readers to wait")  # type: ignore[attr-defined]
    layer.close()
    for thread in threads:
        thread.join(10)
    assert got == [(None, None)] * 3


# -- listeners --------------------------------------------------------------------------------------


def prefix_of(channel: str) -> str:
    return channel[: channel.index("!") + 1]


def test_a_listener_gets_what_waited_but_nothing_expired() -> None:
    layer = InMemoryChannelLayer(expiry=0.05)
    reply = layer.new_channel("reply!")
    layer.send(reply, {"n": "old"})
    threading.Event().wait(0.1)  # the time itself is what is tested
    got: list[Any] = []
    layer.listen(prefix_of(reply), lambda channels, message, group: got.append((list(channels), message))).stop()
    assert got == []
    assert is_empty(layer)
    layer.send(reply, {"n": "new"})
    layer.listen(prefix_of(reply), lambda channels, message, group: got.append((list(channels), message)))
    assert got == [([reply], {"n": "new"})]
    assert is_empty(layer)


def test_an_old_listeners_stop_does_not_stop_the_new_one() -> None:
    layer = InMemoryChannelLayer()
    reply = layer.new_channel("reply!")
    got: list[Any] = []
    old = layer.listen(prefix_of(reply), lambda channels, message, group: got.append(("old", message)))
    new = layer.listen(prefix_of(reply), lambda channels, message, group: got.append(("new", message)))
    old.stop()
    old.stop()
    layer.send(reply, {"n": 1})
    assert got == [("new", {"n": 1})]
    new.stop()
    layer.send(reply, {"n": 2})
    assert layer.receive([reply])[1] == {"n": 2}


def test_listened_messages_are_delivered_in_the_senders_thread_and_are_not_kept() -> None:
    layer = InMemoryChannelLayer(capacity=1)
    reply = layer.new_channel("reply!")
    threads: set[int] = set()
    layer.listen(prefix_of(reply), lambda channels, message, group: threads.add(threading.get_ident()))
    for _ in range(10):
        layer.send(reply, {})
    assert threads == {threading.get_ident()}
    assert is_empty(layer)


def test_a_delivery_may_send() -> None:
    layer = InMemoryChannelLayer()
    reply = layer.new_channel("reply!")
    layer.listen(prefix_of(reply), lambda channels, message, group: layer.send("credit", {"n": message["n"]}))
    layer.send(reply, {"n": 1})
    assert layer.receive(["credit"])[1] == {"n": 1}


def test_delayed_messages_are_bounded() -> None:
    layer = InMemoryChannelLayer()
    prepared = layer.prepare("jobs", {}, delay=3600)
    layer.dispatch([prepared] * MOST_DELAYED)
    with pytest.raises(ChannelFull, match=str(MOST_DELAYED)):
        layer.dispatch([prepared])
