"""A queue that is busy is asked alone; what is in front of it, and beside it, is served all the same."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from channelsq.redis_core.poll_plan import SLICE
from tests.support.servers import RedisServer
from tests.transport.broker import Peer, admin, queue

BUSY, OTHER = queue("busy"), queue("other")
COUNT = 400


@pytest.fixture(params=[True, False], ids=["hub", "drain"])
def peers(request: pytest.FixtureRequest, url: str) -> Iterator[tuple[Peer, Peer]]:
    """One that consumes, and one that publishes."""
    with Peer(url, hub=request.param) as consumer, Peer(url) as publisher:
        yield consumer, publisher


def until_busy(consumer: Peer) -> None:
    """Consume until one queue is asked alone."""
    channel = consumer.channel
    consumer.until(lambda: channel.plan.backlog and channel.plan.busy is not None and len(consumer.messages) > 20)


def place_of(consumer: Peer, body: Any) -> int:
    consumer.until(lambda: body in consumer.bodies)
    return consumer.bodies.index(body)


def slowly(consumer: Peer) -> None:
    """Have a message take a millisecond, so that a batch is a few of them."""
    received = consumer._received

    def take_time(message: Any) -> None:
        end = time.monotonic() + 0.001
        while time.monotonic() < end:
            pass
        received(message)

    consumer._received = take_time  # type: ignore[method-assign]


@pytest.mark.parametrize(("where", "priority"), [(OTHER, 0), (OTHER, 3), (BUSY, 0)], ids=["beside", "behind", "same"])
def test_others_are_served_in_their_order(
    peers: tuple[Peer, Peer], server: RedisServer, where: Any, priority: int
) -> None:
    consumer, publisher = peers
    slowly(consumer)
    publisher.publish(BUSY, *range(COUNT))
    publisher.publish(OTHER, "declared")
    consumer.consume(BUSY, OTHER, prefetch=8)
    until_busy(consumer)
    begun = len(consumer.messages)
    publisher.publish(where, "it", priority=priority)
    place = place_of(consumer, "it")
    consumer.receive(COUNT + 2)
    assert sorted(body for body in consumer.bodies if type(body) is int) == list(range(COUNT))
    if where is BUSY or priority:
        assert place == COUNT + 1  # all that is in front of it, or before it, came first
    else:
        assert begun <= place <= begun + 20 * SLICE / 0.001
    with admin(server) as client:
        consumer.until(lambda: client.xlen("stream:busy") == 0)


def test_the_urgent_overtake(peers: tuple[Peer, Peer]) -> None:
    consumer, publisher = peers
    slowly(consumer)
    publisher.publish(BUSY, *range(COUNT), priority=6)
    consumer.consume(BUSY, OTHER, prefetch=8)
    until_busy(consumer)
    begun = len(consumer.messages)
    publisher.publish(BUSY, "urgent", priority=3)
    publisher.publish(OTHER, "more urgent", priority=0)
    assert place_of(consumer, "urgent") <= begun + 20 * SLICE / 0.001
    assert place_of(consumer, "more urgent") <= begun + 20 * SLICE / 0.001
    consumer.receive(COUNT + 2)


def test_what_was_busy_and_dried_up_hides_nothing(peers: tuple[Peer, Peer]) -> None:
    consumer, publisher = peers
    consumer.consume(BUSY, OTHER)
    for turn in range(3):
        publisher.publish(BUSY, *[("busy", turn, number) for number in range(60)])
        consumer.receive(len(consumer.messages) + 60)
        publisher.publish(OTHER, *[("other", turn, number) for number in range(60)])
        consumer.receive(len(consumer.messages) + 60)
    assert len(consumer.messages) == 360


def test_no_more_than_there_is_credit_for(peers: tuple[Peer, Peer], server: RedisServer) -> None:
    consumer, publisher = peers
    publisher.publish(BUSY, *range(60))
    consumer.consume(BUSY, OTHER, ack=False, prefetch=10)
    consumer.receive(10)
    with admin(server) as client:
        assert client.xpending("stream:busy", "kombu")["pending"] == 10
        for _ in range(5):
            for message in consumer.messages[-10:]:
                message.ack()
            consumer.receive(len(consumer.messages) + 10)
            assert client.xpending("stream:busy", "kombu")["pending"] == 10
    assert consumer.bodies == list(range(60))


def test_a_queue_that_was_deleted_while_busy(peers: tuple[Peer, Peer], server: RedisServer) -> None:
    consumer, publisher = peers
    slowly(consumer)
    publisher.publish(BUSY, *range(COUNT))
    consumer.consume(BUSY, OTHER, prefetch=8)
    until_busy(consumer)
    with admin(server) as client:
        client.delete("stream:busy")
    consumer.turn()
    publisher.publish(BUSY, "again")
    publisher.publish(OTHER, "and here")
    consumer.until(lambda: {"again", "and here"} <= set(consumer.bodies))


def test_who_begins_to_consume_again_begins_in_front(peers: tuple[Peer, Peer]) -> None:
    consumer, publisher = peers
    slowly(consumer)
    publisher.publish(BUSY, *range(COUNT), priority=6)
    first = consumer.consume(BUSY, OTHER, prefetch=8)
    until_busy(consumer)
    first.cancel()
    publisher.publish(BUSY, "urgent", priority=0)
    begun = len(consumer.messages)
    consumer.channel.plan.looked_at = time.monotonic() + 1  # as if it had looked in front just now
    consumer.consume(BUSY, OTHER, prefetch=8)
    assert place_of(consumer, "urgent") <= begun + 1
    consumer.receive(COUNT + 1)
