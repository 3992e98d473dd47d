"""Kombu's poller, which delivers from local batches, too."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

import channelsq.transport  # noqa: F401  (registers the URL schemes)
from channelsq.transport.kombu_poller_internals import Poller
from tests.support.servers import RedisServer
from tests.transport.broker import Peer, queue

pytestmark = pytest.mark.redis


@pytest.fixture
def url(redis_server: RedisServer) -> str:
    return f"redis-streams://127.0.0.1:{redis_server.port}/0"


def test_the_polled_channels_are_known(url: str) -> None:
    """Their acknowledgements would otherwise wait for a poll, and lost connections for ever."""
    with Peer(url) as peer:
        transport: Any = peer.connection.transport
        first = peer.channel
        assert isinstance(transport.cycle, Poller)
        assert transport.cycle.channels == [first]
        second: Any = peer.connection.channel()
        assert set(transport.cycle.channels) == {first, second}
        second.close()
        assert transport.cycle.channels == [first]


def test_a_consumer_that_is_cancelled_by_its_own_callback_is_cancelled_after_it(url: str) -> None:
    """Otherwise its channel would give back a batch while it delivers from it."""
    jobs = queue(f"jobs-{uuid4().hex}")
    consuming: list[bool] = []
    with Peer(url) as peer:
        peer.publish(jobs, *range(4))

        def receive(message: Any) -> None:
            consumer.cancel()
            consuming.append(bool(peer.channel.active_queues))
            message.ack()

        consumer = peer.connection.Consumer([jobs], on_message=receive)
        consumer.consume()
        peer.until(lambda: consuming)
        peer.turn(timeout=0.01)
        assert consuming == [True]
        assert not peer.channel.active_queues
        assert peer.size(jobs) == 3
        jobs(peer.channel).delete()
