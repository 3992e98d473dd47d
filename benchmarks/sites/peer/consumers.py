"""Channels 4 consumers for the same work."""

from __future__ import annotations

from typing import Any

from channels.db import database_sync_to_async  # type: ignore[import-untyped]
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer  # type: ignore[import-untyped]

from benchmarks.sites import work

#: There is no such layer, so the echoes have none: they need none, and are faster without it.
NO_LAYER = "none"


class EchoSync(WebsocketConsumer):  # type: ignore[misc]
    """The echo, synchronous."""

    channel_layer_alias = NO_LAYER

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Send back the text."""
        self.send(text_data=text_data)


class EchoAsync(AsyncWebsocketConsumer):  # type: ignore[misc]
    """The echo, asynchronous."""

    channel_layer_alias = NO_LAYER

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Send back the text."""
        await self.send(text_data=text_data)


class WaitSync(EchoSync):
    """An echo that blocks first."""

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Block for the time in the address, then send back the text."""
        work.wait(self.scope["url_route"]["kwargs"]["us"])
        self.send(text_data=text_data)


class QuerySync(EchoSync):
    """An echo through the database."""

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Send back the database's answer."""
        self.send(text_data=work.query(text_data or ""))


class QueryAsync(EchoAsync):
    """An echo through the database, from an asynchronous consumer."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Send back the database's answer."""
        await self.send(text_data=await database_sync_to_async(work.query)(text_data or ""))


class FanCore(AsyncWebsocketConsumer):  # type: ignore[misc]
    """A room on the core layer."""

    channel_layer_alias = "core"

    async def connect(self) -> None:
        """Become a member, then accept."""
        self.group: str = self.scope["url_route"]["kwargs"]["group"]
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        """End the membership."""
        await self.channel_layer.group_discard(self.group, self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Send the text to every member."""
        await self.channel_layer.group_send(self.group, {"type": "fan.out", "text": text_data})

    async def fan_out(self, event: dict[str, Any]) -> None:
        """Send the text to this member."""
        await self.send(text_data=event["text"])


class FanPubsub(FanCore):
    """A room on the pub/sub layer."""

    channel_layer_alias = "pubsub"
