"""The text of a live task on its way, on the layer in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from channelsq.asgi import ChannelLayerWrapper
from channelsq.conf import LiveSettings
from channelsq.layers import InMemoryChannelLayer
from channelsq.live.job_state import JobState
from channelsq.live.jobs import Job, group_of
from channelsq.live.streams import CHUNK, PIECE, StreamBuffer, kept_text, units
from tests.support.layers import installed

JOB = Job("the-job", "default")


@pytest.fixture
def layer() -> Iterator[InMemoryChannelLayer]:
    layer = InMemoryChannelLayer(capacity=10_000)
    with installed(ChannelLayerWrapper(layer, "default", [])):
        JOB.create(JobState())
        layer.group_add(group_of(JOB.id), "page")
        yield layer


def sent(layer: InMemoryChannelLayer) -> list[str]:
    found = []
    while (message := layer.receive(["page"])[1]) is not None:
        assert message.get("droppable") is True or '"end":true' in message["text"]
        found.append(message["text"])
    return found


def buffer(run: str = "run", **settings: Any) -> StreamBuffer:
    return StreamBuffer(JOB, "answer", run, replace(LiveSettings(stream_every=3600.0), **settings))


def kept(run: str = "run") -> tuple[int, str]:
    return kept_text(JOB.read()[1], "answer", run)


@pytest.mark.parametrize("text", ["", "abc", "é", "✓", "🙂", "a🙂b"])
def test_lengths_are_those_of_javascript(text: str) -> None:
    assert units(text) == len(text.encode("utf-16-le")) // 2


@pytest.mark.parametrize("length", [1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7])
def test_text_is_kept_in_chunks(layer: InMemoryChannelLayer, length: int) -> None:
    stream = buffer()
    text = ("0123456789 ✓🙂" * length)[:length]
    for start in range(0, length, 1000):
        stream.add(text[start : start + 1000])
        stream.flush()
    assert kept() == (0, text)


def test_a_long_piece_is_divided(layer: InMemoryChannelLayer) -> None:
    stream = buffer()
    stream.add("x" * (2 * PIECE + 1))
    stream.flush()
    assert len(sent(layer)) == 3


def test_the_beginning_of_a_long_text_is_not_kept(layer: InMemoryChannelLayer) -> None:
    stream = buffer(stream_size=4 * CHUNK)
    for number in range(100):
        stream.add(f"{number:<1000}")
        stream.flush()
    at, text = kept()
    assert at + units(text) == 100_000
    assert 3 * CHUNK < len(text) <= 5 * CHUNK
    assert text.endswith(f"{99:<1000}")


def test_text_of_another_run_is_not_mixed_in(layer: InMemoryChannelLayer) -> None:
    first = buffer("first")
    first.add("a long text of the first run " * 1000)
    first.flush()
    second = buffer("second")
    second.add("short")
    second.flush()
    assert kept("second") == (0, "short")


def test_what_waits_is_bounded_and_a_gap_is_known(layer: InMemoryChannelLayer) -> None:
    stream = buffer(stream_size=5 * CHUNK)
    stream.add("begin")
    stream.flush()
    for number in range(40):  # more than is kept, before it can be sent
        stream.add(f"{number:<1000}")
    stream.flush()
    at, text = kept()
    assert (at, at + units(text)) == (20_005, 40_005)
    assert text.startswith("20 ")


def test_the_end_is_sent_once(layer: InMemoryChannelLayer) -> None:
    stream = buffer()
    stream.add("text")
    stream.complete()
    for _ in range(3):
        stream.flush()
    ends = [each for each in sent(layer) if '"end":true' in each]
    assert len(ends) == 1
    assert '"at":4' in ends[0]
    state, _ = JOB.read()
    assert state is not None
    assert state.streams == {"answer": ("run", 4)}
