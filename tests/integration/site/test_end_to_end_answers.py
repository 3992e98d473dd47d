"""Consumers that answer for themselves: HTTP now or later, and refusals and closes of sockets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from tests.support.demo import fresh_streams
from tests.support.project import Project
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module", params=["embedded", pytest.param("redis", marks=pytest.mark.redis)])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    redis_url = fresh_streams(request.getfixturevalue("redis_url")) if request.param == "redis" else None
    project = Project(tmp_path_factory.mktemp("site"), redis_url, {"TEST_HOSTS": "127.0.0.1,.example.com"})
    try:
        project.start()
        yield project
        assert "Traceback" not in project.worker_output, "no effect is a failure"
    finally:
        project.stop()


@pytest.fixture
def client(site: Project) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=site.url, timeout=30, trust_env=False) as client:
        yield client


# -- HTTP ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [5, 1_000_000])
def test_a_consumer_sends_a_response_chunk_by_chunk(client: httpx.Client, size: int) -> None:
    answer = client.post("/own/", content=b"x" * size)
    assert (answer.status_code, answer.json()) == (200, {"path": "/own/", "method": "POST", "body": size})
    assert len(answer.headers.get_list("set-cookie")) == 2


def test_a_consumers_response_of_many_chunks(client: httpx.Client) -> None:
    answer = client.get(f"/own/{5 * 1024 * 1024}")
    assert answer.status_code == 200
    assert answer.content == b"x" * (5 * 1024 * 1024)


def parked(site: Project, name: str) -> str:
    """The client whose request was parked under ``name``."""
    return wait_until(lambda: site.recorded(f"parked-{name}"), "the parked request")[0]


@pytest.mark.parametrize("page", ["park", "park-view"])
def test_a_parked_request_is_answered_by_somebody_else(site: Project, client: httpx.Client, page: str) -> None:
    # A Celery task needs a broker.
    for by in ["consumer", "view"] if site.embedded else ["consumer", "view", "task"]:
        name = f"{page}-{by}"
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(client.get, f"/{page}/{name}")
            reply_channel = parked(site, name)
            assert not waiting.done()
            assert client.get("/release/", params={"client": reply_channel, "by": by}).text == "released"
            answer = waiting.result(20)
        assert (answer.status_code, answer.text, answer.headers["content-type"]) == (200, "all", "text/plain")


def test_a_parked_request_is_answered_in_parts_as_they_come(site: Project, client: httpx.Client) -> None:
    with ThreadPoolExecutor(1) as threads:
        threads.submit(_release_in_parts, site)
        with client.stream("GET", "/park/parts") as answer:
            parts = answer.iter_text()
            assert next(parts) == "first "
            site.let_go("parts")
            assert "".join(parts) == "second"


def _release_in_parts(site: Project) -> None:
    reply_channel = parked(site, "parts")
    query = {"client": reply_channel, "by": "consumer", "go": "parts"}
    httpx.get(f"{site.url}/release/", params=query, timeout=30, trust_env=False).raise_for_status()


def test_a_client_that_leaves_its_parked_request_is_told_of_and_an_answer_hurts_nobody(
    site: Project, client: httpx.Client
) -> None:
    with (
        pytest.raises(httpx.ReadTimeout),
        httpx.Client(base_url=site.url, timeout=1, trust_env=False) as impatient,
    ):
        impatient.get("/park/left")
    reply_channel = parked(site, "left")
    site.wait_for_record("http-disconnect", "/park/left")
    assert client.get("/release/", params={"client": reply_channel, "by": "consumer"}).text == "released"
    assert client.get("/own/").status_code == 200


# -- WebSockets ---------------------------------------------------------------------------------


def status_of(site: Project, path: str, **options: Any) -> int:
    """The HTTP status that a handshake is refused with."""
    with pytest.raises(InvalidStatus) as refused:
        connect(f"{site.ws_url}{path}", proxy=None, **options)
    return refused.value.response.status_code


@pytest.mark.parametrize("origin", ["http://127.0.0.1:1", "https://www.example.com"])
def test_an_allowed_origin_opens_a_socket(site: Project, origin: str) -> None:
    with connect(f"{site.ws_url}/pages/", proxy=None, origin=Origin(origin)) as socket:
        assert socket.ping().wait(15)


@pytest.mark.parametrize("origin", [None, "null", "https://evil.example", "https://www.example.com.evil.example"])
def test_another_origin_gets_403(site: Project, origin: str | None) -> None:
    assert status_of(site, "/pages/", origin=origin) == 403


@pytest.mark.parametrize("what", ["deny", "close"])
def test_a_connect_that_is_denied_or_closed_gets_403(site: Project, what: str) -> None:
    assert status_of(site, f"/effects/{what}") == 403


def frames_and_close(site: Project, what: str, *says: str) -> tuple[list[str | bytes], int]:
    """Return the frames that a socket gets, and its close code."""
    frames: list[str | bytes] = []
    with connect(f"{site.ws_url}/effects/{what}", proxy=None) as socket:
        for text in says:
            socket.send(text)
        with contextlib.suppress(ConnectionClosed):
            while True:
                frames.append(socket.recv(timeout=15))
        assert socket.close_code is not None
        return frames, socket.close_code


def test_a_connect_that_is_denied_after_it_was_accepted_closes_the_socket(site: Project) -> None:
    assert frames_and_close(site, "deny-late") == (["sorry"], 1000)


@pytest.mark.parametrize(
    ("says", "frames", "code"),
    [
        ("", ["before"], 1000),
        ("1000", ["before"], 1000),
        ("3000", ["before"], 3000),
        ("4999", ["before"], 4999),
        ("problem", ["before", "no problem"], 4007),
        ("elsewhere", ["before"], 4009),
    ],
)
def test_the_client_gets_what_was_sent_before_and_the_code(
    site: Project, says: str, frames: list[str], code: int
) -> None:
    assert frames_and_close(site, "", says) == (frames, code)


@pytest.mark.parametrize(
    ("frame", "code", "reason"),
    [
        ("no json", 1007, "text that cannot be decoded"),
        ("[" * 100_000, 1007, "text that cannot be decoded"),
        (b"{}", 1003, "binary, where text is expected"),
    ],
    ids=["no json", "deep", "binary"],
)
def test_a_frame_that_a_consumer_cannot_read(site: Project, frame: str | bytes, code: int, reason: str) -> None:
    with connect(f"{site.ws_url}/greet/tea/", proxy=None) as socket:
        socket.send(frame)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=30)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (code, reason)
