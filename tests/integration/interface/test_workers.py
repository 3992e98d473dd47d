"""``--workers``: several interface processes on one port, restarted one after another while they serve."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect, unix_connect

from tests.support.brokers import layer_on
from tests.support.demo import fresh_redis
from tests.support.metrics import Metrics
from tests.support.ports import free_port, is_open
from tests.support.processes import Process
from tests.support.project import Project
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120)]


class Site:
    """The test project on Redis, with a supervisor."""

    def __init__(self, directory: Path, url: str) -> None:
        broker = url.replace("redis:", "redis-streams:")
        self.project = Project(directory, broker, {"TEST_GROUPS": url})
        self.client: Any = redis.Redis.from_url(url, decode_responses=True)
        self.layer = layer_on(broker)

    def start(self, *args: str, workers: int = 2, env: dict[str, str] | None = None) -> Process:
        process = self.project.processes.start(
            "python", "-m", "channelsq.interface", "--port", str(self.project.port), "--workers", str(workers),
            "--drain-window", "1", *args, env={**self.project.env, **(env or {})},
        )  # fmt: skip
        process.wait_for_output(f"{workers} processes serve")
        wait_until(lambda: len(children(process)) == len(self.processes) == workers, "all of them", 30)
        return process

    @property
    def processes(self) -> set[str]:
        """The interface processes that say that they live."""
        found: set[str] = self.client.smembers("channelsq:interfaces")
        return found


def children(process: Process) -> set[int]:
    """The processes that a supervisor has now."""
    text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return set(map(int, text.split()))


def is_alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


@pytest.fixture
def site(redis_url: str, tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path, fresh_redis(redis_url))
    yield made
    made.project.stop()
    made.layer.close()
    made.client.close()


def test_connections_are_shared_out_and_all_is_one_site(site: Site) -> None:
    supervisor = site.start()
    site.project.start_worker()
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(connect(f"{site.project.ws_url}/left/{n}/")) for n in range(40)]
        wait_until(lambda: len(site.layer.group_channels("room")) == 40, "all to be members")

        def counts() -> list[int]:
            return [site.client.hlen(f"channelsq:sockets:{process}") for process in site.processes]

        wait_until(lambda: sum(counts()) == 40, "the sockets to be noted")
        assert min(counts()) >= 5  # of 40 that the kernel shares out between two
        site.layer.send_group("room", {"text": "to all"})
        assert [each.recv(20) for each in sockets] == ["to all"] * 40
        workers = children(supervisor)
        supervisor.signal(signal.SIGTERM)
        for each in sockets:
            with pytest.raises(ConnectionClosed) as closed:
                each.recv(20)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
    assert supervisor.wait(30) == 0
    assert not any(map(is_alive, workers))
    assert not is_open(site.project.port)
    assert site.processes == set()


class Visitors:
    """Connect again and again, until it is enough; every failure counts."""

    def __init__(self, *visits: Callable[[], None]) -> None:
        self.failures: list[BaseException] = []
        self.done = [0] * len(visits)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=each) for each in enumerate(visits)]

    def _run(self, number: int, visit: Callable[[], None]) -> None:
        while not self._stop.is_set():
            try:
                visit()
            except BaseException as error:
                self.failures.append(error)
            self.done[number] += 1

    def __enter__(self) -> Visitors:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)


def test_sighup_replaces_all_and_nobody_is_refused_meanwhile(site: Site) -> None:
    supervisor = site.start()
    site.project.start_worker()

    def page() -> None:
        assert httpx.get(f"{site.project.url}/-/health/live", timeout=20).status_code == 200

    def view() -> None:
        assert httpx.get(f"{site.project.url}/own/10", timeout=20).status_code == 200

    def socket() -> None:
        with connect(f"{site.project.ws_url}/chat/lobby/", open_timeout=20) as one:
            one.send("hello")
            assert one.recv(20) == "lobby: hello"

    before, known = children(supervisor), site.processes
    with Visitors(page, view, socket) as visitors:
        wait_until(lambda: min(visitors.done) > 3, "visits", 30)
        supervisor.signal(signal.SIGHUP)
        supervisor.wait_for_output("replaced 2 processes", 60)
        done = list(visitors.done)
        wait_until(lambda: all(now > then + 3 for now, then in zip(visitors.done, done, strict=True)), "visits", 30)
    # A socket that is open when its process leaves is closed with 1012, and comes back.
    refused = [each for each in visitors.failures if not isinstance(each, ConnectionClosed)]
    assert not refused
    after = children(supervisor)
    assert len(after) == 2
    assert not after & before
    wait_until(lambda: len(site.processes) == 2 and not site.processes & known, "only the new ones to be known")
    assert not any(map(is_alive, before))


def test_one_that_is_killed_is_started_anew(site: Site) -> None:
    supervisor = site.start()
    victim = min(children(supervisor))
    os.kill(victim, signal.SIGKILL)
    supervisor.wait_for_output(r"process \d ended, killed by SIGKILL; restarting it")
    wait_until(lambda: len(children(supervisor) - {victim}) == 2, "another one", 30)
    wait_until(lambda: supervisor.output.count("listening on") == 3, "it to listen", 30)
    assert httpx.get(f"{site.project.url}/-/health/ready").status_code == 200
    assert supervisor.terminate(30) == 0


def test_without_their_supervisor_they_take_their_leave(site: Site) -> None:
    supervisor = site.start()
    workers = children(supervisor)
    os.kill(supervisor.pid, signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, workers)), "them to have ended", 30)
    assert site.processes == set()  # as they do when they are told to
    assert not is_open(site.project.port)


def test_settings_that_are_broken_leave_the_old_ones_in_place(site: Site, tmp_path: Path) -> None:
    settings = tmp_path / "changing_settings.py"
    settings.write_text("from tests.project.settings import *\n")
    env = {"DJANGO_SETTINGS_MODULE": "changing_settings", "PYTHONPATH": os.pathsep.join([str(tmp_path), os.getcwd()])}
    supervisor = site.start(env=env)
    before = children(supervisor)
    settings.write_text("import no_such_module\n")
    supervisor.signal(signal.SIGHUP)
    supervisor.wait_for_output("the old processes continue", 60)
    assert "ended before it was ready, with code 2" in supervisor.output
    assert "Traceback" not in supervisor.output
    assert children(supervisor) == before
    assert httpx.get(f"{site.project.url}/-/health/ready").status_code == 200
    settings.write_text("from tests.project.settings import *\n")
    supervisor.signal(signal.SIGHUP)
    supervisor.wait_for_output("replaced 2 processes", 60)
    assert not children(supervisor) & before
    assert supervisor.terminate(30) == 0


def test_whoever_is_scraped_tells_of_all(site: Site) -> None:
    supervisor = site.start("--metrics")
    site.project.start_worker()

    def told_by(number: int) -> Metrics:
        wait_until(lambda: Metrics(site.project.url)("processes") == number, f"{number} to be told of", 30)
        return Metrics(site.project.url)

    told_by(2)
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(connect(f"{site.project.ws_url}/count/{n}/")) for n in range(20)]
        for each in sockets:
            for n in range(3):
                each.send(str(n))
                assert each.recv(20) == str(n)
        # Whichever process answers.
        for now in [Metrics(site.project.url) for _ in range(8)]:
            assert now("websockets") == now("websocket_accepted_total") == 20
            assert now("websocket_messages_received_total") == 60
            assert now("reply_seconds_count", channel="websocket.receive") == 60
            assert min(now.values("websocket_messages_received_total")) >= 3
            assert len(now.values("websocket_messages_received_total")) == 2
            assert {each.labels["process"] for each in now.families["channelsq_connections"].samples} == {"1", "2"}
            assert now("queue_messages") == 0
            assert len(now.values("queue_messages", channel="websocket.receive")) == 1

        # One that hangs is left out, by whoever does not.
        victim = min(children(supervisor))
        os.kill(victim, signal.SIGSTOP)

        def told_without_it() -> bool:
            with contextlib.suppress(httpx.TimeoutException):
                return Metrics(site.project.url, timeout=2)("processes") == 1
            return False

        try:
            wait_until(told_without_it, "the other to answer", 60)
        finally:
            os.kill(victim, signal.SIGCONT)
        told_by(2)
    supervisor.signal(signal.SIGHUP)
    supervisor.wait_for_output("replaced 2 processes", 60)
    assert told_by(2)("websocket_accepted_total") == 0
    assert supervisor.terminate(30) == 0


def test_a_unix_socket_is_shared(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "s"
    supervisor = site.start("--unix-socket", str(path))
    site.project.start_worker()
    with unix_connect(str(path), "ws://localhost/chat/lobby/") as one:
        one.send("hello")
        assert one.recv(20) == "lobby: hello"
    assert supervisor.terminate(30) == 0
    assert not path.exists()


@pytest.mark.parametrize(
    ("args", "env", "said"),
    [
        (["--workers", "2"], {"DJANGO_SETTINGS_MODULE": "no.such.settings"}, "no.such.settings"),
        (["--workers", "2"], {}, "--workers 2 needs a channel layer that several processes share"),
        (["--workers", "0"], {}, "--workers cannot be '0'"),
    ],
)
def test_what_cannot_be_used_is_said_once(site: Site, args: list[str], env: dict[str, str], said: str) -> None:
    settings = {"DJANGO_SETTINGS_MODULE": "tests.project.settings", **env}
    process = site.project.processes.start(
        "python", "-m", "channelsq.interface", "--port", str(free_port()), *args, env=settings
    )
    assert process.wait(30) == 2
    assert process.output.count(said) == 1
    assert "Traceback" not in process.output


def test_a_port_that_is_taken_is_no_port_to_share(site: Site) -> None:
    site.start()
    other = site.project.processes.start(
        "python", "-m", "channelsq.interface", "--port", str(site.project.port), "--workers", "2", env=site.project.env
    )
    assert other.wait(30) == 2
    assert "address already in use" in other.output
