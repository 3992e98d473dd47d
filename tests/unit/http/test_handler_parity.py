"""The same request through Django's own handlers and through the channel must get the same answer."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.urls import set_script_prefix

from channelsq.message import Message
from tests.support import http_channel
from tests.support.fakes.interface import FakeInterface
from tests.support.http_channel import asgi_scope, django_settings, multipart, through_wsgi

Answer = tuple[int, list[tuple[str, str]], bytes]


@pytest.fixture
def interface() -> Iterator[FakeInterface]:
    with http_channel.interface() as interface:
        yield interface
    set_script_prefix("/")


def through_djangos(message: Message) -> Answer:
    return _answer(*through_wsgi(WSGIHandler(), message))


@async_to_sync
async def through_asgi(message: Message) -> Answer:
    sent: list[Mapping[str, Any]] = []
    incoming = [{"type": "http.request", "body": message["body"], "more_body": False}]

    async def receive() -> dict[str, Any]:
        if incoming:
            return incoming.pop()
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async def send(event: Mapping[str, Any]) -> None:
        sent.append(event)

    await ASGIHandler()(asgi_scope(message), receive, send)
    headers = [(name.decode(), value.decode("latin-1")) for name, value in sent[0]["headers"]]
    return _answer(sent[0]["status"], headers, b"".join(event.get("body", b"") for event in sent[1:]))


def through_the_channel(interface: FakeInterface, message: Message) -> Answer:
    response = interface.run(message)
    assert response.complete
    assert not response.aborted
    headers = [(k.decode(), v.decode("latin-1")) for k, v in response.messages[0]["headers"]]
    return _answer(response.status, headers, response.body)


def _answer(status: int, headers: list[tuple[str, str]], body: bytes) -> Answer:
    """An answer that can be compared: without what is random or the time of day."""
    token = re.compile(r"csrftoken=\w+|sessionid=[\w:.-]+|expires=[^;]+")
    return status, sorted((name.lower(), token.sub("*", value.strip())) for name, value in headers), body


FORM = {"content-type": "application/x-www-form-urlencoded"}
UPLOAD, UPLOAD_TYPE = multipart({"title": "Ä"}, "file", bytes(range(256)))
MULTIPART = {"content-type": UPLOAD_TYPE}
NO_BOUNDARY = {"content-type": "multipart/form-data"}

REQUESTS: dict[str, dict[str, Any]] = {
    "root": {"path": "/"},
    "query": {"path": "/echo/", "query": b"a=1&a=2&%C3%A9=%FF&empty="},
    "headers": {"path": "/echo/", "headers": {"x-own": "1", "accept": "text/html", "user-agent": "test"}},
    "cookies": {"path": "/echo/", "headers": {"cookie": 'a=1; b="x y"; c'}},
    "https": {"path": "/echo/", "scheme": "https", "server": ["testserver", 443]},
    "root path": {"path": "/app/echo/", "root_path": "/app"},
    "path with spaces and umlauts": {"path": "/ech ö/"},
    "form": {"path": "/echo/", "method": "POST", "body": b"a=1&b=%C3%A9", "headers": FORM},
    "form with bad UTF-8": {"path": "/echo/", "method": "POST", "body": b"a=%FF\xff", "headers": FORM},
    "multipart": {"path": "/echo/", "method": "POST", "body": UPLOAD, "headers": MULTIPART},
    "broken multipart": {"path": "/echo/", "method": "POST", "body": b"nonsense", "headers": NO_BOUNDARY},
    "put": {"path": "/body/", "method": "PUT", "body": b"\0\xff", "headers": {"content-type": "x/y"}},
    "delete": {"path": "/echo/", "method": "DELETE"},
    "options": {"path": "/echo/", "method": "OPTIONS"},
    "set cookies": {"path": "/cookies/"},
    "session": {"path": "/visits/"},
    "csrf refused": {"path": "/form/", "method": "POST", "body": b"text=x", "headers": FORM},
    "stream": {"path": "/stream/"},
    "file": {"path": "/file/"},
    "file in memory": {"path": "/memory-file/"},
    "large": {"path": "/big/", "query": b"n=2000000"},
    "append slash": {"path": "/echo"},
    "no such page": {"path": "/nothing/"},
    "404": {"path": "/not-found/"},
    "403": {"path": "/forbidden/"},
    "400": {"path": "/suspicious/"},
    "500": {"path": "/error/"},
    "no response": {"path": "/none/"},
    "304": {"path": "/not-modified/"},
    "redirect": {"path": "/redirect/"},
    "wrong host": {"path": "/echo/", "headers": {"host": "evil.example"}},
    "async view": {"path": "/async/"},
    "body over the limit": {"path": "/body/", "method": "POST", "body": b"x" * 200_000},
    "conditional": {"path": "/", "headers": {"if-none-match": '"63a9f0ea7bb98050796b649e85481845"'}},
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")
@pytest.mark.parametrize("name", REQUESTS)
def test_answers_are_djangos(interface: FakeInterface, name: str) -> None:
    message = interface.message(**REQUESTS[name])
    expected = through_djangos(message)
    assert through_asgi(message)[0] == expected[0]
    assert through_the_channel(interface, message) == expected


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")
@pytest.mark.parametrize("name", ["query", "form", "multipart", "root path", "file", "set cookies", "404", "large"])
def test_answers_are_those_of_the_asynchronous_handler(interface: FakeInterface, name: str) -> None:
    message = interface.message(**REQUESTS[name])
    assert through_the_channel(interface, message) == through_asgi(message)


@pytest.mark.parametrize("name", ["no such page", "404", "400"])
def test_debug_pages_are_djangos(interface: FakeInterface, name: str) -> None:
    message = interface.message(**REQUESTS[name])
    with django_settings(DEBUG=True):
        expected, got = through_djangos(message), through_the_channel(interface, message)
    assert got[0] == expected[0]
    title = re.compile(rb"<title>(.*?)</title>", re.DOTALL)
    assert title.findall(got[2]) == title.findall(expected[2]) != []
