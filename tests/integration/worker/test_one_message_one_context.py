"""Consumers, views and tasks leave nothing in their context for the next one of the same thread."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from websockets.sync.client import connect

from tests.support.brokers import Broker, LayerClient, make_broker, operator
from tests.support.project import Project
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.redis,
    pytest.mark.timeout(120),
    pytest.mark.ways(r"redis-streams-(threads|prefork)|embedded|/stain|/async|\[threads|\[prefork"),
]

SETTINGS = {"DJANGO_SETTINGS_MODULE": "tests.project.visitors_settings"}

PRISTINE = {"language": "en", "zone": "UTC", "urlconf": None, "prefix": "/", "precision": 28, "span": ""}
STAINED = {
    "language": "de",
    "zone": "Asia/Tokyo",
    "urlconf": "tests.project.urls",
    "prefix": "/stained/",
    "precision": 5,
    "span": "stained",
}


class Way(NamedTuple):
    """One way of a message through a worker that runs one consumer at a time."""

    broker: str
    pool: str
    loglevel: str = "WARNING"

    def __str__(self) -> str:
        return "-".join((self.broker, self.pool, self.loglevel.lower()))


STREAMS = [Way("redis-streams", pool) for pool in ("solo", "threads", "prefork")]
#: Celery's tracer runs the consumers.
TRACED = Way("redis-streams", "threads", "INFO")
KOMBU = [Way("redis", pool) for pool in ("solo", "threads", "prefork")]
RABBIT = pytest.param(Way("rabbitmq", "threads"), marks=pytest.mark.rabbitmq)


class Worker:
    """A worker on one of the ways, and a client of it."""

    def __init__(self, way: Way, broker: Broker, directory: Path, **env: str) -> None:
        self.broker = broker
        self.client = LayerClient(broker)
        self.project = Project(directory, None, {**broker.env, **SETTINGS, **env})
        self.project.migrate()
        self.project.worker = self.project.processes.worker(
            "-n", f"{self.project.port}@%h", "--without-mingle", "--without-gossip", "-P", way.pool, "-c", "1",
            "--channel-threads", "1",
            env=self.project.env, app="tests.project", loglevel=way.loglevel,
        )  # fmt: skip

    def ask(self, channel: str, **content: Any) -> dict[str, Any]:
        """Send a message; returns the answer of its consumer."""
        self.client.send(channel, content)
        return self.client.receive()

    def looks(self) -> dict[str, Any]:
        """The context that a consumer sees."""
        answer = self.ask("look")
        del answer["id"]
        return answer

    def task(self, name: str) -> dict[str, Any]:
        """Have an ordinary task run; returns its answer."""
        with operator(self.broker) as app:
            app.send_task(f"visitors.{name}", (self.client.reply_channel,))
        return self.client.receive()

    def recorded(self, count: int) -> list[str]:
        """The lines of the signals' receivers, once there are as many."""
        wait_until(lambda: len(self.project.recorded("signals")) >= count, f"{count} lines of signals")
        return self.project.recorded("signals")

    def stop(self) -> None:
        """Stop it."""
        self.client.close()
        self.project.stop()


@pytest.fixture
def start(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Starts a worker on a way."""
    running: list[Worker] = []

    def started(way: Way, **env: str) -> Worker:
        request.param = way.broker
        worker = Worker(way, make_broker(request), tmp_path, **env)
        running.append(worker)
        return worker

    yield started
    for worker in running:
        worker.stop()


@pytest.mark.parametrize("way", [*STREAMS, TRACED, *KOMBU, RABBIT], ids=str)
def test_consumers_and_tasks_leave_nothing_to_consumers(start: Any, way: Way) -> None:
    worker = start(way)
    assert worker.ask("stain") == STAINED  # the thread's first message
    assert worker.looks() == PRISTINE
    assert worker.task("look") == PRISTINE
    worker.client.send("stain", {"fail": True})
    assert worker.looks() == PRISTINE
    assert worker.ask("retry") == PRISTINE
    assert worker.task("look") == PRISTINE
    assert worker.task("stain") == STAINED
    assert worker.looks() == PRISTINE
    # The thread's own are kept: a connection a thread, and what caches connect with.
    more = [worker.ask("look", more=True) for _ in range(3)]
    assert len({(answer["cache"], answer["connection"]) for answer in more}) == 1


@pytest.mark.parametrize("way", [*STREAMS, *KOMBU], ids=str)
def test_receivers_of_celerys_signals_share_the_context(start: Any, way: Way) -> None:
    worker = start(way, TEST_SIGNALS="celery")
    answer = worker.ask("look")
    assert answer["span"] == f"span of {answer['id']}"
    ours = f": {answer['span']}"
    assert sorted(worker.recorded(2)) == [f"task_postrun{ours}", f"task_success{ours}"]
    worker.client.send("stain", {"fail": True})
    assert sorted(worker.recorded(4)[2:]) == ["task_failure: stained", "task_postrun: stained"]


@pytest.mark.parametrize("way", [*STREAMS, TRACED], ids=str)
def test_receivers_of_the_consumers_signals_share_the_context(start: Any, way: Way) -> None:
    worker = start(way, TEST_SIGNALS="consumer")
    assert worker.ask("stain") == STAINED
    worker.client.send("stain", {"fail": True})
    assert worker.recorded(3) == ["consumer_finished: stained", "consumer_finished: stained", "task_failure: stained"]
    assert worker.looks()["span"] == "span of "


@pytest.mark.parametrize("way", [*STREAMS, TRACED, KOMBU[0]], ids=str)
def test_the_log_of_queries_is_the_consumers_own(start: Any, way: Way) -> None:
    worker = start(way, TEST_DEBUG="1")
    assert [worker.ask("queries")["queries"] for _ in range(4)] == [3] * 4


# -- visitors: pages in one language among the frames of a socket in the other


class Site(NamedTuple):
    """The addresses of an interface server and its worker."""

    project: Project

    def page(self, path: str, language: str = "de") -> str:
        """The text of a page."""
        answer = httpx.get(self.project.url + path, headers={"Accept-Language": language}, timeout=30, trust_env=False)
        assert answer.status_code == 200, answer.text
        return answer.text


@pytest.fixture(params=["embedded", "solo", "threads", "prefork"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    pool = request.param
    env = {}
    if pool != "embedded":
        request.param = "redis-streams"
        env = make_broker(request).env
    project = Project(tmp_path, None, {**env, **SETTINGS, "TEST_DEBUG": "1", "TEST_SIGNALS": "consumer"})
    try:
        project.migrate()
        project.start_interface()
        if pool != "embedded":
            project.start_worker("-P", pool, "-c", "1", "--channel-threads", "1")
        yield Site(project)
    finally:
        project.stop()


def test_each_visitor_has_a_language(site: Site) -> None:
    frames = []
    with connect(site.project.ws_url, open_timeout=30, close_timeout=5) as visitor:
        for _ in range(10):
            assert site.page("/") == "de"
            for _ in range(4):
                visitor.send("which language?")
                frames.append(visitor.recv(timeout=30))
    assert frames == ["en"] * 40
    # A response that streams is made in its view's context, whatever makes it.
    assert site.page("/stream/") == "de " * 5
    assert site.page("/stream/?async") == "de " * 5
    assert site.page("/stream/", "en") == "en " * 5
    assert site.page("/async/") == "de"
    assert site.page("/stain/") == "stained"
    assert site.page("/look/", "en").count('"UTC"') == 1
    assert [site.page("/queries/") for _ in range(3)] == ["3"] * 3
    # LocaleMiddleware's choice is there for those who hear that the request is over.
    signals = site.project.recorded("signals")
    assert {line for line in signals if line.startswith("request_")} >= {"request_finished: stained"}


@pytest.mark.parametrize("path", ["/stain/", "/async/"])
def test_requests_of_one_connection_leave_nothing_to_each_other(tmp_path: Path, path: str) -> None:
    """``--http direct`` answers in the interface server, one after the other what a proxy sends on one connection."""
    project = Project(tmp_path, None, SETTINGS)
    try:
        project.migrate()
        project.start_interface("--http", "direct")
        with socket.create_connection(("127.0.0.1", project.port), timeout=30) as proxy:
            first, second = (
                f"GET {asked} HTTP/1.1\r\nHost: localhost\r\nConnection: {after}\r\n\r\n".encode()
                for asked, after in ((path, "keep-alive"), ("/look/", "close"))
            )
            proxy.sendall(first + second)
            answers = b""
            while data := proxy.recv(65536):
                answers += data
        assert answers.count(b"200 OK") == 2, answers
        assert b'"zone": "UTC"' in answers
        assert b'"span": ""' in answers
    finally:
        project.stop()
