"""The client's side of the HTTP channel, on the in-memory layer, for the tests of the handler."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

from django.core.handlers.wsgi import WSGIHandler
from django.test import override_settings

from channelsq.message import Message
from tests.support.fakes.interface import FakeInterface

SETTINGS: dict[str, Any] = {
    "DEBUG": False,
    "ALLOWED_HOSTS": ["testserver"],
    "ROOT_URLCONF": "tests.support.handler_urls",
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
def interface(**settings: Any) -> Iterator[FakeInterface]:
    """An interface under the settings of these tests."""
    with django_settings(**settings):
        yield FakeInterface()
