"""Redis emptied, restarted, frozen; connections cut."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from channelsq.redis_core.entries import parse_tag
from channelsq.transport.qos import Ack
from tests.support.processes import Process
from tests.support.servers import RedisServer, running_redis
from tests.support.waiting import wait_until
from tests.transport.broker import Peer, admin, keys, kill_connections, queue

pytestmark = pytest.mark.redis

JOBS = queue("jobs")
BOTH = pytest.mark.parametrize("hub", [False, True], ids=["drain", "hub"])


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that the test may stop."""
    with running_redis(tmp_path) as server:
        yield server


@BOTH
def test_an_emptied_server(url: str, server: RedisServer, hub: bool, caplog: pytest.LogCaptureFixture) -> None:
    with Peer(url, hub=hub) as peer, Peer(url) as publisher, admin(server) as client:
        peer.consume(JOBS, ack=False)
        publisher.publish(JOBS, 1)
        peer.receive(1)
        peer.turn(timeout=0.01)
        with caplog.at_level(logging.WARNING, "channelsq.transport"):
            client.flushall()
            peer.messages[0].ack()
            client.script_flush()
            peer.until(lambda: client.exists("stream:jobs"))
        assert any(getattr(record, "action", "") == "groups_lost" for record in caplog.records)
        publisher.forget_declared()
        publisher.channel.state.clear()
        publisher.publish(JOBS, 2)
        assert peer.receive(2) == [1, 2]
        peer.messages[1].ack()
    assert keys(server) == set()


@BOTH
def test_a_deleted_queue(url: str, server: RedisServer, hub: bool) -> None:
    with Peer(url, hub=hub) as peer, Peer(url) as publisher:
        peer.consume(JOBS)
        peer.turn(timeout=0.01)
        publisher.publish(JOBS, 1)
        publisher.channel.queue_delete("jobs")
        publisher.connection.Producer().publish(2, routing_key="jobs")
        peer.until(lambda: 2 in peer.bodies)


@BOTH
def test_scripts_that_the_server_forgets(url: str, server: RedisServer, hub: bool) -> None:
    with Peer(url, hub=hub) as peer, Peer(url) as publisher, admin(server) as client:
        peer.consume(JOBS)
        for number in range(5):
            client.script_flush()
            publisher.publish(JOBS, number)
            peer.receive(number + 1)
        assert peer.bodies == list(range(5))


@BOTH
def test_an_answer_that_is_lost_with_its_connection(url: str, server: RedisServer, hub: bool) -> None:
    """Redis gave messages to the consumer, and the connection was cut before it read them."""
    with Peer(url, hub=hub) as peer, Peer(url) as publisher, admin(server) as client:
        publisher.publish(JOBS, "before")
        peer.consume(JOBS, ack=False, prefetch=10)
        peer.receive(1)
        peer.until(lambda: peer.channel._asked is not None and peer.channel._asked.kind == "read")
        publisher.publish(JOBS, "lost on the way")
        wait_until(lambda: client.xpending("stream:jobs", "kombu")["pending"] == 2, "Redis to hand it out")
        assert peer.bodies == ["before"]
        peer.channel.client.connection.disconnect()
        peer.receive(2)
        assert peer.bodies == ["before", "lost on the way"]
        for message in peer.messages:
            message.ack()
        assert peer.nothing_more(0.1)
    assert keys(server) == set()


def test_what_is_done_with_while_it_is_looked_for_does_not_come_again(
    url: str, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread finishes a message just after the acknowledgements have been sent."""
    with Peer(url) as peer, Peer(url) as publisher:
        publisher.publish(JOBS, 1, 2)
        peer.consume(JOBS, ack=False, prefetch=10)
        peer.receive(2)
        channel = peer.channel
        (first, second) = (str(message.delivery_tag) for message in peer.messages)
        flush = channel.flush_acks

        def finish_one_after(*, wait: bool = True) -> None:
            flush(wait=wait)
            if channel.stream_qos.holds(first):
                (entry, _, key) = first.partition(" ")
                channel.stream_qos.settle(key, entry, first, None)

        monkeypatch.setattr(channel, "flush_acks", finish_one_after)
        channel.client.connection.disconnect()
        assert peer.nothing_more(0.3)
        assert peer.bodies == [1, 2]
        assert channel.stream_qos.delivered_tags() == {second}
        peer.messages[1].ack()
    assert keys(server) == set()


@BOTH
def test_acknowledgements_survive_a_cut_connection(url: str, server: RedisServer, hub: bool) -> None:
    with Peer(url, hub=hub) as peer, Peer(url) as publisher, admin(server) as client:
        publisher.publish(JOBS, *range(10))
        peer.consume(JOBS, ack=False)
        peer.receive(10)
        kill_connections(server)
        for message in peer.messages:
            try:
                message.ack()
            except peer.connection.connection_errors:
                continue
        peer.close()
        assert client.xlen("stream:jobs") == 0
    assert keys(server) == set()


@BOTH
def test_a_restarted_server(own_server: RedisServer, hub: bool) -> None:
    url = f"redis-streams://127.0.0.1:{own_server.port}/0"
    peer = Peer(url, hub=hub)
    peer.consume(JOBS)
    peer.turn()
    own_server.stop()

    def fails() -> bool:
        try:
            peer.turn()
        except peer.connection.connection_errors:
            return True
        return False

    wait_until(fails, "the connection to be missed")
    peer.close()  # without an error, though nothing can be given back
    with pytest.raises(peer.connection.connection_errors), Peer(url) as early:
        early.connect_once()
    own_server.start()
    with Peer(url, hub=hub) as again:
        again.consume(JOBS)
        again.publish(JOBS, 1)
        assert again.receive(1) == [1]


def test_a_frozen_server(own_server: RedisServer) -> None:
    url = f"redis-streams://127.0.0.1:{own_server.port}/0"
    process = own_server.process
    assert isinstance(process, Process)
    with Peer(url, lease=5) as peer:
        peer.consume(JOBS)
        peer.publish(JOBS, 1)
        peer.receive(1)
        process.signal(signal.SIGSTOP)
        try:
            assert peer.nothing_more(1.5)
        finally:
            process.signal(signal.SIGCONT)
        peer.publish(JOBS, 2)
        assert peer.receive(2) == [1, 2]


def test_acknowledgements_of_two_threads_do_not_wait_for_a_frozen_server(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that reads other servers, too, sends them; another one adds one just after that."""
    process = own_server.process
    assert isinstance(process, Process)
    with Peer(f"redis-streams://127.0.0.1:{own_server.port}/0") as peer:
        peer.consume(JOBS, ack=False)
        for number in (1, 2):
            peer.publish(JOBS, number)
        peer.receive(2)
        channel: Any = peer.channel
        channel.open_ack_connection()
        channel.flush_acks()
        qos, send_next = channel.existing_qos, channel._send_next
        held = [Ack(*cast(Any, parse_tag(str(message.delivery_tag)))) for message in peer.messages]
        sent: list[bool] = []

        def send_and_add(*args: Any, **kwargs: Any) -> bool:
            sent.append(send_next(*args, **kwargs))
            if len(sent) == 1:
                qos.drop(held[1])
            return sent[-1]

        monkeypatch.setattr(channel, "_send_next", send_and_add)
        qos.drop(held[0])
        process.signal(signal.SIGSTOP)
        began = time.monotonic()
        try:
            assert not channel.flush_acks_soon()
        finally:
            process.signal(signal.SIGCONT)
        assert time.monotonic() - began < 5
        assert sent == [True]
        wait_until(channel.flush_acks_soon, "the second one to be sent")


def test_polls_may_last_longer_than_the_sockets_timeout(url: str) -> None:
    with Peer(url, polling_interval=3, socket_timeout=0.2) as peer, Peer(url) as publisher:
        peer.consume(JOBS)
        assert peer.nothing_more(0.8)
        publisher.publish(JOBS, 1)
        assert peer.receive(1, timeout=1) == [1]
