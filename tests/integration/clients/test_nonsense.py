"""Clients that send nonsense to consumers: each is answered or closed, nothing fails, and others are served."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect

from tests.support.project import Project

pytestmark = pytest.mark.timeout(120)

PATHS = [
    "/members/",
    "/tokens/",
    "/notes/tea/",
    "/notes/%C3%A9/",
    f"/notes/{'x' * 200}/",
    "/greet/%00/",
    "/chat/%C3%A9/",
]
QUERIES = [
    "",
    "session_key=a%00b",
    "session_key=%ff",
    "token=%00",
    "token=a.b.c",
    "&".join(["a=1"] * 2000),
    "%",
    "=&=&;",
]
HEADERS = [
    {},
    {"Cookie": 'sessionid="a\\000bcdefghi"'},
    {"Cookie": "sessionid=" + "x" * 4000},
    {"Cookie": "=;=;sessionid"},
    {"Content-Length": "abc"},
    {"Content-Type": "multipart/form-data; boundary="},
    {"Host": "a b"},
    {"X-Forwarded-For": "no address, \t,"},
    {"Sec-WebSocket-Protocol": "channelsq, channelsq.token.x"},
]
FRAMES: list[str | bytes] = [
    "",
    "no json",
    "[" * 100_000,
    '"\ud83d\ude00"',
    "9" * 10_000,
    json.dumps({"stream": "notes", "payload": {"action": "create", "data": {"text": "\ud800", "board": "tea"}}}),
    json.dumps({"stream": "notes", "payload": {"action": "update", "pk": {"a": 1}}}),
    json.dumps({"stream": "notes", "payload": {"action": "delete", "pk": 10**100}}),
    json.dumps({"stream": "notes", "payload": {"action": ["create"]}}),
    json.dumps({"stream": "__class__", "payload": {}}),
    json.dumps({"stream": None, "payload": None}),
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    project = Project(tmp_path_factory.mktemp("nonsense"))
    try:
        project.processes.manage("migrate", "--run-syncdb", "--verbosity", "0", env=project.env)
        project.start()
        yield project
    finally:
        project.stop()


def say(project: Project, path: str, query: str = "", headers: Any = None, frames: list[Any] | None = None) -> None:
    with contextlib.suppress(InvalidHandshake, ConnectionClosed, TimeoutError):
        url = f"{project.ws_url}{path}?{query}"
        with connect(url, additional_headers=headers, proxy=None, open_timeout=30) as socket:
            for frame in frames or []:
                socket.send(frame)
            if frames:  # one that is taken in silence leaves the socket open
                socket.recv(timeout=0.3)


def test_nonsense(project: Project) -> None:
    cookie = httpx.get(f"{project.url}/log-in/alice/", trust_env=False).cookies["sessionid"]
    for path in PATHS:
        say(project, path)
    for path in PATHS[:2]:
        for query in QUERIES:
            say(project, path, query)
        for headers in HEADERS:
            say(project, path, headers=headers)
    for frame in FRAMES:
        say(project, "/notes/tea/", headers={"Cookie": f"sessionid={cookie}"}, frames=[frame])
    for frame in ("", "no json", "[" * 100_000, b"\0"):
        say(project, "/greet/bob/", frames=[frame])
    with connect(
        f"{project.ws_url}/members/", proxy=None, additional_headers={"Cookie": f"sessionid={cookie}"}
    ) as socket:
        assert socket.recv(timeout=30) == "welcome alice"
        socket.send("still here")
        assert socket.recv(timeout=30) == "alice 1 still here"
    output = project.interface.output
    assert "Traceback" not in output, output[output.index("Traceback") - 1000 :][:4000]
