"""A layer reads only msgpack of channelsq's from its broker; with signatures only of its own site."""

from __future__ import annotations

import functools
import pickle
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgpack
import pytest

from channelsq.layers import KombuChannelLayer
from channelsq.layers.wire import decompression
from channelsq.management.commands.deadletters import _summary
from channelsq.transport import payloads as transport_codec
from channelsq.transport.dead_letter_store import _letter
from tests.contract.conftest import MakeLayer
from tests.support.waiting import wait_until

on_brokers = pytest.mark.parametrize(
    "make_layer",
    [
        "kombu-memory",
        "ipc",
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("redis-streams", marks=pytest.mark.redis),
        pytest.param("rabbitmq", marks=[pytest.mark.rabbitmq, pytest.mark.redis]),
    ],
    indirect=True,
)


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@functools.cache
def bomb() -> bytes:
    return zlib.compress(bytes(decompression.LIMIT + 1), level=1)


def foreign(trap: Path) -> list[dict[str, Any]]:
    """Return messages that an attacker might publish; code that is run leaves a file at ``trap``."""
    pickled = pickle.dumps([["c", Trap(trap)], {}, {}])
    packed = {"content_type": "application/x-msgpack", "content_encoding": "binary"}
    return [
        {"body": pickled, "content_type": "application/x-python-serialize", "content_encoding": "binary"},
        {"body": pickled, **packed},
        {
            "body": zlib.compress(pickled),
            "content_type": "application/x-python-serialize",
            "content_encoding": "binary",
            "headers": {"compression": "application/x-gzip"},
        },
        {
            "body": f"!!python/object/apply:os.system ['touch {trap}']".encode(),
            "content_type": "application/x-yaml",
            "content_encoding": "utf-8",
        },
        {"body": b"x", "content_type": "application/x-nobody-knows", "content_encoding": "nobody-knows"},
        {"body": b"", **packed},
        {"body": b"\xc1", **packed},
        {"body": msgpack.packb(["c"]), **packed},
        {"body": msgpack.packb([[["c"], pickled, None, None]]), **packed},
        {"body": msgpack.packb([[["c"], msgpack.packb(msgpack.ExtType(5, b"x")), None, None]]), **packed},
        {"body": msgpack.packb([["c", msgpack.ExtType(1, b"{}")], {}, {}]), **packed},
        {"body": b"[" * 100_000, "content_type": "application/json", "content_encoding": "utf-8"},
        {"body": b"\x91" * 100_000, **packed},
        {"body": b"x", **packed, "headers": {"compression": "nobody knows"}},
        {"body": b"x", **packed, "headers": {"compression": "application/x-bz2"}},
        {
            "body": bomb(),
            **packed,
            "headers": {"compression": "application/x-gzip"},
        },
    ]


def publish(layer: KombuChannelLayer, channel: str, messages: list[dict[str, Any]]) -> None:
    queue = layer.queue(channel)
    layer.use(queue)
    with layer.open_connection() as connection:
        producer = connection.Producer()
        for message in messages:
            headers = {"id": "0", **message.get("headers", {})}
            producer.publish(**{**message, "headers": headers}, exchange="", routing_key=queue.name, declare=[queue])


@on_brokers
@pytest.mark.parametrize("pattern", ["jobs", "answers?", "answers!"])
def test_receive_takes_channelsqs_alone(
    make_layer: MakeLayer, pattern: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    layer: Any = make_layer()
    channel = pattern if pattern == "jobs" else layer.new_channel(pattern)
    publish(layer, channel, foreign(tmp_path / "trap"))
    layer.send(channel, {"text": "genuine"})
    found: tuple[Any, Any] = (None, None)
    for _ in range(20):
        found = layer.receive([channel], block=True)
        if found[1] is not None:
            break
    assert found == (channel, {"text": "genuine"})
    assert layer.receive([channel]) == (None, None)
    assert not (tmp_path / "trap").exists()
    assert len([record for record in caplog.records if "was dropped" in record.getMessage()]) >= 10
    assert "Traceback" not in caplog.text


@on_brokers
def test_a_listener_takes_channelsqs_alone(
    make_layer: MakeLayer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    layer: Any = make_layer()
    channel = layer.new_channel("answers!")
    heard: list[Any] = []

    def deliver(channels: Sequence[str], message: dict[str, Any], group: str | None) -> None:
        heard.append((list(channels), message))

    counted: list[None] = []
    layer.foreign_listener = lambda: counted.append(None)
    publish(layer, channel, foreign(tmp_path / "trap"))
    listener = layer.listen(channel.partition("!")[0] + "!", deliver)
    try:
        layer.send(channel, {"text": "genuine"})
        wait_until(lambda: heard, "the genuine message", 30)
    finally:
        listener.stop()
    assert heard == [([channel], {"text": "genuine"})]
    told = [record for record in caplog.records if getattr(record, "action", "") == "foreign_message_dropped"]
    assert len(counted) == len(told) >= 15
    assert not (tmp_path / "trap").exists()
    assert "Traceback" not in caplog.text
    assert "broker_lost" not in {getattr(record, "action", "") for record in caplog.records}


@on_brokers
def test_signed_messages_arrive_and_others_do_not(make_layer: MakeLayer, caplog: pytest.LogCaptureFixture) -> None:
    """On every kind of channel, and from groups; a layer that does not sign reads past the signatures."""
    signed, plain = make_layer(signing=True), make_layer()
    if signed.in_process:
        assert signed.signing is None
        return
    channels = ["jobs", signed.new_channel("answers?"), signed.new_channel("answers!")]
    for channel in channels:
        signed.send(channel, {"text": channel})
        assert received(signed, channel) == (channel, {"text": channel})
    for channel in ("jobs", plain.new_channel("answers?"), plain.new_channel("answers!")):
        signed.send(channel, {"text": channel})
        assert received(plain, channel) == (channel, {"text": channel})
    signed.group_add("group", channels[2])
    signed.send_group("group", {"text": "hello"})
    assert received(signed, channels[2]) == (channels[2], {"text": "hello"})
    for channel in channels:
        plain.send(channel, {"text": "unsigned"})
        signed.send(channel, {"text": "signed"})
        assert received(signed, channel) == (channel, {"text": "signed"})
    refused = [record for record in caplog.records if getattr(record, "action", "") == "unsigned_refused"]
    assert len(refused) == 3


def received(layer: Any, channel: str) -> Any:
    return wait_until(lambda: found if (found := layer.receive([channel], block=True))[1] else None, channel, 20)


def test_dead_letters_are_not_unpickled(tmp_path: Path) -> None:
    """``manage.py deadletters`` shows each, whatever it is, and runs none."""
    trap = tmp_path / "trap"
    shown = []
    for message in foreign(trap):
        payload = {
            "body": message["body"],
            "content-type": message["content_type"],
            "content-encoding": message["content_encoding"],
            "headers": {"task": "jobs", **message.get("headers", {})},
            "properties": {"delivery_info": {}},
        }
        shown.append(_summary(_letter("jobs", "1-0", {b"m": transport_codec.encode(payload), b"d": b"5"})))
    assert not trap.exists()
    assert len([each for each in shown if each.startswith("(cannot be read")]) >= 5
    bodiless = transport_codec.encode({"properties": {"delivery_info": {}}})
    for fields in ({}, {b"m": b"junk", b"d": b"many", b"s": b"\xff"}, {b"m": bodiless}):
        letter = _letter("jobs", "1-0", fields)
        assert (letter.deaths, letter.task, letter.task_id) == (0, None, None)
        assert _summary(letter).startswith("(")
