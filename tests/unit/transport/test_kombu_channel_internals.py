"""The methods and attributes of Kombu's Redis channel that Kombu's poller uses, and ours by their public names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import kombu
import pytest

import channelsq.transport  # noqa: F401  (registers the URL schemes)
from channelsq.transport.kombu_channel_internals import raw_payload
from channelsq.transport.streams_channel import Channel
from tests.support.servers import RedisServer
from tests.support.waiting import wait_until
from tests.transport.broker import Peer, admin, queue

pytestmark = pytest.mark.redis


@pytest.fixture
def name() -> str:
    """The name of a queue of this test alone."""
    return f"jobs-{uuid4().hex}"


@pytest.fixture(params=[False, True], ids=["drain", "hub"])
def peer(redis_server: RedisServer, request: pytest.FixtureRequest) -> Iterator[Peer]:
    with Peer(f"redis-streams://127.0.0.1:{redis_server.port}/0", hub=request.param) as peer:
        yield peer


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hooks that Kombu has called."""
    names: list[str] = []

    def watch(name: str) -> None:
        hook = getattr(Channel, name)

        def called(self: Channel, *args: Any) -> Any:
            names.append(name)
            return hook(self, *args)

        monkeypatch.setattr(Channel, name, called)

    for each in ("send_poll", "deliver_poll", "connection_lost", "consumer_cancelled"):
        watch(each)
    return names


def test_kombus_poller_sends_polls_and_reads_their_answers(peer: Peer, called: list[str], name: str) -> None:
    """Without that a worker receives nothing."""
    peer.consume(queue(name))
    peer.turn(timeout=0.01)
    assert "send_poll" in called
    assert peer.channel.poll_sent_at is not None
    peer.until(lambda: peer.channel.polled_on)
    peer.publish(queue(name), 1)
    assert peer.receive(1) == [1]
    assert "deliver_poll" in called


def test_a_lost_connection_is_told_and_another_poll_is_sent(
    peer: Peer, called: list[str], name: str, redis_server: RedisServer
) -> None:
    """Without that the acknowledgements of the lost poll would never be sent again."""
    peer.consume(queue(name))
    peer.turn(timeout=0.01)
    with admin(redis_server) as client:
        client.client_kill_filter(_id=str(peer.channel._client_id))
    peer.publish(queue(name), 1)
    with pytest.raises(peer.connection.connection_errors):
        peer.receive(1)
    assert "connection_lost" in called
    assert not peer.channel.polled_on
    assert peer.receive(1) == [1]


def test_a_cancelled_consumer_is_told(peer: Peer, called: list[str], name: str) -> None:
    """Without that fetched messages of the queue would not be given back."""
    consumer = peer.consume(queue(name))
    assert "consumer_cancelled" not in called
    consumer.cancel()
    assert called.count("consumer_cancelled") == 1
    assert peer.channel.active_queues == []


def test_queues_take_turns(peer: Peer, name: str) -> None:
    names = [f"{name}-{number}" for number in range(3)]
    peer.consume(*map(queue, names))
    first, second, third = peer.channel.next_queues()
    peer.channel.serve_last(first)
    assert peer.channel.next_queues() == [second, third, first]


def test_queues_of_fanout_exchanges_are_known(peer: Peer, name: str) -> None:
    """Their messages never reach a stream."""
    peer.consume(kombu.Queue(name, kombu.Exchange(f"news-{name}", type="fanout"), auto_delete=True))
    assert peer.channel.is_fanout(name)
    assert not peer.channel.is_fanout(f"{name}-2")
    assert peer.channel.active_queues == []


def test_a_qos_is_not_created_to_look_for_one(peer: Peer, name: str) -> None:
    """A QoS keeps its channel until the process ends; a channel that only publishes needs none."""
    peer.publish(queue(name), 1)
    peer.channel.flush_acks()
    assert peer.channel.existing_qos is None
    assert peer.channel.qos is peer.channel.existing_qos


def test_a_message_keeps_the_payload_that_it_was_made_from(peer: Peer, name: str) -> None:
    """A redelivered message must be the same, also if it was compressed or signed."""
    peer.publish(queue(name), "tea" * 100, compression="zlib")
    message = peer.get(queue(name))
    assert message.payload == "tea" * 100
    assert len(raw_payload(message)["body"]) < 100
    message.requeue()
    again = peer.get(queue(name))
    assert raw_payload(again)["body"] == raw_payload(message)["body"]
    again.ack()


def test_held_messages_are_given_back_by_a_closed_channel(peer: Peer, name: str) -> None:
    peer.publish(queue(name), 1)
    assert peer.get(queue(name)).payload == 1
    peer.channel.close()
    peer.connection.close()
    wait_until(lambda: peer.size(queue(name)) == 1, "the message is in its queue again")
