"""``--http direct``: Django's views in the interface server, WebSockets through the channel as ever."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from channelsq.interface.basis.config import ConfigError, read_config
from tests.support.demo import fresh_streams
from tests.support.project import Project
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def site(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """An interface server without any worker."""
    directory = tmp_path_factory.mktemp("direct")
    (directory / "file").write_bytes(os.urandom(1024 * 1024))
    project = Project(directory, fresh_streams(redis_url), {"TEST_FILE": str(directory / "file")})
    project.migrate()
    try:
        project.start_interface("--http", "direct", "--proxy-headers", "--root-path", "/app")
        yield project
    finally:
        project.stop()


@pytest.fixture
def client(site: Project) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=site.url, timeout=30, trust_env=False) as client:
        yield client


def test_views_answer_without_a_worker(site: Project, client: httpx.Client) -> None:
    assert client.get("/app/").text == "hello"
    assert client.head("/app/").content == b""
    assert client.get("/app/nowhere/").status_code == 404
    assert client.get("/app/broken/").status_code == 500
    content = os.urandom(5 * 1024 * 1024)
    answer = client.post("/app/upload/", data={"title": "größer"}, files={"file": ("x.bin", content)})
    assert answer.json()["sha256"] == hashlib.sha256(content).hexdigest()
    assert client.get("/app/download/").content == Path(site.env["TEST_FILE"]).read_bytes()
    assert client.get("/-/health/ready").text == "ready\n"


def test_headers_about_the_connection_are_the_servers(site: Project, client: httpx.Client) -> None:
    for _ in range(2):  # the second on the same connection
        answer = client.get("/app/framing/")
        assert (answer.status_code, answer.text, answer.headers["x-own"]) == (200, "framed", "yes")
        assert answer.headers.get_list("transfer-encoding") == ["chunked"]
        assert not {"connection", "keep-alive"} & answer.headers.keys()


def test_requests_are_in_the_access_log(site: Project, client: httpx.Client) -> None:
    client.get("/app/?session_key=secret&a=1", headers={"X-Forwarded-For": "192.0.2.7"})
    wait_until(
        lambda: '192.0.2.7:0 "GET /app/?session_key=***&a=1" 200 5 bytes' in site.interface.output,
        "the line of the log",
    )
    assert "secret" not in site.interface.output


def test_what_a_view_sends_to_a_group_reaches_the_sockets(site: Project, client: httpx.Client) -> None:
    site.start_worker()
    with connect(f"{site.ws_url}/room/") as socket:
        wait_until(lambda: client.get("/app/").text == "hello", "the view")
        assert socket.recv(20) == "from a view"


def test_who_else_could_answer() -> None:
    assert read_config([], {}).http == "channel"
    with pytest.raises(ConfigError, match=r"--http cannot be 'both': give channel, .* or direct"):
        read_config(["--http", "both"], {})
