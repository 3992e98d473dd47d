"""A live task, a live page and a user in two browsers, while all other processes die one after another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis
from playwright.sync_api import Browser, Page, expect

from tests.support.browsers import two_pages
from tests.support.project import Project
from tests.support.servers import DURABLE, RedisServer
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240), pytest.mark.ways("other ways")]


@pytest.fixture
def pages(chromium: Browser) -> Iterator[list[Page]]:
    """The pages of two browsers."""
    with two_pages(chromium, 40_000) as pages:
        yield pages


class Site:
    """The project, and what the test sees of it in two browsers of one user."""

    def __init__(self, project: Project, pages: list[Page]) -> None:
        self.project, self.pages = project, pages
        self.notes: list[str] = []
        self.user = 0

    def get(self, path: str) -> dict[str, str]:
        def answer() -> httpx.Response | None:
            """Return the answer; None while Redis has only just come back."""
            found = httpx.get(self.project.url + path, timeout=60, trust_env=False)
            assert found.status_code in (200, 503), found.text
            return found if found.status_code == 200 else None

        response = wait_until(answer, f"an answer for {path}", 30)
        assert response is not None
        found: dict[str, str] = response.json()
        return found

    def open(self) -> None:
        """Log the user in, start the task, and show the page."""
        ticket = self.get("/run/all/")["ticket"]
        for page in self.pages:
            page.goto(f"{self.project.url}/log-in/alice/")
            page.goto(f"{self.project.url}/board/script/all/?ticket={ticket}")
        for page in self.pages:
            expect(page.get_by_role("status")).to_have_text("5 / 10 rows")

    def check(self, note: str) -> None:
        """Add a note, and expect it in both browsers, once; and a text for the user alone."""
        self.notes.append(note)
        self.get(f"/add/all/{note}/")
        for page in self.pages:
            expect(page.locator("#notes tr")).to_have_text(self.notes)

        def is_shown() -> bool:
            self.get(f"/say/1/for alice {note}/")
            return all(page.locator("#own").text_content() == f"for alice {note}" for page in self.pages)

        wait_until(is_shown, "the user's text in both pages", 40)

    def end(self) -> None:
        """Let the task end, and expect that in both browsers."""
        self.project.let_go("all")
        for page in self.pages:
            expect(page.get_by_role("status")).to_have_text("Done")
            expect(page.get_by_role("progressbar")).to_have_js_property("position", 1)


@pytest.mark.redis
def test_everything_goes_on_with_redis(pages: list[Page], tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis", DURABLE)
    server.start()
    env = {
        "DJANGO_SETTINGS_MODULE": "tests.project.pages_settings",
        "TEST_LAYER": server.url.replace("redis:", "redis-streams:"),
        "TEST_VISIBILITY": "2",
    }
    project = Project(tmp_path, server.url.replace("redis:", "redis-streams:"), {**env, "TEST_GROUPS": server.url})
    try:
        project.migrate()
        project.start()
        site = Site(project, pages)
        site.open()
        site.check("begin")
        server.kill()
        server.start()
        site.check("redis")
        project.interface.kill()
        project.start_interface()
        site.check("interface")
        project.worker.kill()
        project.start_worker()
        site.check("worker")
        site.end()
        with redis.Redis.from_url(server.url) as client:
            client.flushall()
        site.check("empty")
    finally:
        project.stop()
        server.stop()


def test_everything_goes_on_with_an_embedded_worker(pages: list[Page], tmp_path: Path) -> None:
    project = Project(tmp_path, env={"DJANGO_SETTINGS_MODULE": "tests.project.pages_settings"})
    try:
        project.migrate()
        project.start()
        site = Site(project, pages)
        site.open()
        site.check("begin")
        site.end()
        project.interface.kill()
        project.start_interface()
        site.check("killed")
        project.interface.terminate()
        project.start_interface()
        site.check("deploy")
    finally:
        project.stop()
