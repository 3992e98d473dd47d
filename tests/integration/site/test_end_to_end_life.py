"""An interface server that is told to stop, and a broker that goes away, under clients."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.support.demo import fresh_streams
from tests.support.project import Project
from tests.support.servers import RedisServer, running_redis
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(120)


@contextmanager
def open_socket(project: Project) -> Iterator[ClientConnection]:
    """A socket that has had an answer."""
    with connect(f"{project.ws_url}/chat/lobby/", proxy=None) as socket:
        echo(socket, "hello")
        yield socket


def echo(socket: ClientConnection, text: str, timeout: float = 20) -> None:
    """Send a text and wait for its echo; others may come before."""
    socket.send(text)
    while socket.recv(timeout=timeout) != f"lobby: {text}":
        pass


@pytest.mark.parametrize("broker", ["embedded", pytest.param("redis", marks=pytest.mark.redis)])
def test_interface_takes_leave(request: pytest.FixtureRequest, broker: str, tmp_path: Path) -> None:
    redis_url = fresh_streams(request.getfixturevalue("redis_url")) if broker == "redis" else None
    project = Project(tmp_path, redis_url)
    with ExitStack() as stack:
        stack.callback(project.stop)
        project.start()
        sockets = [stack.enter_context(open_socket(project)) for _ in range(3)]
        threads = stack.enter_context(ThreadPoolExecutor(1))
        outstanding = threads.submit(httpx.get, f"{project.url}/slow/", timeout=30, trust_env=False)
        project.wait_for_record("slow", "begun")

        began = time.monotonic()
        project.interface.popen.terminate()
        for socket in sockets:
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(timeout=10)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
        with pytest.raises((httpx.ConnectError, httpx.RemoteProtocolError)):
            httpx.get(project.url, trust_env=False)
        project.let_go("slow")
        answer = outstanding.result()
        assert (answer.status_code, answer.text) == (200, "at last")
        assert project.interface.wait(25) == 0
        assert time.monotonic() - began < 5

        wait_until(lambda: project.recorded("disconnect") == ["/chat/lobby/ 1012"] * 3, "three disconnects")
        assert "Traceback" not in project.interface.output


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of this test's own, with a password."""
    with running_redis(tmp_path / "redis", ["--requirepass", "s3cret"]) as server:
        yield server


@pytest.mark.redis
def test_broker_gone_and_back(broker: RedisServer, tmp_path: Path) -> None:
    url = broker.url.replace("redis://", "redis-streams://:s3cret@")
    project = Project(tmp_path, url)
    with ExitStack() as stack:
        stack.callback(project.stop)
        project.start()
        client = stack.enter_context(httpx.Client(base_url=project.url, timeout=30, trust_env=False))
        assert client.get("/").text == "hello"
        sockets = [stack.enter_context(open_socket(project)) for _ in range(2)]

        broker.stop()
        refused = client.get("/")
        assert refused.status_code == 503
        assert refused.text == "503 Service Unavailable: please try again soon\n"
        project.interface.wait_for_output(
            rf"ERROR .*no connection to redis-streams://:\*\*@127\.0\.0\.1:{broker.port}/0: "
            ".*; start it, or correct the URL"
        )
        assert "s3cret" not in project.interface.output
        sockets[0].send("said without a broker")

        broker.start()
        wait_until(lambda: client.get("/").status_code == 200, "an answer again", 30, interval=0.1)
        # Neither socket was closed, and what was said meanwhile is answered too.
        while sockets[0].recv(timeout=20) != "lobby: said without a broker":
            pass
        for number, socket in enumerate(sockets):
            echo(socket, f"back {number}")
        assert "closed 1" not in project.interface.output
        assert project.worker.running
        assert project.interface.terminate() == 0
        assert project.worker.terminate() == 0
        assert "Traceback" not in project.interface.output
