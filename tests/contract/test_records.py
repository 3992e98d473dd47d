"""Records on every layer that has a place for them."""

from __future__ import annotations

import logging

import pytest

from channelsq.layers import KombuChannelLayer
from channelsq.layers.groups.records import MOST_IN_MEMORY, MemoryRecords
from channelsq.test.contract import RecordContract
from channelsq.test.contract.records import records_of
from tests.contract.conftest import MakeLayer

KEYS, OTHERS = ["key-" * 8], ["other" * 8]


class TestRecords(RecordContract):
    """Every layer's records."""


def test_a_layer_without_a_place_for_records_says_so() -> None:
    assert KombuChannelLayer(url="amqp://localhost").records is None


def test_a_process_keeps_so_many_records() -> None:
    records = MemoryRecords()
    for number in range(MOST_IN_MEMORY + 1):
        records.write(str(number), {"field": b"x"}, 60)
    assert records.read("0") == {}
    assert records.read(str(MOST_IN_MEMORY)) == {"field": b"x"}


@pytest.mark.parametrize(
    "make_layer",
    ["ipc", *(pytest.param(name, marks=pytest.mark.redis) for name in ("redis", "redis-streams", "redis-shards"))],
    indirect=True,
)
@pytest.mark.parametrize("protection", [{"symmetric_encryption_keys": KEYS}, {"signing": True}])
def test_values_are_encrypted_and_signed_as_messages_are(
    make_layer: MakeLayer, protection: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    layer, bare = make_layer(**protection), make_layer()
    records, secret = records_of(layer), b"nobody else reads this"
    records.write("a", {"one": secret}, 60)
    assert records.change("a", "one", lambda value: (value or b"") + b"!", 60) == secret + b"!"
    assert records.read("a") == {"one": secret + b"!"}
    stored = records_of(bare).read("a")["one"]
    assert (secret in stored) is ("signing" in protection)
    # Bytes of another process without the keys, or of another field, are no value.
    with caplog.at_level(logging.WARNING, "channelsq.layers"):
        records_of(bare).write("a", {"one": b"forged", "two": stored}, 60)
        assert records.read("a") == {}
    assert [each.getMessage()[:9] for each in caplog.records if each.name == "channelsq.layers"] == ["record a:"] * 2
