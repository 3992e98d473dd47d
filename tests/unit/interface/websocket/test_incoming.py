"""Frames that are read past the parser, against the parser."""

from __future__ import annotations

import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.fakes.frame_readers import RecordingClient, SlowRecordingClient, deflated, masked
from tests.support.interfaces import frame


@pytest.mark.parametrize("size", [0, 1, 5, 125, 126, 127, 3000])
@pytest.mark.parametrize("opcode", [1, 2])
def test_a_whole_frame_goes_past_the_parser(opcode: int, size: int) -> None:
    client = RecordingClient()
    payload = b"x" * size
    client.incoming.feed(masked(opcode, payload))
    assert client.told == [payload.decode() if opcode == 1 else payload]
    assert client.parsed == 0


@pytest.mark.parametrize("kind", [RecordingClient, SlowRecordingClient])
def test_a_close_between_fragments_is_no_error(kind: type[RecordingClient]) -> None:
    client = kind()
    code = (1000).to_bytes(2, "big")
    client.incoming.feed(masked(1, b"half", fin=False) + masked(9, b"") + masked(8, code) + masked(0, b"more"))
    assert client.told == ["close"]
    assert client.closed_with == 1000


def test_several_frames_in_one_read() -> None:
    client = RecordingClient()
    client.incoming.feed(b"".join(masked(1, b"%d" % n) for n in range(50)))
    assert client.told == [str(n) for n in range(50)]
    assert client.parsed == 0


def test_a_compressed_frame_goes_past_the_parser() -> None:
    client = RecordingClient(deflate=True)
    client.incoming.feed(masked(1, deflated(b"hello" * 100), rsv=4) + masked(1, b"plain"))
    assert client.told == ["hello" * 100, "plain"]
    assert client.parsed == 0


def test_the_clients_context_is_followed() -> None:
    client = RecordingClient(deflate=True)
    compressor = zlib.compressobj(wbits=-12)
    for _ in range(3):
        data = (compressor.compress(b"again and again") + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
        half = len(data) // 2
        client.incoming.feed(masked(2, data, rsv=4))
        data = (compressor.compress(b"again and again") + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
        client.incoming.feed(masked(2, data[:half], rsv=4, fin=False) + masked(0, data[half:]))
    assert client.told == [b"again and again"] * 6


@pytest.mark.parametrize(
    ("data", "told", "code"),
    [
        (masked(1, b"\xff"), ["bad text"], 1007),
        (masked(1, b"x" * 3001), ["PayloadTooBig"], 1009),
        (masked(1, deflated(b"x" * 3001), rsv=4), ["PayloadTooBig"], 1009),
        (masked(1, b"\xff\xff\xff", rsv=4), ["ProtocolError"], 1002),
        (masked(1, b"x", rsv=2), ["ProtocolError"], 1002),
        (masked(3, b"x"), ["ProtocolError"], 1002),
        (frame(1, b"x" * 10, mask=False), ["ProtocolError"], 1002),
        (masked(0, b"x"), ["ProtocolError"], 1002),
        (b"\x81\xfe\x00\x05" + b"\0\0\0\0" + b"xxxxx", ["xxxxx"], None),
        (masked(8, b"\x03\xe8"), ["close"], 1000),
        (masked(10, b"pong"), [("pong", b"pong")], None),
    ],
)
def test_what_is_unusual_is_the_parsers(data: bytes, told: list[Any], code: int | None) -> None:
    client = RecordingClient(deflate=True)
    client.incoming.feed(masked(1, b"first") + data + masked(1, b"last"))
    broken = code is not None
    assert client.told == ["first", *told, *([] if broken else ["last"])]
    assert client.closed_with == code


def test_a_frame_in_pieces_and_what_follows() -> None:
    client = RecordingClient()
    data = masked(1, b"in pieces")
    for start in range(len(data)):
        client.incoming.feed(data[start : start + 1])
    client.incoming.feed(masked(2, b"whole"))
    # The head alone leaves the parser's buffer empty, though it is in the middle of a frame.
    client.incoming.feed(data[:2])
    client.incoming.feed(data[2:])
    assert client.told == ["in pieces", b"whole", "in pieces"]


def test_no_more_is_taken_than_there_is_room_for() -> None:
    client = RecordingClient()
    client.room = 2
    client.incoming.feed(b"".join(masked(1, b"%d" % n) for n in range(5)))
    assert client.told == ["0", "1"]
    assert client.incoming.waiting
    client.room = 100
    client.incoming.go_on()
    client.incoming.feed(masked(1, b"5"))
    assert client.told == [str(n) for n in range(6)]
    assert not client.incoming.waiting


_FRAMES = st.one_of(
    st.builds(masked, st.sampled_from([1, 2]), st.binary(max_size=200)),
    st.builds(masked, st.sampled_from([1, 2]), st.text(max_size=200).map(str.encode)),
    st.builds(masked, st.sampled_from([0, 1, 2]), st.text(max_size=5).map(str.encode), fin=st.booleans()),
    st.builds(masked, st.sampled_from([9, 10]), st.binary(max_size=125)),
    st.builds(masked, st.sampled_from([1, 2]), st.binary(max_size=400).map(deflated), rsv=st.just(4)),
    st.binary(max_size=10),
)


@given(st.lists(_FRAMES, max_size=8), st.lists(st.integers(1, 60), min_size=1, max_size=20), st.booleans())
@settings(max_examples=80)
def test_the_same_comes_out_with_and_without_the_short_way(frames: list[bytes], cuts: list[int], deflate: bool) -> None:
    quick, slow = RecordingClient(deflate), SlowRecordingClient(deflate)
    data, start, number = b"".join(frames), 0, 0
    while start < len(data):
        piece = data[start : start + cuts[number % len(cuts)]]
        start, number = start + len(piece), number + 1
        quick.incoming.feed(piece)
        slow.incoming.feed(piece)
    assert quick.told == slow.told
    if not quick.over:  # the parser looks at all of a piece before the text of its first message is read
        assert quick.closed_with == slow.closed_with
