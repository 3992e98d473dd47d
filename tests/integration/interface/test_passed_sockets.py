"""Sockets that a service manager opens and passes, as systemd does: clients wait while the server is replaced."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.ports import free_port, is_open
from tests.support.processes import ROOT, Process, Processes
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(120)

MANAGER = str(ROOT / "tests" / "support" / "service_manager.py")

ENV = {"DJANGO_SETTINGS_MODULE": "tests.project.settings", "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    processes = Processes(tmp_path / "logs")
    yield processes
    processes.stop()


def start(processes: Processes, tmp_path: Path, where: str, *args: str, kind: str = "SOCK_STREAM") -> Process:
    return processes.start("python", MANAGER, where, str(tmp_path / "go"), kind, *args, env=ENV)


def get(where: str) -> int:
    """Return the status of a page that the project does not have."""
    transport = httpx.HTTPTransport(uds=where) if "/" in where else None
    with httpx.Client(transport=transport, trust_env=False, timeout=60) as client:
        host = "localhost" if "/" in where else f"127.0.0.1:{where}"
        return client.get(f"http://{host}/no-such-page").status_code


@pytest.mark.parametrize("is_unix", [False, True])
def test_clients_wait_while_the_server_is_replaced(processes: Processes, tmp_path: Path, is_unix: bool) -> None:
    where = str(tmp_path / "s") if is_unix else str(free_port())
    manager = start(processes, tmp_path, where, "--port", "1")
    url = f"unix:{where}" if is_unix else f"http://127.0.0.1:{where}"
    manager.wait_for_output(f"listening on {url}")
    assert get(where) == 404
    server = int(manager.wait_for_output(r"started (\d+)")[1])
    os.kill(server, signal.SIGTERM)
    manager.wait_for_output("ended 0")
    statuses: list[int] = []
    client = threading.Thread(target=lambda: statuses.append(get(where)))
    client.start()
    (tmp_path / "go").touch()
    client.join(60)
    assert statuses == [404]
    assert not is_unix or Path(where).exists()


@pytest.mark.redis
def test_several_processes_share_a_passed_socket(processes: Processes, redis_url: str, tmp_path: Path) -> None:
    port = free_port()
    env = {**ENV, "TEST_BROKER": redis_url, "TEST_GROUPS": redis_url}
    args = (str(port), str(tmp_path / "go"), "SOCK_STREAM", "--workers", "2")
    manager = processes.start("python", MANAGER, *args, env=env)
    manager.wait_for_output(f"2 processes serve http://127.0.0.1:{port}")
    os.kill(int(manager.wait_for_output(r"started (\d+)")[1]), signal.SIGHUP)
    manager.wait_for_output("replaced 2 processes")
    assert is_open(port)


def test_another_file_is_refused(processes: Processes, tmp_path: Path) -> None:
    manager = start(processes, tmp_path, str(free_port()), kind="SOCK_DGRAM")
    manager.wait_for_output("file descriptor 3 is not a listening stream socket; use ListenStream= with Accept=no")


def test_sockets_for_another_process_are_left_alone(processes: Processes) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)):
        env = {**ENV, "LISTEN_FDS": "1", "LISTEN_PID": "1"}
        process = processes.start("python", "-m", "channelsq.interface", "--port", str(port), env=env)
        process.wait_for_output(f"listening on http://127.0.0.1:{port}")
        wait_until(lambda: is_open(port), "the server")
