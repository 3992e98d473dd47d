"""The first tutorial, taken out of its page and done literally, in two browsers."""

from __future__ import annotations

import os
import re
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from channelsq.start.command import files
from tests.support.browsers import two_pages
from tests.support.demo import fresh_redis
from tests.support.markdown import Block, applied, blocks, doc_page, sections
from tests.support.pictures import Pictures
from tests.support.ports import free_port
from tests.support.processes import ACTIVATED, Process, Processes
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.redis, pytest.mark.timeout(180)]

PAGE = doc_page("first-project")

#: Commands that run until they are stopped.
SERVERS = ("python manage.py runserver", "python -m channelsq.interface", "celery -A app worker", "honcho start")

#: The environment of the tests stands for the reader's; it has the packages.
OF_THE_ENVIRONMENT = ("python3 -m venv .venv", ". .venv/bin/activate")

#: The width of a window in the pictures.
WIDTH = 560


class Reader:
    """Does what the page says, section by section.

    Args:
        folder: an empty one.
        processes: starts the commands.
        redis_url: the server in place of the page's.
    """

    def __init__(self, folder: Path, processes: Processes, redis_url: str) -> None:
        self.folder = folder
        self.processes = processes
        self.redis_url = redis_url
        self.port = free_port()
        self.env = {
            **ACTIVATED,
            "PORT": str(self.port),
            "PIP_NO_INDEX": "1",  # what is to be installed is there
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            **{
                f"GIT_{who}_{what}": "reader@example.com"
                for who in ("AUTHOR", "COMMITTER")
                for what in ("NAME", "EMAIL")
            },
        }
        self.output = ""
        self.done: list[Block] = []

    @property
    def url(self) -> str:
        """The site."""
        return f"http://127.0.0.1:{self.port}/"

    def do(self, number: int, up_to: int | None = None) -> list[Process]:
        """Do the blocks of a section that were not done yet; return the servers that it has started.

        Args:
            number: that of the section.
            up_to: the number of blocks after which to stop.
        """
        started: list[Process] = []
        for block in sections(PAGE)[number][:up_to]:
            if block in self.done:
                continue
            self.done.append(block)
            if block.file:
                self.write(block)
            elif block.language == "sh":
                for line in block.text.splitlines():
                    started += self.type(line)
            elif block.language == "text":
                assert block.text.strip() in self.output
        return started

    def write(self, block: Block) -> None:
        """Write a file, or change it."""
        path = self.folder / block.file
        if block.language == "diff":
            path.write_text(applied(block.text, path.read_text()))
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self._redis(block.text))

    def type(self, line: str) -> list[Process]:
        """Type a command; return the server if it starts one."""
        if line in OF_THE_ENVIRONMENT:
            return []
        if match := re.fullmatch(r"mkdir (\w+) && cd \1", line):
            self.folder /= match[1]
            self.folder.mkdir()
            return []
        if match := re.fullmatch(r"export (\w+)=(\S+)", line):
            self.env[match[1]] = self._redis(match[2])
            return []
        words = shlex.split(line)
        if line == "python manage.py runserver":
            words.append(str(self.port))
        process = self.processes.start(*words, env=self.env, cwd=self.folder)
        if line.startswith("celery"):
            process.wait_for_output(r"\bready\.", timeout=60)
            return [process]
        if line.startswith(SERVERS):
            process.wait_for_port(self.port, timeout=60)
            return [process]
        assert process.wait(60) == 0, process.output
        self.output = process.output
        return []

    def type_and_read(self, line: str) -> str:
        """Type a command; return its output."""
        self.type(line)
        return self.output

    def _redis(self, text: str) -> str:
        return text.replace("redis://127.0.0.1:6379/0", self.redis_url)


@pytest.fixture
def reader(tmp_path: Path, processes: Processes, redis_url: str) -> Reader:
    return Reader(tmp_path, processes, fresh_redis(redis_url))


@pytest.fixture
def windows(chromium: Browser) -> Iterator[list[Page]]:
    """Two browsers; no script may have failed in them at the end."""
    with two_pages(chromium, 30_000, {"width": 800, "height": 700}) as pages:
        yield pages


def open_both(windows: list[Page], url: str) -> None:
    for page in windows:
        page.goto(url)


def add(page: Page, text: str, *, answered: bool = True) -> None:
    page.get_by_label("New note").fill(text)
    page.get_by_role("button", name="Add").click(no_wait_after=not answered)


def both_have(windows: list[Page], *texts: str | re.Pattern[str]) -> None:
    for page in windows:
        expect(page.locator("#notes li")).to_have_text(list(texts))


def has_reloaded(reader: Reader, text: str) -> None:
    """Wait until the page has ``text``; until then the server may be away."""

    def shows() -> bool:
        try:
            return text in httpx.get(reader.url, trust_env=False).text
        except httpx.TransportError:
            return False

    wait_until(shows, f"{text!r} in the page", 30)


def timed(text: str) -> re.Pattern[str]:
    """Return a pattern for a note as step 3 writes it."""
    return re.compile(rf"^{text} \d\d:\d\d$")


def test_the_page_is_done_as_it_says(reader: Reader, windows: list[Page], picture: Pictures) -> None:
    one, two = windows
    assert reader.do(1) == []
    assert all((reader.folder / path).exists() for _, path in files())

    (server,) = reader.do(2)
    open_both(windows, reader.url)
    add(one, "Buy milk")
    both_have(windows, "Buy milk")
    add(two, "Water the plants")
    both_have(windows, "Buy milk", "Water the plants")
    picture(windows, "first-project-two-windows", (WIDTH, 430))

    reader.do(3)
    has_reloaded(reader, "<small>")
    add(one, "Call Ann")
    both_have(windows, re.compile("Buy milk"), re.compile("Water the plants"), timed("Call Ann"))

    reader.do(4)
    has_reloaded(reader, "Put the kettle on")
    open_both(windows, reader.url)
    for page in windows:
        expect(page.locator("#kettle")).to_have_text("The kettle is cold.")
    two.get_by_role("button", name="Put the kettle on").click()
    degrees = "60" if picture.writes else r"\d+"
    for page in windows:
        expect(page.locator("#kettle")).to_have_text(re.compile(rf"The kettle has {degrees} °C\."))
    picture(windows, "first-project-kettle", (WIDTH, 640))
    for page in windows:
        expect(page.locator("#notes li").last).to_have_text(timed("Tea is ready"))
    assert server.terminate() == 0

    reader.do(5)

    interface, worker = reader.do(6, 2)
    # A note that comes to both shows that both are connected again.
    add(one, "Eat cake")
    for page in windows:
        expect(page.locator("#notes li").last).to_have_text(timed("Eat cake"))
    reader.do(6)
    for page in windows:
        expect(page.locator("#kettle")).to_have_text("The kettle has 100 °C.")
        expect(page.locator("#notes li").last).to_have_text(timed("Tea is ready"))
    picture(windows, "first-project-tea", (WIDTH, 570))
    assert worker.terminate() == 0
    add(one, "Without a worker", answered=False)
    (worker,) = reader.type("celery -A app worker --loglevel INFO")
    for page in windows:
        expect(page.locator("#notes li").last).to_have_text(timed("Without a worker"))
    assert [interface.terminate(), worker.terminate()] == [0, 0]

    (honcho,) = reader.do(7)
    honcho.wait_for_output(r"worker\.1 .*ready\.", timeout=60)
    open_both(windows, reader.url)
    two.get_by_role("button", name="Put the kettle on").click()
    for page in windows:
        expect(page.locator("#kettle")).to_have_text(re.compile(r"The kettle has \d+ °C\."))
    honcho.signal(signal.SIGTERM)
    honcho.wait(30)
    assert "Traceback" not in honcho.output

    reader.do(8)
    in_git = reader.type_and_read("git ls-files").splitlines()
    assert {"Procfile", "app.json", ".python-version", "bin/release", "tests/test_kettle.py"} <= set(in_git)
    assert not [name for name in in_git if name.startswith((".env", ".venv", "db.sqlite3", "staticfiles"))]
    assert reader.done == blocks(PAGE)
