"""The state machine of a WebSocket, without any I/O."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channelsq.interface.websocket.application_messages import BadReply
from channelsq.interface.websocket.connection_state import (
    Accept,
    Close,
    Connection,
    IllegalTransition,
    Refuse,
    State,
    Write,
)
from tests.support.fakes.clients import FakeDelivery


def reply(**message: Any) -> FakeDelivery:
    return FakeDelivery(message)


def group_reply(**message: Any) -> FakeDelivery:
    return FakeDelivery(message, group="room")


@pytest.fixture
def connection() -> Connection:
    made = Connection("websocket.send.p!c", "/chat/")
    made.connect({"scheme": "ws"})
    return made


@pytest.fixture
def opened(connection: Connection) -> Connection:
    connection.take()
    assert connection.reply(reply(accept=True)) == [Accept()]
    connection.done(0)
    return connection


def test_connect_carries_what_every_message_has(connection: Connection) -> None:
    turn = connection.take()
    assert turn is not None
    assert turn.channel == "websocket.connect"
    assert turn.content == {
        "scheme": "ws",
        "reply_channel": "websocket.send.p!c",
        "path": "/chat/",
        "order": 0,
    }


def test_the_next_message_waits_for_the_report(opened: Connection) -> None:
    opened.receive("a")
    opened.receive(b"b")
    first = opened.take()
    assert first is not None
    assert first.content["text"] == "a"
    assert opened.take() is None
    opened.done(0)  # an old report changes nothing
    assert opened.take() is None
    opened.done(1)
    second = opened.take()
    assert second is not None
    assert (second.order, second.content["bytes"]) == (2, b"b")


def test_a_report_comes_as_a_reply(opened: Connection) -> None:
    opened.receive("a")
    opened.take()
    assert opened.reply(reply(done=1)) == []
    assert opened.in_flight is None


@pytest.mark.parametrize("early", [reply(text="early"), reply(bytes=b"early")])
def test_text_or_bytes_to_the_socket_imply_the_accept(connection: Connection, early: FakeDelivery) -> None:
    connection.take()
    assert connection.reply(early) == [Accept(), Write(early)]


def test_text_and_then_a_close_are_an_accept(connection: Connection) -> None:
    connection.take()
    goodbye = reply(text="not now")
    assert connection.reply(goodbye) == [Accept(), Write(goodbye)]
    assert connection.reply(reply(close=4001)) == [Close(4001)]


def test_a_groups_text_before_the_accept_is_held_until_it(connection: Connection) -> None:
    connection.take()
    early = group_reply(text="early")
    assert connection.reply(early) == []
    assert connection.reply(reply(accept=True)) == [Accept(), Write(early)]


def test_a_groups_text_implies_the_accept_when_the_connect_is_done(connection: Connection) -> None:
    connection.take()
    early = group_reply(bytes=b"early")
    connection.reply(early)
    assert connection.reply(reply(done=0)) == [Accept(), Write(early)]


def test_text_after_an_unanswered_connect_implies_the_accept(connection: Connection) -> None:
    connection.take()
    assert connection.reply(reply(done=0)) == []
    late = reply(text="late")
    assert connection.reply(late) == [Accept(), Write(late)]


def test_a_refusal_drops_what_was_held(connection: Connection) -> None:
    connection.take()
    connection.reply(group_reply(text="for the group"))
    assert connection.reply(reply(close=True)) == [Refuse("the application refused it")]
    assert connection.reply(reply(done=0)) == []
    assert connection.state is State.CLOSING


def test_text_and_close_in_one_message_are_an_accept(connection: Connection) -> None:
    connection.take()
    goodbye = reply(text="not now", close=4001)
    assert connection.reply(goodbye) == [Accept(), Write(goodbye), Close(4001)]


def test_too_much_before_the_accept_is_a_refusal() -> None:
    connection = Connection("websocket.send.p!c", "/", max_held=10)
    connection.connect({})
    connection.take()
    actions = connection.reply(FakeDelivery({"text": "x"}, size=11, group="room"))
    assert isinstance(actions[0], Refuse)
    assert "10 bytes" in actions[0].reason


def test_subprotocol_must_be_offered() -> None:
    connection = Connection("websocket.send.p!c", "/", offered=("a", "b"))
    connection.connect({})
    assert connection.reply(reply(accept=True, subprotocol="b")) == [Accept("b")]
    other = Connection("websocket.send.p!d", "/", offered=("a",))
    other.connect({})
    (refusal,) = other.reply(reply(subprotocol="c"))
    assert isinstance(refusal, Refuse)
    assert "'c'" in refusal.reason
    assert "'a'" in refusal.reason


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ({"text": "a", "bytes": b"b"}, "both"),
        ({"text": b"a"}, "'text' must be a str"),
        ({"bytes": "a"}, "'bytes' must be bytes"),
        ({"close": 1005}, "1005"),
        ({"close": 999}, "999"),
        ({"close": "yes"}, "'yes'"),
        ({"done": "1"}, "'done'"),
        ({"done": True}, "'done'"),
    ],
)
def test_bad_replies_are_named_and_change_nothing(opened: Connection, message: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadReply, match=problem):
        opened.reply(FakeDelivery(message))
    assert opened.state is State.OPEN


def test_close_codes(opened: Connection) -> None:
    assert opened.reply(reply(close=False)) == []
    assert opened.reply(reply(reason="no close")) == []
    assert opened.reply(reply(close=True)) == [Close(1000)]


def test_close_reasons(opened: Connection) -> None:
    with pytest.raises(BadReply, match="'reason' must be a str, not 5"):
        opened.reply(reply(close=1007, reason=5))
    assert opened.reply(reply(close=1007, reason="é" * 61)) == [Close(1007, "é" * 61)]
    assert opened.reply(reply(text="too late")) == []


@pytest.mark.parametrize(
    ("reason", "sent"),
    [("é" * 62, "é" * 61), ("x" * 124, "x" * 123), ("x" * 122 + "€", "x" * 122), ("\ud800", "?")],
    ids=["two bytes", "one byte", "three bytes", "surrogate"],
)
def test_a_long_reason_is_cut_at_a_character(opened: Connection, reason: str, sent: str) -> None:
    assert opened.reply(reply(close=4001, reason=reason)) == [Close(4001, sent)]


def test_illegal_transitions_are_named(connection: Connection) -> None:
    with pytest.raises(IllegalTransition, match="receive is not possible while the connection is connecting"):
        connection.receive("a")
    with pytest.raises(IllegalTransition, match="connect is not possible"):
        connection.connect({})
    connection.end(1006)
    with pytest.raises(IllegalTransition, match="end is not possible while the connection is closed"):
        connection.end(1006)


def test_the_disconnect_waits_for_what_came_before(opened: Connection) -> None:
    opened.receive("a")
    opened.end(1001)
    first = opened.take()
    assert first is not None
    assert first.channel == "websocket.receive"
    opened.done(1)
    last = opened.take()
    assert last is not None
    assert (last.channel, last.content["code"], last.order) == ("websocket.disconnect", 1001, 2)
    assert not opened.finished
    opened.done(2)
    assert opened.finished


def test_a_connect_that_never_went_out_is_followed_by_nothing(connection: Connection) -> None:
    connection.take()
    connection.end(1006)
    connection.lost()
    assert connection.take() is None
    assert connection.finished


@pytest.mark.parametrize("answer", [{"accept": True}, {"close": True}])
def test_a_connect_that_was_answered_is_not_lost(connection: Connection, answer: dict[str, Any]) -> None:
    """Its publication was not confirmed, but the application has it."""
    connection.take()
    connection.reply(FakeDelivery(answer))
    connection.end(1006)
    connection.lost()
    last = connection.take()
    assert last is not None
    assert (last.channel, last.order) == ("websocket.disconnect", 1)


def test_a_lost_message_lets_the_next_one_through(opened: Connection) -> None:
    opened.receive("a")
    opened.receive("b")
    opened.take()
    opened.lost()
    turn = opened.take()
    assert turn is not None
    assert turn.content["text"] == "b"


def test_room_is_bounded_in_messages_and_bytes(opened: Connection) -> None:
    for number in range(16):
        assert opened.has_room
        opened.receive(str(number))
    assert not opened.has_room
    small = Connection("websocket.send.p!d", "/", max_bytes=10)
    small.connect({})
    small.take()
    small.reply(reply(accept=True))
    small.receive("x" * 10)
    assert not small.has_room


_EVENTS = st.lists(
    st.one_of(
        st.sampled_from(["take", "accept", "refuse", "text", "close", "end", "lost", "begin_close"]),
        st.tuples(st.just("receive"), st.one_of(st.text(max_size=3), st.binary(max_size=3))),
        st.tuples(st.just("done"), st.integers(0, 8)),
    ),
    max_size=40,
)


@given(_EVENTS)
def test_whatever_happens_the_order_holds(events: list[Any]) -> None:
    connection = Connection("websocket.send.p!c", "/")
    connection.connect({})
    handed: list[tuple[int, str]] = []
    actions: list[Any] = []
    illegal: list[tuple[str, str]] = []
    in_flight: int | None = None
    for event in events:
        name, argument = event if isinstance(event, tuple) else (event, None)
        try:
            if name == "take":
                turn = connection.take()
                if turn is not None:
                    assert in_flight is None
                    in_flight = turn.order
                    handed.append((turn.order, turn.channel))
            elif name == "receive":
                connection.receive(argument)
            elif name == "done":
                actions += connection.reply(reply(done=argument))
                in_flight = None if argument == in_flight else in_flight
            elif name == "lost":
                if in_flight is not None:
                    connection.lost()
                    in_flight = None
            elif name == "end":
                connection.end(1006)
            elif name == "begin_close":
                connection.begin_close()
            else:
                message: dict[str, dict[str, Any]] = {
                    "accept": {"accept": True},
                    "refuse": {"close": True},
                    "text": {"text": "x"},
                    "close": {"close": 1000},
                }
                actions += connection.reply(FakeDelivery(message[name]))
        except IllegalTransition as error:
            illegal.append((error.event, name))
    assert all(event == name for event, name in illegal)
    orders = [order for order, _ in handed]
    assert orders == list(range(len(orders)))
    channels = [channel for _, channel in handed]
    assert channels[:1] in ([], ["websocket.connect"])
    assert "websocket.disconnect" not in channels[:-1]
    # Nothing is written before the one accept, or after a close.
    kinds = [type(action) for action in actions]
    assert kinds.count(Accept) + kinds.count(Refuse) <= 1
    if Write in kinds:
        assert kinds[0] is Accept
    if Close in kinds:
        assert kinds.index(Close) == len(kinds) - 1


def test_a_connect_whose_consumer_failed_is_refused_and_what_was_held_is_dropped(connection: Connection) -> None:
    connection.take()
    assert connection.reply(group_reply(text="from a group")) == []
    assert connection.reply(reply(done=0, failed=True)) == [Refuse("the consumer of its connect failed", 500)]
    assert (connection.state, connection.in_flight) == (State.CLOSING, None)
    assert connection.reply(reply(accept=True)) == []


def test_a_connect_that_another_has_accepted_stays_open_though_its_consumer_failed(opened: Connection) -> None:
    assert opened.reply(reply(done=0, failed=True)) == []
    assert opened.state is State.OPEN
