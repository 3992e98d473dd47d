"""A layer of two servers: what goes where, and what stands in for a server that is away."""

from __future__ import annotations

import io
import signal
import time
from collections.abc import Callable, Iterator
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from channelsq.asgi import ChannelLayerWrapper
from channelsq.exceptions import BrokerUnavailable
from channelsq.layers import RedisChannelLayer
from channelsq.layers.contract.outbox import collected_here
from channelsq.layers.contract.source_contract import SourceOptions
from channelsq.layers.groups.moved_sockets import moved_command
from channelsq.layers.shards import sharded_source
from channelsq.layers.shards.sharded_layer import ShardedChannelLayer
from channelsq.layers.shards.sharded_presence import ShardPresence, groups_of
from channelsq.layers.wire import codec
from channelsq.layers.wire.wire_forms import CONTENT_TYPE
from channelsq.redis_core.operations import ask
from tests.support.layers import installed
from tests.support.ports import free_port
from tests.support.servers import RedisServer
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisServer]]:
    servers = [RedisServer(Path(tmp_path_factory.mktemp("shard"))) for _ in range(2)]
    for server in servers:
        server.start()
    yield servers
    for server in servers:
        server.stop()


@pytest.fixture
def servers(running: list[RedisServer]) -> list[RedisServer]:
    """Two servers that run."""
    for server in running:
        if server.process is None:
            server.start()
    return running


@pytest.fixture
def make(servers: list[RedisServer]) -> Iterator[Callable[..., ShardedChannelLayer]]:
    """Makes layers on both servers."""
    made: list[ShardedChannelLayer] = []

    def new(**config: Any) -> ShardedChannelLayer:
        layer = RedisChannelLayer(hosts=[server.url for server in servers], **config)
        assert isinstance(layer, ShardedChannelLayer)
        made.append(layer)
        return layer

    yield new
    for server in servers:
        if server.process is None:
            server.start()
    for layer in made:
        layer.flush()
        layer.close()


@pytest.fixture
def layer(make: Callable[..., ShardedChannelLayer]) -> ShardedChannelLayer:
    return make()


def client_of(layer: ShardedChannelLayer, place: int) -> str:
    """A new reply channel whose own server is at ``place``."""
    while True:
        channel = layer.new_channel("websocket.send!")
        if layer.placement.first(channel) == place:
            return channel


def group_of(layer: ShardedChannelLayer, place: int) -> str:
    return next(name for name in map("room-{}".format, range(1000)) if layer.placement.first(name) == place)


def depths(layer: ShardedChannelLayer, channel: str) -> list[int | None]:
    return [shard.depth(channel) for shard in layer.shards]


class Worker:
    """A source that a test polls."""

    def __init__(self, layer: ShardedChannelLayer, *channels: str) -> None:
        self.source = layer.source(SourceOptions(channels, 10, {CONTENT_TYPE}))

    def take(self) -> tuple[Any, dict[str, Any]]:
        """The next delivery, and its content."""
        found: list[Any] = []

        def enough() -> bool:
            self.source.connect()
            found.extend(self.source.poll(0.2))
            return bool(found)

        wait_until(enough, "a delivery")
        (delivery,) = found
        plain = self.source.plain(delivery)
        if plain is not None:
            return delivery, plain[2]
        message = self.source.open(delivery)  # it comes again
        assert message is not None
        (_, content), _, _ = codec.loads(message.body)
        return delivery, content


@pytest.fixture
def work(layer: ShardedChannelLayer) -> Iterator[Callable[..., Worker]]:
    workers: list[Worker] = []

    def new(*channels: str) -> Worker:
        workers.append(Worker(layer, *channels))
        return workers[-1]

    yield new
    for each in workers:
        each.source.close()


def test_a_client_and_a_group_have_a_server_each(layer: ShardedChannelLayer) -> None:
    for place in range(2):
        client, group = client_of(layer, place), group_of(layer, place)
        layer.send("websocket.receive", {"reply_channel": client, "text": ""})
        assert [depth or 0 for depth in depths(layer, "websocket.receive")][place] == 1
        assert layer.depth("websocket.receive") == place + 1
        layer.group_add(group, client)
        assert [shard.group_channels(group) for shard in layer.shards] == [
            [client] if each == place else [] for each in range(2)
        ]
        layer.send_group(group, {"text": "to all"})
        layer.send(client, {"text": "to one"})
        assert layer.shards[place].receive([client], block=True) == (client, {"text": "to all"})
        assert layer.shards[place].receive([client], block=True) == (client, {"text": "to one"})
    assert layer.group_sizes(10, 5.0).sizes == {group_of(layer, 0): 1, group_of(layer, 1): 1}
    assert layer.purge("websocket.receive") == 2


def test_sends_to_the_messages_own_server_leave_with_its_acknowledgement(
    layer: ShardedChannelLayer, work: Callable[..., Worker]
) -> None:
    worker = work("jobs")
    mine, other = client_of(layer, 0), client_of(layer, 1)
    layer.send("jobs", {"reply_channel": mine})
    delivery, _ = worker.take()
    outbox = worker.source.outbox(delivery)

    def consume() -> None:
        collected_here.set(outbox)
        layer.settle([layer.prepare(mine, {"n": 1}), layer.prepare(other, {"n": 2}), layer.prepare("jobs", {"n": 3})])

    copy_context().run(consume)
    assert layer.receive([other], block=True) == (other, {"n": 2})  # before
    assert layer.receive([mine]) == (None, None)
    assert depths(layer, "jobs")[1] == 0
    worker.source.settle(delivery, outbox)
    worker.source.flush()
    assert layer.receive([mine], block=True) == (mine, {"n": 1})
    assert worker.take()[1] == {"n": 3}


def test_a_frozen_server_holds_no_thread_of_consumers(
    layer: ShardedChannelLayer, servers: list[RedisServer], work: Callable[..., Worker]
) -> None:
    """Else a few of its messages would hold all threads, and with them the messages of the other servers."""
    worker = work("jobs")
    client = client_of(layer, 0)
    layer.send("jobs", {"reply_channel": client})
    delivery, _ = worker.take()
    outbox = worker.source.outbox(delivery)
    process = servers[0].process
    assert process is not None
    took: list[float] = []

    def consume() -> None:
        collected_here.set(outbox)
        process.signal(signal.SIGSTOP)
        began = time.monotonic()
        try:
            layer.settle([layer.prepare(client, {"n": 1})])
            took.append(time.monotonic() - began)
        finally:
            process.signal(signal.SIGCONT)

    copy_context().run(consume)
    assert took[0] < 5
    worker.source.settle(delivery, outbox)
    worker.source.flush()
    assert layer.receive([client], block=True) == (client, {"n": 1})


def test_a_consumer_that_cannot_send_to_a_group_answers_nothing(
    layer: ShardedChannelLayer, servers: list[RedisServer], work: Callable[..., Worker]
) -> None:
    worker = work("jobs")
    mine = client_of(layer, 0)
    layer.send("jobs", {"reply_channel": mine})
    delivery, _ = worker.take()
    outbox = worker.source.outbox(delivery)
    servers[1].stop()
    group = group_of(layer, 1)

    def consume() -> None:
        collected_here.set(outbox)
        with pytest.raises(BrokerUnavailable) as raised:
            layer.settle([layer.prepare(mine, {"n": 1}), layer.prepare_group(group, {"n": 2})])
        assert raised.value.group == group

    copy_context().run(consume)
    worker.source.settle(delivery, outbox)
    worker.source.flush()
    wait_until(lambda: layer.depth("jobs") == 0, "the acknowledgement")
    assert layer.receive([mine]) == (None, None)


def test_another_server_stands_in(
    layer: ShardedChannelLayer, servers: list[RedisServer], work: Callable[..., Worker]
) -> None:
    worker = work("jobs")
    client = client_of(layer, 0)
    here, there = group_of(layer, 1), group_of(layer, 0)
    servers[0].stop()
    began = time.monotonic()
    layer.send("jobs", {"reply_channel": client, "n": 1})
    delivery, content = worker.take()
    assert content["n"] == 1
    layer.send(client, {"text": "an answer"})
    assert layer.shards[1].receive([client], block=True) == (client, {"text": "an answer"})
    layer.group_add(here, client)
    assert layer.group_channels(here) == [client]
    for call in (
        lambda: layer.group_add(there, client),
        lambda: layer.send_group(there, {}),
        lambda: layer.group_channels(there),
    ):
        with pytest.raises(BrokerUnavailable):
            call()
    assert layer.depth("jobs") == 0
    layer.probe("jobs")
    assert time.monotonic() - began < 30
    worker.source.settle(delivery, None)
    servers[0].start()
    wait_until(lambda: _joins(layer, there, client), "the group's server")
    layer.shards[0].send("jobs", {"n": 2})
    assert worker.take()[1] == {"n": 2}


@pytest.mark.parametrize("other", ["redis://user:secret@127.0.0.1:{}/0", "redis://:secret@127.0.0.1:{}/0"])
def test_a_group_on_a_server_that_is_away_is_named(other: str) -> None:
    ports = [free_port(), free_port()]
    layer = RedisChannelLayer(hosts=[other.format(port) for port in ports])
    assert isinstance(layer, ShardedChannelLayer)
    try:
        for place, port in enumerate(ports):
            group, member = group_of(layer, place), "a-channel"
            for call in (
                lambda: layer.group_add(group, member),  # noqa: B023
                lambda: layer.group_discard(group, member),  # noqa: B023
                lambda: layer.send_group(group, {"text": "to all"}),  # noqa: B023
                lambda: layer.group_channels(group),  # noqa: B023
                lambda: layer.some_members(group, 10),  # noqa: B023
            ):
                with pytest.raises(BrokerUnavailable, match="start it again, or remove it from") as raised:
                    call()
                assert raised.value.group == group
                assert f"127.0.0.1:{port}/0" in raised.value.url
                assert f"127.0.0.1:{port}/0, which has the group {group!r}" in str(raised.value)
                assert "secret" not in str(raised.value)
        with pytest.raises(BrokerUnavailable) as raised:
            layer.send("jobs", {})
        assert raised.value.group is None
    finally:
        layer.close()


def test_new_channels_are_on_servers_that_are_there(layer: ShardedChannelLayer, servers: list[RedisServer]) -> None:
    servers[0].stop()
    with pytest.raises(BrokerUnavailable):
        layer.group_channels(group_of(layer, 0))
    for pattern in ("websocket.send!", "http.request.body?"):
        assert {layer.placement.first(layer.new_channel(pattern)) for _ in range(20)} == {1}
    servers[0].start()
    wait_until(lambda: _joins(layer, group_of(layer, 0), "member"), "the server")
    assert {layer.placement.first(layer.new_channel("body?")) for _ in range(50)} == {0, 1}


def _joins(layer: ShardedChannelLayer, group: str, channel: str) -> bool:
    try:
        layer.group_add(group, channel)
    except BrokerUnavailable:
        return False
    return True


def test_an_answer_goes_where_the_clients_last_message_came_from(
    layer: ShardedChannelLayer, work: Callable[..., Worker]
) -> None:
    worker = work("jobs")
    client = client_of(layer, 0)
    layer.shards[1].send("jobs", {"reply_channel": client})
    worker.take()
    layer.send(client, {"n": 1})
    assert layer.shards[1].receive([client], block=True) == (client, {"n": 1})
    layer.shards[0].send("jobs", {"reply_channel": client})
    worker.take()
    layer.send(client, {"n": 2})
    assert layer.shards[0].receive([client], block=True) == (client, {"n": 2})


def test_dead_letters_of_every_server(layer: ShardedChannelLayer, work: Callable[..., Worker]) -> None:
    worker = work("jobs")
    for place in range(2):
        layer.shards[place].send("jobs", {"n": place})
        delivery, _ = worker.take()
        worker.source.set_aside(delivery, f"the reason {place}")
    worker.source.flush()
    assert layer.channel_state("jobs").dead == 2
    with installed(ChannelLayerWrapper(layer, "default", [])):
        assert [line.split()[1] for line in deadletters("list")[1:]] == ["jobs", "jobs"]
        first, second = (line.split()[0] for line in deadletters("list")[1:])
        assert any("the reason 1" in line for line in deadletters("show", second))
        assert deadletters("replay", second) == [f"replayed {second} of jobs"]
        assert worker.take()[1] == {"n": 1}
        assert deadletters("delete", first) == [f"deleted {first} of jobs"]
        assert deadletters("list") == ["no dead letters"]


def deadletters(*args: str) -> list[str]:
    out = io.StringIO()
    call_command("deadletters", *args, stdout=out, stderr=out)
    return out.getvalue().splitlines()


@pytest.mark.parametrize(("moved_at", "runs"), [(None, True), (4, True), (5, False), (6, False)])
def test_a_message_of_an_epoch_that_is_over_does_not_run(
    layer: ShardedChannelLayer,
    work: Callable[..., Worker],
    monkeypatch: pytest.MonkeyPatch,
    moved_at: int | None,
    runs: bool,
) -> None:
    monkeypatch.setattr(sharded_source, "TRUSTED", 0.0)
    worker = work("jobs")
    client = client_of(layer, 0)
    layer.send("jobs", {"reply_channel": client, "order": 5})
    delivery, _ = worker.take()
    if moved_at is not None:
        groups = groups_of(layer.shards[1])
        groups.carry_out(lambda: ask(moved_command(layer.prefix, client, moved_at)))
    wait_until(lambda: time.monotonic() > delivery.check_at, "the time from which it is checked")
    assert worker.source.is_lost(delivery) is not runs
    if not runs:
        worker.source.abandon(delivery)
        wait_until(lambda: not worker.source.poll(0.0) and layer.channel_state("jobs").held == 0, "the acknowledgement")


def test_a_young_message_is_not_checked(layer: ShardedChannelLayer, work: Callable[..., Worker]) -> None:
    worker = work("jobs")
    client = client_of(layer, 0)
    groups_of(layer.shards[1]).carry_out(lambda: ask(moved_command(layer.prefix, client, 9)))
    layer.send("jobs", {"reply_channel": client, "order": 5})
    delivery, _ = worker.take()
    assert not worker.source.is_lost(delivery)


def test_a_process_is_dead_if_no_server_has_its_heartbeat(layer: ShardedChannelLayer) -> None:
    first, second = (ShardPresence(layer, place) for place in range(2))
    for presence in (first, second):
        presence.beat("process", 30)
    assert first.dead() == second.dead() == []
    first._ask(("DEL", first._key("interface", "process")))
    assert first.dead() == second.dead() == []  # it is cut off from the first
    second._ask(("DEL", second._key("interface", "process")))
    assert first.dead() == second.dead() == ["process"]


def test_a_server_on_standby_is_read_and_given_nothing(
    make: Callable[..., ShardedChannelLayer], servers: list[RedisServer]
) -> None:
    layer = make(standby=[servers[1].url])
    worker = Worker(layer, "jobs")
    try:
        for number in range(20):
            client = layer.new_channel("websocket.send!")
            layer.send("jobs", {"reply_channel": client, "n": number})
            layer.group_add(f"room-{number}", client)
        assert depths(layer, "jobs") == [20, 0]
        assert layer.shards[1].group_sizes(100, 5.0).sizes == {}
        layer.purge("jobs")
        layer.shards[1].send("jobs", {"n": 20})
        assert worker.take()[1] == {"n": 20}
    finally:
        worker.source.close()
