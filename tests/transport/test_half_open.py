"""Connections that nothing comes through any more, as when a router in between has forgotten them."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest
import redis

from channelsq.exceptions import BrokerUnavailable
from channelsq.layers import RedisChannelLayer
from channelsq.layers.groups.group_stores import RedisGroups
from channelsq.redis_core.operations import ask
from channelsq.redis_io.blocking import take_connection
from channelsq.transport import consuming
from channelsq.transport.streams_channel import Channel
from tests.support.ports import free_port
from tests.support.proxy import Loop, Proxy
from tests.support.servers import RedisServer
from tests.transport.broker import Peer, queue

pytestmark = pytest.mark.redis

JOBS = queue("jobs")


class Way:
    """A way to the server that can be lost."""

    def __init__(self, server: RedisServer) -> None:
        self.loop = Loop()
        self.proxy = Proxy(free_port(), server.port)
        self.loop.run(self.proxy.start())
        self.url = f"redis-streams://127.0.0.1:{self.proxy.port}/0"

    def forget(self) -> None:
        """Nothing comes through the connections that there are."""
        self.loop.run(self.proxy.forget())


@pytest.fixture
def way(server: RedisServer) -> Iterator[Way]:
    way = Way(server)
    yield way
    way.loop.run(way.proxy.stop())
    way.loop.stop()


def test_a_worker_notices_that_its_poll_has_no_answer(
    way: Way, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(consuming, "SILENCE", 0.5)
    with Peer(way.url, hub=True, lease=30) as peer, Peer(url) as publisher:
        peer.consume(JOBS)
        publisher.publish(JOBS, "before")
        peer.receive(1)
        peer.turn(timeout=0.01)
        way.forget()
        publisher.publish(JOBS, "lost in the answer", "and another one")
        peer.until(lambda: len(peer.bodies) == 3, timeout=15)
    assert any(getattr(record, "action", "") == "poll_overdue" for record in caplog.records)


def test_who_has_lost_its_poll_waits_for_no_other_answer(way: Way, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Peer(way.url, hub=True, lease=30) as peer, Peer(url) as publisher:
        peer.consume(JOBS, ack=False, prefetch=10)
        publisher.publish(JOBS, 1, 2)
        peer.receive(2)
        peer.messages[0].ack()
        peer.channel.flush_acks()  # makes the connection for acknowledgements
        peer.turn(timeout=0.01)
        way.forget()
        peer.messages[1].ack()
        peer.channel.flush_acks(wait=False)
        assert peer.channel._unanswered
        monkeypatch.setattr(consuming, "SILENCE", 0.5)  # that of the answer is 15 seconds
        publisher.publish(JOBS, 3)
        peer.until(lambda: peer.bodies == [1, 2, 3], timeout=10)
        assert publisher.channel.carry_out(publisher.channel.streams.size(publisher.channel.keys_of("jobs"))) == 0
        peer.messages[2].ack()
        peer.channel.flush_acks()


def test_a_channel_can_be_closed(way: Way, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consuming, "SILENCE", 0.5)
    with Peer(way.url, hub=True, lease=1, socket_timeout=0.5) as peer, Peer(url, lease=1) as publisher:
        peer.consume(JOBS, ack=False)
        publisher.publish(JOBS, "held")
        peer.receive(1)
        peer.turn(timeout=0.01)
        way.forget()
        peer.close()  # without the bound it would wait for ever
        publisher.consume(JOBS)
        assert publisher.receive(1) == ["held"]


def test_acknowledgements_wait_for_an_answer_only_so_long(way: Way) -> None:
    with Peer(way.url, socket_timeout=0.5) as peer:
        peer.publish(JOBS, 1)
        peer.consume(JOBS, ack=False)
        peer.receive(1)
        peer.channel.flush_acks()
        way.forget()
        with pytest.raises(redis.TimeoutError):
            peer.messages[0].ack()


def test_unless_told_otherwise_everybody_waits_for_15_seconds(url: str) -> None:
    assert Channel.socket_timeout == 15
    with Peer(url) as peer:
        assert peer.channel.pool.connection_kwargs["socket_timeout"] == 15
    layer = RedisChannelLayer(url=url)
    try:
        assert layer.sender._connect().connection_kwargs["socket_timeout"] == 15
    finally:
        layer.close()


def test_a_send_fails_instead_of_waiting_for_ever(way: Way) -> None:
    layer = RedisChannelLayer(url=way.url, transport_options={"socket_timeout": 0.5})
    try:
        layer.send("jobs", {"number": 1})
        way.forget()
        with pytest.raises(BrokerUnavailable):
            layer.send("jobs", {"number": 2})
        layer.send("jobs", {"number": 3})
    finally:
        layer.close()


def test_one_failure_is_enough(way: Way) -> None:
    """Of a pool's connections none is used any more that may have broken with the one that failed."""
    groups = RedisGroups(f"redis://127.0.0.1:{way.proxy.port}/0", "half-open", 60)
    pool = groups.client.connection_pool
    pool.connection_kwargs["socket_timeout"] = 0.5
    try:
        assert groups.members("room") == []  # the clock of the server is known then
        held = [take_connection(pool) for _ in range(3)]
        for connection in held:
            pool.release(connection)
        way.forget()
        with pytest.raises(BrokerUnavailable):
            groups.add("room", "first")
        other = take_connection(pool)  # the one that failed, which is new by now
        groups.add("room", "second")
        pool.release(other)
        assert groups.members("room") == ["second"]
    finally:
        groups.flush()
        groups.close()


def test_the_kernel_keeps_the_timeout(url: str) -> None:
    """Python would ask before each send and receive whether it waits."""
    with Peer(url, socket_timeout=1.5) as peer:
        pool = peer.channel.pool
        connection = take_connection(pool)
        try:
            assert connection._sock.gettimeout() is None
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                timeval = connection._sock.getsockopt(socket.SOL_SOCKET, option, 16)
                seconds, microseconds = struct.unpack("@ll", timeval)
                assert seconds + microseconds / 1e6 == pytest.approx(1.5, abs=0.01)
        finally:
            pool.release(connection)


def test_a_reply_that_is_late_is_a_timeout(way: Way) -> None:
    with Peer(way.url, socket_timeout=0.3) as peer:
        peer.channel.carry_out(ask(("PING",)))
        way.forget()
        with pytest.raises(redis.TimeoutError, match="reading"):
            peer.channel.carry_out(ask(("PING",)))
