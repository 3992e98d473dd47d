"""WebSocket frames for the load client: made beforehand, and read exactly."""

from __future__ import annotations

import os
import zlib

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10

#: The key of every handshake, and the server's required answer (RFC 6455, section 1.3).
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


class WrongAnswer(Exception):
    """A server's answer is wrong: a message is wrong, doubled or missing, or there is no answer at all."""


def _header(first: int, length: int, mask_bit: int) -> bytes:
    if length < 126:
        return bytes((first, mask_bit | length))
    if length < 65536:
        return bytes((first, mask_bit | 126)) + length.to_bytes(2, "big")
    return bytes((first, mask_bit | 127)) + length.to_bytes(8, "big")


def server_frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """Return the frame in which a server sends ``payload``, uncompressed."""
    return _header(0x80 | opcode, len(payload), 0) + payload


def client_frame(payload: bytes, opcode: int = TEXT, deflate: bool = False) -> bytes:
    """Return the masked frame in which a client sends ``payload``; compressed by itself if ``deflate``."""
    first = 0x80 | opcode
    if deflate:
        packer = zlib.compressobj(wbits=-15)
        payload = (packer.compress(payload) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
        first |= 0x40
    length = len(payload)
    mask = os.urandom(4)
    stream = (mask * (length // 4 + 1))[:length]
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")).to_bytes(length, "big")
    return _header(first, length, 0x80) + mask + masked


def take_frame(buffer: bytearray, deflate: bool) -> tuple[int, bytes] | None:
    """Take one whole frame off ``buffer``; return opcode and payload, or None while it is incomplete.

    A compressed payload is unpacked alone, which is right for the first message of a socket.

    Raises:
        WrongAnswer: the frame is masked, in fragments, or has bits set that were not negotiated.
    """
    if len(buffer) < 2:
        return None
    first, second = buffer[0], buffer[1]
    begin, length = 2, second
    if second == 126:
        begin, length = 4, int.from_bytes(buffer[2:4], "big")
    elif second == 127:
        begin, length = 10, int.from_bytes(buffer[2:10], "big")
    if len(buffer) < begin or len(buffer) < begin + length:
        return None
    opcode = first & 0x0F
    if second & 0x80 or not first & 0x80 or first & (0x30 if deflate else 0x70) or opcode == 0:
        raise WrongAnswer(f"a frame that a server must not, or here does not, send: {bytes(buffer[:20])!r}")
    payload = bytes(buffer[begin : begin + length])
    del buffer[: begin + length]
    if first & 0x40:
        payload = zlib.decompressobj(wbits=-15).decompress(payload + b"\x00\x00\xff\xff")
    return opcode, payload


def handshake(host: str, port: int, path: str, deflate: bool) -> bytes:
    """Return the request that opens a WebSocket."""
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}:{port}",
        f"Origin: http://{host}:{port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {KEY.decode()}",
        "Sec-WebSocket-Version: 13",
        *(["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"] if deflate else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def check_handshake(head: bytes, deflate: bool) -> None:
    """Check a server's answer to :func:`handshake`.

    Raises:
        WrongAnswer: it is not a 101 with the right key, or compression is not as requested.
    """
    lines = head.split(b"\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])}
    if not lines[0].startswith(b"HTTP/1.1 101 ") or headers.get(b"sec-websocket-accept") != ACCEPT:
        raise WrongAnswer(f"the handshake got {lines[0].decode(errors='replace')!r}")
    if (b"permessage-deflate" in headers.get(b"sec-websocket-extensions", b"")) != deflate:
        raise WrongAnswer(f"permessage-deflate was {'not ' if deflate else ''}negotiated")
