"""``python -m channelsq startproject``: the project runs, its tests pass, and two browsers see the same."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from channelsq.start.command import files, main
from tests.support.demo import fresh_redis
from tests.support.pictures import Pictures
from tests.support.ports import free_port
from tests.support.processes import Processes

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new project."""
    folder = tmp_path_factory.mktemp("new") / "shop"
    assert main(["shop", str(folder)]) == 0
    return folder


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    processes = Processes(tmp_path / "logs")
    yield processes
    processes.stop()


def run(folder: Path, *command: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "config.settings", **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_a_new_project_is_complete(folder: Path) -> None:
    written = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    assert {path for _, path in files()} <= written
    assert not [path for path in written if "{project}" in (folder / path).read_text()]
    for program in ("manage.py", "bin/release"):
        assert os.access(folder / program, os.X_OK)
    run(folder, "manage.py", "check", "--fail-level", "WARNING")
    run(folder, "manage.py", "makemigrations", "--check", "--dry-run")
    assert "3 passed" in run(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore")
    production = {"SECRET_KEY": "k" * 60 + "0123456789", "ALLOWED_HOSTS": "example.com", "REDIS_URL": "redis://x/0"}
    run(folder, "manage.py", "check", **production)


@pytest.mark.parametrize(
    ("name", "where", "text"),
    [("a-b", "x", "'a-b' is not a name"), ("7a", "x", "'7a' is not a name"), ("shop", ".", "is not an empty folder")],
)
def test_a_project_is_not_written_over_another_one(
    name: str, where: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there.txt").touch()
    assert main([name, str(tmp_path / where)]) == 2
    assert text in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["there.txt"]


def test_a_project_is_written_beside_its_virtual_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (".venv", ".git"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["shop", "."]) == 0
    assert (tmp_path / "manage.py").exists()
    told = capsys.readouterr().out
    assert told.startswith("shop is ready.  Next:\n\n  pip install -r requirements.txt")  # in an active environment
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    assert main(["tea", "tea"]) == 0
    assert "Next:\n\n  cd tea\n  python -m venv .venv && . .venv/bin/activate\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "way", ["runserver", pytest.param("redis", marks=[pytest.mark.redis, pytest.mark.ways("other ways")])]
)
def test_two_browsers_see_the_same(
    folder: Path,
    way: str,
    chromium: Browser,
    processes: Processes,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    picture: Pictures,
) -> None:
    port = free_port()
    env = {"DJANGO_SETTINGS_MODULE": "config.settings", "DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}"}
    if way == "redis":
        env["REDIS_URL"] = fresh_redis(request.getfixturevalue("redis_url"))
    run(folder, "manage.py", "migrate", "--verbosity", "0", **env)
    if way == "redis":
        processes.start("python", "-m", "channelsq.interface", "--port", str(port), env=env, cwd=folder)
        worker = processes.start("celery", "-A", "app", "worker", "--loglevel", "INFO", env=env, cwd=folder)
        worker.wait_for_output(r"ready\.")
    else:
        processes.start("python", "manage.py", "runserver", str(port), "--noreload", env=env, cwd=folder)
    processes.started[0].wait_for_port(port)
    expect.set_options(timeout=30_000)
    contexts = [chromium.new_context() for _ in range(2)]
    problems: list[str] = []
    pages = [context.new_page() for context in contexts]
    for page in pages:
        page.on("pageerror", lambda error: problems.append(error.message))
        page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
        page.goto(f"http://127.0.0.1:{port}/")
    one, two = pages
    one.get_by_label("New note").fill("Tea & <b>biscuits</b>")
    one.get_by_role("button", name="Add").click()
    for page in pages:
        expect(page.locator("#notes li")).to_have_text(["Tea & <b>biscuits</b>"])
    for scheme in ("light", "dark"):
        two.emulate_media(color_scheme=scheme)
        assert Axe().run(two).response["violations"] == []
    one.get_by_role("button", name="Start a task").click()
    expect(one.get_by_role("status")).to_contain_text("/ 10 seconds")
    assert Axe().run(one).response["violations"] == []
    expect(one.get_by_role("status")).to_have_text(re.compile(r"[6-9] / 10 seconds"))
    picture(one, "live-task", (600, 260))
    expect(one.get_by_role("status")).to_have_text("Done")
    for context in contexts:
        context.close()
    assert problems == []
