"""Connections by way of Sentinel, and what of redis-py and Kombu they stand on."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from channelsq.redis_io.away import ServerAway
from channelsq.redis_io.pool_params import url_params
from channelsq.redis_io.primaries import primary_of
from channelsq.transport import streams_url
from tests.support.ports import free_port
from tests.support.sentinels import NAME, Sentinels, client_of, running_sentinels
from tests.support.waiting import wait_until
from tests.transport.broker import Peer, queue

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120)]

JOBS = queue("jobs")
PASSWORD = "p/ss:w@rd"


@pytest.fixture(scope="module")
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    with running_sentinels(tmp_path_factory.mktemp("sentinels")) as made:
        yield made


@pytest.fixture(autouse=True)
def empty(sentinels: Sentinels) -> None:
    sentinels.wait_for_replicas()
    with client_of(sentinels.primary.port) as client:
        client.flushall()


def works(peer: Peer) -> bool:
    """Publish and consume."""
    peer.consume(JOBS)
    peer.publish(JOBS, 1, 2)
    peer.receive(2)
    return peer.bodies == [1, 2]


def connections(sentinels: Sentinels) -> int:
    """Return how many clients the primary has, without Sentinels and replicas."""
    with client_of(sentinels.primary.port) as client:
        return sum(
            not each["name"].startswith("sentinel-") and "S" not in each["flags"] for each in client.client_list()
        )


@pytest.mark.parametrize("hub", [False, True], ids=["drain", "hub"])
def test_a_consumer_is_at_the_primary(sentinels: Sentinels, hub: bool) -> None:
    before = connections(sentinels)
    with Peer(sentinels.streams_url, hub=hub, lease=0.3) as peer:
        assert works(peer)
        assert peer.nothing_more(0.3)
        with client_of(sentinels.primary.port) as client:
            (lease,) = client.keys("stream-lease:*")
            assert client.pttl(lease) > 0
    wait_until(lambda: connections(sentinels) == before, "every connection to be closed")


def test_celerys_form_with_options(sentinels: Sentinels) -> None:
    """The name of the primary may stand in the transport options; a Sentinel that is away is passed over."""
    url = ";".join(f"sentinel-streams://127.0.0.1:{port}/1" for port in (free_port(), *sentinels.ports))
    with Peer(url, master_name=NAME) as peer:
        assert works(peer)
        assert peer.connection.as_uri() == url
        with client_of(sentinels.primary.port, db=1) as client:
            assert client.exists("stream:jobs")
        copy = peer.connection.clone()
        assert copy.as_uri() == url
        copy.release()
    with pytest.raises(ValueError, match="master_name is not set for the sentinels"), Peer(url) as peer:
        peer.connect_once()


def test_no_password_is_shown(sentinels: Sentinels) -> None:
    url = sentinels.streams_url.replace("://", "://anna:secret@", 1)
    with Peer(url + "&sentinel_password=geheim") as peer:
        assert "secret" not in peer.connection.as_uri()
        assert "geheim" not in str(peer.connection.info()["alternates"])
        assert peer.connection.as_uri(include_password=True).startswith("sentinel-streams://anna:secret@127.0.0.1")
        assert peer.connection.password == "secret"


def test_a_wrong_name_is_told_with_the_right_one(sentinels: Sentinels) -> None:
    url = sentinels.streams_url.replace(NAME, "mymastr")
    reason = f"no primary 'mymastr': 127.0.0.1:{sentinels.ports[0]} knows only 'mymaster': correct master_name"
    with pytest.raises(redis.ConnectionError, match=reason), Peer(url) as peer:
        peer.connect_once()


def test_passwords_of_servers_and_sentinels(tmp_path: Path) -> None:
    with running_sentinels(tmp_path, password="for-servers", sentinel_password="for-sentinels") as made:
        with Peer(made.streams_url) as peer:
            assert works(peer)
        options: Any = {"master_name": NAME, "sentinel_kwargs": {"password": "for-sentinels"}}
        with Peer(made.streams_url.partition("?")[0], **options) as peer:
            assert works(peer)
        wrong = made.streams_url.replace("for-sentinels", "wrong")
        with pytest.raises(redis.ConnectionError, match=r"WRONGPASS|invalid username-password"), Peer(wrong) as peer:
            peer.connect_once()
        with pytest.raises(redis.AuthenticationError), Peer(made.streams_url.replace("for-servers", "no")) as peer:
            peer.connect_once()


def test_a_replica_is_refused(sentinels: Sentinels, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Sentinel may name a server that is the primary no more."""
    params = url_params(sentinels.url)
    monkeypatch.setattr(params["primary"], "follow", lambda connection: None)
    replica = next(server for server in sentinels.servers if server is not sentinels.primary)
    monkeypatch.setattr(params["primary"], "address", lambda: ("127.0.0.1", replica.port))
    with pytest.raises(ServerAway, match="READONLY"):
        redis.Redis(connection_pool=redis.ConnectionPool(**params)).get("anything")


def test_idle_and_waiting_connections_follow_the_primary(sentinels: Sentinels) -> None:
    old = sentinels.primary
    pool = redis.ConnectionPool(**url_params(sentinels.url), socket_timeout=60)
    client = redis.Redis(connection_pool=pool)
    client.set("key", "value")
    client.wait(2, 2000)
    ended: list[BaseException] = []
    began = threading.Event()

    def wait() -> None:
        with redis.Redis(connection_pool=pool) as other:
            other.ping()
            began.set()
            try:
                other.blpop(["nothing"], 50)
            except redis.ConnectionError as error:
                ended.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    began.wait(10)
    sentinels.freeze(old)
    try:
        new = sentinels.wait_for_failover(old)
        thread.join(10)
        assert ended, "the connection that waits for a frozen server is ended"
        assert client.get("key") == b"value"
        assert pool.connection_kwargs["primary"].address() == ("127.0.0.1", new.port)
    finally:
        sentinels.thaw(old)
    pool.disconnect()


def test_the_thread_ends_with_the_connections(sentinels: Sentinels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("channelsq.redis_io.primaries.LINGERS", 0.1)
    params = url_params(sentinels.url.replace("/0", "/2"))
    primary = params["primary"]
    assert primary is primary_of(primary.sentinels, NAME)
    pool = redis.ConnectionPool(**params)
    redis.Redis(connection_pool=pool).ping()
    assert primary._thread is not None
    pool.disconnect()
    wait_until(lambda: primary._thread is None, "the thread to end")
    redis.Redis(connection_pool=pool).ping()
    assert primary._thread is not None
    pool.disconnect()
    gc.collect()


def test_the_demo_has_one_url_for_all(sentinels: Sentinels) -> None:
    with Peer(streams_url(sentinels.url)) as peer:
        assert works(peer)
