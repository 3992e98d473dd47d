"""The entries of envelopes reach their clients."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from channelsq.interface.basis.counters import Counters
from channelsq.interface.link.replies import Delivery, Replies
from channelsq.layers.wire import codec
from tests.support.fakes.clients import RecordingReceiver

HELLO = codec.dumps({"text": "hello"})


class Given:
    """Entries go in, what came of them is noted."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.unknown: list[str] = []
        self.bad: list[str] = []
        self.stats = Counters()

    def __call__(self, *entries: Any, fails: bool = False) -> None:
        async def give() -> None:
            replies = Replies(
                asyncio.get_running_loop(), self.stats, lambda channel, message: self.unknown.append(channel)
            )
            replies.register("s.p!a", RecordingReceiver(self.told, fails=fails))
            replies.hand_out(entries, self.bad.append)
            all_out = asyncio.Event()
            replies.when_handed_out(all_out.set)
            await asyncio.wait_for(all_out.wait(), 5)

        asyncio.run(give())


@pytest.fixture
def given() -> Given:
    return Given()


@pytest.mark.parametrize("entry", [[["s.p!a"], HELLO, None], [["s.p!a"], HELLO, None, None]])
def test_a_reply_without_a_report(given: Given, entry: list[Any]) -> None:
    given(entry)
    assert given.told == [({"text": "hello"}, None)]


@pytest.mark.parametrize("order", [0, 7])
def test_a_report_travels_with_a_reply_and_comes_behind_it(given: Given, order: int) -> None:
    given([["s.p!a"], HELLO, None, order], [["s.p!a"], codec.dumps({"done": order + 1}), None])
    assert given.told == [({"text": "hello"}, None), order, order + 1]
    assert given.bad == []


def test_a_report_travels_with_what_a_group_was_sent(given: Given) -> None:
    given([["s.p!a"], HELLO, "room", 3])
    assert given.told == [({"text": "hello"}, "room"), 3]


def test_fields_of_a_newer_process_are_ignored(given: Given) -> None:
    given([["s.p!a"], HELLO, None, 3, {"unheard": 1}, None], [["s.p!a"], HELLO, "room", None, 5])
    assert given.told == [({"text": "hello"}, None), 3, ({"text": "hello"}, "room")]
    assert given.bad == []


def test_a_report_travels_with_a_report(given: Given) -> None:
    given([["s.p!a"], codec.dumps({"done": 1}), None, 2])
    assert given.told == [1, 2]


def test_a_reply_that_fails_is_reported_done_all_the_same(given: Given) -> None:
    given([["s.p!a"], HELLO, None, 3], fails=True)
    assert given.told == [({"text": "hello"}, None), 3]
    assert given.stats["replies.errors"] == 1


def test_nobody_is_told_for_a_client_that_has_left(given: Given) -> None:
    given([["s.p!gone"], HELLO, None, 3])
    assert (given.told, given.unknown, given.bad) == ([], ["s.p!gone"], [])
    assert given.stats["replies.unknown"] == 1


@pytest.mark.parametrize(
    "entry",
    [
        [["s.p!a"], HELLO],
        [["s.p!a"], HELLO, None, "3"],
        [["s.p!a"], HELLO, None, True],
        [["s.p!a"], HELLO, None, 3.0],
        [["s.p!a", "s.p!a"], HELLO, None, 3],
        [[], HELLO, None, 3],
        [["s.p!a"], HELLO, 5, 3],
        [[5], HELLO, None, 3],
        ["s.p!a", HELLO, None, 3],
        [["s.p!a"], "text", None, 3],
        [["s.p!a"], b"\xc1", None, 3],
        [["s.p!a"], codec.dumps(["text"]), None, 3],
        [["s.p!a"], codec.dumps({1: "text"}), None],
        [["s.p!a"], b"\x81\xa4text\xa1\xff", None],
        None,
        5,
        {},
    ],
)
def test_an_entry_that_is_none_is_dropped_and_told(given: Given, entry: Any) -> None:
    given(entry, [["s.p!a"], HELLO, None, 4])
    assert len(given.bad) == 1
    assert given.told == [({"text": "hello"}, None), 4]


@pytest.mark.parametrize(
    ("message", "plain"),
    [
        ({"text": ""}, True),
        ({"bytes": b""}, True),
        ({"text": None}, False),
        ({"text": b"a"}, False),
        ({"bytes": "a"}, False),
        ({"text": "a", "close": True}, False),
        ({"text": "a", "bytes": b"a"}, False),
        ({"close": True}, False),
        ({}, False),
    ],
)
def test_what_a_frame_can_be_made_of_at_once(message: dict[str, Any], plain: bool) -> None:
    assert Delivery(["s.p!a"], message).is_plain is plain


def test_many_entries_take_several_turns_and_keep_their_order(given: Given) -> None:
    given(*([["s.p!a"], codec.dumps({"text": str(number)}), None, number] for number in range(2500)))
    expected: list[Any] = []
    for number in range(2500):
        expected += [({"text": str(number)}, None), number]
    assert given.told == expected
