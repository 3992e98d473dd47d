"""The supervisor with real processes: small programs that share a port."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from pathlib import Path

import pytest

from channelsq.interface.basis.command_line import ConfigError
from channelsq.interface.supervision.supervised import VARIABLE, Supervised
from channelsq.interface.supervision.supervisor import UNUSABLE, Address, Supervisor, Together, this_program
from tests.support.ports import free_port
from tests.support.processes import ROOT, Process
from tests.support.waiting import wait_until

#: Answers each connection with its number and process id; "die" ends it.
SERVER = """
import os, socket, sys
sys.path.insert(0, {root!r})
from channelsq.interface.supervision.supervised import Supervised
given = Supervised.take(os.environ)
(bound,) = given.listening({address})
bound.setblocking(True)
bound.listen()
given.say_ready()
while True:
    client, _ = bound.accept()
    with client:
        if client.recv(100) == b"die":
            os._exit(3)
        client.sendall(f"{{given.number}} {{os.getpid()}}".encode())
"""

#: Runs a supervisor in a process of its own, as signals reach the main thread.
PROGRAM = """
import sys
sys.path.insert(0, {root!r})
from channelsq.interface.basis.project_setup import show_logs
from channelsq.interface.supervision.supervisor import Address, Supervisor, Together
show_logs(1)
sys.exit(Supervisor(Together({command!r}, {workers}, {addresses}, 0.5, {path!r})).run())
"""


def run(folder: Path, command: list[str], *, workers: int, ports: list[int], path: str | None = None) -> Process:
    addresses = "[" + ", ".join(f"Address('127.0.0.1', {port})" for port in ports) + "]"
    program = PROGRAM.format(root=str(ROOT), command=command, workers=workers, addresses=addresses, path=path)
    return Process([sys.executable, "-c", program], folder / "log")


def ask(port: int | str, text: bytes = b"who") -> tuple[int, int]:
    """Return the number and the process id of the process that answers."""
    family, address = (socket.AF_UNIX, port) if isinstance(port, str) else (socket.AF_INET, ("127.0.0.1", port))
    with socket.socket(family) as client:
        client.settimeout(20)
        client.connect(address)
        client.sendall(text)
        number, pid = client.recv(100).split()
        return int(number), int(pid)


def test_processes_share_a_port_and_are_replaced(tmp_path: Path) -> None:
    port = free_port()
    command = ["-c", SERVER.format(root=str(ROOT), address=0)]
    process = run(tmp_path, command, workers=2, ports=[port])
    try:
        process.wait_for_output(f"2 processes serve http://127.0.0.1:{port}")
        first = {ask(port) for _ in range(40)}
        assert {number for number, _ in first} == {1, 2}

        with pytest.raises(ValueError, match="unpack"):
            ask(port, b"die")
        process.wait_for_output("with code 3; restarting it")
        wait_until(lambda: len({ask(port) for _ in range(40)} - first) == 1, "another process")

        process.signal(signal.SIGHUP)
        process.wait_for_output("replaced 2 processes")
        before = {pid for _, pid in first}
        wait_until(lambda: not {ask(port)[1] for _ in range(40)} & before, "only new processes")
        assert process.terminate() == 0
    finally:
        process.stop()


def test_each_address_has_sockets_of_its_own(tmp_path: Path) -> None:
    ports = [free_port(), free_port()]
    process = run(tmp_path, ["-c", SERVER.format(root=str(ROOT), address=1)], workers=1, ports=ports)
    try:
        process.wait_for_output(f"1 processes serve http://127.0.0.1:{ports[0]}")
        assert ask(ports[1])[0] == 1
        assert process.terminate() == 0
    finally:
        process.stop()


def test_a_unix_socket_is_removed_at_the_end(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    process = run(tmp_path, ["-c", SERVER.format(root=str(ROOT), address=0)], workers=2, ports=[], path=path)
    try:
        process.wait_for_output(f"2 processes serve unix:{path}")
        assert ask(path)[0] in (1, 2)
        assert process.terminate() == 0
        assert not os.path.exists(path)
    finally:
        process.stop()


@pytest.mark.parametrize(("code", "expected"), [(UNUSABLE, UNUSABLE), (7, 1)])
def test_a_first_process_that_cannot_start_ends_all(tmp_path: Path, code: int, expected: int) -> None:
    process = run(tmp_path, ["-c", f"raise SystemExit({code})"], workers=2, ports=[free_port()])
    assert process.wait(30) == expected
    assert f"process 1 ended before it was ready, with code {code}" in process.output
    assert process.output.count("ended before it was ready") == 1


def test_a_port_that_another_program_has_is_not_shared() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        supervisor = Supervisor(Together([], 2, [Address("127.0.0.1", port, "--smtp-port")], 0))
        with pytest.raises(ConfigError, match="choose another with --smtp-port"):
            supervisor.run()


def test_data_for_a_process_are_read_once(tmp_path: Path) -> None:
    ends = socket.socketpair()
    pipes = os.pipe()
    fds = [each.detach() for each in ends]
    given = Supervised(3, ((fds[0],), (fds[1],)), pipes[1], pipes[0], tmp_path)
    environ = {VARIABLE: given.to_text()}
    assert Supervised.take(environ) == given
    assert Supervised.take(environ) is None
    first, second = given.listening(0)[0], given.listening(1)[0]
    with first, second:
        first.sendall(b"x")
        assert second.recv(1) == b"x"
    alone = threading.Event()
    given.when_alone(alone.set)
    given.say_ready()  # it closes the end that the other side reads
    assert alone.wait(10)
    os.close(pipes[0])


def test_this_program_is_the_module_or_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__spec__", None)
    monkeypatch.setattr(sys, "argv", ["gateway.py", "--port", "1"])
    assert this_program() == ["gateway.py"]
    monkeypatch.setattr(main, "__spec__", type("Spec", (), {"name": "channelsq.interface.sms.__main__"}))
    assert this_program() == ["-m", "channelsq.interface.sms"]
