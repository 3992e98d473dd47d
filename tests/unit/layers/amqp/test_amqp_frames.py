"""py-amqp reads the encoded frames, and received bytes are cut into the frames that were sent."""

from __future__ import annotations

from typing import Any

import pytest
from amqp.basic_message import Message
from amqp.exceptions import UnexpectedFrame
from amqp.serialization import loads

from channelsq.layers.amqp import amqp_frames
from channelsq.layers.amqp.amqp_frames import BODY, HEADER, METHOD, FrameReader

FRAME_MAX = 131072


def test_a_table_is_what_py_amqp_reads() -> None:
    values = {
        "text": "é ✓", "none": None, "true": True, "false": False, "small": -5, "large": 2**40, "float": 1.5,
        "list": [None, "a", [1]], "dict": {"k": {"deep": 1}}, "empty": {},
    }  # fmt: skip
    (found,), _ = loads("F", amqp_frames.table(values), 0)
    assert found == values


def test_a_name_may_have_255_bytes() -> None:
    assert amqp_frames.short_string("x" * 255) == b"\xff" + b"x" * 255
    with pytest.raises(ValueError, match="255"):
        amqp_frames.short_string("é" * 128)


@pytest.mark.parametrize("size", [0, 1, 1000, FRAME_MAX - 8, FRAME_MAX - 7, 3 * FRAME_MAX])
def test_a_message_is_what_py_amqp_reads(size: int) -> None:
    encoded = amqp_frames.properties(
        "application/x-msgpack", "binary", {"id": "one"},
        delivery_mode=2, expiration="60000", correlation_id="one", message_id="two",
    )  # fmt: skip
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    frames = FrameReader(FRAME_MAX).feed(amqp_frames.content(7, encoded, body, FRAME_MAX))
    assert {frame.channel for frame in frames} == {7}
    assert [frame.type for frame in frames] == [HEADER] + [BODY] * (len(frames) - 1)
    message: Any = Message()
    message.inbound_header(frames[0].payload)
    assert message.properties == {
        "content_type": "application/x-msgpack", "content_encoding": "binary", "application_headers": {"id": "one"},
        "delivery_mode": 2, "expiration": "60000", "correlation_id": "one", "message_id": "two",
    }  # fmt: skip
    for frame in frames[1:]:
        message.inbound_body(frame.payload)
    assert message.body_size == len(body)
    assert not body or message.body == body
    assert amqp_frames.message_identity(frames[0].payload) == "two"


@pytest.mark.parametrize("piece", [1, 7, 8, 100, 10_000])
def test_frames_are_cut_wherever_the_network_cuts(piece: int) -> None:
    sent = b"".join(
        amqp_frames.publish_method(1, f"queue-{number}") + amqp_frames.content(1, b"\0\0", b"x" * number, FRAME_MAX)
        for number in range(30)
    )
    reader, found = FrameReader(FRAME_MAX), []
    for at in range(0, len(sent), piece):
        found += reader.feed(sent[at : at + piece])
    assert found == FrameReader(FRAME_MAX).feed(sent)
    assert [frame.method for frame in found if frame.type == METHOD] == [amqp_frames.BASIC_PUBLISH] * 30
    assert [frame.payload for frame in found if frame.type == BODY] == [b"x" * number for number in range(1, 30)]


def test_what_is_no_frame_is_an_error() -> None:
    with pytest.raises(UnexpectedFrame, match="ends with 0x00"):
        FrameReader(FRAME_MAX).feed(b"\x01\0\x01\0\0\0\x02ab\0")
    with pytest.raises(UnexpectedFrame, match="131072"):
        FrameReader(FRAME_MAX).feed(b"\x01\0\x01\x7f\0\0\0 ")
