"""A site below a path that its proxy keeps: pages and sockets are found below it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from tests.support.demo import fresh_streams
from tests.support.project import Project


@pytest.fixture(params=["embedded", pytest.param("redis", marks=pytest.mark.redis)])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Project]:
    redis_url = fresh_streams(request.getfixturevalue("redis_url")) if request.param == "redis" else None
    project = Project(tmp_path, redis_url)
    try:
        project.start("--root-path", "/app")
        yield project
    finally:
        project.stop()


def test_routes_match_below_it(site: Project) -> None:
    with connect(f"{site.ws_url}/app/chat/lobby/", proxy=None) as socket:
        socket.send("hello")
        assert socket.recv(timeout=15) == "lobby: hello"
    site.wait_for_record("disconnect", "/app/chat/lobby/ 1000")
    answer = httpx.post(f"{site.url}/app/own/", content=b"12345", trust_env=False)
    assert (answer.status_code, answer.json()["body"]) == (200, 5)
