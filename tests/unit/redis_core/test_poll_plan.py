"""The requests of a consumer of streams; the test plays the streams."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from channelsq.redis_core.commands import pack
from channelsq.redis_core.poll_plan import SLICE, Poll, PollPlan, rounded
from channelsq.redis_core.stream_consumer import StreamConsumer
from channelsq.redis_core.suspects import Suspects

KEYS = ["stream:urgent", "stream:usual", "stream:rest"]
BATCH = 64


def made() -> PollPlan:
    plan = PollPlan(StreamConsumer("", 30), Suspects(5, 30), 1, BATCH, 5)
    plan.take_over_at = 1e9
    return plan


class Server:
    """Streams with numbered messages."""

    def __init__(self, sizes: list[int]) -> None:
        self.streams = {key: list(range(size)) for key, size in zip(KEYS, sizes, strict=True)}

    def answer(self, poll: Poll, plan: PollPlan) -> list[Any]:
        """Return what Redis answers to a poll that does not wait."""
        if poll.kind == "more":
            keys = [each for each in KEYS if each == plan.busy]
        elif poll.kind == "look":
            keys = KEYS[: KEYS.index(str(plan.busy))]
        else:
            keys = KEYS
        left, found = poll.asked, []
        for key in keys:
            most = poll.asked if poll.kind == "read" else left
            taken, self.streams[key] = self.streams[key][:most], self.streams[key][most:]
            left -= len(taken)
            if taken:
                found.append([key.encode(), [[b"%d-0" % number, [b"m", b"x"]] for number in taken]])
        return found


@given(st.lists(st.integers(0, 300), min_size=3, max_size=3), st.integers(1, 100))
def test_everything_is_read_once_and_in_order(sizes: list[int], free: int) -> None:
    plan, server = made(), Server(sizes)
    read: dict[str, list[int]] = {key: [] for key in KEYS}
    for turn in range(2000):
        poll = plan.next(KEYS, plan.wanted(free), 0, turn * SLICE / 3)
        assert poll.asked <= min(free, BATCH)
        for key, entries in plan.read(poll, server.answer(poll, plan)):
            read[key] += [int(entry.id.partition("-")[0]) for entry in entries]
        if not any(server.streams.values()):
            break
    assert [read[key] for key in KEYS] == [list(range(size)) for size in sizes]


@given(st.integers(0, 40))
def test_what_is_in_front_of_a_busy_stream_is_looked_at_soon(already: int) -> None:
    plan, server = made(), Server([0, 0, 100_000])
    now = 0.0
    for _ in range(already + 2):
        poll = plan.next(KEYS, plan.wanted(None), 0, now)
        plan.read(poll, server.answer(poll, plan))
        now += SLICE / 2
    server.streams[KEYS[0]].append(1)
    found: list[str] = []
    for _ in range(4):
        poll = plan.next(KEYS, plan.wanted(None), 0, now)
        found += [key for key, _ in plan.read(poll, server.answer(poll, plan))]
        now += SLICE / 2
    assert KEYS[0] in found


@given(st.floats(1e-6, 10), st.one_of(st.none(), st.integers(1, 1000)))
def test_slow_messages_are_asked_for_by_ones(seconds: float, free: int | None) -> None:
    plan = made()
    plan.measure(seconds)
    wanted = plan.wanted(free)
    assert wanted >= 1
    assert wanted == 1 or wanted * seconds <= SLICE


@given(st.integers(1, 10_000))
def test_rounded(count: int) -> None:
    assert count / 2 < rounded(count) <= count


def test_a_poll_that_waits_is_packed_once() -> None:
    plan = made()
    plan.backlog = False
    first, second = (plan.next(KEYS, 10, 1.0, 0.0) for _ in range(2))
    assert first.command is second.command
    assert isinstance(first.command, bytes)
    assert b"BLOCK\r\n$4\r\n1000\r\n" in first.command
    assert first.kind == "read"


def test_a_claim_that_brought_all_it_asked_for_is_followed_by_another() -> None:
    plan = made()
    poll = plan.claim(KEYS, 2, 1.0, 5.0, 10.0)
    assert plan.take_over_at == 15.0
    assert pack([poll.command]).startswith(b"*")
    entries = [[b"1-0", [b"m", b"a", b"d", b"1"]], [b"2-0", [b"m", b"b", b"d", b"4"]]]
    assert [entry.deaths for entry in plan.read_claim(poll, [0, [[b"stream:usual", entries]]])] == [1, 4]
    assert plan.take_over_at == 0.0
    plan.take_over_at = 9.0
    assert len(plan.on_missing_script(poll)) == 2
    assert plan.take_over_at == 0.0
