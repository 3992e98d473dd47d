"""The interface's link to Redis Streams: every way in, and what may happen to a connection."""

from __future__ import annotations

import asyncio
import functools
import logging
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import redis

from channelsq import conf
from channelsq.exceptions import BrokerUnavailable, ChannelFull
from channelsq.interface.link.redis_address import address_of
from channelsq.interface.link.streams_link import StreamsLink
from channelsq.interface.link.threaded_link import ThreadedLink
from channelsq.layers import KombuChannelLayer, RedisChannelLayer
from channelsq.layers.wire.wire_forms import Entry, pack_envelopes
from channelsq.redis_core.compact import decode_compact, encode_compact
from tests.support.certificates import self_signed
from tests.support.fakes.link_clients import RecordingLinkClient
from tests.support.links import LinkProcess, linked, until
from tests.support.ports import free_port
from tests.support.servers import DURABLE, RedisServer, running_redis

pytestmark = pytest.mark.redis

PASSWORD = "p@ss/w:rd%"
QUOTED = "p%40ss%2Fw%3Ard%25"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that a test may stop."""
    with running_redis(tmp_path, DURABLE) as made:
        yield made


@pytest.fixture
def layer(server: RedisServer) -> Iterator[RedisChannelLayer]:
    made = RedisChannelLayer(url=streams(server.url), capacity=100_000)
    yield made
    made.close()


def streams(url: str) -> str:
    return url.replace("redis:", "redis-streams:", 1)


def admin(server: RedisServer) -> redis.Redis:
    return redis.Redis(port=server.port)


def sent(server: RedisServer, channel: str = "websocket.receive") -> list[tuple[str | None, int]]:
    """The id and the order of each message in a channel's stream."""
    found = []
    with admin(server) as client:
        entries: Any = client.xrange(f"stream:{channel}")
    for _, fields in entries:
        _, identity, body, _ = decode_compact(fields[b"m"])
        found.append((identity, msgpack_order(body)))
    return found


def msgpack_order(body: bytes) -> int:
    (_, content), _, _ = msgpack.unpackb(body)
    order: int = content["order"]
    return order


def own_connections(process: LinkProcess) -> list[str]:
    """The addresses of the link's connections, as the server lists them."""
    link = process.link
    assert isinstance(link, StreamsLink)
    assert link._listening is not None
    return [
        "{}:{}".format(*each._wire.transport.get_extra_info("sockname"))
        for each in (link._publishing.connection, link._listening.connection)
        if each.is_open and each._wire is not None and each._wire.transport is not None
    ]


# -- ways in ------------------------------------------------------------------------------------


class Ways:
    """A server that wants a password, on TCP, TLS and a Unix socket."""

    def __init__(self, server: RedisServer, tls_port: int, certificate: Path, socket: Path) -> None:
        self.server = server
        self.tls_port = tls_port
        self.certificate = certificate
        self.socket = socket

    def url(self, way: str) -> str:
        port, tls = self.server.port, f"localhost:{self.tls_port}"
        return {
            "password": f"redis-streams://:{QUOTED}@127.0.0.1:{port}/0",
            "user": f"redis-streams://someone:{QUOTED}@127.0.0.1:{port}/0",
            "database": f"redis-streams://:{QUOTED}@127.0.0.1:{port}/3",
            "socket": f"redis-streams+socket://:{QUOTED}@{self.socket}",
            "virtual host": f"redis-streams+socket://:{QUOTED}@{self.socket}?virtual_host=2",
            "options": f"rediss-streams://:{QUOTED}@{tls}/0",
            "tls": f"rediss-streams://:{QUOTED}@{tls}/0?ssl_ca_certs={self.certificate}",
            "tls unchecked": f"rediss-streams://:{QUOTED}@127.0.0.1:{self.tls_port}/2?ssl_cert_reqs=none",
            "tls refused": f"rediss-streams://:{QUOTED}@{tls}/0",
            "wrong password": f"redis-streams://:wrong@127.0.0.1:{port}/0",
        }[way]


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ways]:
    folder = tmp_path_factory.mktemp("ways")
    certificate, key = self_signed(folder)
    socket = folder / "redis.sock"
    tls_port = free_port()
    options = [
        "--requirepass", PASSWORD, "--unixsocket", str(socket), "--tls-port", str(tls_port),
        "--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-ca-cert-file", str(certificate),
        "--tls-auth-clients", "no",
    ]  # fmt: skip
    with running_redis(folder, options) as server:
        with redis.Redis(port=server.port, password=PASSWORD) as client:
            client.acl_setuser("someone", enabled=True, passwords=f"+{PASSWORD}", keys=["*"], commands=["+@all"])
        yield Ways(server, tls_port, certificate, socket)


async def talk(process: LinkProcess, layer: RedisChannelLayer) -> None:
    """A message to a worker and one back, and the end of a membership."""
    client = RecordingLinkClient(process)
    for order in range(3):
        client.publish(order)
    await until(lambda: len(client.outcomes) == 3, "the outcomes")
    assert client.errors() == []
    received = [await asyncio.to_thread(layer.receive, ["websocket.receive"]) for _ in range(3)]
    assert [message["order"] for _, message in received if message] == [0, 1, 2]
    await asyncio.to_thread(layer.group_add, "room", client.channel)
    await asyncio.to_thread(layer.send, client.channel, {"text": "hello"})
    await asyncio.to_thread(layer.send_group, "room", {"text": "all"})
    await asyncio.to_thread(layer.send, client.channel, {"done": 2})
    await until(lambda: client.done, "the replies")
    assert (client.texts, client.done) == (["hello", "all"], [2])
    process.link.forget(client.channel)
    await until(lambda: process.link.idle, "the link to be idle")
    assert await asyncio.to_thread(layer.group_channels, "room") == []


@pytest.mark.parametrize("prefix", ["", "mine:"])
@pytest.mark.parametrize(
    "way", ["password", "user", "database", "socket", "virtual host", "tls", "tls unchecked", "options"]
)
def test_ways_in(ways: Ways, way: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "options":
        settings: Any = conf.celery_app().conf.changes
        monkeypatch.setitem(settings, "broker_url", ways.url(way))
        monkeypatch.setitem(settings, "broker_use_ssl", {"ssl_ca_certs": str(ways.certificate)})
    layer = RedisChannelLayer(url=ways.url(way), transport_options={"global_keyprefix": prefix})

    async def scenario() -> None:
        async with linked(layer) as process:
            assert isinstance(process.link, StreamsLink)
            await talk(process, layer)

    try:
        asyncio.run(scenario())
    finally:
        layer.flush()
        layer.close()


def test_a_server_that_wants_no_password_takes_any(server: RedisServer) -> None:
    """As from redis-py, which workers use: an environment's URL may name one in development, too."""
    url = server.url.replace("redis://", f"redis-streams://:{QUOTED}@")
    layer = RedisChannelLayer(url=url, prefix="any-password")

    async def scenario() -> None:
        async with linked(layer) as process:
            await talk(process, layer)

    try:
        asyncio.run(scenario())
    finally:
        layer.flush()
        layer.close()


@pytest.mark.parametrize(
    ("way", "reason"), [("tls refused", "CERTIFICATE_VERIFY_FAILED"), ("wrong password", "WRONGPASS")]
)
def test_no_way_in(ways: Ways, way: str, reason: str, caplog: pytest.LogCaptureFixture, monkeypatch: Any) -> None:
    monkeypatch.setattr("channelsq.interface.link.streams_link._FIRST_CONNECTION", 0.3)
    layer = RedisChannelLayer(url=ways.url(way))

    async def scenario() -> None:
        async with linked(layer) as process:
            client = RecordingLinkClient(process)
            client.publish(0)
            await until(lambda: client.outcomes, "the outcome")
            (error,) = client.errors()
            assert isinstance(error, BrokerUnavailable)
            assert reason in str(error)

    asyncio.run(scenario())
    lost = [each for each in caplog.records if each.__dict__.get("action") == "broker_lost"]
    assert {each.__dict__["connection"] for each in lost} == {"publishing", "listening"}
    assert len(lost) == 2, "told once each"
    assert reason in lost[0].getMessage()
    assert QUOTED not in caplog.text
    assert PASSWORD not in caplog.text


@pytest.mark.parametrize(
    "layer",
    [
        KombuChannelLayer(url="redis://127.0.0.1/0"),
        RedisChannelLayer(url="redis://127.0.0.1/0;redis://127.0.0.1:6380/0", groups_url="redis://127.0.0.1/0"),
        KombuChannelLayer(url="sentinel://127.0.0.1?master_name=m"),
        KombuChannelLayer(url="redis-streams://127.0.0.1/0"),
    ],
)
def test_other_layers_keep_their_threads(layer: Any) -> None:
    assert address_of(layer) is None


def test_groups_on_another_server_are_forgotten_too(server: RedisServer) -> None:
    url = server.url.replace("/0", "/5")
    layer = RedisChannelLayer(url=streams(server.url), groups_url=url)

    async def scenario() -> None:
        async with linked(layer) as process:
            await talk(process, layer)

    try:
        asyncio.run(scenario())
    finally:
        layer.close()


# -- trouble ------------------------------------------------------------------------------------


async def retry(client: RecordingLinkClient, order: int) -> None:
    """Publish until it is with the broker, as a socket does."""
    publication = client.publish(order, patience=30)
    while True:
        await until(lambda: client.outcomes.get(order), f"the outcome of {order}", 30)
        if client.outcomes.pop(order)[-1] is None:
            return
        client.failures += 1
        client.process.link.submit(publication)


def test_connections_killed_under_load_lose_nothing(server: RedisServer, layer: RedisChannelLayer) -> None:
    count = 600

    async def scenario() -> RecordingLinkClient:
        async with linked(layer) as process:
            client = RecordingLinkClient(process)
            told: list[int] = []

            async def kill() -> None:
                with admin(server) as killer:
                    while len(told) < 12:
                        for address in own_connections(process):
                            told.append(int(killer.client_kill_filter(addr=address)))
                            await asyncio.sleep(0.15)

            async def send() -> None:
                for order in range(count):
                    text = str(order)
                    await asyncio.gather(
                        retry(client, order),
                        asyncio.to_thread(functools.partial(reply, layer, client.channel, text)),
                    )
                    await asyncio.sleep(0.003)

            await asyncio.wait_for(asyncio.gather(send(), kill()), 50)
            await until(lambda: len(client.texts) >= count, "the replies")
            return client

    client = asyncio.run(scenario())
    assert client.texts == [str(order) for order in range(count)], "replies: each once, in order"
    by_order: dict[int, set[str | None]] = {}
    messages = sent(server)
    for identity, order in messages:
        by_order.setdefault(order, set()).add(identity)
    assert sorted(by_order) == list(range(count)), "nothing is lost"
    assert all(len(ids) == 1 for ids in by_order.values()), "what is there twice has one id"
    assert len(messages) <= count + client.failures


def reply(layer: RedisChannelLayer, channel: str, text: str) -> None:
    """Send to a client, on a connection that is not killed half way."""
    while True:
        try:
            layer.send(channel, {"text": text})
            return
        except BrokerUnavailable:
            continue


@pytest.mark.parametrize("keep", [False, True])
def test_a_restart_of_the_server(server: RedisServer, layer: RedisChannelLayer, keep: bool, caplog: Any) -> None:
    caplog.set_level(logging.INFO, "channelsq.interface.link")

    async def scenario() -> None:
        async with linked(layer) as process:
            client = RecordingLinkClient(process)
            await asyncio.to_thread(layer.send, client.channel, {"text": "before"})
            await until(lambda: client.texts, "the reply before")
            await asyncio.to_thread(server.stop)
            await until(lambda: not process.link._publishing.connection.is_open, "the loss")  # type: ignore[attr-defined]
            client.publish(0)
            client.publish(1, patience=30)
            await until(lambda: 0 in client.outcomes, "the outcome of what may not wait")
            assert isinstance(client.outcomes[0][0], BrokerUnavailable)
            if not keep:
                for each in server.directory.glob("appendonlydir/*"):
                    each.unlink()
            await asyncio.to_thread(server.start)
            await until(lambda: 1 in client.outcomes, "what waited to be sent", 2.5)
            assert client.outcomes[1] == [None]
            await asyncio.to_thread(reply, layer, client.channel, "after")
            await until(lambda: client.texts == ["before", "after"], "the reply after", 3)
            assert process.link.idle

    asyncio.run(scenario())
    assert [order for _, order in sent(server)] == [1]
    actions = [each.__dict__.get("action") for each in caplog.records]
    assert actions.count("broker_lost") == actions.count("broker_back") == 2


def test_a_server_that_starts_later(server: RedisServer, layer: RedisChannelLayer, monkeypatch: Any) -> None:
    monkeypatch.setattr("channelsq.interface.link.streams_link._FIRST_CONNECTION", 0.2)
    server.stop()

    async def scenario() -> None:
        async with linked(layer) as process:
            await asyncio.to_thread(server.start)
            client = RecordingLinkClient(process)
            client.publish(0, patience=10)
            await until(lambda: client.outcomes, "the outcome", 3)
            assert client.errors() == []

    asyncio.run(scenario())


def test_ids_that_begin_again(server: RedisServer, layer: RedisChannelLayer) -> None:
    """The server is another one, whose clock is behind."""

    async def scenario() -> None:
        async with linked(layer) as process:
            client = RecordingLinkClient(process)
            key = f"stream:{client.channel.partition('!')[0]}"
            body = next(
                iter(pack_envelopes([Entry([client.channel], layer.prepare(client.channel, {"text": "x"}).body)]))
            )
            data = encode_compact(None, None, body[1], None)
            with admin(server) as other:
                other.xadd(key, {"m": data}, id="9999999999999-0")
                await until(lambda: len(client.texts) == 1, "the first")
                other.delete(key)
                other.xadd(key, {"m": data}, id="5-1")
                other.client_kill_filter(_type="normal", skipme=True)
            await until(lambda: len(client.texts) == 2, "the second")

    asyncio.run(scenario())


def test_a_server_that_is_frozen_for_a_while(server: RedisServer, layer: RedisChannelLayer, caplog: Any) -> None:
    async def scenario() -> RecordingLinkClient:
        async with linked(layer) as process:
            client = RecordingLinkClient(process)
            client.publish(0)
            await until(lambda: client.outcomes, "the first outcome")
            assert server.process is not None
            server.process.signal(signal.SIGSTOP)
            try:
                for order in range(1, 20):
                    client.publish(order, patience=60)
                await asyncio.sleep(10)
                assert len(client.outcomes) == 1
            finally:
                server.process.signal(signal.SIGCONT)
            await until(lambda: len(client.outcomes) == 20, "the outcomes", 2)
            await asyncio.to_thread(layer.send, client.channel, {"text": "back"})
            await until(lambda: client.texts, "the reply", 2)
            return client

    client = asyncio.run(scenario())
    assert client.errors() == []
    assert [order for _, order in sent(server)] == list(range(20)), "each once"
    assert not [each for each in caplog.records if each.__dict__.get("action") == "broker_lost"]


def test_a_server_that_is_frozen_for_long(
    server: RedisServer, layer: RedisChannelLayer, caplog: Any, monkeypatch: Any
) -> None:
    for module in ("redis_pipeline", "reply_listener"):
        monkeypatch.setattr(f"channelsq.interface.link.{module}.SILENCE", 0.5)
    monkeypatch.setattr("channelsq.interface.link.reply_listener._BLOCK_MS", 300)

    async def scenario() -> None:
        async with linked(layer) as process:
            client = RecordingLinkClient(process)
            client.publish(0)
            await until(lambda: client.outcomes, "the first outcome")
            assert server.process is not None
            server.process.signal(signal.SIGSTOP)
            try:
                publication = client.publish(1, patience=60)
                await until(lambda: 1 in client.outcomes, "the loss")
                assert isinstance(client.outcomes[1][0], BrokerUnavailable)
                process.link.submit(publication)
            finally:
                server.process.signal(signal.SIGCONT)
            await until(lambda: client.outcomes[1][-1] is None, "what was sent again", 2)
            await asyncio.to_thread(reply, layer, client.channel, "back")
            await until(lambda: client.texts, "the reply", 3)

    asyncio.run(scenario())
    assert len({identity for identity, order in sent(server) if order == 1}) == 1
    assert any("no answer for 0.5 s" in each.getMessage() for each in caplog.records)


# -- bounds -------------------------------------------------------------------------------------


def test_capacity_is_kept_and_told_at_once(server: RedisServer) -> None:
    layer = RedisChannelLayer(url=streams(server.url), capacity=5)

    async def scenario() -> None:
        async with linked(layer) as process:
            client = RecordingLinkClient(process)
            for order in range(40):
                client.publish(order)
            await until(lambda: len(client.outcomes) == 40, "the outcomes")
            assert [order for order, (error,) in client.outcomes.items() if error is None] == [0, 1, 2, 3, 4]
            assert all(isinstance(error, ChannelFull) for error in client.errors())
            assert process.stats["link.full"] == 35
            for order in range(100, 140):  # also while the last answer is remembered, and when it is old
                client.publish(order)
                await asyncio.sleep(0.005)
            assert len(sent(server)) == 5

    try:
        asyncio.run(scenario())
    finally:
        layer.close()


def test_scripts_that_the_server_has_forgotten_are_sent_again(server: RedisServer) -> None:
    layer = RedisChannelLayer(url=streams(server.url), capacity=3)

    async def scenario() -> None:
        async with linked(layer) as process:
            client = RecordingLinkClient(process)
            for order in range(3):
                client.publish(order)
            await until(lambda: len(client.outcomes) == 3, "what there is room for")
            layer.group_add("room", client.channel)
            with admin(server) as redis_client:
                redis_client.script_flush()
                process.link.forget(client.channel)
                await until(lambda: not redis_client.exists("channelsq:group:{room}"), "the end of the membership")
                redis_client.script_flush()
            client.publish(3)
            await until(lambda: len(client.outcomes) == 4, "the fourth, for which Redis is asked by a script")
            assert [type(error) for error in client.errors()] == [ChannelFull]
            assert process.stats["link.unavailable"] == 0

    try:
        asyncio.run(scenario())
        with admin(server) as redis_client:
            redis_client.script_flush()
        assert layer.some_members("room", 10) == ([], 0)
        layer.group_add("room", "a?b")
        assert layer.group_channels("room") == ["a?b"]
        with pytest.raises(ChannelFull):
            layer.send("websocket.receive", {})
    finally:
        layer.close()


def test_what_waits_for_room_is_sent_in_order(server: RedisServer) -> None:
    layer = RedisChannelLayer(url=streams(server.url), capacity=3)

    async def scenario() -> None:
        async with linked(layer) as process:
            client = RecordingLinkClient(process)
            for order in range(30):
                client.publish(order, patience=20)
            late = RecordingLinkClient(process)
            late.publish(0, patience=0.4)
            late.publish(1)
            await until(lambda: len(late.outcomes) == 2, "those that do not wait")
            assert all(isinstance(error, ChannelFull) for error in late.errors())
            assert len(late.errors()) == 2
            orders = []
            for _ in range(30):
                found = None
                while found is None:
                    assert len(sent(server)) <= 3
                    _, found = await asyncio.to_thread(layer.receive, ["websocket.receive"])
                orders.append(found["order"])
            assert orders == list(range(30))
            assert client.errors() == []

    try:
        asyncio.run(scenario())
    finally:
        layer.close()


@pytest.mark.parametrize("limits", [{"limit": 10}, {"limit_bytes": 1000}])
def test_what_waits_is_bounded(server: RedisServer, limits: dict[str, int]) -> None:
    layer = RedisChannelLayer(url=streams(server.url), capacity=1)

    async def scenario() -> None:
        address = address_of(layer)
        assert address is not None
        async with linked(layer, lambda wrapper, stats: StreamsLink(wrapper, stats, address, **limits)) as process:
            client = RecordingLinkClient(process)
            for order in range(20):
                client.publish(order, patience=30, text="x" * 80)
            await until(lambda: len(client.errors()) >= 5, "refusals")
            assert all(isinstance(error, ChannelFull) for error in client.errors())
            assert len(client.errors()) <= 15
            await until(lambda: bool(sent(server)), "the one that there is room for")
            assert len(sent(server)) == 1

    try:
        asyncio.run(scenario())
    finally:
        layer.close()


def test_foreign_and_expired_entries_are_dropped(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    layer = RedisChannelLayer(url=streams(server.url), expiry=60)
    fine = layer.prepare("websocket.send.x!y", {"text": "fine"}).body

    def envelope(*entries: Any) -> bytes:
        return encode_compact(None, None, msgpack.packb(list(entries)), None)

    async def scenario() -> None:
        async with linked(layer) as process:
            client = RecordingLinkClient(process)
            key = f"stream:{client.channel.partition('!')[0]}"
            bad: list[dict[str, bytes]] = [
                {"other": b"field"},
                {"m": b"\xc1"},
                {"m": b"\x01"},
                {"m": encode_compact("a.task", "id", b"\x90", None)},
                {"m": encode_compact(None, None, b"\x05", None)},
                {"m": encode_compact(None, None, b"not msgpack", None)},
                {"m": envelope(1)},
                {"m": envelope([1, 2, 3])},
                {"m": envelope([[client.channel], b"\x01", None])},
                {"m": envelope(["channel", fine, None])},
                {"m": envelope([[[]], fine, None])},
                {"m": envelope([[client.channel], fine, 5])},
            ]
            old = encode_compact(None, None, envelope([[client.channel], fine, None])[4:], 1)
            with admin(server) as other:
                other.xadd(key, {"m": old, "x": 1}, id="5-1")
                for fields in bad:
                    other.xadd(key, fields)
            await asyncio.to_thread(layer.send, client.channel, {"text": "good"})
            await until(lambda: client.texts, "what is ours")
            assert client.texts == ["good"]
            with admin(server) as other:
                await until(lambda: other.xlen(key) == 0, "what was read to be deleted")
                assert 0 < other.ttl(key) <= 300

    try:
        asyncio.run(scenario())
    finally:
        layer.close()
    dropped = [each for each in caplog.records if each.__dict__.get("action") == "foreign_message_dropped"]
    assert len(dropped) >= 12


def test_a_reply_queue_of_many_is_handed_out_in_turns(server: RedisServer, layer: RedisChannelLayer) -> None:
    async def scenario() -> None:
        async with linked(layer) as process:
            client = RecordingLinkClient(process)
            for start in range(0, 5000, 500):
                sends = [layer.prepare(client.channel, {"text": str(n)}) for n in range(start, start + 500)]
                await asyncio.to_thread(layer.dispatch, sends)
            await until(lambda: len(client.texts) == 5000, "the replies")
            assert client.texts == [str(n) for n in range(5000)]

    asyncio.run(scenario())


def test_the_reply_queues_are_deleted_at_the_end(server: RedisServer, layer: RedisChannelLayer) -> None:
    async def scenario() -> str:
        async with linked(layer) as process:
            client = RecordingLinkClient(process)
            await asyncio.to_thread(layer.send, client.channel, {"text": "x"})
            await until(lambda: client.texts, "the reply")
            return f"stream:{client.channel.partition('!')[0]}"

    key = asyncio.run(scenario())
    with admin(server) as other:
        assert not other.exists(key)


def test_a_single_readers_channel(server: RedisServer) -> None:
    layer = RedisChannelLayer(url=streams(server.url), channel_capacity={"http.request.body*": 2})
    body = layer.new_channel("http.request.body?")

    async def scenario() -> None:
        async with linked(layer) as process:
            for number in range(2):
                await process.link.published(body, {"content": b"%d" % number})
            with pytest.raises(ChannelFull):
                await process.link.published(body, {"content": b"2"})
            other = layer.new_channel("websocket.send!")
            await process.link.published(other, {"text": "to a process"})

    try:
        asyncio.run(scenario())
        assert [layer.receive([body])[1] for _ in range(3)] == [{"content": b"0"}, {"content": b"1"}, None]
    finally:
        layer.close()


def test_a_fault_of_one_client_costs_the_others_nothing(server: RedisServer, layer: RedisChannelLayer) -> None:
    class Faulty(RecordingLinkClient):
        def on_reply(self, delivery: Any) -> None:
            raise RuntimeError("a fault")

        def published(self, order: int, error: Exception | None) -> None:
            raise RuntimeError("a fault")

    async def scenario() -> None:
        async with linked(layer) as process:
            faulty, client = Faulty(process), RecordingLinkClient(process)
            faulty.publish(0)
            client.publish(1)
            sends = [layer.prepare(each.channel, {"text": "x"}) for each in (faulty, client)]
            await asyncio.to_thread(layer.dispatch, sends)
            await until(lambda: client.texts and client.outcomes, "the other client's")

    asyncio.run(scenario())


def test_the_threaded_link_stops_quickly(server: RedisServer) -> None:
    layer = KombuChannelLayer(url=server.url)

    async def scenario() -> float:
        loop = asyncio.get_running_loop()
        async with linked(layer) as process:
            assert isinstance(process.link, ThreadedLink)
            client = RecordingLinkClient(process)
            client.publish(0)
            await until(lambda: client.outcomes, "the outcome")
            begun = loop.time()
        return loop.time() - begun

    try:
        assert asyncio.run(scenario()) < 0.9
    finally:
        layer.close()


def test_each_message_has_an_id_of_its_own(server: RedisServer, layer: RedisChannelLayer) -> None:
    async def scenario() -> None:
        async with linked(layer) as process:
            client = RecordingLinkClient(process)
            for order in range(10):
                client.publish(order)
            await until(lambda: len(client.outcomes) == 10, "the outcomes")

    asyncio.run(scenario())
    assert len({identity for identity, _ in sent(server)}) == 10


def test_what_is_sent_in_the_moment_of_a_loss_is_told(layer: RedisChannelLayer) -> None:
    """uvloop's transports, unlike asyncio's, refuse to be written to after their end."""
    uvloop = pytest.importorskip("uvloop")

    async def scenario() -> list[Any]:
        errors: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        async with linked(layer) as process:
            client = RecordingLinkClient(process)
            client.publish(0)
            await until(lambda: client.outcomes.get(0) == [None], "the first to be published")
            link = process.link
            assert isinstance(link, StreamsLink)
            wire = link._publishing.connection._wire
            assert wire is not None
            assert wire.transport is not None
            wire.transport.abort()
            client.publish(1, patience=10)
            await until(lambda: client.outcomes.get(1), "the second to be told")
            assert isinstance(client.outcomes[1][0], BrokerUnavailable)
        return errors

    assert uvloop.run(scenario()) == []
