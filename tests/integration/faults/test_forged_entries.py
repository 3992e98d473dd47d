"""Entries that somebody has written into a stream past Kombu, whatever is in them, end no worker and hold up nobody."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
import redis

from tests.support.brokers import Broker, LayerClient, make_broker
from tests.support.processes import Process, Processes

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120)]

BODY = msgpack.packb([["echo", {"value": "forged"}], {}, {}])


def whole(body: Any = BODY, headers: Any = None, properties: Any = None, **more: Any) -> bytes:
    """A payload as Kombu has it."""
    payload = {
        "body": body,
        "content-type": "application/x-msgpack",
        "content-encoding": "binary",
        "headers": {"task": "echo", "id": "1"} if headers is None else headers,
        "properties": {"delivery_info": {"exchange": "", "routing_key": "echo"}, **(properties or {})},
        **more,
    }
    return msgpack.packb(payload)  # type: ignore[no-any-return]


PROPERTIES: list[dict[str, Any]] = [
    {"body_encoding": "nobody-knows"}, {"body_encoding": ["base64"]}, {"body_encoding": "base64"},
    {"priority": "high"}, {"expiration": "soon"}, {"expiration": ["1"]}, {"delivery_info": None},
    {"delivery_info": {}}, {"correlation_id": {"a": 1}},
]  # fmt: skip
ENTRIES: list[dict[str, Any]] = [
    {"m": b""},
    {"m": b"junk"},
    {"m": b"\x91" * 100_000},
    {"x": "1"},
    {"m": whole(), "x": "no number", "d": "no number"},
    {"m": msgpack.packb(["echo", "1", BODY, "soon"])},
    {"m": msgpack.packb(["echo", "1", BODY, -(2**60)])},
    {"m": msgpack.packb(["echo", 1, BODY, None])},
    {"m": msgpack.packb(["echo", "1", b"\x93\x92", None])},
    {"m": msgpack.packb(["echo", "1", msgpack.packb([["echo", {"reply_channel": ["a"]}], {}, {}]), None])},
    {"m": msgpack.packb(["echo", "1", msgpack.packb([["echo", {"reply_channel": "a b"}], {}, {}]), None])},
    *({"m": whole(headers=headers)} for headers in (
        {"task": ["echo"], "id": "1"}, {"task": {"a": 1}, "id": "1"}, {"task": None, "id": "1"}, {"task": "echo"},
        {"task": "echo", "id": ["1"]}, {"task": "echo", "id": "1", "eta": "tomorrow"}, {"id": "1"}, {},
        {"task": "echo", "id": "1", "compression": ["gzip"]}, {"task": "echo", "id": "1", "x-deaths": "many"},
        {"task": "echo", "id": "1", "channelsq_expires": "soon"},
    )),
    *({"m": whole(properties=properties)} for properties in PROPERTIES),
    *({"m": whole(body=body)} for body in (None, 5, "text", [1], {"a": 1})),
    {"m": whole(**{"content-type": ["a"]})},
    {"m": whole(**{"content-type": None, "content-encoding": None})},
]  # fmt: skip


@pytest.fixture(params=["redis-streams"])
def broker(request: pytest.FixtureRequest) -> Broker:
    return make_broker(request)


@pytest.fixture
def worker(broker: Broker, tmp_path: Any) -> Iterator[Process]:
    running = Processes(tmp_path)
    yield running.worker(env=broker.env, app="tests.project")
    running.stop()


def test_forged_entries(worker: Process, broker: Broker) -> None:
    client = LayerClient(broker)
    with redis.Redis.from_url(broker.groups_url) as attacker:
        for number, entry in enumerate(ENTRIES):
            attacker.xadd("stream:echo", entry)
            client.send("echo", {"value": number})
        answers: list[int] = []
        while len(answers) < len(ENTRIES):
            answer = client.receive()
            if answer["echo"] != "forged":
                answers.append(answer["echo"])
        assert sorted(answers) == list(range(len(ENTRIES)))
    client.close()
    assert worker.running, worker.output[-3000:]
    assert "Restarting" not in worker.output
