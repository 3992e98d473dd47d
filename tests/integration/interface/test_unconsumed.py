"""An interface server whose channels no worker consumes: its log and its health page say so, soon."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from channelsq.interface.basis.config import InterfaceConfig
from channelsq.interface.basis.limits import Limits
from channelsq.interface.context.unconsumed import Look, look
from channelsq.layers import InMemoryChannelLayer, IPCChannelLayer, KombuChannelLayer, RedisChannelLayer
from tests.support.demo import fresh_redis
from tests.support.interfaces import FakeApplication, Site, accept, ignore, running
from tests.support.kept_logs import kept
from tests.support.processes import Process
from tests.support.project import Project
from tests.support.waiting import wait_until

#: Short times, and sockets and requests that are looked at often.
CONFIG = InterfaceConfig(
    accept_timeout=5, http_timeout=5, limits=Limits(answer_patience=0.3, worker_grace=1.0, heartbeat_every=0.5)
)

MakeLayer = Callable[..., Any]


@pytest.fixture
def lines() -> Iterator[list[logging.LogRecord]]:
    """Return the log lines of the interface server."""
    with kept("channelsq.interface") as records:
        yield records


def texts(lines: list[logging.LogRecord], part: str) -> list[str]:
    return [text for text in (line.getMessage() for line in lines) if part in text]


@pytest.fixture(
    params=[
        "memory",
        "ipc",
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("kombu-redis", marks=pytest.mark.redis),
    ]
)
def make_layer(request: pytest.FixtureRequest, tmp_path: Path) -> MakeLayer:
    kind = request.param
    if kind == "memory":
        return InMemoryChannelLayer
    if kind == "ipc":
        return lambda **config: IPCChannelLayer(path=tmp_path, **config)
    url = fresh_redis(request.getfixturevalue("redis_url"))
    if kind == "redis":
        return lambda **config: RedisChannelLayer(url=url, **config)
    return lambda **config: KombuChannelLayer(url=url, **config)


def ready(site: Site) -> tuple[int, str]:
    response = httpx.get(f"{site.url}/-/health/ready")
    return response.status_code, response.text


class Request:
    """A request for a page, in a thread; by the test's end it was answered somehow."""

    def __init__(self, site: Site) -> None:
        self.status = 0
        self._thread = threading.Thread(target=self._run, args=(site.url,), daemon=True)
        self._thread.start()

    def _run(self, url: str) -> None:
        self.status = httpx.get(f"{url}/page", timeout=30).status_code

    def wait(self) -> int:
        self._thread.join(20)
        return self.status


def answer(call: Any) -> None:
    call.reply(status=200, headers=[], content=b"at last")


def test_a_channel_that_nobody_consumes(
    make_layer: MakeLayer, lines: list[logging.LogRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channelsq.interface.context.unconsumed._LONGER", 0.3)
    monkeypatch.setattr("channelsq.interface.context.unconsumed._EVERY", 0.2)
    with running({}, CONFIG, threads=0, make_layer=make_layer) as site:
        wait_until(lambda: ready(site) == (200, "ready\n"), "the broker is reached")
        page = Request(site)
        wait_until(lambda: ready(site) == (200, "ready, but no worker consumes http.request\n"), "the word in ready")
        (line,) = texts(lines, "http.request")
        assert "start celery -A " in line
        wait_until(lambda: ready(site) == (503, "no worker consumes http.request\n"), "it is not ready")

        presence = site.layer.channel_layer.presence
        if presence is not None:
            presence.beat_worker("late@host", 30, {"channels": ["http.request", "websocket.connect"]})
            wait_until(lambda: ready(site) == (200, "ready\n"), "it is ready")
        worker = FakeApplication(site.layer, {"http.request": answer, "websocket.connect": accept})
        worker.start()
        assert page.wait() == 200
        wait_until(lambda: ready(site) == (200, "ready\n"), "it is ready")
        wait_until(lambda: texts(lines, "http.request is consumed again"), "the line in the log")
        with connect(site.ws_url):
            pass
        worker.stop()  # before the site, which closes the layer that the worker reads


def test_a_request_that_takes_its_time_is_consumed(
    make_layer: MakeLayer, lines: list[logging.LogRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channelsq.interface.context.unconsumed._LONGER", 0.3)
    monkeypatch.setattr("channelsq.interface.context.unconsumed._EVERY", 0.2)
    looks: list[Look] = []

    def noted(*args: Any) -> Look:
        looks.append(look(*args))
        return looks[-1]

    monkeypatch.setattr("channelsq.interface.context.unconsumed.look", noted)
    go = threading.Event()

    def slow(call: Any) -> None:
        assert go.wait(20)
        answer(call)

    with running({"http.request": slow}, CONFIG, threads=1, make_layer=make_layer) as site:
        page = Request(site)
        site.application.wait_for("http.request")
        wait_until(lambda: len(looks) >= 3, "some looks")
        wait_until(lambda: ready(site) == (200, "ready\n"), "it is ready")
        assert not texts(lines, "consume")
        go.set()
        assert page.wait() == 200


def test_a_socket_that_its_consumer_does_not_accept(lines: list[logging.LogRecord]) -> None:
    with running({"websocket.connect": ignore}, CONFIG) as site:
        for number in range(2):
            with pytest.raises(InvalidStatus, match="504"):
                connect(f"{site.ws_url}/{number}/")
    (line,) = texts(lines, "not accepted yet")  # once a minute
    assert "/0/: not accepted yet: its consumer has returned and has sent neither {'accept': True} nor" in line


# -- with real workers


@pytest.fixture
def groups_url(redis_url: str) -> str:
    return fresh_redis(redis_url)


@pytest.fixture
def project(request: pytest.FixtureRequest, groups_url: str, tmp_path: Path) -> Iterator[Project]:
    """The project on streams; on RabbitMQ, with groups in Redis, if the test asks for that."""
    on_rabbitmq = getattr(request, "param", "") == "rabbitmq"
    url = request.getfixturevalue("rabbitmq_url") if on_rabbitmq else groups_url.replace("redis://", "redis-streams://")
    site = Project(tmp_path, url, {"TEST_GROUPS": groups_url})
    site.migrate()
    yield site
    site.processes.stop()


def told(process: Process, text: str) -> None:
    process.wait_for_output(text, timeout=10)


@pytest.mark.redis
def test_workers_that_are_not_there_and_workers_of_other_channels(project: Project) -> None:
    project.start_interface()
    answers: list[int] = []
    asks = threading.Thread(target=lambda: answers.append(httpx.get(project.url, timeout=60).status_code), daemon=True)
    asks.start()
    told(
        project.interface, r"no worker consumes http\.request, where a message has waited for [345] s: start celery -A "
    )
    assert httpx.get(f"{project.url}/-/health/ready").text == "ready, but no worker consumes http.request\n"
    project.start_worker("-X", "websocket.receive")
    asks.join(30)
    assert answers == [200]
    told(project.interface, r"http\.request is consumed again")

    with connect(f"{project.ws_url}/chat/tea/") as client:
        client.send("Is anybody there?")
        told(project.interface, r"no worker consumes websocket\.receive, .* the 1 announced workers read other")
        project.new_worker("-Q", "websocket.receive")
        assert client.recv(20) == "tea: Is anybody there?"
    told(project.interface, r"websocket\.receive is consumed again")
    assert project.interface.output.count("no worker consumes") == 2


@pytest.mark.redis
@pytest.mark.parametrize("project", [pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)], indirect=True)
def test_a_worker_that_is_restarted_leaves_the_server_ready(project: Project) -> None:
    project.start()
    assert httpx.get(project.url).status_code == 200
    project.worker.terminate()
    answers: list[int] = []
    asks = threading.Thread(target=lambda: answers.append(httpx.get(project.url, timeout=60).status_code), daemon=True)
    asks.start()
    told(project.interface, "no worker consumes http.request")
    assert httpx.get(f"{project.url}/-/health/ready").status_code == 200
    project.start_worker()
    asks.join(30)
    assert answers == [200]
    wait_until(lambda: httpx.get(f"{project.url}/-/health/ready").text == "ready\n", "the server is ready")
