"""The project board of the documentation, under its interface server and worker on Redis."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser, Locator, Page, expect

from tests.support.demo import QUICK
from tests.support.ports import free_port
from tests.support.processes import ROOT, Process, Processes

BOARD = ROOT / "docs" / "examples" / "board"

#: What ``manage.py sample`` gives everybody.
PASSWORD = "board-example"


class BoardSite:
    """Its processes and database.

    Args:
        directory: an existing, empty one.
        redis_url: the broker's, of a database of its own.
    """

    def __init__(self, directory: Path, redis_url: str) -> None:
        self.processes = Processes(directory / "logs")
        self.port = free_port()
        self.env = {
            "DJANGO_SETTINGS_MODULE": "project.settings",
            "BOARD_DATABASE": str(directory / "board.sqlite3"),
            "REDIS_URL": redis_url,
            "SECRET_KEY": "of-the-test-and-long-enough-to-be-taken-for-one",
        }

    @property
    def url(self) -> str:
        """The URL of the interface server."""
        return f"http://127.0.0.1:{self.port}"

    def manage(self, *args: str) -> str:
        """``manage.py`` to its end; gives its output."""
        process = self.processes.start("python", "manage.py", *args, env=self.env, cwd=BOARD)
        assert process.wait(60) == 0, process.output
        return process.output

    def start(self) -> None:
        """Make the database, and start both programs."""
        self.manage("migrate", "--verbosity", "0")
        self.manage("sample")
        self.interface = self._start("python", "-m", "channelsq.interface", "--port", str(self.port))
        self.interface.wait_for_port(self.port)
        self.start_worker()

    def start_worker(self) -> None:
        """``celery -A project worker``."""
        self.worker = self._start("celery", "-A", "project", "worker", "--loglevel", "INFO", *QUICK)
        self.worker.wait_for_output(r"\bready\.", timeout=60)

    def _start(self, *args: str) -> Process:
        return self.processes.start(*args, env=self.env, cwd=BOARD)


class Member:
    """Somebody with a browser of their own."""

    def __init__(self, browser: Browser, site: BoardSite, name: str, size: tuple[int, int] = (1280, 800)) -> None:
        self.site = site
        self.name = name
        self.context = browser.new_context(viewport={"width": size[0], "height": size[1]})
        self.context.set_default_timeout(20_000)
        self.page: Page = self.context.new_page()
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda line: self.errors.append(line.text) if line.type == "error" else None)

    def log_in(self) -> None:
        """Fill in the login form, and see the list of boards."""
        self.page.goto(f"{self.site.url}/login/")
        self.page.fill("[name=username]", self.name)
        self.page.fill("[name=password]", PASSWORD)
        self.page.click("main button")
        expect(self.page.locator(".boards")).to_be_visible()

    def enter(self, board: str) -> None:
        """Open a board, and wait until it is live."""
        self.page.goto(f"{self.site.url}/")
        self.page.click(f".boards a:text-is('{board}')")
        self.is_live()

    def is_live(self) -> None:
        """Wait until the socket is open."""
        expect(self.page.locator("#connection")).to_have_text("live")

    def column(self, title: str) -> Locator:
        """A column."""
        return self.page.locator(".column").filter(has=self.page.get_by_role("heading", name=title, exact=True))

    def card(self, title: str) -> Locator:
        """A card, wherever it is."""
        return self.page.locator("[data-card]").filter(has=self.page.locator(".title", has_text=title))

    def sees(self, *titles: str, column: str) -> None:
        """Wait until a column has exactly these cards, in this order."""
        expect(self.column(column).locator("[data-card] .title")).to_have_text(list(titles))

    def reads(self, activity: str) -> None:
        """Wait until the newest line of the activity is this one."""
        expect(self.page.locator("#activity li").first).to_have_text(activity)

    def adds(self, title: str, column: str) -> None:
        """Type a new card."""
        self.column(column).get_by_label("New card").fill(title)
        self.column(column).get_by_role("button", name="Add").click()

    def opens(self, title: str) -> Locator:
        """Open a card; gives the dialog."""
        self.card(title).locator(".title").click()
        dialog = self.page.locator("dialog")
        expect(dialog).to_be_visible()
        return dialog

    def close(self) -> None:
        """Close the browser's window; nothing may have gone wrong in it."""
        self.context.close()
        assert not self.errors
