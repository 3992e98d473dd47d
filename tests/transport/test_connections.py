"""TLS, Unix sockets, passwords, and how many connections there are."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from channelsq.redis_io.blocking import take_connection
from tests.support import needs
from tests.support.certificates import self_signed
from tests.support.ports import free_port
from tests.support.servers import RedisServer, running_redis
from tests.support.waiting import wait_until
from tests.transport.broker import Peer, admin, queue

pytestmark = pytest.mark.redis

JOBS = queue("jobs")
PASSWORD = "p/ss:w@rd"
QUOTED = "p%2Fss%3Aw%40rd"


def works(peer: Peer) -> bool:
    """Publish and consume."""
    peer.consume(JOBS)
    peer.publish(JOBS, 1, 2)
    peer.receive(2)
    return peer.bodies == [1, 2]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost that signed itself, and its key."""
    return self_signed(tmp_path_factory.mktemp("tls"), "localhost", "IP:127.0.0.1")


@pytest.fixture(scope="module")
def tls_port(certificate: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a Redis that speaks TLS there."""
    cert, key = certificate
    port = free_port()
    server = RedisServer(
        tmp_path_factory.mktemp("tls-redis"),
        ["--tls-port", str(port), "--tls-cert-file", str(cert), "--tls-key-file", str(key),
         "--tls-ca-cert-file", str(cert), "--tls-auth-clients", "no"],
    )  # fmt: skip
    try:
        server.start()
    except AssertionError as error:
        needs.missing(f"this Redis has no TLS: {error}")
    yield port
    server.stop()


def test_tls_checks_the_certificate(tls_port: int, certificate: tuple[Path, Path]) -> None:
    url = f"rediss-streams://localhost:{tls_port}/0"
    with pytest.raises(redis.ConnectionError, match="certificate verify failed"), Peer(url) as peer:
        peer.connect_once()
    with Peer(url, ssl={"ssl_ca_certs": str(certificate[0])}) as peer:
        assert isinstance(take_connection(peer.channel.client.connection_pool)._sock, ssl.SSLSocket)
        assert works(peer)
    with Peer(f"{url}?ssl_ca_certs={certificate[0]}") as peer:
        assert works(peer)


@pytest.mark.parametrize("hub", [False, True], ids=["drain", "hub"])
def test_tls_without_checking(tls_port: int, hub: bool) -> None:
    with Peer(f"rediss-streams://127.0.0.1:{tls_port}/0?ssl_cert_reqs=none", hub=hub, batch_size=500) as peer:
        peer.publish(JOBS, *["x" * 2000] * 300)  # more than one TLS record
        peer.consume(JOBS)
        assert peer.receive(300) == ["x" * 2000] * 300


def test_tls_never_falls_back_to_plain_tcp(server: RedisServer) -> None:
    for options in ("", "?ssl_cert_reqs=none"):
        with (
            pytest.raises((redis.ConnectionError, redis.TimeoutError)),
            Peer(f"rediss-streams://127.0.0.1:{server.port}/0{options}", socket_timeout=0.3) as peer,
        ):
            peer.connect_once()
    choices: tuple[bool | dict[str, Any], ...] = (True, {}, False)
    for asked in choices:
        with (
            pytest.raises((redis.ConnectionError, redis.TimeoutError)),
            Peer(f"rediss-streams://127.0.0.1:{server.port}/0", ssl=asked, socket_timeout=0.3) as peer,
        ):
            peer.connect_once()


def test_tls_asked_for_on_a_plain_url(server: RedisServer, tls_port: int) -> None:
    with pytest.raises(ValueError, match="use a rediss-streams:// URL"), Peer(server_url(server), ssl=True) as peer:
        peer.connect_once()
    with Peer(f"redis-streams://127.0.0.1:{tls_port}/0", ssl={"ssl_cert_reqs": ssl.CERT_NONE}) as peer:
        assert works(peer)


def server_url(server: RedisServer) -> str:
    return f"redis-streams://127.0.0.1:{server.port}/0"


def test_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    with running_redis(tmp_path, ["--unixsocket", str(path), "--requirepass", PASSWORD]):
        with Peer(f"redis-streams+socket://:{QUOTED}@{path}") as peer:
            assert works(peer)
        with pytest.raises(ValueError, match="redis-streams\\+socket"), Peer(f"rediss-streams+socket://{path}") as peer:
            peer.connect_once()


def test_passwords(tmp_path: Path) -> None:
    options = ["--requirepass", PASSWORD, "--user", "anna", "on", f">{PASSWORD}", "~*", "&*", "+@all"]
    with running_redis(tmp_path, options) as server:
        for user in ("", "anna"):
            with Peer(f"redis-streams://{user}:{QUOTED}@127.0.0.1:{server.port}/3") as peer:
                assert works(peer)
        for wrong in ("", ":wrong@", "nobody:x@"):
            url = f"redis-streams://{wrong}127.0.0.1:{server.port}/0"
            with pytest.raises(redis.AuthenticationError), Peer(url) as peer:
                peer.connect_once()


def test_a_user_with_few_rights(tmp_path: Path) -> None:
    """A user who may not end polls waits for their end."""
    options = ["--user", *["few", "on", ">pw", "~*", "&*", "+@all", "-client"], "--requirepass", PASSWORD]
    with running_redis(tmp_path, options) as server, Peer(f"redis-streams://few:pw@127.0.0.1:{server.port}/0") as peer:
        assert works(peer)
        peer.turn()


def connections(server: RedisServer) -> int:
    with admin(server) as client:
        return sum(not each["name"].startswith("sentinel-") for each in client.client_list())


@pytest.mark.parametrize("hub", [False, True], ids=["drain", "hub"])
def test_connections_are_few_and_closed(server: RedisServer, hub: bool) -> None:
    before = connections(server)
    with Peer(server_url(server), hub=hub, max_connections=2, lease=0.3) as peer:
        peer.publish(JOBS, *range(50))
        peer.consume(JOBS, ack=False, prefetch=10)
        for number in range(50):
            peer.receive(number + 1)
            for message in peer.messages:
                if not message.acknowledged:
                    message.ack()
        assert peer.nothing_more(0.3)
        assert connections(server) - before <= 3  # the poll's, one of the pool, that of the leases
    wait_until(lambda: connections(server) == before, "every connection to be closed")
