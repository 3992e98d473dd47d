"""IPCChannelLayer: interface server, workers and shell as processes of one machine, and no server at all."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from channelsq.ipc import ipc_url
from channelsq.layers import IPCChannelLayer
from tests.support.ports import free_port
from tests.support.processes import Process
from tests.support.sites import Site, ask, socket_on
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(120)

IPC = "channelsq.layers.IPCChannelLayer"


def site_in(directory: Path, **env: str) -> Site:
    layers = {
        "default": {"BACKEND": IPC, "CONFIG": {"path": str(directory / "ipc")}},
        "other": {"BACKEND": "channelsq.layers.InMemoryChannelLayer"},
    }
    return Site(layers, directory / "logs", TEST_MARKS=str(directory), **env)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ipc")


@pytest.fixture(scope="module")
def site(directory: Path) -> Iterator[Site]:
    site = site_in(directory)
    yield site
    site.processes.stop()


@pytest.fixture(scope="module")
def url(site: Site) -> str:
    return site.interface()[1]


@pytest.fixture(scope="module")
def worker(site: Site) -> Process:
    """A worker whose Celery app was told no broker."""
    return site.worker("-P", "threads")


def test_a_worker_of_its_own_answers_the_interfaces_client(url: str, worker: Process) -> None:
    with socket_on(url) as socket:
        for _ in range(20):
            assert ask(socket, "where") == f"default default {worker.pid}"


def test_a_shell_sends_to_a_group(site: Site, url: str, worker: Process) -> None:
    with socket_on(url) as one, socket_on(url) as two:
        assert ask(one, "where") == ask(two, "where")
        site.run("shell", "-c", "from channelsq import Group; Group('room').send({'text': 'from the shell'})")
        assert one.recv(timeout=30) == two.recv(timeout=30) == "from the shell"


def test_a_task_retries(url: str, worker: Process) -> None:
    with socket_on(url) as socket:
        assert ask(socket, "fail") == "retried on default"


def test_celerys_remote_control(site: Site, worker: Process, directory: Path) -> None:
    command = ["celery", "-A", "tests.layers_project", "inspect", "ping", "--timeout", "5"]
    ping = site.processes.start(*command, env={**site.env, "TEST_BROKER": ipc_url(directory / "ipc")})
    assert ping.wait(60) == 0, ping.output
    assert "pong" in ping.output


def test_a_worker_ends_soon_when_told_to(site: Site, url: str, worker: Process) -> None:
    second = site.worker("-P", "prefork", "-c", "1")
    assert second.terminate(15) == 0


def test_nothing_of_a_closed_socket_is_left(url: str, worker: Process, directory: Path) -> None:
    with socket_on(url) as socket:
        assert ask(socket, "where")
    layer = IPCChannelLayer(path=str(directory / "ipc"))
    wait_until(lambda: layer.group_channels("room") == [], "the membership to end")
    layer.close()


def test_the_directory_is_for_its_user_alone(url: str, directory: Path) -> None:
    assert (directory / "ipc").stat().st_mode & 0o777 == 0o700
    for path in (directory / "ipc").iterdir():
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.ways(r"threads|prefork")
@pytest.mark.parametrize("pool", ["threads", "solo", "prefork", "gevent"])
def test_what_a_killed_worker_held_another_one_handles(tmp_path: Path, pool: str) -> None:
    site = site_in(tmp_path)
    try:
        _, url = site.interface()
        first = site.worker("-P", pool, "-c", "1")
        with socket_on(url) as socket:
            socket.send("hang")
            wait_until((tmp_path / "hangs").exists, "the consumer to begin")
            first.kill()
            second = site.worker("-P", "gevent" if pool == "gevent" else "threads", "-c", "1")
            assert socket.recv(timeout=30) == f"at last by {second.pid}"
            # Nothing is locked for longer than the processes that live write.
            assert ask(socket, "where") == f"default default {second.pid}"
        with sqlite3.connect(tmp_path / "ipc" / "queues.sqlite3", timeout=10) as database:
            database.execute("BEGIN IMMEDIATE")
            database.rollback()
        database.close()
    finally:
        site.processes.stop()


def test_a_killed_interface_leaves_no_membership_and_no_queue(tmp_path: Path) -> None:
    site = site_in(tmp_path)
    layer = IPCChannelLayer(path=str(tmp_path / "ipc"))
    try:
        interface, url = site.interface()
        worker = site.worker("-P", "threads")
        with socket_on(url) as socket:
            assert ask(socket, "where")
            (member,) = layer.group_channels("room")
            queue = member.partition("!")[0]
            assert layer.store.has_queue(queue)
            interface.kill()
            wait_until(lambda: layer.group_channels("room") == [], "the membership to end")
            assert not layer.store.has_queue(queue)
        _, url = site.interface()
        with socket_on(url) as socket:
            assert ask(socket, "where") == f"default default {worker.pid}"
    finally:
        layer.close()
        site.processes.stop()


def test_runserver_and_a_shell_beside_it(tmp_path: Path) -> None:
    site = site_in(tmp_path)
    try:
        port = free_port()
        server = site.manage("runserver", str(port), "--noreload")
        server.wait_for_port(port)
        with socket_on(f"ws://127.0.0.1:{port}/") as socket:
            assert ask(socket, "where") == f"default default {server.pid}"
            assert ask(socket, "job") == "job done on other"  # in this process's memory
            site.run("shell", "-c", "from channelsq import Group; Group('room').send({'text': 'from the shell'})")
            assert socket.recv(timeout=30) == "from the shell"
        assert server.terminate(20) is not None
    finally:
        site.processes.stop()


def test_an_app_with_another_broker(tmp_path: Path) -> None:
    site = site_in(tmp_path, TEST_BROKER=f"ipc://another-{os.getpid()}")
    try:
        _, url = site.interface()
        worker = site.worker("-P", "threads")
        with socket_on(url) as socket:
            assert ask(socket, "where") == f"default default {worker.pid}"
    finally:
        site.processes.stop()
