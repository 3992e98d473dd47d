"""Live pages in real browsers: with channelsq's script, beside Turbo, with htmx, and with <turbo-stream-source>."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.demo import fresh_redis
from tests.support.npm import npm_packages
from tests.support.ports import free_port
from tests.support.project import Project
from tests.support.proxy import Loop, Proxy

pytestmark = [pytest.mark.browser, pytest.mark.redis, pytest.mark.timeout(180)]

other_way = pytest.mark.ways("other ways")

#: Ways in which pages are live, see tests/project/pages.py.
WAYS = ["script", "script-turbo", "htmx", "turbo"]

every_way = pytest.mark.parametrize("way", WAYS)

#: Pinned, as in pyproject.toml.
PACKAGES = ["htmx.org@2.0.11", "htmx-ext-ws@2.0.4", "@hotwired/turbo@8.0.23"]


class Board:
    """The project, and what its users do to a board."""

    def __init__(self, project: Project, proxy: Proxy, loop: Loop) -> None:
        self.project = project
        self.proxy = proxy
        self.loop = loop

    def do(self, *words: object) -> dict[str, int]:
        """Get a page of the project that changes something, past the proxy."""
        answer = httpx.get(self.project.url + "".join(f"/{word}" for word in words) + "/", timeout=30)
        assert answer.status_code == 200, answer.text
        found: dict[str, int] = answer.json()
        return found

    def open(self, page: Page, way: str, board: str, query: str = "") -> None:
        """Show a board in a browser, through the proxy."""
        page.goto(f"http://127.0.0.1:{self.proxy.port}/board/{way}/{board}/{query}")

    def cut(self) -> None:
        """Cut the lines of the browsers."""
        self.loop.run(self.proxy.cut())

    def heal(self) -> None:
        """Mend them."""
        self.loop.run(self.proxy.heal())


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return npm_packages(tmp_path_factory.mktemp("npm"), *PACKAGES)


@pytest.fixture(scope="module")
def board(redis_url: str, packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    with served(redis_url, packages, tmp_path_factory.mktemp("pages")) as board:
        yield board


@contextmanager
def served(redis_url: str, packages: Path, folder: Path, **more: str) -> Iterator[Board]:
    """Serve the project with its live pages, behind a proxy."""
    url = fresh_redis(redis_url)
    env = {
        "DJANGO_SETTINGS_MODULE": "tests.project.pages_settings",
        "TEST_NPM": str(packages),
        "TEST_LAYER": url.replace("redis:", "redis-streams:"),
        **more,
    }
    project, loop = Project(folder, url, env), Loop()
    proxy = Proxy(free_port(), project.port)
    try:
        project.migrate()
        project.start()
        loop.run(proxy.start())
        yield Board(project, proxy, loop)
    finally:
        loop.run(proxy.stop())
        loop.stop()
        project.stop()


@pytest.fixture
def pages(chromium: Browser) -> Iterator[list[Page]]:
    """The pages of two browsers."""
    expect.set_options(timeout=30_000)
    contexts = [chromium.new_context() for _ in range(2)]
    problems: list[str] = []
    found = []
    for context in contexts:
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: problems.append(error.message))
        found.append(page)
    yield found
    for context in contexts:
        context.close()
    assert problems == []


def rows(*pages: Page, texts: list[str]) -> None:
    """Expect the rows of pages."""
    for page in pages:
        expect(page.locator("#notes tr")).to_have_text(texts)


def is_joined(board: Board, name: str, *pages: Page) -> None:
    """Wait until pages get fragments."""
    for page in pages:
        expect(page.locator("channelsq-live").first).to_have_count(1)
    for number in range(100):
        board.do("say", name, f"try {number}")
        try:
            for page in pages:
                expect(page.locator("#status")).to_have_text(f"try {number}", timeout=500)
        except AssertionError:
            continue
        return
    raise AssertionError("the pages get no fragments")


@every_way
def test_every_page_changes_with_the_database(board: Board, pages: list[Page], way: str) -> None:
    name = f"changes-{way}"
    first = board.do("add", name, "one")["pk"]
    for page in pages:
        board.open(page, way, name)
    rows(*pages, texts=["one"])
    is_joined(board, name, *pages)
    second = board.do("add", name, "two & <b>")["pk"]
    rows(*pages, texts=["one", "two & <b>"])
    board.do("change", first, name, "uno")
    rows(*pages, texts=["uno", "two & <b>"])
    board.do("delete", second)
    rows(*pages, texts=["uno"])
    board.do("change", first, "elsewhere", "uno")
    rows(*pages, texts=[])


@pytest.mark.parametrize("way", ["script", pytest.param("script-turbo", marks=other_way), "htmx"])
def test_a_change_between_the_query_and_the_socket_is_seen(board: Board, pages: list[Page], way: str) -> None:
    page, name = pages[0], f"between-{way}"
    with board_waits(board, page, way, name):
        board.do("add", name, "late")
    rows(page, texts=["late"])
    is_joined(board, name, page)
    board.do("add", name, "later")
    rows(page, texts=["late", "later"])


class board_waits:
    """Open a page whose view waits after its query, until the end of the block."""

    def __init__(self, board: Board, page: Page, way: str, name: str) -> None:
        self.board, self.page, self.way, self.name = board, page, way, name

    def __enter__(self) -> None:
        url = f"http://127.0.0.1:{self.board.proxy.port}/board/{self.way}/{self.name}/?wait={self.name}"
        with self.page.expect_request(url):
            self.page.evaluate("(url) => void (location.href = url)", url)
        self.board.project.wait_for_record("waits", self.name)

    def __exit__(self, *error: object) -> None:
        self.board.project.let_go(self.name)


@pytest.mark.parametrize("way", ["script", *(pytest.param(way, marks=other_way) for way in WAYS[1:])])
def test_a_page_catches_up_after_a_cut_line_a_deploy_and_a_dead_worker(
    board: Board, pages: list[Page], way: str
) -> None:
    page, name = pages[0], f"faults-{way}"
    board.open(page, way, name)
    is_joined(board, name, page)
    board.cut()
    board.do("add", name, "cut")
    is_old_enough(page, way)
    board.heal()
    rows(page, texts=["cut"])
    is_joined(board, name, page)

    is_old_enough(page, way)
    board.project.interface.terminate()
    board.project.start_interface()
    board.do("add", name, "deploy")
    rows(page, texts=["cut", "deploy"])
    is_joined(board, name, page)

    is_old_enough(page, way)
    board.project.worker.kill()
    board.loop.run(board.proxy.drop())
    board.project.start_worker()
    board.do("add", name, "death")
    rows(page, texts=["cut", "deploy", "death"])


def is_old_enough(page: Page, way: str) -> None:
    """Wait until Turbo's own element would bring a page up to date: it does not in its first seconds."""
    if way == "turbo":
        page.wait_for_function(
            """() => {
              const url = new URL(document.querySelector("turbo-stream-source").src);
              const ticket = url.searchParams.get("page_ticket").split("~")[0];
              const since = JSON.parse(atob(ticket.replaceAll("-", "+").replaceAll("_", "/")))[2];
              return Date.now() / 1000 > since + 5.2;
            }"""
        )


@other_way
@pytest.mark.parametrize("way", ["script", "htmx"])
def test_a_page_gets_a_new_ticket_when_its_own_has_expired(
    redis_url: str, packages: Path, tmp_path: Path, pages: list[Page], way: str
) -> None:
    with served(redis_url, packages, tmp_path, TEST_PAGE_AGE="2") as board:
        page = pages[0]
        board.open(page, way, "old")
        is_joined(board, "old", page)
        page.wait_for_function("() => performance.now() > 3500")
        board.cut()
        board.do("add", "old", "missed")
        board.heal()
        rows(page, texts=["missed"])
        is_joined(board, "old", page)


@other_way
def test_a_page_finds_that_its_line_is_dead(board: Board, pages: list[Page]) -> None:
    page = pages[0]
    page.clock.install()
    board.open(page, "script", "dead")
    is_joined(board, "dead", page)
    board.loop.run(board.proxy.forget())  # neither side hears of it
    board.do("add", "dead", "missed")
    page.clock.fast_forward(80_000)
    page.clock.run_for(20_000)
    rows(page, texts=["missed"])


@other_way
def test_a_page_is_told_of_a_refusal(redis_url: str, packages: Path, tmp_path: Path, pages: list[Page]) -> None:
    with served(redis_url, packages, tmp_path, TEST_MAY_JOIN="tests.project.pages.may_join") as board:
        page = pages[0]
        page.add_init_script(
            "addEventListener('channelsq:refused', (event) => (window.refused = event.target.localName))"
        )
        board.open(page, "script", "closed")
        page.wait_for_function("() => window.refused === 'channelsq-live'")
        board.open(page, "script", "open")
        is_joined(board, "open", page)


def test_a_page_may_handle_changes_itself(board: Board, pages: list[Page]) -> None:
    page = pages[0]
    page.add_init_script(
        """addEventListener("channelsq:fragment", (event) => {
          if (event.detail.action !== "append") return;
          event.preventDefault();
          window.appended = event.detail;
        });"""
    )
    board.open(page, "script", "own")
    is_joined(board, "own", page)
    board.do("add", "own", "kept")
    page.wait_for_function("() => window.appended?.target === 'notes'")
    rows(page, texts=[])
