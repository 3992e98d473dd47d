"""The socket of one of the demo's pages, in front of the consumers."""

from __future__ import annotations

import json
from typing import Any

from django.contrib.auth.models import User
from django.test import Client

from app.routing import channel_routing
from channelsq.asgi import ChannelLayerWrapper
from channelsq.message import Message as ChannelMessage
from channelsq.routing import Router

#: The types of frames that all pages of the site get.
NOTICES = ("said", "unread", "mention")


class ChatPage:
    """A browser page's socket, seen from the interface server."""

    def __init__(self, layer: ChannelLayerWrapper, user: User | None, path: str = "/chat/lobby/") -> None:
        self.layer = layer
        self.path = path
        self.channel: str = layer.new_channel("websocket.send!")
        client = Client()
        if user is not None:
            client.force_login(user)
        self.cookie = "; ".join(f"{name}={morsel.value}" for name, morsel in client.cookies.items())

    def message(self, channel: str, **content: Any) -> ChannelMessage:
        return ChannelMessage({"reply_channel": self.channel, "path": self.path, **content}, channel, self.layer)

    def connect(self, origin: str = "http://testserver", host: str = "testserver", query: bytes = b"") -> None:
        headers = [[b"host", host.encode()], [b"cookie", self.cookie.encode()]]
        if origin:
            headers.append([b"origin", origin.encode()])
        message = self.message(
            "websocket.connect", scheme="ws", headers=headers, query_string=query, root_path="", order=0
        )
        self._consume(message)

    def say(self, frame: object) -> None:
        self._consume(self.message("websocket.receive", order=1, text=json.dumps(frame)))

    def say_raw(self, **content: Any) -> None:
        self._consume(self.message("websocket.receive", order=1, **content))

    def leave(self) -> None:
        self._consume(self.message("websocket.disconnect", order=9, code=1001))
        self.layer.forget_channel(self.channel)

    def notices(self) -> list[dict[str, Any]]:
        """Return the notices of the site since the last call, and forget the other frames."""
        return [frame for frame in self.all_received() if frame.get("type") in NOTICES]

    def run_jobs(self) -> int:
        """Run the jobs that wait, in place; return their number."""
        done = 0
        while True:
            channel, content = self.layer.receive(["chat.jobs"])
            if channel is None or content is None:
                return done
            self._consume(ChannelMessage(content, channel, self.layer))
            done += 1

    def _consume(self, message: ChannelMessage) -> None:
        found = Router(channel_routing).match(message)
        assert found is not None, f"no route for {self.path}"
        consumer, kwargs = found
        consumer(message, **kwargs)

    def received(self) -> list[dict[str, Any]]:
        """Return the frames of the room since the last call; those without a text stay as they are."""
        return [frame for frame in self.all_received() if frame.get("type") not in NOTICES]

    def all_received(self) -> list[dict[str, Any]]:
        """Return all frames since the last call, also notices of the site."""
        frames: list[dict[str, Any]] = []
        while True:
            channel, content = self.layer.receive([self.channel])
            if channel is None or content is None:
                return frames
            frames.append(json.loads(content["text"]) if "text" in content else content)


def types(frames: list[dict[str, Any]]) -> list[str]:
    return [frame.get("type", "accept" if "accept" in frame else "?") for frame in frames]
