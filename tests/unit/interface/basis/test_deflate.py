"""permessage-deflate: what is negotiated, and messages that are compressed once."""

from __future__ import annotations

import random
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from channelsq.interface.basis.deflate import compressed_frame
from channelsq.interface.basis.frames import BYTES, TEXT, frame
from channelsq.interface.basis.websockets_internals import SharedDeflate
from channelsq.interface.link.replies import Delivery
from channelsq.interface.websocket import handshake


def agree(**offer: Any) -> tuple[ClientProtocol, ServerProtocol]:
    """A client and a server after their handshake."""
    factory = ClientPerMessageDeflateFactory(**offer)
    client = ClientProtocol(parse_uri("ws://localhost/"), extensions=[factory])
    server = ServerProtocol(extensions=handshake.EXTENSIONS)
    client.send_request(client.connect())
    server.receive_data(b"".join(client.data_to_send()))
    (request,) = server.events_received()
    assert isinstance(request, Request)
    server.send_response(server.accept(request))
    client.receive_data(b"".join(server.data_to_send()))
    client.events_received()
    return client, server


OFFERS: list[dict[str, object]] = [
    {},
    {"client_max_window_bits": None},
    {"client_max_window_bits": 9},
    {"client_max_window_bits": 15},
    {"server_max_window_bits": 9},
    {"server_max_window_bits": 12},
    {"server_max_window_bits": 15},
    {"server_no_context_takeover": True},
    {"client_no_context_takeover": True},
]


@pytest.mark.parametrize("offer", OFFERS, ids=str)
def test_every_client_reads_what_is_compressed_for_its_window(offer: dict[str, object]) -> None:
    client, server = agree(**offer)
    (theirs,), (ours,) = client.extensions, server.extensions
    assert isinstance(theirs, PerMessageDeflate)
    assert isinstance(ours, SharedDeflate)
    assert theirs.local_max_window_bits == ours.remote_max_window_bits
    assert theirs.remote_max_window_bits == ours.local_max_window_bits
    assert theirs.remote_no_context_takeover
    text = "some text, some text, " * 500
    for _ in range(3):
        delivery = Delivery(["c"], {"text": text})
        data = delivery.frame(ours.local_max_window_bits)
        assert len(data) < len(text) / 10
        client.receive_data(data)
        (event,) = client.events_received()
        assert isinstance(event, Frame)
        assert bytes(event.data).decode() == text
        client.send_text(text.encode())
        server.receive_data(b"".join(client.data_to_send()))
        (event,) = server.events_received()
        assert isinstance(event, Frame)
        assert bytes(event.data).decode() == text


def test_a_client_that_cannot_be_told_its_window_keeps_no_context() -> None:
    client, server = agree(client_max_window_bits=None)
    (theirs,), (ours,) = client.extensions, server.extensions
    assert isinstance(theirs, PerMessageDeflate)
    assert isinstance(ours, PerMessageDeflate)
    assert theirs.local_no_context_takeover
    assert ours.remote_no_context_takeover


@given(st.lists(st.binary(max_size=5000), max_size=5), st.sampled_from([9, 12, 15]))
def test_each_message_stands_alone(messages: list[bytes], bits: int) -> None:
    for message in messages:
        data = compressed_frame(BYTES, message, bits)
        if not data[0] & 0x40:
            assert data == frame(BYTES, message)
            continue
        length = data[1]
        payload = data[2:] if length < 126 else data[4:]
        decoder = zlib.decompressobj(wbits=-bits)
        assert decoder.decompress(payload + b"\0\0\xff\xff") == message


def test_what_does_not_become_smaller_is_sent_as_it_is() -> None:
    noise = random.Random(1).randbytes(5000)
    assert compressed_frame(BYTES, noise, 12) == frame(BYTES, noise)
    assert compressed_frame(TEXT, b"short", 12) == frame(TEXT, b"short")


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
@pytest.mark.parametrize(("first", "opcode"), [(TEXT, Opcode.TEXT), (BYTES, Opcode.BINARY)])
def test_frames_are_those_of_the_library(first: int, opcode: Opcode, size: int) -> None:
    payload = b"x" * size
    assert frame(first, payload) == Frame(opcode, payload).serialize(mask=False)


def test_a_broadcast_is_compressed_once() -> None:
    delivery = Delivery(["a", "b"], {"text": "all of you " * 50})
    assert delivery.frame(12) is delivery.frame(12)
    assert delivery.frame(9) is not delivery.frame(12)
    assert delivery.frame() is delivery.frame()


def test_a_client_that_sends_nothing_compressed_costs_no_window() -> None:
    agree()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    extensions = [SharedDeflate(False, 12, 12) for _ in range(100)]
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert (after - before) / len(extensions) < 1500
