"""The first inputs of the fuzzer: valid ones, or nearly so."""

from __future__ import annotations

from typing import Any

from channelsq.layers.wire import codec
from tests.support.fakes.frame_readers import REQUEST as HANDSHAKE
from tests.support.fakes.frame_readers import deflated, masked


def frames() -> list[bytes]:
    """Frames, behind a byte that says how they are cut and whether they may be compressed."""
    good = [
        masked(1, b"hello"), masked(2, b"\0" * 126), masked(1, "grüße".encode()),
        masked(1, b"ha", fin=False) + masked(9, b"ping") + masked(0, b"lf"), masked(10, b""),
        masked(8, (1000).to_bytes(2, "big") + b"bye"), masked(2, b"x" * 3001), masked(1, b"\xff"),
        masked(1, deflated(b"hello hello hello"), rsv=4), masked(3, b""),
    ]  # fmt: skip
    return [bytes([cut]) + data for cut in (0, 3, 0x80, 0x87) for data in (*good, b"".join(good[:5]))]


def handshake() -> list[bytes]:
    """Requests and handshakes, behind a byte that says how they are cut and whether they are answered."""
    host = b"Host: a\r\n"
    requests = [
        b"GET /path?query HTTP/1.1\r\n" + host + b"\r\n",
        b"POST / HTTP/1.1\r\n" + host + b"Content-Length: 3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + host + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
        b"GET / HTTP/1.1\r\n"
        + host
        + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\nGET / HTTP/1.1\r\n"
        + host
        + b"\r\n",
        b"GET http://a/ HTTP/1.1\r\n" + host + b"Connection: close\r\n\r\n",
        HANDSHAKE % b"",
        HANDSHAKE % b"Sec-WebSocket-Protocol: a, b\r\nOrigin: http://a\r\nCookie: a=b\r\n" + masked(1, b"early"),
        HANDSHAKE % b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=12\r\n",
    ]
    return [bytes([cut]) + data for cut in (0, 0x80, 0x80 + 40) for data in (*requests, requests[1] * 3 + b"what")]


def messages() -> list[bytes]:
    """Packed messages."""
    contents: tuple[dict[str, Any], ...] = (
        {"text": "hello"}, {"bytes": b"\0\xff", "order": 3}, {"a": [1, -1, 2**63 - 1, 1.5, None, True]},
        {"deep": {"deeper": [[[{}]]]}}, {"headers": [[b"host", b"a"]], "path": "/"},
    )  # fmt: skip
    return [codec.dumps(content) for content in contents]


def envelopes() -> list[bytes]:
    """Return contents of envelopes: lists of entries, each with channels, a packed message, a group and an order."""
    replies = [
        {"text": "hello"}, {"bytes": b"hello"}, {"accept": True, "subprotocol": "a"}, {"close": 3000, "reason": "bye"},
        {"done": 0}, {"text": "a", "close": True}, {"status": 200, "headers": [[b"a", b"b"]], "content": b"c"},
        {"status": 304, "headers": [[b"content-length", b"3"]], "content": b"abc", "more_content": True},
    ]  # fmt: skip
    entries: list[list[object]] = [[[channel], codec.dumps(reply), None] for reply in replies for channel in ("s", "h")]
    entries += [[["s", "h"], codec.dumps(replies[0]), "group"], [["s"], codec.dumps(replies[0]), None, 0]]
    return [codec.dumps([entry]) for entry in entries] + [codec.dumps(entries)]


SEEDS = {"envelopes": envelopes, "frames": frames, "handshake": handshake, "messages": messages}
