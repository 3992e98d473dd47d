"""An interface server that is told to end takes leave of its clients one after another, and soon enough."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.support.ports import is_open
from tests.support.project import Project
from tests.support.swarm import Sockets
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(90)

#: More than are closed in a second.
MANY = 150


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path, env={"TEST_CAPACITY": "1000"})
    yield made
    made.stop()


class Page:
    """Many sockets that say when, and how, they were closed."""

    def __init__(self, project: Project, count: int) -> None:
        self.closed: list[tuple[float, int, str]] = []
        #: Answers to what was said while others were closed already.
        self.answered = 0
        self.sockets = Sockets(f"{project.ws_url}/chat/lobby/", count, self._talk)
        self.sockets.start()
        wait_until(lambda: self.sockets.opened == count, "the sockets to be open", 30)

    async def _talk(self, number: int, one: ClientConnection) -> None:
        try:
            while True:
                late = bool(self.closed)
                await one.send("still there?")
                assert await one.recv() == "lobby: still there?"
                self.answered += late
                await asyncio.sleep(0.1)
        except ConnectionClosed as error:
            self.closed.append((time.monotonic(), *((error.rcvd.code, error.rcvd.reason) if error.rcvd else (0, ""))))

    @property
    def took(self) -> float:
        """Seconds between the first close and the last."""
        times = [when for when, _, _ in self.closed]
        return max(times) - min(times)


def test_sockets_are_closed_one_after_another_and_work_until_then(project: Project) -> None:
    project.start("--drain-window", "3")
    page = Page(project, MANY)
    assert project.interface.terminate(40) == 0
    page.sockets.join(20)
    assert {(code, reason) for _, code, reason in page.closed} == {(1012, "the server is shutting down")}
    assert len(page.closed) == MANY
    assert page.took > 1.5  # three seconds; at once it would be a few milliseconds
    assert page.answered > 10
    wait_until(lambda: len(project.recorded("disconnect")) == MANY, "every disconnect")


@pytest.mark.parametrize(("stop", "window"), [(signal.SIGINT, "8"), (signal.SIGTERM, "0")])
def test_at_a_terminal_or_without_a_window_all_are_closed_at_once(
    project: Project, stop: signal.Signals, window: str
) -> None:
    project.start("--drain-window", window)
    page = Page(project, MANY)
    project.interface.signal(stop)
    page.sockets.join(20)
    assert len(page.closed) == MANY
    assert page.took < 1.5
    assert project.interface.wait(20) == 0


def test_ready_says_no_before_the_door_is_closed(project: Project) -> None:
    project.start("--drain-delay", "3")
    ready = f"{project.url}/-/health/ready"
    assert httpx.get(ready).status_code == 200
    project.interface.signal(signal.SIGTERM)
    wait_until(lambda: httpx.get(ready).status_code == 503, "ready to say no")
    assert httpx.get(f"{project.url}/-/health/live").status_code == 200
    with connect(f"{project.ws_url}/chat/lobby/") as late:
        late.send("hello")
        assert late.recv(10) == "lobby: hello"
        with pytest.raises(ConnectionClosed):
            late.recv(20)
    assert project.interface.wait(30) == 0
    assert not is_open(project.port)


def test_an_answer_that_is_under_way_is_finished_and_ends_its_connection(project: Project) -> None:
    project.start("--drain-window", "4")
    with httpx.Client(timeout=30) as idle, contextlib.ExitStack() as stack:
        assert idle.get(f"{project.url}/-/health/live").status_code == 200
        page = Page(project, 100)
        asking = stack.enter_context(socket.create_connection(("127.0.0.1", project.port)))
        asking.sendall(b"GET /slow/ HTTP/1.1\r\nHost: testserver\r\n\r\n")
        project.wait_for_record("slow", "begun")
        project.interface.signal(signal.SIGTERM)
        wait_until(lambda: page.closed, "the drain to begin")
        with pytest.raises(httpx.TransportError):  # its connection was idle, and there is nobody to connect to
            idle.get(f"{project.url}/-/health/live")
        project.let_go("slow")
        answer = b"".join(iter(lambda: asking.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nconnection: close\r\n" in answer
    assert project.interface.wait(30) == 0


def test_clients_that_never_answer_hold_nobody_up(project: Project) -> None:
    project.start("--drain-window", "0.2")
    with contextlib.ExitStack() as stack:
        deaf = []
        for _ in range(3):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", project.port)))
            one.sendall(
                b"GET /chat/lobby/ HTTP/1.1\r\nHost: testserver\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            assert one.recv(12) == b"HTTP/1.1 101"
            deaf.append(one)
        assert project.interface.terminate(25) == 0
        for one in deaf:
            assert b"\x88\x1d\x03\xf4the server is shutting down" in one.recv(4096)
