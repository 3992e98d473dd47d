"""The proxies of docs/examples/deploy/, with the real programs before real interface servers."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from tests.support import needs
from tests.support.demo import fresh_redis
from tests.support.ports import free_port
from tests.support.processes import ROOT, Process
from tests.support.project import Project
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120), pytest.mark.ways("other ways")]

EXAMPLES = ROOT / "docs" / "examples" / "deploy"


@pytest.fixture(scope="module")
def project(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    url = fresh_redis(redis_url)
    project = Project(tmp_path_factory.mktemp("proxies"), url, {"TEST_LAYER": url.replace("redis:", "redis-streams:")})
    try:
        project.migrate()
        project.start("--proxy-headers")
        yield project
    finally:
        project.stop()


def program(name: str) -> str:
    found = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin")))
    return found or needs.missing(f"no {name} (apt install {name})")


def start_haproxy(project: Project, second: int) -> tuple[Process, str]:
    port = free_port()
    env = {
        "LISTEN": f"127.0.0.1:{port}",
        "FIRST": f"127.0.0.1:{project.port}",
        "SECOND": f"127.0.0.1:{second}",
    }
    process = project.processes.start(program("haproxy"), "-db", "-f", str(EXAMPLES / "haproxy.cfg"), env=env)
    process.wait_for_port(port)
    return process, f"127.0.0.1:{port}"


def start_caddy(project: Project, folder: Path) -> tuple[Process, str]:
    port = free_port()
    env = {
        "SITE": f"http://127.0.0.1:{port}",
        "SERVER": f"127.0.0.1:{project.port}",
        "XDG_DATA_HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
        "HOME": str(folder),
    }
    config = str(EXAMPLES / "Caddyfile")
    process = project.processes.start(program("caddy"), "run", "--config", config, "--adapter", "caddyfile", env=env)
    process.wait_for_port(port)
    return process, f"127.0.0.1:{port}"


@pytest.mark.parametrize("name", ["haproxy", "caddy"])
def test_a_proxy_passes_pages_and_sockets_on(project: Project, name: str, tmp_path: Path) -> None:
    process, where = start_haproxy(project, free_port()) if name == "haproxy" else start_caddy(project, tmp_path)
    try:
        forged = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https"}
        answer = wait_until(lambda: got(f"http://{where}/no-such-page-{name}", forged), "an answer", 15)
        assert answer.status_code == 404
        project.interface.wait_for_output(rf'127\.0\.0\.1:\d+ "GET /no-such-page-{name}"')
        assert "6.6.6.6" not in project.interface.output
        assert httpx.get(f"http://{where}/-/health/ready", trust_env=False).status_code == 403
        with connect(f"ws://{where}/chat/lobby/", proxy=None) as socket:
            socket.send("hello")
            assert socket.recv(15) == "lobby: hello"
    finally:
        process.stop()


def got(url: str, headers: dict[str, str] | None = None) -> httpx.Response | None:
    """Return an answer; None if the proxy has no server yet."""
    answer = httpx.get(url, headers=headers, trust_env=False, timeout=30)
    return None if answer.status_code == 503 else answer


def test_haproxy_lets_no_client_notice_a_deploy(project: Project) -> None:
    port = free_port()
    options = ("--drain-delay", "3", "--proxy-headers")
    second, _ = project.processes.interface(*options, env=project.env, port=port)
    process, where = start_haproxy(project, port)
    failures: list[int] = []
    count, stop = [0], threading.Event()

    def visit() -> None:
        while not stop.is_set():
            status = httpx.get(f"http://{where}/no-such-page", trust_env=False, timeout=30).status_code
            count[0] += 1
            if status != 404:
                failures.append(status)

    try:
        wait_until(lambda: got(f"http://{where}/no-such-page"), "an answer", 15)
        visitors = [threading.Thread(target=visit) for _ in range(4)]
        for each in visitors:
            each.start()
        assert second.terminate(40) == 0
        project.processes.interface(*options, env=project.env, port=port)
        before = count[0]
        wait_until(lambda: count[0] > before + 50, "more visits", 30)
        stop.set()
        for each in visitors:
            each.join(30)
        assert failures == []
        assert count[0] > 100
    finally:
        stop.set()
        process.stop()
