"""The demo's commands as the README and the Procfile write them, in a copy of the project."""

from __future__ import annotations

import re
import signal
import sqlite3
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from tests.support import needs
from tests.support.demo import copy_project, fresh_redis
from tests.support.ports import free_port, is_open
from tests.support.processes import ACTIVATED, Processes
from tests.support.visitor import Visitor
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120)]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The demo as a user who has cloned the repository has it: without a database."""
    return copy_project(tmp_path / "project")


def take_port(port: int) -> str:
    """The URL of a port that is written in what is tested; nothing else may use it."""
    if is_open(port):
        needs.missing(f"port {port} is in use, and the command that is tested names no other")
    return f"http://127.0.0.1:{port}"


def copy_database(template: Path, to: Path) -> None:
    with sqlite3.connect(template) as source:
        source.execute("VACUUM INTO ?", (str(to),))
    source.close()


def test_interface_and_worker_as_written(
    project: Path, processes: Processes, redis_url: str, demo_template: Path
) -> None:
    url = take_port(8000)
    copy_database(demo_template, project / "db.sqlite3")
    env = {"REDIS_URL": fresh_redis(redis_url)}
    interface = processes.start("python", "-m", "channelsq.interface", env=env, cwd=project)
    worker = processes.start("celery", "-A", "app", "worker", env=env, cwd=project)
    interface.wait_for_port(8000)
    alice = Visitor(url)
    alice.log_in()
    with alice.room() as room:
        room.echo("hello")
    alice.close()
    assert interface.terminate() == 0
    assert worker.terminate() == 0


def test_honcho(project: Path, processes: Processes, redis_url: str) -> None:
    url = take_port(5000)
    env = {**ACTIVATED, "REDIS_URL": fresh_redis(redis_url)}
    honcho = processes.start("honcho", "start", env=env, cwd=project)
    honcho.wait_for_output(r"web\.1 .*listening on")
    honcho.wait_for_output(r"worker\.1 .*websocket\.receive")
    honcho.wait_for_output(r"release\.1 .*Applying sessions\.")
    # Migrations go in the order of the applications' names: the last is under way.
    wait_until(lambda: httpx.get(url).status_code == 200, "the tables are there", 30)
    demo = processes.start("python", "manage.py", "demo", env=env, cwd=project)
    assert demo.wait() == 0, demo.output

    alice = Visitor(url)
    alice.log_in()
    with alice.room() as room:
        room.echo("through web and worker")
        honcho.signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed) as closed:
            room.wait_for(type="nothing")
    alice.close()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    honcho.wait(25)
    assert "stopped after" in honcho.output
    assert "Warm shutdown" in honcho.output
    assert "SIGKILL" not in honcho.output
    assert "Traceback" not in honcho.output


def test_as_on_heroku(project: Path, processes: Processes, tls_redis: str, demo_template: Path) -> None:
    copy_database(demo_template, project / "db.sqlite3")
    port = free_port()
    env = {"DYNO": "web.1", "SECRET_KEY": "s" * 60, "REDIS_URL": tls_redis}
    build = processes.start("python", "manage.py", "collectstatic", "--noinput", env=env, cwd=project)
    assert build.wait() == 0, build.output
    web = processes.start("python", "-m", "channelsq.interface", env={**env, "PORT": str(port)}, cwd=project)
    worker = processes.start("celery", "-A", "app", "worker", env={**env, "DYNO": "worker.1"}, cwd=project)
    web.wait_for_port(port)

    alice = Visitor(f"http://127.0.0.1:{port}", "chat.herokuapp.com", behind_https=True)
    alice.log_in()
    stylesheet = re.search(r'href="(/static/app/chat\.[0-9a-f]+\.css)"', alice.get("/").text)
    assert stylesheet
    assert alice.get(stylesheet[1]).headers["Cache-Control"].endswith("immutable")
    with alice.room() as room:
        room.echo("over TLS")
    alice.close()
    plain = Visitor(f"http://127.0.0.1:{port}", "chat.herokuapp.com")
    assert plain.get("/").headers["Location"] == "https://chat.herokuapp.com/"
    plain.close()
    for process in (web, worker):
        assert process.terminate() == 0
        assert "p4ss" not in process.output
