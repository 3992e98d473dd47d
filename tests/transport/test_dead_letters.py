"""Messages with which consumers die: who is buried, who is not, and what can be done with the buried."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from channelsq.transport import dead_letters
from channelsq.transport.dead_letter_store import DeadLetter, DeadLetters
from channelsq.transport.payloads import Payload
from tests.support.servers import RedisServer
from tests.transport.broker import Peer, admin, header, keys, queue, redelivered

pytestmark = pytest.mark.redis

JOBS = queue("jobs")
OTHER = queue("other")
LEASE = 0.6
BOTH = pytest.mark.parametrize("hub", [False, True], ids=["drain", "hub"])


def die(peer: Peer, server: RedisServer) -> None:
    """End a consumer as SIGKILL does: it gives nothing back, and its lease is over."""
    channel = peer.channel
    channel.flush_acks()
    channel.end_poll()
    channel.connection.leases.release(channel)
    consumer = channel.streams.consumer
    channel._forget()
    peer.close()
    with admin(server) as client:
        client.delete(f"stream-lease:{consumer}")


def kill_with(url: str, server: RedisServer, count: int, **options: Any) -> list[Any]:
    """Let a consumer die with ``count`` messages in its hands; gives their bodies."""
    peer = Peer(url, lease=LEASE, **options)
    peer.consume(JOBS, ack=False, prefetch=count)
    bodies = peer.receive(count)
    die(peer, server)
    return list(bodies)


def letters(url: str, of: str | None = None) -> list[DeadLetter]:
    with Peer(url) as peer:
        return list(DeadLetters(peer.connection).all(of))


@pytest.fixture
def buried() -> Iterator[list[tuple[str, Payload]]]:
    """Return the dead letters that listeners were told of."""
    told: list[tuple[str, Payload]] = []

    def listener(queue: str, payload: Payload) -> None:
        told.append((queue, payload))

    dead_letters.listen(listener)
    dead_letters.listen(listener)
    yield told
    dead_letters._listeners.remove(listener)


@BOTH
def test_the_fifth_death_is_the_last(
    url: str, server: RedisServer, hub: bool, buried: list[tuple[str, Payload]], caplog: pytest.LogCaptureFixture
) -> None:
    with Peer(url) as publisher:
        publisher.publish(JOBS, "poison", headers={"id": "a", "task": "kill"}, priority=3)
    for life in range(5):
        peer = Peer(url, lease=LEASE, hub=hub)
        peer.consume(JOBS, ack=False)
        assert peer.receive(1) == ["poison"]
        assert peer.messages[0].headers.get("x-deaths", 0) == life
        assert redelivered(peer.messages[0]) is (life > 0)
        die(peer, server)
    with Peer(url, lease=LEASE, hub=hub) as peer:
        peer.consume(JOBS)
        with caplog.at_level(logging.ERROR, "channelsq.transport"):
            peer.until(lambda: buried)
        assert peer.messages == []
        assert peer.size(JOBS) == 0
    (error,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert vars(error)["action"] == "dead_letter"
    assert "5 consumers died with the message a of queue jobs (task kill)" in caplog.text
    ((name, payload),) = buried
    assert (name, payload["headers"]["id"]) == ("jobs", "a")
    (letter,) = letters(url)
    assert (letter.queue, letter.deaths, letter.task, letter.task_id) == ("jobs", 5, "kill", "a")
    assert letter.reason == "its last consumer let its lease end"
    assert abs(letter.died - datetime.now(UTC)) < timedelta(minutes=1)
    assert letter.payload["properties"]["priority"] == 3
    assert keys(server) == {"stream-dead:jobs"}


@BOTH
@pytest.mark.parametrize("limit", [2, 3, 5, 12])
def test_innocents_are_not_buried_with_it(url: str, server: RedisServer, hub: bool, limit: int) -> None:
    """One message of a hundred kills whoever is handed it, at the worst time: before anything else is done."""
    done: list[int] = []
    lives = 0
    with Peer(url) as publisher:
        publisher.publish(JOBS, *range(100))
    while len(done) < 99 or not letters(url):
        lives += 1
        assert lives < 40
        peer = Peer(url, lease=LEASE, hub=hub, max_deaths=limit)
        peer.consume(JOBS, ack=False, prefetch=60)
        deadline = time.monotonic() + 20
        while 37 not in peer.bodies and time.monotonic() < deadline and (len(done) < 99 or not letters(url)):
            peer.turn(timeout=0.02)
            if 37 not in peer.bodies and (len(peer.messages) == 60 or not peer.channel._buffer):
                done += peer.bodies
                for message in peer.messages:
                    message.ack()
                peer.messages.clear()
        die(peer, server)
    assert sorted(done) == [number for number in range(100) if number != 37]
    assert [letter.payload["body"] for letter in letters(url)] == [b"37"]
    assert lives <= limit + 2


@pytest.mark.parametrize(("deaths", "count", "together"), [(1, 20, 20), (2, 20, 16), (3, 16, 4), (4, 4, 1)])
def test_the_more_deaths_the_fewer_together(
    url: str, server: RedisServer, deaths: int, count: int, together: int
) -> None:
    with Peer(url) as publisher:
        publisher.publish(JOBS, *range(count))
    for _ in range(deaths):
        assert kill_with(url, server, count) == list(range(count))
    with Peer(url, lease=LEASE) as peer:
        peer.consume(JOBS, ack=False)
        assert peer.receive(together) == list(range(together))
        assert peer.nothing_more(LEASE)
        peer.publish(JOBS, "fresh")
        assert peer.receive(together + 1)[-1] == "fresh"  # only suspects wait
        for message in peer.messages:
            message.ack()
        peer.auto_ack = True
        assert peer.receive(count + 1)[together + 1 :] == list(range(together, count))
    assert keys(server) == set()


def test_a_suspect_that_lives_on_lets_others_in(url: str, server: RedisServer) -> None:
    with Peer(url) as publisher:
        publisher.publish(JOBS, 1, 2)
    kill_with(url, server, 2, max_deaths=2)
    with Peer(url, lease=0.1, max_deaths=2) as peer:
        started = time.monotonic()
        peer.consume(JOBS, ack=False)
        peer.receive(1)
        assert peer.receive(2) == [1, 2]
        assert time.monotonic() - started > 1  # ten leases


def test_a_suspect_that_is_done_while_the_next_is_asked_for(url: str, server: RedisServer) -> None:
    """Another thread may acknowledge it before the answer comes, which says that there was no room for the next."""
    with Peer(url) as publisher:
        publisher.publish(JOBS, 1, 2)
    kill_with(url, server, 2, max_deaths=2)
    with Peer(url, lease=3600, max_deaths=2) as peer:
        peer.consume(JOBS, ack=False)
        peer.receive(1)
        channel = peer.channel
        channel.end_poll()
        channel.put_off_take_over(0)
        channel.send_poll(1)
        assert channel._asked.kind == "claim"
        peer.messages[0].ack()
        assert peer.receive(2) == [1, 2]


def test_what_waits_for_its_time_is_nobodys_death(url: str, server: RedisServer) -> None:
    eta = (datetime.now(UTC) + timedelta(seconds=4)).isoformat()
    with Peer(url) as publisher:
        publisher.publish(JOBS, "later", headers={"eta": eta})
    for _ in range(4):
        kill_with(url, server, 1, max_deaths=2)
    peer = Peer(url, lease=LEASE, max_deaths=2)
    peer.consume(JOBS, ack=False)
    peer.receive(1)
    assert "x-deaths" not in peer.messages[0].headers
    peer.until(lambda: datetime.now(UTC).isoformat() > eta)
    die(peer, server)  # with a message that it may have begun
    with Peer(url, lease=LEASE, max_deaths=2) as last:
        last.consume(JOBS)
        last.receive(1)
        assert header(last.messages[0], "x-deaths") == 1


def test_a_lost_connection_is_no_death(url: str, server: RedisServer) -> None:
    with Peer(url, lease=LEASE) as peer, Peer(url) as publisher:
        publisher.publish(JOBS, "held")
        peer.consume(JOBS, ack=False)
        peer.receive(1)
        for number in range(6):
            peer.until(lambda: peer.channel._asked is not None and peer.channel._asked.kind == "read")
            peer.channel.client.connection.disconnect()
            publisher.publish(JOBS, number)
            peer.receive(number + 2)
        die(peer, server)
    with Peer(url, lease=LEASE) as peer:
        peer.consume(JOBS)
        peer.receive(7)
        assert {header(message, "x-deaths") for message in peer.messages} == {1}


@pytest.mark.parametrize("limit", [2, 5])
def test_a_restart_of_redis_is_no_death(
    url: str, server: RedisServer, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A channel that cannot give back what it held leaves it to the next of its process, at once."""
    with Peer(url) as publisher:
        publisher.publish(JOBS, 1)
        publisher.publish(OTHER, 2)
    for _ in range(6):
        peer = Peer(url, lease=3600, max_deaths=limit)
        peer.consume(JOBS, OTHER, ack=False)
        assert sorted(peer.receive(2, timeout=3)) == [1, 2]
        assert all("x-deaths" not in message.headers for message in peer.messages)
        with monkeypatch.context() as patch:
            patch.setattr(peer.channel.streams, "give_back", fail)
            peer.close()
    with Peer(url, lease=3600) as last:
        last.consume(JOBS, OTHER)
        last.receive(2, timeout=3)
        assert all(map(redelivered, last.messages))
    assert keys(server) == set()


def fail(*args: Any) -> None:
    raise ConnectionError("Redis is away")


def test_the_count_stays_with_what_is_given_back(url: str, server: RedisServer) -> None:
    with Peer(url) as publisher:
        publisher.publish(JOBS, "job")
    kill_with(url, server, 1)
    for how in ("requeue", "close", "lease over"):
        with Peer(url, lease=LEASE) as peer:
            peer.consume(JOBS, ack=False)
            peer.receive(1)
            assert header(peer.messages[0], "x-deaths") == 1
            if how == "requeue":
                peer.consumer.cancel()  # type: ignore[union-attr]
                peer.messages[0].requeue()
    assert [letter.deaths for letter in letters(url)] == []


def test_a_process_that_died_of_it_counts(url: str, server: RedisServer, buried: list[tuple[str, Payload]]) -> None:
    """As requests do when a process of a prefork pool is lost."""
    with Peer(url) as peer:
        peer.publish(JOBS, "job", expiration=3)
        peer.consume(JOBS, ack=False)
        for number in range(5):
            peer.receive(number + 1)
            message = peer.messages[number]
            assert message.headers.get("x-deaths", 0) == number
            dead_letters.count_death(message, "WorkerLostError: signal 9")
            message.requeue()
        assert peer.nothing_more(0.1)
        assert peer.size(JOBS) == 0
        assert len(buried) == 1
    (letter,) = letters(url)
    assert (letter.deaths, letter.reason) == (5, "WorkerLostError: signal 9")


def test_without_a_limit_nothing_is_buried(url: str, server: RedisServer) -> None:
    with Peer(url) as publisher:
        publisher.publish(JOBS, *range(3))
    for _ in range(7):
        assert kill_with(url, server, 3, max_deaths=None) == [0, 1, 2]
    assert letters(url) == []


def test_what_was_taken_in_time_does_not_expire_with_its_consumer(url: str, server: RedisServer) -> None:
    with Peer(url) as publisher:
        publisher.publish(JOBS, "job", expiration=0.3)
    kill_with(url, server, 1)
    with Peer(url, lease=LEASE) as peer, admin(server) as client:
        (held,) = client.xpending_range("stream:jobs", "kombu", "-", "+", 1)
        end = int(held["message_id"].partition("-")[0]) + 300
        peer.until(lambda: time.time() * 1000 > end)
        peer.consume(JOBS)
        assert peer.receive(1) == ["job"]


def test_a_listener_that_fails_is_logged(url: str, server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    def fails(queue: str, payload: Payload) -> None:
        raise RuntimeError("this listener always fails")

    dead_letters.listen(fails)
    try:
        with Peer(url, max_deaths=2) as peer:
            peer.publish(JOBS, "job", headers={"x-deaths": 99})  # somebody else's header counts for nothing
            peer.consume(JOBS, ack=False)
            for number in range(2):
                peer.receive(number + 1)
                dead_letters.count_death(peer.messages[number], "killed")
                peer.messages[number].requeue()
    finally:
        dead_letters._listeners.remove(fails)
    assert "this listener always fails" in caplog.text
    assert len(letters(url)) == 1


# -- what people do with them -----------------------------------------------------------------------


def bury(url: str, to: Any, *bodies: Any, **options: Any) -> None:
    with Peer(url, max_deaths=2, **options) as peer:
        peer.publish(to, *bodies, priority=6, expiration=60)
        peer.consume(to, ack=False)
        for number in range(2 * len(bodies)):
            peer.receive(number + 1)
            dead_letters.count_death(peer.messages[number], "killed")
            peer.messages[number].requeue()


def test_replay(url: str, server: RedisServer) -> None:
    bury(url, JOBS, 1, 2)
    with Peer(url) as peer:
        dead = DeadLetters(peer.connection)
        first, second = dead.all("jobs")
        assert dead.replay(second)
        assert not dead.replay(second)
        with admin(server) as client:
            assert client.xlen("stream:jobs\x06\x166") == 1  # where it came from
        peer.consume(JOBS)
        assert peer.receive(1) == [2]
        assert redelivered(peer.messages[0])
        assert "x-deaths" not in peer.messages[0].headers
        assert "expiration" not in peer.messages[0].properties
        assert list(dead.all()) == [first]
        assert dead.delete(first)
        assert not dead.delete(first)
        assert list(dead.all()) == []
    assert keys(server) == set()


def test_find(url: str, server: RedisServer) -> None:
    bury(url, JOBS, *range(50))
    bury(url, OTHER, "x")
    with Peer(url) as peer:
        dead = DeadLetters(peer.connection)
        assert dead.queues() == ["jobs", "other"]
        found = list(dead.all())
        assert [letter.payload["body"] for letter in found] == [b"x" if n == 50 else b"%d" % n for n in range(51)]
        assert dead.find(found[3].id) == [found[3]]
        assert dead.find(found[3].id, "jobs") == [found[3]]
        assert dead.find(found[3].id, "other") == []
        for wrong in ("", "1", "-", "+", "a-b", "1-2", "(1-1", "1" * 30 + "-1"):
            assert dead.find(wrong) == []


def test_only_so_many_are_kept(url: str, server: RedisServer) -> None:
    bury(url, JOBS, *range(5), max_dead_letters=3)
    assert [letter.payload["body"] for letter in letters(url)] == [b"2", b"3", b"4"]


def test_a_prefix_of_keys(url: str, server: RedisServer) -> None:
    prefix = "a[b]*?\\c-"
    bury(url, JOBS, 1, global_keyprefix=prefix)
    bury(url, JOBS, 2)
    assert f"{prefix}stream-dead:jobs" in keys(server)
    with Peer(url, global_keyprefix=prefix) as peer:
        (letter,) = DeadLetters(peer.connection).all()
        assert letter.payload["body"] == b"1"
        assert DeadLetters(peer.connection).replay(letter)
        assert peer.get(JOBS).payload == 1


def test_other_transports_have_none() -> None:
    with Peer("memory://") as peer, pytest.raises(ValueError, match=r"memory://.* keeps no dead letters"):
        DeadLetters(peer.connection)


@pytest.mark.parametrize("deaths", [0, 1, 1001, 2.0, "5", True])
def test_a_wrong_number_of_deaths_is_refused(url: str, deaths: object) -> None:
    with pytest.raises(ValueError, match="transport option max_deaths is"), Peer(url, max_deaths=deaths) as peer:
        peer.connect_once()


@pytest.mark.parametrize("count", [0, -1, 1.5, None, True, 1_000_001])
def test_a_wrong_number_of_dead_letters_is_refused(url: str, count: object) -> None:
    with pytest.raises(ValueError, match="option max_dead_letters is"), Peer(url, max_dead_letters=count) as peer:
        peer.connect_once()
