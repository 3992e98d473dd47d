"""A gateway of the tests' own, on Redis Streams: its heartbeat, its answers through groups, and its end."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from channelsq.asgi import ChannelLayerWrapper
from channelsq.channel import Channel
from channelsq.interface.basis.limits import Limits
from channelsq.interface.gateway import Gateway, GatewayConfig
from channelsq.layers import KombuChannelLayer, RedisChannelLayer
from channelsq.layers.contract.layer_contract import BaseChannelLayer
from tests.support.servers import RedisServer, running_redis
from tests.support.waiting import wait_until

pytestmark = pytest.mark.redis

LIMITS = Limits(heartbeat_every=0.2, heartbeat_lifetime=1.0, end_begun=0.2)


class Pigeons(Gateway):
    """Sends out by putting into a list."""

    protocol = "pigeon"
    consumes = ("pigeon.send",)
    may_repeat = True

    def __init__(self, config: GatewayConfig, layer: ChannelLayerWrapper) -> None:
        super().__init__(config, layer)
        self.flown: list[str] = []
        self.answers: list[str] = []
        self.events: list[str] = []

    async def open(self) -> None:
        self.events.append("open")

    async def close(self) -> None:
        self.events.append("close")

    async def release(self) -> None:
        self.events.append("release")

    async def carry(self, channel: str, content: dict[str, Any]) -> None:
        if content["text"] == "crash":
            raise RuntimeError("a fault of the gateway")
        self.flown.append(content["text"])

    async def ask(self) -> None:
        """Publish a client's message that wants answers."""

        async def answer(content: dict[str, Any]) -> None:
            self.answers.append(content["text"])

        await self.publish("pigeon.receive", {"text": "coo"}, answer=answer)


@contextmanager
def running(layer: BaseChannelLayer) -> Iterator[Pigeons]:
    """Run a gateway in a thread."""
    config = GatewayConfig(port=0, limits=LIMITS, rate=0, drain_window=2)
    gateway = Pigeons(config, ChannelLayerWrapper(layer, "default", []))
    listening = threading.Event()
    run = gateway.run(on_listening=lambda _: listening.set(), install_signals=False)
    thread = threading.Thread(target=asyncio.run, args=(run,), daemon=True)
    thread.start()
    assert listening.wait(10)
    try:
        yield gateway
    finally:
        gateway.stop()
        thread.join(15)
    assert not thread.is_alive()


@pytest.fixture
def layer(redis_url: str) -> Iterator[RedisChannelLayer]:
    made = RedisChannelLayer(url=redis_url, prefix=f"pigeons-{secrets.token_hex(4)}")
    yield made
    made.flush()
    made.close()


def test_dead_gateways_are_cleaned_up_and_dead_servers_of_sockets_are_left_to_others(layer: RedisChannelLayer) -> None:
    presence = layer.presence
    assert presence is not None
    presence.beat("dead-gateway", 0.01, {"protocol": "pigeon"})
    presence.beat("dead-server", 0.01)
    presence.note("dead-server", {"websocket.send.dead-server!a": "/"}, [])
    layer.group_add("room", "gateway.send.dead-gateway!a")
    layer.group_add("room", "websocket.send.dead-server!a")
    wait_until(lambda: len(presence.dead()) == 2, "two dead processes")
    with running(layer):
        (living,) = wait_until(presence.announced, "an announcement")
        assert (living.protocol, living.channels) == ("pigeon", ("pigeon.send",))
        wait_until(lambda: presence.dead() == ["dead-server"], "the end of the cleanup", 15)
        wait_until(
            lambda: layer.group_channels("room") == ["websocket.send.dead-server!a"], "the end of the membership"
        )
    assert presence.announced() == []


def test_answers_come_through_groups_too(layer: RedisChannelLayer) -> None:
    with running(layer) as gateway:
        asyncio.run_coroutine_threadsafe(gateway.ask(), gateway._loop).result(10)
        _, message = layer.receive(["pigeon.receive"], block=True)
        assert message is not None
        layer.group_add("flock", message["reply_channel"])
        layer.group_add("flock", f"{message['reply_channel']}-gone")
        layer.send_group("flock", {"text": "to all"})
        layer.send(message["reply_channel"], {"text": "to one"})
        wait_until(lambda: sorted(gateway.answers) == ["to all", "to one"], "two answers")
        wait_until(lambda: layer.group_channels("flock") == [message["reply_channel"]], "the end of a membership")
    assert gateway.events == ["open", "close", "release"]


def test_a_fault_of_a_gateway_ends_neither_it_nor_the_message(layer: RedisChannelLayer) -> None:
    with running(layer) as gateway:
        layer.send("pigeon.send", {"text": "crash"})
        layer.send("pigeon.send", {"text": "fly"})
        wait_until(lambda: gateway.flown == ["fly"], "the second message")
        layer.send("pigeon.send", {"text": "later"}, delay=0.3)
        wait_until(lambda: gateway.flown == ["fly", "later"], "the delayed message")
    state = layer.channel_state("pigeon.send")
    assert (state.waiting, state.held) == (0, 0)


def test_a_cancelled_message_is_not_sent_out(layer: RedisChannelLayer) -> None:
    """Also of one that the gateway holds already; and the gateway gets the message as it was sent."""
    wrapper = ChannelLayerWrapper(layer, "default", [])
    with running(layer) as gateway:
        sent = [
            Channel("pigeon.send", channel_layer=wrapper).send({"text": text}, delay=delay)
            for text, delay in (("cancelled", 0.5), ("later", 0.7), ("now", 0))
        ]
        wait_until(lambda: gateway.flown == ["now"], "the message without a delay")
        assert sent[0].cancel()
        wait_until(lambda: gateway.flown == ["now", "later"], "the delayed message")
        assert [each.cancel() for each in sent] == [True, False, False]
        wait_until(lambda: layer.channel_state("pigeon.send")[:2] == (0, 0), "the end of all messages")


def test_foreign_messages_become_dead_letters(layer: RedisChannelLayer) -> None:
    with running(layer) as gateway, layer.task_publisher("pigeon.send") as (producer, queue):
        producer.publish(
            [["x"], {}, {}],
            routing_key=queue.name,
            declare=[queue],
            serializer="json",
            headers={"task": "a", "id": "b"},
        )
        layer.send("pigeon.send", {"text": "fly"})
        wait_until(lambda: gateway.flown == ["fly"], "the other message")
        wait_until(lambda: layer.channel_state("pigeon.send").dead == 1, "a dead letter")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path / "redis") as started:
        yield started


@pytest.fixture
def alone(server: RedisServer) -> Iterator[RedisChannelLayer]:
    """A layer on a Redis that the test may flush and kill."""
    made = RedisChannelLayer(url=server.url, prefix="pigeons")
    yield made
    made.close()


@pytest.fixture(params=["streams", "lists"])
def on_both(request: pytest.FixtureRequest, server: RedisServer) -> Iterator[BaseChannelLayer]:
    """The same, also with the lists of Kombu's own transport."""
    made: BaseChannelLayer
    if request.param == "streams":
        made = RedisChannelLayer(url=server.url, prefix="pigeons")
    else:
        made = KombuChannelLayer(url=server.url, prefix="pigeons")
    yield made
    made.close()


def ask(gateway: Pigeons, layer: BaseChannelLayer) -> str:
    """Publish a client's message, and return its reply channel."""
    asyncio.run_coroutine_threadsafe(gateway.ask(), gateway._loop).result(10)
    _, message = layer.receive(["pigeon.receive"], block=True)
    assert message is not None
    return str(message["reply_channel"])


@pytest.mark.parametrize("loss", ["flushed", "killed"])
def test_memberships_are_restored_after_redis_lost_them(
    server: RedisServer, on_both: BaseChannelLayer, loss: str, caplog: pytest.LogCaptureFixture
) -> None:
    with running(on_both) as gateway:
        stays, leaves = ask(gateway, on_both), ask(gateway, on_both)
        for group, channel in (("flock", stays), ("others", stays), ("flock", leaves), ("others", leaves)):
            on_both.group_add(group, channel)
        on_both.group_discard("flock", leaves)
        # Notes arrive in the order of the changes, so this answer comes behind them.
        on_both.send(leaves, {"text": "told"})
        wait_until(lambda: gateway.answers == ["told"], "an answer")
        if loss == "flushed":
            with redis.Redis.from_url(server.url) as client:
                client.flushall()
        else:
            server.kill()
            server.start()
        wait_until(
            lambda: (
                on_both.group_channels("flock") == [stays]
                and sorted(on_both.group_channels("others")) == sorted((stays, leaves))
            ),
            "the memberships",
            20,
        )
        on_both.send_group("flock", {"text": "again"})
        wait_until(lambda: gateway.answers == ["told", "again"], "an answer through a group", 20)
    assert "3 group memberships were restored" in caplog.text
    assert on_both.presence is not None
    assert on_both.presence.dead() == []


def test_a_gateway_that_counted_as_dead_restores_its_memberships(alone: RedisChannelLayer) -> None:
    presence = alone.presence
    assert presence is not None
    with running(alone) as gateway:
        channel = ask(gateway, alone)
        alone.group_add("flock", channel)
        alone.send(channel, {"text": "told"})
        wait_until(lambda: gateway.answers == ["told"], "an answer")
        # As another process cleans up after one that seems dead.
        presence.mark_dead(alone.process)
        alone.forget_channels([channel])
        presence.remove(alone.process)
        wait_until(lambda: alone.group_channels("flock") == [channel], "the membership", 20)
        other = ask(gateway, alone)
        alone.group_add("flock", other)
        wait_until(lambda: sorted(alone.group_channels("flock")) == sorted((channel, other)), "another member")


def test_a_consumer_that_is_late_adds_no_member_whose_time_is_over(alone: RedisChannelLayer) -> None:
    with running(alone) as gateway:
        channel = ask(gateway, alone)
        gateway._loop.call_soon_threadsafe(gateway._mailbox.drop, channel)
        wait_until(lambda: not len(gateway._mailbox), "the end of the reply channel")
        alone.group_add("flock", channel)
        wait_until(lambda: alone.group_channels("flock") == [], "the end of the membership", 20)


def test_memberships_end_with_the_reply_channel_and_with_the_gateway(alone: RedisChannelLayer) -> None:
    with running(alone) as gateway:
        channels = [ask(gateway, alone) for _ in range(3)]
        for channel in channels:
            alone.group_add("flock", channel)
        alone.send(channels[2], {"text": "told"})
        wait_until(lambda: gateway.answers == ["told"], "an answer")
        gateway._loop.call_soon_threadsafe(gateway._mailbox.drop, channels[0])
        wait_until(lambda: sorted(alone.group_channels("flock")) == sorted(channels[1:]), "the end of a membership")
    assert alone.group_channels("flock") == []
