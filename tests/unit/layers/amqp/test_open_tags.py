"""Delivery tags that are acknowledged in few frames."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from channelsq.layers.amqp import amqp_frames
from channelsq.layers.amqp.open_tags import OpenTags


@given(st.integers(1, 12), st.data())
def test_frames_acknowledge_the_named_tags_and_no_others(count: int, data: st.DataObject) -> None:
    """RabbitMQ takes a frame with ``multiple`` for all older tags that are unacknowledged."""
    tags, open_ones = OpenTags(1), list(range(1, count + 1))
    for tag in open_ones:
        tags.add(tag)
    while open_ones:
        chosen = data.draw(st.sets(st.sampled_from(open_ones), min_size=1))
        frames = tags.acknowledge(chosen)
        oldest = [tag for n, tag in enumerate(open_ones) if set(open_ones[: n + 1]) <= chosen]
        expected = amqp_frames.acknowledge(1, oldest[-1], multiple=True) if oldest else b""
        rest = chosen - set(oldest)
        assert frames.startswith(expected)
        assert len(frames) == len(expected) + sum(len(amqp_frames.acknowledge(1, tag)) for tag in rest)
        assert all(amqp_frames.acknowledge(1, tag) in frames for tag in rest)
        open_ones = [tag for tag in open_ones if tag not in chosen]


def test_a_rejected_tag_does_not_stand_between_others() -> None:
    tags = OpenTags(1)
    for tag in (1, 2, 3):
        tags.add(tag)
    tags.discard(2)
    assert tags.acknowledge({1, 3}) == amqp_frames.acknowledge(1, 3, multiple=True)


def test_nothing_is_left_of_a_lost_connection() -> None:
    tags = OpenTags(1)
    tags.add(1)
    tags.clear()
    tags.add(2)
    assert tags.acknowledge({2}) == amqp_frames.acknowledge(1, 2, multiple=True)
