"""A client's messages, packed without a dict between."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channelsq.exceptions import MessageTooLarge
from channelsq.interface.websocket.connection_state import Connection, State
from channelsq.interface.websocket.packing import FramePacker
from channelsq.layers.wire import codec
from channelsq.layers.wire.wire_forms import TIMED_KEY

CHANNEL = "websocket.send.p!c"


def of_the_layer(path: str, payload: str | bytes, order: int, limit: int = 2**40, root_path: str = "") -> bytes:
    made = Connection(CHANNEL, path, root_path)
    return codec.pack(made.message(payload, order), limit)


@given(st.text(max_size=50), st.text() | st.binary(), st.integers(0, 2**63 - 1))
def test_it_is_what_the_layer_would_pack(path: str, payload: str | bytes, order: int) -> None:
    assert FramePacker(CHANNEL, path).pack(payload, order, 10**9) == of_the_layer(path, payload, order)


def test_where_the_site_is_mounted_is_in_it() -> None:
    packed = FramePacker(CHANNEL, "/chat/a/", "/chat").pack("x", 1, 10**9)
    assert packed == of_the_layer("/chat/a/", "x", 1, root_path="/chat")
    assert codec.loads(packed)["root_path"] == "/chat"


@given(st.text(max_size=50), st.text() | st.binary(), st.integers(0, 2**63 - 1))
def test_timed_it_is_what_the_layer_would_pack(path: str, payload: str | bytes, order: int) -> None:
    message = {TIMED_KEY: True, **Connection(CHANNEL, path).message(payload, order)}
    assert FramePacker(CHANNEL, path, timed=True).pack(payload, order, 10**9) == codec.pack(message, 2**40)


@pytest.mark.parametrize("size", [0, 1, 31, 32, 255, 256, 65535, 65536])
@pytest.mark.parametrize("character", ["a", b"a", "€"])
def test_lengths_at_which_the_form_changes(size: int, character: str | bytes) -> None:
    payload = character * size
    assert FramePacker(CHANNEL, "/").pack(payload, 1, 10**9) == of_the_layer("/", payload, 1)


@pytest.mark.parametrize("order", [0, 1, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32])
def test_orders_at_which_the_form_changes(order: int) -> None:
    assert FramePacker(CHANNEL, "/").pack("a", order, 10**9) == of_the_layer("/", "a", order)


@pytest.mark.parametrize("payload", ["€" * 100, b"a" * 300])
def test_the_limit_is_that_of_the_layer(payload: str | bytes) -> None:
    packer = FramePacker(CHANNEL, "/")
    size = len(of_the_layer("/", payload, 1))
    assert len(packer.pack(payload, 1, size)) == size
    with pytest.raises(MessageTooLarge) as ours:
        packer.pack(payload, 1, size - 1)
    with pytest.raises(MessageTooLarge) as the_layers:
        of_the_layer("/", payload, 1, size - 1)
    assert str(ours.value) == str(the_layers.value)


def open_connection() -> Connection:
    made = Connection(CHANNEL, "/")
    made.connect({})
    made.take()
    made.state = State.OPEN
    return made


def test_a_message_passes_by_only_if_nothing_is_before_it() -> None:
    made = open_connection()
    assert made.pass_by() is None  # the connect is not done
    made.receive("waits")
    made.done(0)
    assert made.pass_by() is None
    assert made.take_bare() == ("websocket.receive", "waits", 1)
    made.done(1)
    assert made.pass_by() == 2
    assert made.in_flight == 2
    assert made.pass_by() is None
    made.receive(b"behind it")
    made.done(2)
    turn = made.take()
    assert turn is not None
    assert turn.content == {"reply_channel": CHANNEL, "path": "/", "order": 3, "bytes": b"behind it"}


@pytest.mark.parametrize("state", [State.CONNECTING, State.CLOSING, State.CLOSED])
def test_nothing_passes_by_a_connection_that_is_not_open(state: State) -> None:
    made = open_connection()
    made.done(0)
    made.state = state
    assert made.pass_by() is None
