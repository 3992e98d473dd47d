"""Particulars of queues on streams: keys, the wire, batches, acknowledgements, expiry."""

from __future__ import annotations

import logging
from types import MethodType
from typing import Any

import msgpack
import pytest
import redis
from kombu.transport import TRANSPORT_ALIASES

from channelsq.transport import SCHEMES, payloads, register
from tests.support.servers import RedisServer
from tests.support.waiting import wait_until
from tests.transport.broker import Peer, admin, keys, queue, redelivered

pytestmark = pytest.mark.redis

JOBS = queue("jobs")
BOTH = pytest.mark.parametrize("hub", [False, True], ids=["drain", "hub"])


def test_register() -> None:
    before = dict(TRANSPORT_ALIASES)
    register()
    assert before == TRANSPORT_ALIASES
    assert SCHEMES.items() <= TRANSPORT_ALIASES.items()


def test_what_celery_asks_a_transport(url: str) -> None:
    with Peer(url) as peer:
        transport: Any = peer.connection.transport
        assert transport.driver_type == "redis"
        assert transport.implements.asynchronous
        assert "fanout" in transport.implements.exchange_type
        assert not transport.implements.batch_publish
        assert not transport.supports_batch_publish
        assert not peer.channel.supports_batch_publish


# -- Keys


@BOTH
def test_no_key_is_left(url: str, server: RedisServer, hub: bool) -> None:
    with Peer(url, hub=hub) as peer:
        peer.publish(JOBS, *range(20))
        peer.publish(JOBS, "low", priority=9)
        peer.consume(JOBS)
        peer.receive(21)
        assert keys(server, "stream:*")
    assert keys(server) == set()


@BOTH
def test_global_keyprefix(url: str, server: RedisServer, hub: bool) -> None:
    expiring = queue("expiring", expires=60)
    with Peer(url, hub=hub, global_keyprefix="one:") as one, Peer(url, hub=hub, global_keyprefix="two:") as two:
        for number, peer in enumerate((one, two)):
            peer.publish(JOBS, number, number + 10)
            peer.publish(expiring, number, priority=5)
            assert peer.size(JOBS) == 2
            assert peer.size(expiring) == 1
            peer.consume(JOBS, expiring, ack=False)
            peer.receive(3)
            peer.messages[0].requeue()
            peer.receive(4)
            peer.messages[1].ack()
            assert peer.get(queue("empty")(peer.channel)) is None
        with admin(server) as client:
            everything = set(client.keys())
        plain = {key for key in everything if not key.startswith(("one:", "two:"))}
        assert plain == {key for key in plain if "_kombu.binding_permanent" in key}  # Kombu's own, as on redis://
        for peer in (one, two):
            peer.channel.queue_purge("jobs")
    left = {key for key in keys(server) if "jobs" not in key and "expiring" not in key}
    assert left == set()
    with Peer(url, global_keyprefix="one:") as one:
        for name in ("jobs", "expiring"):
            one.channel.queue_delete(name)
    assert all(key.startswith("two:") for key in keys(server))


def test_queues_that_expire_live_while_they_are_consumed(url: str, server: RedisServer) -> None:
    short = queue("short", expires=0.6)
    with Peer(url) as peer, admin(server) as client:
        peer.consume(short)
        assert len(keys(server, "stream:short*")) == 4
        assert peer.nothing_more(1.3)
        peer.publish(short, "still there")
        assert peer.receive(1) == ["still there"]
        assert 0 < client.pttl("stream:short") <= 600
        assert client.xinfo_consumers("stream:short", "kombu")
    wait_until(lambda: not keys(server, "stream:*"), "its end")


def test_unbound_queues_are_deleted(url: str, server: RedisServer) -> None:
    with Peer(url) as peer:
        peer.connection.Producer().publish(1, routing_key="unbound")
        assert keys(server) == {"stream:unbound"}
        peer.channel.queue_delete("unbound")
    assert keys(server) == set()


def test_a_queue_that_is_made_again_gives_no_id_twice(url: str, server: RedisServer) -> None:
    """Else an acknowledgement of a deleted message would delete a new one."""
    ids = []
    with Peer(url) as peer, redis.Redis(port=server.port) as client:
        for number in range(50):
            peer.connection.Producer().publish(number, routing_key="jobs")
            ids += [key for key, _ in client.xrange("stream:jobs")]
            peer.channel.queue_delete("jobs")
    assert len(set(ids)) == 50


# -- The wire


def test_the_wire(url: str, server: RedisServer) -> None:
    with Peer(url) as peer:
        peer.publish(JOBS, b"\xff raw", content_type="application/x", content_encoding="binary", priority=4)
        raw: Any = redis.Redis(port=server.port)
        ((_, fields),) = raw.xrange("stream:jobs\x06\x163")
        assert set(fields) == {b"m"}
        payload = msgpack.unpackb(fields[b"m"])
        assert payload["body"] == b"\xff raw"
        assert payload["properties"]["delivery_info"] == {"exchange": "jobs", "routing_key": "jobs"}
        assert payload["properties"]["priority"] == 4
        peer.publish(JOBS, 1, expiration=2.5)
        ((_, fields),) = raw.xrange("stream:jobs")
        assert fields[b"x"] == b"2500"
        raw.close()


class Odd:
    def __str__(self) -> str:
        return "an odd thing"


def test_values_that_nothing_knows_arrive_as_text() -> None:
    payload = {
        "body": "x",
        "headers": {"odd": Odd(), "big": 1 << 80, 7: "number"},
        "properties": {"delivery_info": {}},
    }
    headers = payloads.decode(payloads.encode(payload))["headers"]
    assert headers == {"odd": "an odd thing", "big": 1 << 80, 7: "number"}


FOREIGN = [b"", b"not msgpack \xc1", msgpack.packb([1, 2]), msgpack.packb({"a": 1}), msgpack.packb({"properties": 3}),
           msgpack.packb({"properties": {"delivery_info": {}}, "headers": []}),
           msgpack.packb({"properties": {"delivery_info": 1}})]  # fmt: skip


@BOTH
def test_foreign_entries_are_dropped(
    url: str, server: RedisServer, hub: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with Peer(url, hub=hub) as peer, admin(server) as client:
        peer.consume(JOBS)
        for data in FOREIGN:
            client.xadd("stream:jobs", {"m": data})
        client.xadd("stream:jobs", {"other": "field", "m2": "x"})
        peer.publish(JOBS, "ours")
        with caplog.at_level(logging.ERROR, "channelsq.transport"):
            assert peer.receive(1) == ["ours"]
        dropped = [r for r in caplog.records if getattr(r, "action", "") == "foreign_payload"]
        assert len(dropped) == len(FOREIGN) + 1
        peer.until(lambda: client.xlen("stream:jobs") == 0)


def test_get_passes_over_foreign_entries(url: str, server: RedisServer) -> None:
    with Peer(url) as peer, admin(server) as client:
        client.xadd("stream:jobs", {"m": "foreign"})
        peer.publish(JOBS, "ours")
        assert peer.get(JOBS, no_ack=True).payload == "ours"
    assert keys(server) == set()


# -- Batches, credit, acknowledgements


def delivered_now(server: RedisServer, name: str = "jobs") -> int:
    with admin(server) as client:
        return int(client.xpending(f"stream:{name}", "kombu")["pending"])


@BOTH
def test_a_small_credit_is_kept(url: str, server: RedisServer, hub: bool) -> None:
    """Redis gives no more than there is credit for, so that other consumers get the rest."""
    with Peer(url, hub=hub) as peer:
        peer.publish(JOBS, *range(50))
        peer.consume(JOBS, ack=False, prefetch=3)
        peer.receive(3)
        assert peer.nothing_more(0.2)
        assert delivered_now(server) == 3
        for number in range(3, 20):
            peer.messages[number - 3].ack()
            peer.receive(number + 1)
        assert peer.nothing_more(0.1)
        assert delivered_now(server) == 3


def test_an_event_loop_gets_batches(url: str) -> None:
    with Peer(url, hub=True) as peer:
        peer.publish(JOBS, *range(500))
        peer.consume(JOBS)
        turns = 0
        while len(peer.messages) < 500:
            peer.turn()
            turns += 1
        assert peer.bodies == list(range(500))
        assert turns < 100


@BOTH
def test_batch_size(url: str, server: RedisServer, hub: bool) -> None:
    with Peer(url, hub=hub, batch_size=4) as peer:
        peer.publish(JOBS, *range(100))
        peer.consume(JOBS, ack=False)
        while len(peer.messages) < 30:
            peer.turn()
            assert delivered_now(server) <= len(peer.messages) + 4


@BOTH
def test_somebody_else_decides_about_credit(url: str, server: RedisServer, hub: bool) -> None:
    """As Celery's worker_disable_prefetch replaces can_consume on the instance."""
    allowed = 1
    with Peer(url, hub=hub) as peer:
        peer.publish(JOBS, *range(20))
        peer.channel.qos.can_consume = MethodType(lambda self: len(peer.messages) < allowed, peer.channel.qos)
        peer.consume(JOBS, ack=False)
        for allowed in range(1, 8):
            peer.receive(allowed)
            assert peer.nothing_more(0.05)
            assert delivered_now(server) == allowed


@BOTH
def test_acknowledgements_do_not_wait_for_the_next_message(url: str, server: RedisServer, hub: bool) -> None:
    with Peer(url, hub=hub, polling_interval=30) as peer:
        peer.publish(JOBS, 1, 2)
        peer.consume(JOBS, ack=False)
        peer.receive(2)
        peer.turn()  # a poll is out for 30 s
        for message in peer.messages:
            message.ack()
        peer.until(lambda: delivered_now(server) == 0, timeout=5)


def test_acknowledgements_after_the_loop_has_ended(url: str, server: RedisServer) -> None:
    """A worker's warm shutdown: consumers are cancelled, the loop turns no more, tasks still finish."""
    with Peer(url, hub=True) as peer:
        peer.publish(JOBS, 1, 2)
        consumer = peer.consume(JOBS, ack=False)
        peer.receive(2)
        peer.messages[0].ack()
        consumer.cancel()
        assert delivered_now(server) == 1
        peer.messages[1].ack()
        assert keys(server, "stream:*") == {"stream:jobs"}
        assert delivered_now(server) == 0
    assert keys(server) == set()


def test_refused_acknowledgements_are_told(url: str, server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    with Peer(url, hub=True) as peer, admin(server) as client:
        peer.publish(JOBS, 1)
        peer.consume(JOBS, ack=False)
        peer.receive(1)
        client.set("stream:jobs", "somebody's string")
        peer.messages[0].ack()
        with caplog.at_level(logging.ERROR, "channelsq.transport"):
            peer.channel.flush_acks()
        assert [r for r in caplog.records if getattr(r, "action", "") == "ack_refused" and "WRONGTYPE" in r.message]
        client.delete("stream:jobs")


@BOTH
def test_what_a_poll_brings_at_the_end_is_not_lost(url: str, hub: bool) -> None:
    with Peer(url, polling_interval=30) as publisher, Peer(url) as other:
        others = other.consume(JOBS)
        for number in range(5):
            peer = Peer(url, hub=hub, polling_interval=30)
            consumer = peer.consume(JOBS)
            peer.turn(timeout=0.01)  # its poll is out
            others.cancel()
            publisher.publish(JOBS, number)
            if number % 2:
                consumer.cancel()
            peer.close()
            others.consume()
            other.receive(number + 1)
            assert peer.messages == []
        assert other.bodies == list(range(5))
        assert not any(map(redelivered, other.messages))


@BOTH
def test_a_batch_goes_back_when_its_consumer_is_cancelled(url: str, server: RedisServer, hub: bool) -> None:
    with Peer(url, hub=hub) as peer, Peer(url) as other:
        peer.publish(JOBS, *range(100))
        consumer = peer.consume(JOBS, ack=False, prefetch=60)
        peer.until(lambda: len(peer.messages) >= 20)
        held = len(peer.messages)
        consumer.cancel()
        assert delivered_now(server) == held
        other.consume(JOBS)
        other.receive(100 - held)
        assert not any(map(redelivered, other.messages))
        assert sorted(peer.bodies + other.bodies) == list(range(100))


def test_two_channels_of_one_connection_consume_one_queue(url: str) -> None:
    with Peer(url) as peer:
        got: dict[str, list[Any]] = {"a": [], "b": []}

        def consume(channel: Any, name: str) -> Any:
            def received(message: Any) -> None:
                got[name].append(message.payload)
                assert message.channel is channel
                message.ack()

            consumer = peer.connection.Consumer([JOBS], channel=channel, on_message=received, prefetch_count=1)
            consumer.consume()
            return consumer

        first = consume(peer.connection.channel(), "a")
        consume(peer.connection.channel(), "b")
        peer.publish(JOBS, *range(20))
        peer.until(lambda: len(got["a"]) + len(got["b"]) == 20)
        first.cancel()
        peer.publish(JOBS, *range(20, 30))
        peer.until(lambda: len(got["a"]) + len(got["b"]) == 30)
        assert sorted(got["a"] + got["b"]) == list(range(30))


# -- Expiry


def test_expired_messages_are_not_delivered(url: str, server: RedisServer) -> None:
    with Peer(url) as peer, admin(server) as client:
        peer.publish(JOBS, "short", expiration=0.05)
        peer.publish(JOBS, "long", expiration=60)
        peer.publish(JOBS, "for ever")
        peer.publish(JOBS, "low", priority=9, expiration=0.05)
        wait_until(lambda: peer.size(JOBS) == 2, "the short ones to end")  # which counting deletes
        assert client.xlen("stream:jobs") == 2
        assert peer.get(JOBS, no_ack=True).payload == "long"
        assert peer.get(JOBS, no_ack=True).payload == "for ever"
        assert peer.get(JOBS) is None


@BOTH
def test_a_message_that_expires_behind_another(url: str, server: RedisServer, hub: bool) -> None:
    with Peer(url, hub=hub) as peer, admin(server) as client:
        peer.publish(JOBS, "first")
        peer.publish(JOBS, "short", expiration=0.02)
        peer.publish(JOBS, "last")
        old = client.time()
        wait_until(lambda: client.time() > (old[0], old[1] + 30_000) or client.time()[0] > old[0], "30 ms")
        assert peer.size(JOBS) == 3  # it is not at the head
        peer.consume(JOBS)
        assert peer.receive(2) == ["first", "last"]
        peer.until(lambda: client.xlen("stream:jobs") == 0)


def test_a_requeued_message_keeps_its_end(url: str, server: RedisServer) -> None:
    with Peer(url) as peer:
        peer.publish(JOBS, "short", expiration=0.4)
        message = peer.get(JOBS)
        message.requeue()
        again = peer.get(JOBS)
        assert int(again.properties["expiration"]) <= 400
        sent, left = int(again.delivery_tag.split("-")[0]), int(again.properties["expiration"])
        wait_until(lambda: peer.channel.server_time() > sent + left, "its end")
        again.requeue()
        assert peer.get(JOBS) is None
    assert keys(server) == set()


@BOTH
def test_what_goes_back_undelivered_keeps_its_end(url: str, server: RedisServer, hub: bool) -> None:
    with Peer(url, hub=hub) as peer:
        peer.publish(JOBS, *range(40), expiration=30)
        consumer = peer.consume(JOBS, ack=False, prefetch=30)
        peer.until(lambda: len(peer.messages) >= 10)
        consumer.cancel()
        for _ in range(40 - len(peer.messages)):
            message = peer.get(JOBS, no_ack=True)
            assert 0 < int(message.properties["expiration"]) <= 30_000
            assert not redelivered(message)


def test_purge_of_many(url: str, server: RedisServer) -> None:
    with Peer(url) as peer, admin(server) as client:
        peer.publish(JOBS, "held")
        held = peer.get(JOBS)
        with client.pipeline(transaction=False) as pipe:
            for number in range(12_000):
                pipe.xadd("stream:jobs", {"m": str(number)})
            pipe.execute()
        assert JOBS(peer.channel).purge() == 12_000
        assert client.xlen("stream:jobs") == 1
        held.ack()
    assert keys(server) == set()
