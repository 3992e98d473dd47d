"""A consumer that raises in a process that serves, too, leaves its traceback there."""

from __future__ import annotations

import pytest
from websockets.sync.client import connect

from tests.support.ports import free_port
from tests.support.processes import Processes

ENV = {"DJANGO_SETTINGS_MODULE": "tests.project.settings"}


@pytest.mark.parametrize(
    "command",
    [
        ("python", "-m", "tests.project.manage", "runserver", "--noreload"),
        ("python", "-m", "channelsq.interface", "--port"),
    ],
    ids=["runserver", "interface"],
)
def test_a_failing_consumers_traceback_is_logged_once(processes: Processes, command: tuple[str, ...]) -> None:
    port = free_port()
    process = processes.start(*command, str(port), env=ENV)
    process.wait_for_port(port)
    with connect(f"ws://127.0.0.1:{port}/chat/lobby/") as socket:
        socket.send(b"the consumer looks for text")
        process.wait_for_output(r"ERROR celery\.app\.trace: Task tests\.project\.consumers\.receive\[")
        process.wait_for_output("KeyError: 'text'")
        socket.send("still served")
        assert socket.recv(timeout=10) == "lobby: still served"
    assert process.output.count("KeyError: 'text'\n") == 1
