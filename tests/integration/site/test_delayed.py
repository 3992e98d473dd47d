"""Delayed messages to groups, clients and workers: delivered late, cancelled, and not lost with a worker."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from websockets.sync.client import ClientConnection, connect

from tests.support.demo import fresh_redis
from tests.support.project import Project
from tests.support.servers import DURABLE, RedisServer
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.timeout(180), pytest.mark.ways(r"redis-streams|\w$")]

SETTINGS = {"DJANGO_SETTINGS_MODULE": "tests.project.users_settings"}


class Page:
    """A socket that asks for delayed messages."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        #: The late messages so far.
        self.late: list[str] = []
        #: How many ticks of the schedule came.
        self.ticks = 0

    def _answer(self, key: str) -> Any:
        while True:
            content = json.loads(self._socket.recv(40))
            if "tick" in content:
                self.ticks += 1
            elif "late" in content:
                self.late.append(content["late"])
            if key in content:
                return content[key]

    def send(self, to: str, delay: float, **more: Any) -> str:
        """Ask for a delayed message; return the id of its handle."""
        self._socket.send(json.dumps({"to": to, "delay": delay, **more}))
        return "" if more else str(self._answer("sent"))

    def cancel(self, handle: str) -> bool:
        """Cancel a delayed message."""
        self._socket.send(json.dumps({"cancel": handle}))
        return bool(self._answer("cancelled"))

    def next_late(self) -> str:
        """Wait for a late message."""
        return str(self._answer("late"))

    def next_tick(self) -> None:
        """Wait for a tick of the schedule."""
        self._answer("tick")


@contextlib.contextmanager
def opened(project: Project) -> Iterator[Page]:
    url = f"{project.ws_url}/delayed/"
    with connect(url, open_timeout=30, close_timeout=5, proxy=None) as socket:
        assert socket.recv(30) == "joined"
        yield Page(socket)


@pytest.fixture(
    scope="module",
    params=["redis-streams", "prefork", "redis", "ipc", "memory", pytest.param("amqp", marks=pytest.mark.rabbitmq)],
)
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder, env = tmp_path_factory.mktemp("delayed"), dict(SETTINGS)
    url: str | None = None
    if request.param in ("redis-streams", "prefork", "redis", "amqp"):
        env["TEST_GROUPS"] = url = fresh_redis(request.getfixturevalue("redis_url"))
    if request.param in ("redis-streams", "prefork"):
        url = env["TEST_GROUPS"].replace("redis:", "redis-streams:")
    elif request.param == "amqp":
        url = request.getfixturevalue("rabbitmq_url")
    elif request.param == "ipc":
        url, env["TEST_IPC"] = f"ipc://{folder}/ipc", f"{folder}/ipc"
    project = Project(folder, url, env)
    try:
        project.migrate()
        project.start_interface()
        if not project.embedded:
            project.start_worker("-P", "prefork" if request.param == "prefork" else "threads")
        yield project
    finally:
        project.stop()


def test_messages_are_delivered_late_unless_they_are_cancelled(project: Project) -> None:
    with opened(project) as page:
        for to in ("group", "me", "worker"):
            gone, kept = page.send(to, 0.5), page.send(to, 0.7)
            assert page.cancel(gone) is True
            assert page.cancel(gone) is True  # again
            assert page.next_late() == to
            assert page.cancel(kept) is False
        assert page.late == ["group", "me", "worker"]
    # The consumer does not see how it is done.
    assert project.recorded("late") == ["worker ['name', 'reply_channel', 'text']"]


def test_a_failed_consumer_leaves_nothing_behind(project: Project) -> None:
    with opened(project) as page:
        page.send("group", 0.01, fails=True)
        page.send("me", 0.01, fails=True)
        page.send("group", 0.5)
        assert page.next_late() == "group"
        assert page.late == ["group"]


def test_a_cancel_reaches_a_message_that_a_worker_holds_already(project: Project) -> None:
    with opened(project) as page:
        handle = page.send("held", 1.5)
        page.send("before", 0.2)
        assert page.next_late() == "before"
        assert page.cancel(handle) is True
        page.send("after", 1.5)
        assert page.next_late() == "after"
        assert not [line for line in project.recorded("late") if line.startswith("held")]


@pytest.fixture
def apart(tmp_path: Any) -> Iterator[Project]:
    """A project on a Redis of its own that keeps what it has; messages of a dead worker come back soon."""
    server = RedisServer(tmp_path / "redis", DURABLE)
    server.start()
    env = {**SETTINGS, "TEST_VISIBILITY": "2", "TEST_GROUPS": server.url}
    project = Project(tmp_path, server.url.replace("redis:", "redis-streams:"), env)
    project.redis = server  # type: ignore[attr-defined]
    try:
        project.migrate()
        project.start_interface()
        yield project
    finally:
        project.stop()
        server.stop()


def test_a_dead_worker_loses_no_delayed_message(apart: Project) -> None:
    """Of one worker with a message that is not due, and with one whose consumer has begun."""
    apart.start_worker()
    with opened(apart) as page:
        handle = page.send("group", 4)
        gone = page.send("me", 4)
        begun = page.send("waits", 0.01)
        apart.wait_for_record("late", "waits ['name', 'reply_channel', 'text']")
        assert page.cancel(begun) is False  # it has left, although it runs again
        assert page.cancel(gone) is True
        apart.worker.kill()
        apart.let_go("waits")
        apart.start_worker()
        found = [page.next_late(), page.next_late()]
        assert sorted(found) == ["group", "waits"]
        assert page.cancel(handle) is False
        page.send("me", 0.1)
        assert page.next_late() == "me"
        assert len(page.late) == 3  # the cancelled one did not come


def test_a_message_is_delivered_although_the_records_are_lost(apart: Project) -> None:
    apart.start_worker()
    with opened(apart) as page:
        page.send("group", 1)
        with redis.Redis.from_url(apart.redis.url) as client:  # type: ignore[attr-defined]
            records = list(client.scan_iter("*:record:*"))
            assert not records  # nothing is written before the message leaves
        assert page.next_late() == "group"
        wait_until(lambda: _records(apart) == 1, "the record of the delivery")


def _records(project: Project) -> int:
    with redis.Redis.from_url(project.redis.url) as client:  # type: ignore[attr-defined]
        return len(list(client.scan_iter("*:record:*")))


def test_a_worker_of_one_channel_reads_delayed_messages(apart: Project) -> None:
    apart.new_worker("-Q", "websocket.connect,websocket.receive,websocket.disconnect")
    with opened(apart) as page:
        page.send("group", 0.1)
        assert page.next_late() == "group"


def test_a_schedule_sends_to_a_group_by_settings_alone(apart: Project) -> None:
    apart.start_worker()
    args = ("celery", "-A", "tests.project", "beat", "-s", str(apart.records / "schedule"))
    apart.processes.start(*args, env=apart.env)
    with opened(apart) as page:
        for _ in range(3):
            page.next_tick()
        assert page.ticks == 3
