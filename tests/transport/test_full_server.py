"""The transport's consumers on a server that has no memory left, and on one that refuses."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from channelsq.redis_io.away import ServerAway
from tests.support.refusals import OPTIONS, REFUSALS, full, readonly
from tests.support.servers import RedisServer, running_redis
from tests.support.waiting import wait_until
from tests.transport.broker import Peer, admin, keys, queue

pytestmark = pytest.mark.redis

JOBS = queue("jobs")
BOTH = pytest.mark.parametrize("hub", [False, True], ids=["drain", "hub"])


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that the test may spoil."""
    with running_redis(tmp_path, OPTIONS) as server:
        yield server


@BOTH
def test_a_full_server_takes_no_messages_and_all_else(url: str, server: RedisServer, hub: bool) -> None:
    with Peer(url) as publisher:
        publisher.publish(JOBS, *range(8))
        with full(server):
            with pytest.raises(ServerAway, match="OOM"):
                publisher.publish(JOBS, "refused")
            with Peer(url, hub=hub) as peer:  # which joins only now
                peer.consume(JOBS, ack=False, prefetch=4)
                peer.receive(4)
                peer.messages[0].ack()
                assert peer.channel.acknowledge_now(peer.messages[1].delivery_tag)
                assert not peer.channel.acknowledge_now(peer.messages[1].delivery_tag)
                peer.messages[1].ack()
                peer.messages[2].requeue()
                peer.receive(7)
            # and gives back what it held
            with Peer(url, hub=hub) as peer:
                peer.consume(JOBS)
                assert sorted(peer.receive(6)) == [2, 3, 4, 5, 6, 7]
                peer.turn()
        assert keys(server) == set()


def test_a_lease_is_renewed_on_a_full_server_and_set_again(url: str, server: RedisServer) -> None:
    with Peer(url, lease=0.6) as peer, admin(server) as client:
        peer.consume(JOBS)
        (lease,) = keys(server, "stream-lease:*")
        with full(server):
            client.pexpire(lease, 1)
            wait_until(lambda: client.pttl(lease) > 300, "the lease to be there again")


@pytest.mark.parametrize("code", ["READONLY", "NOREPLICAS", "MASTERDOWN", "BUSY"])
def test_a_lease_that_cannot_be_renewed_is_told_of(
    own_server: RedisServer, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"redis-streams://127.0.0.1:{own_server.port}/0"

    def told(action: str) -> int:
        return sum(getattr(record, "action", "") == action for record in caplog.records)

    with caplog.at_level(logging.INFO, "channelsq.transport"), Peer(url, lease=0.6) as peer:
        peer.consume(JOBS)
        with REFUSALS[code](own_server):
            wait_until(lambda: told("lease_failed"), "a word of it")
        wait_until(lambda: told("lease_renewed"), "the lease to be renewed")
        assert told("lease_failed") == 1


def test_nobody_connects_to_a_server_that_refuses(own_server: RedisServer) -> None:
    url = f"redis-streams://127.0.0.1:{own_server.port}/0"
    with Peer(url) as peer:
        with readonly(own_server), pytest.raises(ServerAway, match="READONLY"):
            peer.connect_once()
        peer.connect_once()
        peer.publish(JOBS, 1)


@BOTH
def test_what_was_held_during_a_failover_is_not_lost(own_server: RedisServer, hub: bool) -> None:
    url = f"redis-streams://127.0.0.1:{own_server.port}/0"
    with Peer(url) as publisher, Peer(url, hub=hub) as peer:
        publisher.publish(JOBS, 1, 2, 3)
        peer.consume(JOBS, ack=False)
        peer.receive(3)
        with readonly(own_server):
            with pytest.raises(peer.connection.connection_errors):
                peer.until(lambda: False, 10)
            peer.close()  # as a worker does; it cannot give anything back
        with Peer(url) as again:  # of the same process, so at once
            again.consume(JOBS)
            assert sorted(again.receive(3)) == [1, 2, 3]
