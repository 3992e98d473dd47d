"""One broker with a project's worker on it, and a client that speaks to the worker as an interface server does."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from channelsq.asgi import ChannelLayerWrapper
from channelsq.channel import Channel
from channelsq.layers import KombuChannelLayer


class Broker:
    """A broker's URLs, and what tells the test project to use it."""

    def __init__(self, url: str, groups_url: str) -> None:
        self.url = url
        self.groups_url = groups_url

    @property
    def env(self) -> dict[str, str]:
        """Environment for the test project's processes."""
        return {
            "DJANGO_SETTINGS_MODULE": "tests.project.settings",
            "TEST_BROKER": self.url,
            "TEST_GROUPS": self.groups_url,
        }


class LayerClient:
    """A reply channel of this process, and what arrives there."""

    def __init__(self, broker: Broker) -> None:
        self.layer = ChannelLayerWrapper(KombuChannelLayer(url=broker.url, groups_url=broker.groups_url), "default", [])
        self.reply_channel: str = self.layer.new_channel("websocket.send!")

    def send(self, channel: str, content: Mapping[str, Any] | None = None, **options: Any) -> None:
        """Send to a channel with this client's reply channel."""
        message = {"reply_channel": self.reply_channel, **(content or {})}
        Channel(channel, channel_layer=self.layer).send(message, **options)

    def receive(self, timeout: float = 15.0) -> dict[str, Any]:
        """The next answer; AssertionError if none comes."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            _, message = self.layer.receive([self.reply_channel], block=True)
            if message is not None:
                return message
        raise AssertionError(f"no answer in {timeout:g} s")

    def nothing(self) -> bool:
        """Whether nothing has arrived."""
        return self.layer.receive([self.reply_channel]) == (None, None)

    def close(self) -> None:
        """Give back the connections."""
        self.layer.close()
