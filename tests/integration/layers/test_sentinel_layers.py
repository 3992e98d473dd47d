"""Layers whose Redis is found by way of Sentinels."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from channelsq import conf
from channelsq.core import names
from channelsq.exceptions import BrokerUnavailable, InvalidChannelLayerError
from channelsq.interface.link.redis_address import address_of
from channelsq.layers import KombuChannelLayer, RedisChannelLayer
from channelsq.layers.groups.group_stores import RedisGroups
from channelsq.layers.redis_servers import redis_servers
from tests.support import needs
from tests.support.certificates import self_signed
from tests.support.fakes.link_clients import RecordingLinkClient
from tests.support.links import linked, until
from tests.support.ports import free_port
from tests.support.processes import Process
from tests.support.sentinels import NAME, Sentinels, client_of, running_sentinels
from tests.support.servers import RedisServer
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120)]

Make = Callable[..., Any]

#: Seconds for the Sentinels to replace a primary, and for connections to follow; a timeout alone takes 15.
FAILOVER_WITHIN = 12.0


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes layers with a prefix of their own; closes them after the test."""
    made: list[KombuChannelLayer] = []

    def new(kind: type[KombuChannelLayer], **config: Any) -> KombuChannelLayer:
        layer = kind(prefix=f"sentinel-{secrets.token_hex(4)}", **config)
        made.append(layer)
        return layer

    yield new
    for layer in made:
        layer.flush()
        layer.close()


def sends(layer: KombuChannelLayer, channel: str, message: dict[str, Any]) -> bool:
    """Send a message, and return whether the broker took it."""
    try:
        layer.send(channel, message)
    except BrokerUnavailable:
        return False
    return True


def groups_are_at(layer: KombuChannelLayer, sentinels: Sentinels) -> bool:
    """Join a group, and return whether the primary has the membership."""
    layer.group_add("room", "websocket.send.elsewhere!client")
    assert layer.group_channels("room") == ["websocket.send.elsewhere!client"]
    with client_of(sentinels.primary.port) as client:
        return any(layer.prefix in key for key in client.scan_iter())


@pytest.mark.parametrize("kind", [RedisChannelLayer, KombuChannelLayer])
@pytest.mark.parametrize("form", ["sentinel", "sentinel-streams"])
def test_groups_are_at_the_same_primary(
    make: Make, sentinels: Sentinels, kind: type[KombuChannelLayer], form: str
) -> None:
    """No groups_url is needed, also on Kombu's own transport."""
    layer = make(kind, url=sentinels.url.replace("sentinel:", f"{form}:"))
    layer.send("thing", {"n": 1})
    assert layer.receive(["thing"], block=True) == ("thing", {"n": 1})
    assert groups_are_at(layer, sentinels)
    (server,) = redis_servers(layer)
    assert server.primary is not None
    assert (server.has_channels, server.has_groups) == (True, True)
    with server.connected() as client:
        assert client.info("replication")["role"] == "master"


def test_hosts_as_channels_redis_has_them(tmp_path: Path) -> None:
    with running_sentinels(tmp_path, password="p@ss:w/rd", sentinel_password="for-sentinels") as sentinels:
        host = {
            "sentinels": [("127.0.0.1", port) for port in sentinels.ports],
            "master_name": NAME,
            "password": sentinels.password,
            "sentinel_kwargs": {"password": sentinels.sentinel_password},
        }
        with contextlib.closing(RedisChannelLayer(hosts=[host])) as one:
            one.send("thing", {"n": 1})
            assert one.receive(["thing"], block=True) == ("thing", {"n": 1})
            one.group_add("room", "websocket.send.elsewhere!client")
            assert one.group_channels("room") == ["websocket.send.elsewhere!client"]
            (server,) = redis_servers(one)
            with server.connected() as client:
                assert client.info("replication")["role"] == "master"
            address = address_of(one)
            assert address is not None
            assert address.locate() == ("127.0.0.1", sentinels.primary.port)
        several = RedisChannelLayer(hosts=[{**host, "db": 1}, {**host, "db": 2}], standby=[{**host, "db": 2}])
        with contextlib.closing(several):
            client_channel = several.new_channel("websocket.send!")
            several.group_add("room", client_channel)
            several.send_group("room", {"n": 2})
            assert several.receive([client_channel], block=True) == (client_channel, {"n": 2})
        with client_of(sentinels.primary.port, password=sentinels.password) as asked:
            assert asked.info("keyspace").keys() == {"db0", "db1"}
        wrong = RedisChannelLayer(hosts=[{**host, "master_name": "another"}])
        with contextlib.closing(wrong), pytest.raises(BrokerUnavailable, match=f"only '{NAME}': correct master_name"):
            wrong.send("thing", {})


def test_the_name_may_stand_in_the_options(monkeypatch: pytest.MonkeyPatch, make: Make, sentinels: Sentinels) -> None:
    url = sentinels.url.partition("?")[0]
    layer = make(RedisChannelLayer, url=url, transport_options={"master_name": NAME})
    assert groups_are_at(layer, sentinels)
    app = Celery("sentinels", set_as_current=False)
    celerys_url = url.replace("sentinel:", "sentinel-streams:")
    app.conf.update(broker_url=celerys_url, broker_transport_options={"master_name": NAME})
    monkeypatch.setattr(conf, "_celery_app", app)
    for config in ({}, {"url": url}):  # Celery's own broker, and the same one named again
        assert groups_are_at(make(RedisChannelLayer, **config), sentinels)


def test_groups_by_sentinels_beside_another_broker(make: Make, sentinels: Sentinels, redis_url: str) -> None:
    layer = make(KombuChannelLayer, url="memory://", groups_url=sentinels.url)
    assert groups_are_at(layer, sentinels)
    layer = make(RedisChannelLayer, url=redis_url, groups_url=sentinels.url)
    assert groups_are_at(layer, sentinels)
    assert [server.primary is not None for server in redis_servers(layer)] == [False, True]


def test_the_interface_server_uses_its_own_connections(sentinels: Sentinels) -> None:
    layer = RedisChannelLayer(url=sentinels.url, groups_url=sentinels.url)
    address = address_of(layer)
    assert address is not None
    assert address.locate() == ("127.0.0.1", sentinels.primary.port)
    assert address.groups_here
    other = RedisChannelLayer(url=sentinels.url, groups_url=sentinels.url.replace("/0?", "/1?"))
    address = address_of(other)
    assert address is not None
    assert not address.groups_here


@pytest.fixture(scope="module")
def tls_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a primary and its Sentinel, which both speak TLS alone; each has a password of its own."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = self_signed(folder, "localhost", "IP:127.0.0.1")
    files = {"cert": certificate, "key": key, "ca-cert": certificate}
    server_port, sentinel_port = free_port(), free_port()
    options = [word for name, path in files.items() for word in (f"--tls-{name}-file", str(path))]
    tls = ["--tls-port", str(server_port), "--tls-auth-clients", "no", *options, "--requirepass", "for-servers"]
    server = RedisServer(folder / "redis", tls)
    try:
        server.start()
    except AssertionError as error:
        needs.missing(f"this Redis has no TLS: {error}")
    lines = [
        *("port 0", f"tls-port {sentinel_port}", "tls-auth-clients no", "tls-replication yes", f"dir {folder}"),
        *(f"tls-{name}-file {path}" for name, path in files.items()),
        *(f"sentinel monitor {NAME} 127.0.0.1 {server_port} 1", f"sentinel auth-pass {NAME} for-servers"),
        "requirepass for-sentinels",
    ]
    (folder / "sentinel.conf").write_text("\n".join(lines) + "\n")
    process = Process([server.binary, str(folder / "sentinel.conf"), "--sentinel"], folder / "sentinel.log")
    try:
        process.wait_for_port(sentinel_port)
        yield (
            f"sentinel://:for-servers@127.0.0.1:{sentinel_port}/0?master_name={NAME}&ssl_ca_certs={certificate}"
            f"&sentinel_password=for-sentinels&sentinel_ssl_ca_certs={certificate}"
        )
    finally:
        process.stop()
        server.stop()


def test_tls_to_servers_and_sentinels(make: Make, tls_url: str) -> None:
    layer = make(RedisChannelLayer, url=tls_url)
    layer.group_add("room", "websocket.send.elsewhere!client")
    assert layer.group_channels("room") == ["websocket.send.elsewhere!client"]

    async def scenario() -> None:
        async with linked(layer) as process:
            client = RecordingLinkClient(process)
            client.publish(0)
            await until(lambda: client.outcomes, "the outcome")
            assert client.errors() == []
            await asyncio.to_thread(layer.send, client.channel, {"text": "hello"})
            await until(lambda: client.texts, "the reply")

    asyncio.run(scenario())
    received = layer.receive(["websocket.receive"])
    assert received[1] is not None


@pytest.mark.parametrize(
    ("part", "other", "reason"),
    [
        (r"&ssl_ca_certs=[^&]*", "", "onnection"),
        (r"&ssl_ca_certs=[^&]*", "&ssl=true", "certificate verify failed"),
        (r"&sentinel_ssl_ca_certs=[^&]*", "", "does not answer"),
        (r"&sentinel_ssl_ca_certs=[^&]*", "&sentinel_ssl=true", "certificate verify failed"),
        (r"&sentinel_ssl_ca_certs=[^&]*", "&sentinel_ssl_ca_certs=/nowhere", "No such file"),
        ("for-sentinels", "wrong", "WRONGPASS|invalid username-password"),
        ("for-servers", "wrong", "WRONGPASS|invalid username-password"),
    ],
)
def test_a_wrong_login_or_certificate_is_told(tls_url: str, part: str, other: str, reason: str) -> None:
    layer = RedisChannelLayer(url=re.sub(part, other, tls_url))
    with pytest.raises((BrokerUnavailable, InvalidChannelLayerError), match=reason) as caught:
        layer.send("thing", {})
    assert "for-se" not in str(caught.value)
    layer.close()


@pytest.mark.parametrize("fault", ["kill", "freeze"])
def test_kombus_own_transport_survives_a_failover(tmp_path: Path, fault: str) -> None:
    with running_sentinels(tmp_path) as sentinels:
        layer = KombuChannelLayer(url=sentinels.url)
        assert groups_are_at(layer, sentinels)
        layer.send("thing", {"n": 1})
        assert isinstance(layer.group_store, RedisGroups)
        with client_of(sentinels.primary.port) as client:
            wait_until(lambda: client.wait(2, 1000) == 2, "both replicas to have it")
        heard: list[dict[str, Any]] = []
        mine = layer.new_channel("websocket.send!")
        listener = layer.listen(names.process_part(mine), lambda channels, message, group: heard.append(message))
        wait_until(lambda: listener.connected, "a listener")
        old = sentinels.primary
        getattr(sentinels, fault)(old)
        began = time.monotonic()
        # A call that began before the failover ends with it.
        wait_until(lambda: sends(layer, "thing", {"n": 2}), "a send that is accepted", 30)
        wait_until(lambda: sends(layer, mine, {"n": 3}) and heard, "a message for the listener", 30)
        assert time.monotonic() - began < FAILOVER_WITHIN
        assert sentinels.primary is not old
        listener.stop()
        assert layer.receive(["thing"], block=True) == ("thing", {"n": 1})
        assert layer.receive(["thing"], block=True) == ("thing", {"n": 2})
        assert layer.group_channels("room") == ["websocket.send.elsewhere!client"]
        layer.close()
