"""Leases of messages: their holders, their time, and the next holders."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import ROOT
from tests.support.servers import RedisServer, running_redis
from tests.support.waiting import wait_until
from tests.transport.broker import Peer, admin, keys, queue, redelivered

pytestmark = pytest.mark.redis

JOBS = queue("jobs")
LEASE = 0.6

Start = Callable[[str], "Holder"]


class Holder:
    """``holder.py`` as a process."""

    def __init__(self, url: str, what: str) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "tests.transport.holder", url, JOBS.name, str(LEASE), what],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def says(self, line: str) -> None:
        assert self.popen.stdout is not None
        assert self.popen.stdout.readline().strip() == line

    def go_on(self) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write("\n")
        self.popen.stdin.flush()

    def end(self) -> None:
        self.popen.kill()
        self.popen.communicate()


@pytest.fixture
def start(url: str) -> Iterator[Start]:
    started: list[Holder] = []

    def make(what: str) -> Holder:
        started.append(Holder(url, what))
        return started[-1]

    yield make
    for holder in started:
        holder.end()


def leases(server: RedisServer) -> set[str]:
    return keys(server, "stream-lease:*")


@pytest.mark.parametrize("hub", [False, True], ids=["drain", "hub"])
def test_a_killed_process_loses_nothing(url: str, server: RedisServer, start: Start, hub: bool) -> None:
    with Peer(url) as publisher:
        publisher.publish(JOBS, *range(10))
        holder = start("hold")
        for number in range(10):
            holder.says(f"got {number}")
        with Peer(url, hub=hub, lease=LEASE) as consumer:
            consumer.consume(JOBS, prefetch=3)
            assert consumer.nothing_more(LEASE)
            holder.end()
            assert consumer.receive(10) == list(range(10))
            assert all(map(redelivered, consumer.messages))
            publisher.publish(JOBS, "new")
            consumer.receive(11)
            assert not redelivered(consumer.messages[-1])
            consumer.until(lambda: len(leases(server)) == 1)  # the dead one's has ended
        assert keys(server) == set()


def test_a_consumer_starts_with_what_a_dead_one_left(url: str, server: RedisServer, start: Start) -> None:
    with Peer(url) as publisher:
        publisher.publish(JOBS, 1)
        holder = start("hold")
        holder.says("got 1")
        holder.end()
        wait_until(lambda: not leases(server), "the dead one's lease to end")
        with Peer(url, lease=3600) as consumer:
            consumer.consume(JOBS)
            assert consumer.receive(1, timeout=3) == [1]


def test_a_busy_process_keeps_what_it_holds(url: str, server: RedisServer, start: Start) -> None:
    with Peer(url) as publisher, Peer(url, lease=LEASE) as consumer:
        publisher.publish(JOBS, "long")
        holder = start("busy")
        holder.says("got long")
        (lease,) = leases(server)
        consumer.consume(JOBS)
        assert consumer.nothing_more(LEASE * 3)
        assert lease in leases(server)
        holder.go_on()
        holder.says("done")
        assert consumer.nothing_more(LEASE)
        assert lease not in leases(server)


def test_a_forked_child_gives_nothing_back(url: str, server: RedisServer, start: Start) -> None:
    with Peer(url) as publisher:
        publisher.publish(JOBS, "mine")
        holder = start("fork")
        holder.says("got mine")
        holder.says("child ended")
        assert publisher.get(JOBS) is None
        with admin(server) as client:
            assert client.xpending("stream:jobs", "kombu")["pending"] == 1
        holder.go_on()
        holder.says("done")
    assert keys(server) == set()


def test_the_lease_is_renewed_and_ends_with_the_channel(url: str, server: RedisServer) -> None:
    with Peer(url, lease=LEASE) as peer, admin(server) as client:
        assert leases(server) == set()
        peer.consume(JOBS)
        (lease,) = leases(server)
        left = client.pttl(lease)
        assert 0 < left <= LEASE * 1000
        seen: list[int] = [left]

        def renewed() -> bool:
            seen.append(client.pttl(lease))
            return seen[-1] > seen[-2]

        wait_until(renewed, "a renewal")
        assert min(seen) > 0
    assert leases(server) == set()


def test_the_thread_ends_with_the_last_channel(url: str) -> None:
    before = set(threading.enumerate())

    def renewers() -> int:
        return sum(thread.name == "redis-streams-leases" for thread in set(threading.enumerate()) - before)

    with Peer(url) as peer:
        peer.publish(JOBS, 1)
        assert renewers() == 0  # a publisher needs none
        peer.consume(JOBS)
        second: Any = peer.connection.channel()
        second.basic_consume("other", no_ack=True, callback=None, consumer_tag="t")
        assert renewers() == 1
        second.close()
        assert renewers() == 1
    assert renewers() == 0


def test_get_holds_a_lease_too(url: str, server: RedisServer) -> None:
    with Peer(url) as peer, Peer(url, lease=LEASE) as other:
        peer.publish(JOBS, 1)
        message = peer.get(JOBS)
        other.consume(JOBS)
        assert other.nothing_more(LEASE)
        message.ack()
    assert keys(server) == set()


def test_what_was_taken_over_is_not_given_back_as_well(url: str, server: RedisServer) -> None:
    """A consumer whose lease ended though it lives, as after a pause of its machine."""
    with Peer(url, lease=3600) as slow, Peer(url, lease=3600) as quick, admin(server) as client:
        slow.publish(JOBS, 1)
        slow.consume(JOBS, ack=False)
        slow.receive(1)
        client.delete(*leases(server))
        quick.consume(JOBS, ack=False)
        quick.receive(1)
        slow.messages[0].requeue()
        assert client.xlen("stream:jobs") == 1
        slow.close()
        assert client.xlen("stream:jobs") == 1
        quick.messages[0].ack()
        assert quick.nothing_more()
    assert keys(server) == set()


def test_the_lease_outlives_a_server_that_hangs(url: str, server: RedisServer) -> None:
    """CLIENT PAUSE for longer than a renewal's time: it is late, but the lease is there when Redis is back."""
    with Peer(url, lease=2) as peer, admin(server) as client:
        peer.consume(JOBS)
        client.client_pause(1200, all=False)
        started = time.monotonic()
        peer.publish(JOBS, 1)
        assert peer.receive(1) == [1]
        assert time.monotonic() - started > 0.8
        assert len(leases(server)) == 1


@pytest.mark.parametrize("lease", [0, -1, "ten", None, 1e9])
def test_a_wrong_lease_is_refused(url: str, lease: object) -> None:
    with pytest.raises(ValueError, match=r"transport option lease is .*seconds"), Peer(url, lease=lease) as peer:
        peer.connect_once()


@pytest.mark.parametrize("size", [0, 1.5, "x", 100_000])
def test_a_wrong_batch_size_is_refused(url: str, size: object) -> None:
    with pytest.raises(ValueError, match="transport option batch_size is"), Peer(url, batch_size=size) as peer:
        peer.connect_once()


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_channel_closes_although_redis_is_away(tmp_path: Path, forgotten: bool) -> None:
    """Also if the transport was closed before it, and has forgotten its connection: Celery's worker would end."""
    with running_redis(tmp_path) as server:
        peer = Peer(server.url.replace("redis:", "redis-streams:"), lease=LEASE)
        peer.publish(JOBS, 1)
        peer.consume(JOBS, ack=False)
        peer.receive(1)
        channel, transport = peer.channel, peer.connection.transport
        server.stop()
        if forgotten:
            setattr(transport, "client", None)  # noqa: B010 - it has no such attribute for type checkers
        channel.close()
        assert channel.closed
        peer.close()
