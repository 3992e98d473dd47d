"""Reads past the parser of ``websockets`` begin only where a frame does."""

from __future__ import annotations

import pytest
from websockets.exceptions import InvalidHeader, ProtocolError
from websockets.frames import Opcode
from websockets.http11 import Request
from websockets.protocol import OPEN

from channelsq.interface.basis.websockets_internals import apply_mask, parse_subprotocol
from channelsq.interface.websocket import handshake
from channelsq.interface.websocket.websockets_wire_internals import (
    Wire,
    is_about_handshake,
    is_between_frames,
    what_is_wrong,
)
from tests.support.fakes.frame_readers import REQUEST, masked


def opened(**options: int) -> Wire:
    wire = Wire(extensions=handshake.EXTENSIONS, max_size=1000, **options)
    wire.receive_data(REQUEST % b"")
    (request,) = wire.events_received()
    assert isinstance(request, Request)
    wire.send_response(wire.accept(request))
    assert wire.state is OPEN
    return wire


def test_whether_the_parser_is_between_two_frames_after_each_byte() -> None:
    wire = opened()
    assert is_between_frames(wire)
    for message in (masked(Opcode.TEXT, b"abc"), masked(Opcode.BINARY, b"x" * 300), masked(Opcode.PING, b"")):
        for number, byte in enumerate(message, 1):
            wire.receive_data(bytes([byte]))
            assert is_between_frames(wire) is (number == len(message))


def test_a_line_of_the_handshake_may_be_as_long_as_the_option_says() -> None:
    cookie = b"Cookie: " + b"a" * 20_000 + b"\r\n"
    long, short = Wire(max_line=30_000), Wire()
    for wire in (long, short):
        wire.receive_data(REQUEST % cookie)
    assert isinstance(long.events_received()[0], Request)
    assert what_is_wrong(long) is None
    error = what_is_wrong(short)
    assert error is not None
    assert is_about_handshake(short, error)


def test_a_close_frame_may_come_amid_a_message() -> None:
    wire = opened()
    wire.receive_data(masked(Opcode.TEXT, b"half", fin=False) + masked(Opcode.CLOSE, b"\x03\xe8"))
    assert what_is_wrong(wire) is None
    assert wire.close_rcvd is not None
    assert wire.close_rcvd.code == 1000


def test_a_broken_frame_is_nothing_about_the_handshake() -> None:
    wire = opened()
    wire.receive_data(b"\xff\x80\0\0\0\0")
    error = what_is_wrong(wire)
    assert isinstance(error, ProtocolError)
    assert not is_about_handshake(wire, error)


def test_masks_and_subprotocols_are_read_as_websockets_does() -> None:
    assert apply_mask(b"abcde", b"\1\2\3\4") == bytes([0x60, 0x60, 0x60, 0x60, 0x64])
    assert parse_subprotocol("chat, superchat") == ["chat", "superchat"]
    with pytest.raises(InvalidHeader):
        parse_subprotocol("chat; x")
