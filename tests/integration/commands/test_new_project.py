"""The files of a new project for Heroku, run by honcho in Heroku's environment."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from channelsq.start.command import main
from tests.support.ports import free_port
from tests.support.processes import ACTIVATED, Processes
from tests.support.visitor import Visitor

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120)]

HOST = "shop.herokuapp.com"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A new project."""
    assert main(["shop", str(tmp_path / "shop")]) == 0
    return tmp_path / "shop"


def test_the_files_for_heroku_agree(folder: Path) -> None:
    app = json.loads((folder / "app.json").read_text())
    settings = (folder / "config" / "settings.py").read_text()
    commands = dict(line.split(": ", 1) for line in (folder / "Procfile").read_text().splitlines())
    assert app["name"] == "shop"
    assert set(app["formation"]) | {"release"} == set(commands)
    assert all(f'"{name}"' in settings for name in app["env"])
    python = (folder / ".python-version").read_text().strip()
    assert f"FROM python:{python}-" in (folder / "Dockerfile").read_text()
    assert f'python-version: "{python}"' in (folder / ".github" / "workflows" / "ci.yml").read_text()


def test_a_new_project_on_heroku(folder: Path, processes: Processes, tls_redis: str) -> None:
    port = free_port()
    env = {**ACTIVATED, "DYNO": "web.1", "DEBUG": "0", "PORT": str(port), "REDIS_URL": tls_redis}
    without_key = processes.start("python", "manage.py", "check", env=env, cwd=folder)
    assert without_key.wait() != 0
    assert "SECRET_KEY is not set, and DEBUG is off." in without_key.output

    env |= {"SECRET_KEY": "s" * 60, "ALLOWED_HOSTS": ".herokuapp.com"}
    build = processes.start("python", "manage.py", "collectstatic", "--noinput", env=env, cwd=folder)
    release = processes.start("honcho", "start", "release", env=env, cwd=folder)
    for process in (build, release):
        assert process.wait(60) == 0, process.output

    honcho = processes.start("honcho", "start", "web", "worker", env=env, cwd=folder)
    honcho.wait_for_output(r"web\.1 .*listening on")
    honcho.wait_for_output(r"worker\.1 .*ready\.", timeout=60)
    visitor = Visitor(f"http://127.0.0.1:{port}", HOST, behind_https=True)
    assert visitor.post("/", text="Tea is ready").status_code == 302
    assert "Tea is ready" in visitor.get("/").text
    assert visitor.get("/static/app/site.css").status_code == 200
    assert visitor.get("/static/channelsq/js/live.js").status_code == 200
    visitor.close()
    plain = Visitor(f"http://127.0.0.1:{port}", HOST)
    assert plain.get("/").headers["Location"] == f"https://{HOST}/"
    plain.close()
    honcho.signal(signal.SIGTERM)
    honcho.wait(25)
    assert "SIGKILL" not in honcho.output
    assert "Traceback" not in honcho.output
    assert "p4ss" not in honcho.output
