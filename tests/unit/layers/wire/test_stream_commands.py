"""Sends as commands to Redis."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channelsq.layers.wire import codec
from channelsq.layers.wire.stream_commands import StreamCommands, open_bare, open_replies
from channelsq.redis_core.commands import pack
from channelsq.redis_core.compact import decode_compact, encode_compact


@given(
    st.text(max_size=400),
    st.text("0123456789abcdef-", min_size=1, max_size=40),
    st.floats(0.001, 1e9),
    st.text(max_size=99),
)
def test_a_batch_and_the_event_loop_send_the_same_bytes(text: str, identity: str, expiry: float, channel: str) -> None:
    commands = StreamCommands("prefix:", expiry, "site:")
    packed = codec.pack({"text": text}, 100_000)
    command = commands.task(channel, packed, identity)
    assert pack([command]) == commands.packed_task(channel, packed, identity)
    data = command[4]
    assert isinstance(data, bytes)
    body = codec.dumps([[channel, {"text": text}], {}, {}])
    assert decode_compact(data) == (f"site:{channel}", identity, body, commands.expiry_ms)
    assert data == encode_compact(f"site:{channel}", identity, body, commands.expiry_ms)


def test_reading_deletes_what_was_read_and_renews() -> None:
    commands = StreamCommands("", 60)
    last = {"stream:a": "5-1", "stream:b": "0-0"}
    read = ("XREAD", "COUNT", 1000, "BLOCK", 10, "STREAMS", "stream:a", "stream:b", "5-1", "0-0")
    assert commands.read(last, 1000, 10, ["stream:a"], renew=False) == [("XTRIM", "stream:a", "MINID", "5-2"), read]
    assert commands.read(last, 1000, 10, [], renew=True) == [
        ("PEXPIRE", "stream:a", 300_000),
        ("PEXPIRE", "stream:b", 300_000),
        read,
    ]


def test_replies_whose_time_is_over_are_left_out() -> None:
    commands = StreamCommands("", 1)
    (_, _, _, _, data, _, _), _ = commands.bare("q", codec.dumps([[["c"], b"x", None]]))
    foreign: list[str] = []
    found = [
        [b"1000-0", [b"m", data]],
        [b"1001-0", [b"m", data]],
        [b"1002-0", [b"m", b"\xc1"]],
        [b"1003-0", [b"n", data]],
    ]
    assert open_replies(found, 2000, foreign.append) == [[["c"], b"x", None]]
    assert len(foreign) == 2


def test_a_task_is_no_reply() -> None:
    commands = StreamCommands("", 1)
    data = commands.task("c", codec.dumps({}))[4]
    assert isinstance(data, bytes)
    with pytest.raises(ValueError, match="a message of the task 'c'"):
        open_bare(data)
