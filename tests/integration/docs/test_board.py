"""The project board of the documentation passes its own tests, and needs no migration."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.board import BOARD
from tests.support.processes import Processes


@pytest.mark.parametrize("command", [("test",), ("makemigrations", "--check", "--dry-run"), ("check",)], ids=" ".join)
def test_its_commands_succeed(processes: Processes, tmp_path: Path, command: tuple[str, ...]) -> None:
    env = {"DJANGO_SETTINGS_MODULE": "project.settings", "BOARD_DATABASE": str(tmp_path / "board.sqlite3")}
    process = processes.start("python", "-W", "error", "manage.py", *command, env=env, cwd=BOARD)
    assert process.wait(60) == 0, process.output
    if command == ("test",):
        assert "Ran 6 tests" in process.output
