"""The expectations of applications in Kombu's Redis transport and in this one: each test runs on both."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import kombu
import pytest
from kombu.exceptions import ChannelError

from tests.support.servers import RedisServer
from tests.support.versions import release
from tests.support.waiting import wait_until
from tests.transport.broker import Peer, header, kill_connections, queue, redelivered

pytestmark = pytest.mark.redis

JOBS = queue("jobs")


@pytest.fixture(params=["redis", "redis-streams"])
def url(request: pytest.FixtureRequest, server: RedisServer) -> str:
    return f"{request.param}://127.0.0.1:{server.port}/0"


@pytest.fixture(params=[False, True], ids=["drain", "hub"])
def connect(request: pytest.FixtureRequest, url: str) -> Iterator[Callable[..., Peer]]:
    """Makes peers whose consumers are, or are not, driven by an event loop."""
    peers: list[Peer] = []

    def make(**options: Any) -> Peer:
        peers.append(Peer(url, hub=request.param, **options))
        return peers[-1]

    yield make
    for peer in peers:
        peer.close()


@pytest.fixture
def peer(url: str) -> Iterator[Peer]:
    """A peer without an event loop."""
    with Peer(url) as made:
        yield made


def test_messages_arrive_once_and_in_order(connect: Callable[..., Peer], peer: Peer) -> None:
    consumer = connect()
    peer.publish(JOBS, *range(50))
    consumer.consume(JOBS)
    assert consumer.receive(50) == list(range(50))
    assert consumer.nothing_more()
    consumer.close()
    assert peer.get(JOBS(peer.channel)) is None


def test_a_waiting_consumer_is_woken(connect: Callable[..., Peer], peer: Peer) -> None:
    consumer = connect()
    consumer.consume(JOBS)
    consumer.turn()
    for number in range(3):
        peer.publish(JOBS, number)
        consumer.receive(number + 1)
    assert consumer.bodies == [0, 1, 2]


def test_one_drain_events_is_one_message(peer: Peer) -> None:
    peer.publish(JOBS, *range(40))
    peer.consume(JOBS)
    counts = []
    while len(peer.messages) < 40:
        before = len(peer.messages)
        peer.connection.drain_events(timeout=5)
        counts.append(len(peer.messages) - before)
    assert counts == [1] * 40
    with pytest.raises(TimeoutError):
        peer.connection.drain_events(timeout=0.05)


@pytest.mark.parametrize(
    ("body", "options"),
    [
        ({"text": "grüße", "n": 1}, {"serializer": "json"}),
        ({"raw": [1, 2]}, {"serializer": "msgpack"}),
        (b"\x00\xff\xfe raw", {"content_type": "application/octet-stream", "content_encoding": "binary"}),
        ("text", {"content_type": "text/plain", "content_encoding": "utf-8"}),
        ({"compressed": "x" * 5000}, {"serializer": "json", "compression": "gzip"}),
        ("", {"serializer": "json"}),
    ],
)
def test_bodies_arrive_as_they_were_sent(peer: Peer, body: Any, options: dict[str, Any]) -> None:
    peer.publish(JOBS, body, **options)
    message = peer.get(JOBS)
    assert message.decode() == body
    message.ack()


def test_headers_arrive_as_they_were_sent(peer: Peer) -> None:
    headers = {
        "text": "ü", "number": 7, "none": None, "list": [1, "two"], "map": {"a": {"b": 1.5}},
        "when": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC), "id": uuid.UUID(int=5),
    }  # fmt: skip
    peer.publish(JOBS, "x", headers=headers, correlation_id="c", reply_to="r", content_type="text/plain")
    message = peer.get(JOBS)
    assert {name: message.headers[name] for name in headers} == headers
    assert message.properties["correlation_id"] == "c"
    assert message.properties["reply_to"] == "r"
    assert message.delivery_info["routing_key"] == "jobs"
    assert message.delivery_info["exchange"] == "jobs"
    message.ack()


def test_get(peer: Peer) -> None:
    assert peer.get(JOBS(peer.channel)) is None
    peer.publish(JOBS, 1, 2)
    first = peer.get(JOBS)
    assert first.payload == 1
    assert not redelivered(first)
    assert peer.size(JOBS) == 1  # what somebody holds does not count
    first.ack()
    assert peer.get(JOBS, no_ack=True).payload == 2
    assert peer.get(JOBS) is None


def test_reject_drops(connect: Callable[..., Peer], peer: Peer) -> None:
    consumer = connect()
    peer.publish(JOBS, 1)
    consumer.consume(JOBS, ack=False)
    consumer.receive(1)
    consumer.messages[0].reject()
    assert consumer.nothing_more()
    consumer.close()
    assert peer.get(JOBS) is None


def test_requeue_delivers_again_and_says_so(connect: Callable[..., Peer], peer: Peer) -> None:
    consumer = connect()
    peer.publish(JOBS, "one", headers={"kept": 1})
    consumer.consume(JOBS, ack=False)
    consumer.receive(1)
    consumer.messages[0].requeue()
    consumer.receive(2)
    first, second = consumer.messages
    assert not redelivered(first) or first.headers is second.headers
    assert redelivered(second)
    assert second.payload == "one"
    assert header(second, "kept") == 1
    second.ack()
    assert consumer.nothing_more()


def test_priorities_come_in_order(connect: Callable[..., Peer], peer: Peer) -> None:
    for priority in (9, 6, 3, 0):
        peer.publish(JOBS, f"{priority}a", f"{priority}b", priority=priority)
    consumer = connect()
    consumer.consume(JOBS)
    assert consumer.receive(8) == ["0a", "0b", "3a", "3b", "6a", "6b", "9a", "9b"]


@pytest.mark.parametrize(("priority", "step"), [(0, 0), (2, 0), (3, 3), (5, 3), (8, 6), (9, 9), (12, 9), (-1, 0)])
def test_priorities_between_steps(peer: Peer, priority: int, step: int) -> None:
    for other in (0, 3, 6, 9):
        peer.publish(JOBS, other, priority=other)
    peer.publish(JOBS, "it", priority=priority)
    got = [peer.get(JOBS, no_ack=True).payload for _ in range(5)]
    assert got[got.index("it") - 1] == step


def test_queues_are_served_fairly(connect: Callable[..., Peer], peer: Peer) -> None:
    queues = [queue(f"fair-{n}") for n in range(3)]
    for one in queues:
        peer.publish(one, *[one.name] * 30)
    consumer = connect()
    consumer.consume(*queues, prefetch=3)
    consumer.receive(45)
    counts = [consumer.bodies.count(one.name) for one in queues]
    assert min(counts) >= 8
    consumer.receive(90)


def test_fanout_reaches_everybody(connect: Callable[..., Peer], peer: Peer) -> None:
    news = kombu.Exchange("news", type="fanout")
    readers = [connect(), connect()]
    for number, reader in enumerate(readers):
        reader.consume(kombu.Queue(f"reader-{number}", news, auto_delete=True), no_ack=True)
        reader.auto_ack = False
        reader.until(partial(getattr, reader.channel, "_in_listen"))
        reader.turn()
    peer.connection.Producer(exchange=news).publish({"n": 1}, serializer="json")
    for reader in readers:
        assert reader.receive(1) == [{"n": 1}]


def test_topic_exchange(peer: Peer) -> None:
    exchange = kombu.Exchange("topics", type="topic")
    some = kombu.Queue("some", exchange, routing_key="stock.*.nasdaq")
    every = kombu.Queue("every", exchange, routing_key="stock.#")
    for one in (some, every):
        one(peer.channel).declare()
    producer = peer.connection.Producer(exchange=exchange)
    producer.publish(1, routing_key="stock.us.nasdaq")
    producer.publish(2, routing_key="stock.de.xetra")
    assert peer.size(some) == 1
    assert peer.size(every) == 2


def test_purge_leaves_what_is_held(peer: Peer) -> None:
    peer.publish(JOBS, *range(6))
    peer.publish(JOBS, "urgent", priority=9)
    held = peer.get(JOBS)
    assert JOBS(peer.channel).purge() == 6
    assert peer.get(JOBS) is None
    held.requeue()
    again = peer.get(JOBS)
    assert again.payload == held.payload == 0
    again.ack()


def test_purge_of_nothing(peer: Peer) -> None:
    JOBS(peer.channel).declare()
    assert JOBS(peer.channel).purge() == 0


def test_delete(peer: Peer) -> None:
    peer.publish(JOBS, 1, 2)
    JOBS(peer.channel).delete()
    with pytest.raises(ChannelError, match="NOT_FOUND"):
        peer.size(JOBS)
    peer.forget_declared()
    peer.publish(JOBS, 3)
    assert peer.get(JOBS, no_ack=True).payload == 3


def test_delete_if_empty(peer: Peer) -> None:
    peer.publish(JOBS, 1)
    JOBS(peer.channel).delete(if_empty=True)
    assert peer.size(JOBS) == 1


def test_passive_declare_of_what_is_not_there(peer: Peer) -> None:
    with pytest.raises(ChannelError, match="NOT_FOUND - no queue 'nowhere'"):
        kombu.Queue("nowhere")(peer.channel).queue_declare(passive=True)


@pytest.mark.parametrize("url", ["redis-streams", *(["redis"] if release("kombu") >= (5, 7) else [])], indirect=True)
def test_queue_that_expires(peer: Peer) -> None:
    short = queue("short", expires=0.4)
    peer.publish(short, 1)
    peer.publish(short, 2, priority=9)
    assert peer.size(short) == 2

    def gone() -> bool:
        return not peer.channel._has_queue("short")

    wait_until(gone, "the queue's end")


def test_prefetch(connect: Callable[..., Peer], peer: Peer) -> None:
    consumer = connect()
    peer.publish(JOBS, *range(6))
    consumer.consume(JOBS, ack=False, prefetch=2)
    consumer.receive(2)
    assert consumer.nothing_more()
    consumer.messages[0].ack()
    consumer.receive(3)
    assert consumer.nothing_more()
    consumer.messages[1].reject()
    consumer.messages[2].ack()
    assert consumer.receive(5) == [0, 1, 2, 3, 4]
    assert consumer.nothing_more()


def test_prefetch_over_queues_and_priorities(connect: Callable[..., Peer], peer: Peer) -> None:
    queues = [queue(f"few-{n}") for n in range(3)]
    for one in queues:
        peer.publish(one, 1, 2, 3)
        peer.publish(one, 4, priority=9)
    consumer = connect()
    consumer.consume(*queues, ack=False, prefetch=1)
    for count in range(1, 13):
        consumer.receive(count)
        assert len(consumer.messages) == count
        consumer.messages[-1].ack()
    assert sorted(consumer.bodies) == sorted([1, 2, 3, 4] * 3)


def test_a_cancelled_consumer_gets_nothing(connect: Callable[..., Peer], peer: Peer) -> None:
    first, second = connect(), connect()
    first.consume(JOBS).cancel()
    peer.publish(JOBS, *range(5))
    second.consume(JOBS)
    assert second.receive(5) == list(range(5))
    assert first.messages == []


def test_a_consumer_cancelled_by_its_own_callback(connect: Callable[..., Peer], peer: Peer) -> None:
    peer.publish(JOBS, *range(5))
    one, rest = connect(), connect()
    taken: list[Any] = []

    def once(message: Any) -> None:
        taken.append(message.payload)
        message.ack()
        consumer.cancel()

    consumer = one.connection.Consumer([JOBS], on_message=once)
    consumer.consume()
    if one.hub is not None:
        one.connection.register_with_event_loop(one.hub)
    one.until(lambda: taken)
    assert taken == [0]
    rest.consume(JOBS)
    assert sorted(rest.receive(4)) == [1, 2, 3, 4]


def test_close_gives_back_what_is_not_acknowledged(connect: Callable[..., Peer], peer: Peer) -> None:
    first, second = connect(), connect()
    peer.publish(JOBS, *range(4))
    first.consume(JOBS, ack=False, prefetch=3)
    first.receive(3)
    first.messages[1].ack()
    first.close()
    second.consume(JOBS)
    second.receive(3)
    assert {m.payload: redelivered(m) for m in second.messages} == {0: True, 2: True, 3: False}


def test_recover(peer: Peer) -> None:
    peer.publish(JOBS, 1, 2)
    for _ in range(2):
        peer.get(JOBS)
    peer.channel.basic_recover(requeue=True)
    again = [peer.get(JOBS), peer.get(JOBS)]
    assert sorted(message.payload for message in again) == [1, 2]
    assert all(map(redelivered, again))
    for message in again:
        message.ack()


def test_consumption_without_acknowledgements(connect: Callable[..., Peer], peer: Peer) -> None:
    consumer = connect()
    peer.publish(JOBS, *range(5))
    consumer.consume(JOBS, ack=False, no_ack=True, prefetch=2)
    assert consumer.receive(5) == list(range(5))
    consumer.close()
    assert peer.get(JOBS) is None


def test_killed_connections(connect: Callable[..., Peer], peer: Peer, server: RedisServer) -> None:
    consumer = connect()
    consumer.consume(JOBS, ack=False)
    peer.publish(JOBS, 1)
    consumer.receive(1)
    consumer.messages[0].ack()
    consumer.turn()
    assert kill_connections(server)
    errors = consumer.connection.connection_errors

    def fails() -> bool:
        try:
            consumer.turn()
        except errors:
            return True
        return False

    wait_until(fails, "the connection to be missed")
    consumer.connection.collect()
    again = connect()
    again.consume(JOBS)
    publisher = connect()
    publisher.publish(JOBS, 2)
    assert again.receive(1) == [2]
    assert again.nothing_more()


def test_many_publishers_and_consumers(connect: Callable[..., Peer], peer: Peer) -> None:
    consumers = [connect() for _ in range(3)]
    for consumer in consumers:
        consumer.consume(JOBS, prefetch=5)
    peer.publish(JOBS, *range(300))

    def got() -> list[int]:
        return [body for consumer in consumers for body in consumer.bodies]

    def all_came() -> bool:
        for consumer in consumers:
            consumer.turn(timeout=0.01)
        return len(got()) >= 300

    wait_until(all_came, "every message", timeout=30, interval=0)
    assert sorted(got()) == list(range(300))
