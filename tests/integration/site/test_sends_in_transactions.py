"""Sends made in transactions, by views, consumers and tasks of real processes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.support.demo import fresh_redis
from tests.support.project import Project

pytestmark = [
    pytest.mark.redis,
    pytest.mark.timeout(180),
    pytest.mark.ways(r"redis-streams', '(threads|prefork)|memory"),
]

#: Broker, worker's pool, how HTTP is answered.
SITES = [
    ("redis-streams", "threads", "channel"),
    ("redis-streams", "solo", "channel"),
    ("redis-streams", "prefork", "channel"),
    ("redis", "threads", "channel"),
    pytest.param(("amqp", "threads", "channel"), marks=pytest.mark.rabbitmq),
    ("redis-streams", "threads", "direct"),
    ("memory", "", "channel"),
    ("memory", "", "direct"),
]


@pytest.fixture(scope="module", params=SITES, ids=str)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    broker, pool, http = request.param
    redis_url = fresh_redis(request.getfixturevalue("redis_url"))
    url = {
        "redis": redis_url,
        "redis-streams": redis_url.replace("redis:", "redis-streams:"),
        "memory": None,
    }.get(broker, "") if broker != "amqp" else request.getfixturevalue("rabbitmq_url")  # fmt: skip
    env = {"DJANGO_SETTINGS_MODULE": "tests.project.atomic_settings", "TEST_GROUPS": redis_url}
    project = Project(tmp_path_factory.mktemp("atomic"), url, env)
    try:
        project.migrate()
        project.start_interface("--http", http)
        if not project.embedded:
            project.start_worker("-P", pool, "-c", "2" if pool != "solo" else "1")
        project.http = http  # type: ignore[attr-defined]
        yield project
    finally:
        project.stop()


@pytest.fixture
def socket(site: Project) -> Iterator[ClientConnection]:
    with connect(f"{site.ws_url}/atomic/", open_timeout=30, close_timeout=5, proxy=None) as socket:
        socket.send("hello")  # when it is answered, the socket is in the group
        assert {socket.recv(30), socket.recv(30)} == {"answer", "to all"}
        yield socket


@pytest.fixture
def client(site: Project) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=site.url, timeout=60, trust_env=False) as client:
        yield client


def heard(socket: ClientConnection, number: int) -> list[Any]:
    got: list[Any] = []
    try:
        while len(got) < number:
            got.append(socket.recv(10))
    except TimeoutError:
        pass
    return got


def notes(client: httpx.Client) -> list[str]:
    return client.get("/notes/").text.split()


def test_a_views_sends_leave_on_its_commit_alone(client: httpx.Client, socket: ClientConnection) -> None:
    assert client.get("/in/fail/").status_code == 500
    assert client.get("/in/fine/").text == "fine"
    assert heard(socket, 3) == ["fail: now", "fine: now", "fine: later"]
    assert "fail" not in notes(client)
    assert "fine" in notes(client)


def test_a_failure_after_the_commit_is_no_failure_of_the_request(
    site: Project, client: httpx.Client, socket: ClientConnection
) -> None:
    answer = client.get("/in/full/")
    assert (answer.status_code, answer.text) == (200, "full")
    assert "full" in notes(client)
    assert heard(socket, 2) == ["full: now", "full: later"]


def test_an_answer_that_is_left_to_another(site: Project, client: httpx.Client, socket: ClientConnection) -> None:
    if site.http == "direct":  # type: ignore[attr-defined]
        return  # where a view answers itself
    assert client.get("/in/answered-later/").text == "answered later"
    assert heard(socket, 2) == ["answered-later: now", "answered-later: later"]


def test_an_ordinary_task(site: Project, client: httpx.Client, socket: ClientConnection) -> None:
    if site.embedded:
        return  # where tasks are not run
    assert client.get("/in/task/").text == "task"
    assert sorted(heard(socket, 3)) == ["task: later", "task: now", "task: shouted"]


def test_an_atomic_consumer(site: Project, socket: ClientConnection) -> None:
    socket.send("fail")
    socket.send("go on")
    assert set(heard(socket, 2)) == {"answer", "to all"}
    with connect(f"{site.ws_url}/atomic/", open_timeout=30, close_timeout=5, proxy=None) as other:
        other.send("close")
        with pytest.raises(ConnectionClosed) as closed:
            other.recv(30)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 3000


def test_visitors_at_once(site: Project, socket: ClientConnection) -> None:
    """Threads do not see each other's transactions."""

    def visit(what: str) -> None:
        assert httpx.get(f"{site.url}/in/{what}/", timeout=60, trust_env=False).status_code in (200, 500)

    visits = [threading.Thread(target=visit, args=(what,)) for what in ["fine", "fail"] * 5]
    for each in visits:
        each.start()
    for each in visits:
        each.join()
    told = heard(socket, 15)
    assert sorted(told) == ["fail: now"] * 5 + ["fine: later"] * 5 + ["fine: now"] * 5
