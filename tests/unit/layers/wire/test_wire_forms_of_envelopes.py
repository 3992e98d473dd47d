"""Envelopes: what goes to one process in one message of the broker."""

from __future__ import annotations

import pytest

from channelsq.layers.wire import codec
from channelsq.layers.wire.wire_forms import (
    ENVELOPE_BYTES,
    Entry,
    PackedNames,
    done_message,
    open_envelope,
    pack_envelopes,
)

NAMES = [f"websocket.send.a!{number}" for number in range(40)]


@pytest.mark.parametrize("others", [0, 1, 14, 15, 40, 70_000])
def test_packed_names_make_the_same_envelopes(others: int) -> None:
    rest = [Entry([NAMES[0]], b"", None, order) for order in range(others)]
    plain = list(pack_envelopes([Entry(NAMES, b"hello", "room"), *rest]))
    packed = list(pack_envelopes([Entry(PackedNames(codec.dumps(NAMES)), b"hello", "room"), *rest]))
    assert [codec.loads(body) for _, body in packed] == [codec.loads(body) for _, body in plain]
    opened = [entry for _, body in packed for entry in open_envelope(body)]
    assert opened[0] == Entry(NAMES, b"hello", "room")
    assert len(opened) == 1 + 2 * others
    assert all(len(body) <= ENVELOPE_BYTES + 5 for _, body in packed)  # with the head of the list


def test_packed_names_can_be_read_and_counted() -> None:
    names = PackedNames(codec.dumps(NAMES))
    assert list(names) == NAMES
    assert len(names) == len(NAMES)


def test_what_is_too_much_for_one_envelope_goes_in_several() -> None:
    large = b"x" * (ENVELOPE_BYTES // 2)
    entries = [Entry(["a!1"], large), Entry(["a!1"], large, None, 3), Entry(["a!2"], b"small")]
    made = list(pack_envelopes(entries))
    assert [entry for part, _ in made for entry in part] == entries
    assert len(made) == 2
    opened = [entry for _, body in made for entry in open_envelope(body)]
    assert opened == [*entries[:1], Entry(["a!1"], large), Entry(["a!1"], done_message(3)), entries[2]]


def test_one_that_is_too_large_alone_goes_alone() -> None:
    ((part, body),) = pack_envelopes([Entry(["a!1"], b"x" * (2 * ENVELOPE_BYTES))])
    assert len(part) == 1
    assert open_envelope(body) == part
