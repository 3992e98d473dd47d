"""The room of a channel, as far as one process knows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from channelsq.interface.link.channel_window import ChannelWindow
from channelsq.interface.link.link_contract import Publication
from channelsq.layers.contract.capacity_window import TRUSTED
from channelsq.layers.contract.layer_values import Send


def test_what_was_sent_since_the_question_is_taken_off_its_answer() -> None:
    room = ChannelWindow("c", 10)
    room.ask()
    room.answer(0, now=1.0)
    assert room.left == 10
    for _ in range(4):
        room.take()
    room.ask()  # sees those four
    room.take()
    room.take()
    room.answer(4, now=1.1)
    assert room.left == 4


def test_an_answer_is_trusted_for_a_while() -> None:
    room = ChannelWindow("c", 10)
    room.ask()
    room.answer(0, now=1.0)
    assert room.is_fresh(1.0 + TRUSTED / 3)
    assert not room.wants_answer(1.0 + TRUSTED / 3)
    assert room.wants_answer(1.0 + TRUSTED * 0.6)
    assert not room.is_fresh(1.0 + TRUSTED)
    for _ in range(6):
        room.take()
    assert room.wants_answer(1.0)
    room.let_one_through()
    assert room.left == 1


def test_pauses_grow_and_begin_again() -> None:
    room = ChannelWindow("c", 1)
    pauses = [room.next_pause() for _ in range(20)]
    assert pauses[0] == 0.002
    assert pauses[-1] == 0.05
    room.ask()
    room.answer(0, now=1.0)
    assert room.next_pause() == 0.002


def test_who_has_waited_too_long_is_taken_out() -> None:
    room = ChannelWindow("c", 1)
    waiting = [Publication(Send("c", b""), None, order, deadline) for order, deadline in enumerate((5.0, 0.0, 7.0))]
    room.waiting.extend(waiting)
    assert [each.order for each in room.expired(6.0)] == [0, 1]
    assert [each.order for each in room.waiting] == [2]


@given(st.lists(st.sampled_from(["send", "ask", "answer", "consume"]), max_size=200), st.integers(1, 10))
def test_one_producer_never_passes_the_capacity(events: list[str], capacity: int) -> None:
    room = ChannelWindow("c", capacity)
    size = 0
    answers: list[int] = []
    for event in events:
        if event == "send" and room.left > 0:
            room.take()
            size += 1
        elif event == "ask" and not room.asking:
            room.ask()
            answers.append(size)  # the server sees the commands in their order
        elif event == "answer" and answers:
            room.answer(answers.pop(), now=1.0)
        elif event == "consume":
            size = max(0, size - 1)
        assert size <= capacity
