"""An interface server without sockets: the client's side of the HTTP channel, on the in-memory layer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from channelsq.asgi import ChannelLayerWrapper
from channelsq.handler import ViewConsumer
from channelsq.layers import InMemoryChannelLayer
from channelsq.message import Message


@dataclass
class Response:
    """The response that a client assembles from its messages."""

    messages: list[dict[str, Any]] = field(default_factory=list)

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(message["content"] for message in self.messages)

    @property
    def complete(self) -> bool:
        return bool(self.messages) and not self.messages[-1]["more_content"]

    @property
    def aborted(self) -> bool:
        return any(message.get("abort") for message in self.messages)

    def all(self, name: str) -> list[str]:
        wanted = name.lower().encode()
        return [v.decode("latin-1") for k, v in self.messages[0]["headers"] if k.lower() == wanted]

    def header(self, name: str) -> str | None:
        return next(iter(self.all(name)), None)

    def json(self) -> Any:
        return json.loads(self.body)


class FakeInterface:
    """Publishes requests and collects responses on a real layer, as an interface server does."""

    def __init__(self, **config: Any) -> None:
        config.setdefault("channel_capacity", {"http.request.body*": 1000})
        self.layer = InMemoryChannelLayer(**config)
        self.wrapper = ChannelLayerWrapper(self.layer, "default", {})
        self.responses: dict[str, Response] = {}
        #: Called with a message that asks for credit.
        self.on_credit: Callable[[dict[str, Any]], None] = self.give_credit
        self.layer.listen(f"http.response.{self.layer.process}!", self._deliver)

    def give_credit(self, message: dict[str, Any]) -> None:
        self.layer.send(message["credit_channel"], {"credit": True})

    def _deliver(self, channels: Any, message: dict[str, Any], group: str | None) -> None:
        for channel in channels:
            self.responses.setdefault(channel, Response()).messages.append(message)
        if "credit_channel" in message:
            self.on_credit(message)

    def message(
        self,
        path: str = "/",
        method: str = "GET",
        *,
        query: bytes = b"",
        body: bytes = b"",
        headers: dict[str, str | bytes] | None = None,
        **more: Any,
    ) -> Message:
        """An ``http.request`` message as an interface makes it, off the layer; None in ``more`` removes."""
        given = {
            "host": "testserver",
            **({"content-length": str(len(body))} if body else {}),
            **(headers or {}),
        }
        content = {
            "reply_channel": self.layer.new_channel("http.response!"),
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "query_string": query,
            "root_path": "",
            "headers": [[k.encode(), v if isinstance(v, bytes) else v.encode("latin-1")] for k, v in given.items()],
            "body": body,
            "client": ["203.0.113.9", 52123],
            "server": ["testserver", 80],
        }
        content.update(more)
        content = {key: value for key, value in content.items() if value is not None}
        self.layer.send("http.request", content)
        channel, received = self.layer.receive(["http.request"])
        assert channel is not None
        assert received is not None
        return Message(received, channel, self.wrapper)

    def run(self, message: Message, consumer: ViewConsumer | None = None) -> Response:
        """Run the consumer on ``message``; what the client got by then."""
        assert message.reply_channel is not None
        (consumer or ViewConsumer())(message)
        return self.responses.get(message.reply_channel.name, Response())

    def get(self, path: str, **request: Any) -> Response:
        return self.run(self.message(path, **request))
