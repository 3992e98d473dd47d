"""Sends as commands to Redis."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channelsq.layers.wire import codec
from channelsq.layers.wire.stream_commands import StreamCommands, open_bare, open_replies
from channelsq.transport.commands import pack


@given(st.text(max_size=400), st.sampled_from(["a", "0123456789ab-ff", "x" * 31]), st.floats(0.001, 1e9))
def test_packed_in_one_step_or_in_several_it_is_the_same_message(text: str, identity: str, expiry: float) -> None:
    commands = StreamCommands("prefix:", expiry)
    packed = codec.pack({"text": text}, 100_000)
    for channel in ("websocket.receive", "c" * 99):
        *head, data, name, lifetime = commands.task(channel, packed, identity)
        one = commands.packed_task(channel, packed, identity)
        # msgpack takes the shortest form of the body's length, which differs; what it says does not.
        start = pack([(*head, b"", name, lifetime)]).split(b"$0\r\n")
        assert one.startswith(start[0])
        assert one.endswith(start[1])
        inside = one[len(start[0]) + 1 : -len(start[1])].partition(b"\r\n")
        assert int(inside[0]) == len(inside[2])
        assert isinstance(data, bytes)
        assert codec.loads(inside[2]) == codec.loads(data)


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
