"""The interface server's way to its layer while Redis is away."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from channelsq.asgi import ChannelLayerWrapper
from channelsq.interface.basis.counters import Counters
from channelsq.interface.link import link_for
from channelsq.interface.link.replies import Replies
from tests.support.brokers import layer_on
from tests.support.servers import DURABLE, RedisServer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.redis


@pytest.mark.parametrize("scheme", ["redis", "redis-streams"])
def test_clients_that_leave_while_redis_is_away_are_forgotten_when_it_is_back(tmp_path: Path, scheme: str) -> None:
    server = RedisServer(tmp_path, DURABLE)
    server.start()
    layer = layer_on(server.url.replace("redis", scheme, 1))
    stats = Counters()
    link = link_for(ChannelLayerWrapper(layer, "default", []), stats)
    clients = [layer.new_channel("websocket.send!") for _ in range(5)]

    async def scenario() -> None:
        await link.start([], Replies(asyncio.get_running_loop(), stats, lambda channel, message: None))
        for client in [*clients, "stays"]:
            await asyncio.to_thread(layer.group_add, "room", client)
        await asyncio.to_thread(server.stop)
        for client in clients:
            link.forget(client)
        await asyncio.to_thread(wait_until, lambda: stats["link.unavailable"], "a client that is not forgotten")
        await asyncio.to_thread(server.start)
        await asyncio.to_thread(
            wait_until, lambda: layer.group_channels("room") == ["stays"], "the clients to be forgotten", 20
        )
        await link.stop()

    try:
        asyncio.run(scenario())
    finally:
        layer.close()
        server.stop()
