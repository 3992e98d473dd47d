from __future__ import annotations

import random
from typing import Any

import hypothesis
import hypothesis.strategies as st

from channelsq.client.stream_text import StreamText


def piece(at: int, text: str, run: str = "r1", **more: Any) -> dict[str, Any]:
    return {"run": run, "at": at, "piece": text, **more}


def end(at: int) -> dict[str, Any]:
    return {"run": "r1", "at": at, "end": True}


def test_pieces_are_joined_by_utf_16_units() -> None:
    stream = StreamText()
    assert stream.take(piece(0, "a🙂")) == ("a🙂", True, True)
    assert stream.take(piece(1, "🙂b")) == ("b", False, True)
    assert stream.take(piece(0, "a")) == ("", False, False)
    assert stream.take(end(4)) == ("", False, True)
    assert (stream.text, stream.ended, stream.gap) == ("a🙂b", True, -1)


def test_a_piece_after_a_gap_waits() -> None:
    stream = StreamText()
    stream.take(piece(0, "a"))
    assert stream.take(piece(2, "c")) == ("", False, False)
    assert stream.gap == 2
    assert stream.take(piece(1, "b")) == ("bc", False, True)
    assert stream.take(end(5)) == ("", False, False)
    assert stream.gap == 5
    assert stream.skip() == ("", False, True)
    assert stream.ended


def test_a_beginning_replaces_the_text_and_keeps_what_reaches_further() -> None:
    stream = StreamText()
    stream.take(piece(0, "abcdef"))
    assert stream.take(piece(2, "cd", begin=True)) == ("cdef", True, True)
    assert stream.text == "cdef"
    assert not stream.is_partial


def test_another_run_replaces_all() -> None:
    stream = StreamText()
    stream.take(piece(0, "abc"))
    stream.take(piece(9, "lost"))
    assert stream.take(piece(4, "x", run="r2")) == ("x", True, True)
    assert (stream.text, stream.gap, stream.is_partial) == ("x", -1, True)


def test_a_gap_may_be_left_out() -> None:
    stream = StreamText()
    stream.take(piece(0, "abc"))
    stream.take(piece(9, "j"))
    assert stream.skip() == ("j", True, True)
    assert (stream.text, stream.gap) == ("j", -1)


@hypothesis.given(st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_the_order_of_pieces_does_not_matter(texts: list[str], chance: random.Random) -> None:
    stream = StreamText()
    stream.take(piece(0, ""))
    at, payloads = 0, []
    for text in texts:
        payloads.append(piece(at, text))
        at += len(text.encode("utf-16-le")) // 2
    payloads.append(end(at))
    payloads += chance.sample(payloads, len(payloads) // 2)
    chance.shuffle(payloads)
    for payload in payloads:
        stream.take(payload)
    assert (stream.text, stream.ended, stream.gap) == ("".join(texts), True, -1)
