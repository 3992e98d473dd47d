"""A gateway of the tests' own, on Redis Streams: its heartbeat, its answers through groups, and its end."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from channelsq.asgi import ChannelLayerWrapper
from channelsq.interface.basis.limits import Limits
from channelsq.interface.gateway import Gateway, GatewayConfig
from channelsq.layers import RedisChannelLayer
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
def running(layer: RedisChannelLayer) -> Iterator[Pigeons]:
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
