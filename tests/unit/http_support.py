"""The client's side of the HTTP channel, on the in-memory layer, for the tests of the handler."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from django.core.handlers.wsgi import WSGIHandler
from django.test import override_settings

from channelsq.asgi import ChannelLayerWrapper
from channelsq.handler import ViewConsumer
from channelsq.layers import InMemoryChannelLayer
from channelsq.message import Message

SETTINGS: dict[str, Any] = {
    "DEBUG": False,
    "ALLOWED_HOSTS": ["testserver"],
    "ROOT_URLCONF": "tests.unit.urls_handler",
    "SECRET_KEY": "for these tests",
    "SESSION_ENGINE": "django.contrib.sessions.backends.signed_cookies",
    "MIDDLEWARE": [
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
        "django.middleware.http.ConditionalGetMiddleware",
    ],
    "TEMPLATES": [{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
    "STATIC_URL": "/static/",
    "DATA_UPLOAD_MAX_MEMORY_SIZE": 100_000,
}


def django_settings(**more: Any) -> contextlib.AbstractContextManager[Any]:
    """The settings of these tests, for a ``with``."""
    return override_settings(**{**SETTINGS, **more})


@dataclass
class Response:
    """What a client makes of the messages that came for it."""

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


class Interface:
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


def multipart(fields: dict[str, str], name: str, content: bytes) -> tuple[bytes, str]:
    """A multipart body with ``fields`` and one file, and its content type."""
    lines = [
        f'--frontier\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
        for key, value in fields.items()
    ]
    head = "".join(lines) + (
        f'--frontier\r\nContent-Disposition: form-data; name="{name}"; filename="{name}.bin"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return head.encode() + content + b"\r\n--frontier--\r\n", "multipart/form-data; boundary=frontier"


def wsgi_environ(message: Message) -> dict[str, Any]:
    """The WSGI environment of the same request."""
    content = message.content
    root = content["root_path"]
    environ: dict[str, Any] = {
        "REQUEST_METHOD": content["method"],
        "SCRIPT_NAME": root,
        "PATH_INFO": content["path"].removeprefix(root).encode().decode("latin-1"),
        "QUERY_STRING": content["query_string"].decode("latin-1"),
        "SERVER_NAME": content["server"][0],
        "SERVER_PORT": str(content["server"][1]),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": content["client"][0],
        "wsgi.input": io.BytesIO(content["body"]),
        "wsgi.url_scheme": content["scheme"],
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
    }
    for name, value in content["headers"]:
        key = name.decode().upper().replace("-", "_")
        environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value.decode("latin-1")
    return environ


def through_wsgi(handler: WSGIHandler, message: Message) -> tuple[int, list[tuple[str, str]], bytes]:
    """The status, headers and body of the same request by WSGI."""
    started: list[tuple[int, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], error: Any = None, /) -> Callable[[bytes], object]:
        started.append((int(status[:3]), headers))
        return bytes  # takes what a handler writes by it, which Django's do not

    response = handler(wsgi_environ(message), start_response)
    body = b"".join(response)
    response.close()
    ((status, headers),) = started
    return status, headers, body


def asgi_scope(message: Message) -> dict[str, Any]:
    """The ASGI scope of the same request."""
    content = message.content
    return {
        "type": "http",
        **{key: content[key] for key in ("method", "scheme", "path", "root_path", "query_string")},
        "raw_path": quote(content["path"]).encode(),
        "http_version": "1.1",
        "headers": [tuple(pair) for pair in content["headers"]],
        "client": tuple(content["client"]),
        "server": tuple(content["server"]),
    }


@contextlib.contextmanager
def interface(**settings: Any) -> Iterator[Interface]:
    """An interface under the settings of these tests."""
    with django_settings(**settings):
        yield Interface()
