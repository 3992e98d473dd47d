"""The tutorial, taken out of its page into an empty folder and run as it says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from tests.support.markdown import blocks, doc_page
from tests.support.ports import free_port
from tests.support.processes import Process, Processes
from tests.support.waiting import wait_until

PAGE = doc_page("chat")

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the tutorial's files, and nothing else."""
    folder = tmp_path / "chat"
    for block in blocks(PAGE):
        if block.file:
            path = folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
    return folder


def commands() -> list[str]:
    """Every command line of the tutorial."""
    return [line for block in blocks(PAGE) if block.language == "sh" for line in block.text.splitlines()]


class Chat:
    """Runs the tutorial's own command lines in its folder."""

    def __init__(self, processes: Processes, folder: Path, env: dict[str, str] | None = None) -> None:
        self.processes = processes
        self.folder = folder
        self.env = {"DJANGO_SETTINGS_MODULE": "config.settings", **(env or {})}
        self.port = free_port()

    def open(self, origin: str = "http://127.0.0.1") -> ClientConnection:
        """Open a socket, as a page from ``origin`` does."""
        return connect(f"ws://127.0.0.1:{self.port}/chat/tea/", origin=Origin(origin))

    def start(self, command: str, *more: str) -> Process:
        """Start a command of the page; AssertionError if it is none of them."""
        assert command in commands()
        words = [each.strip("\"'") for each in re.findall(r'"[^"]*"|\S+', command)]
        return self.processes.start(*words, *more, env=self.env, cwd=self.folder)

    def run(self, command: str) -> None:
        """Run a command of the page to its end."""
        process = self.start(command)
        assert process.wait(60) == 0, process.output

    def migrate(self) -> None:
        """The two commands that make the database."""
        self.run("python manage.py makemigrations app")
        self.run("python manage.py migrate")


@pytest.fixture
def windows() -> Iterator[ExitStack]:
    """Closes the clients at the end of the test."""
    with ExitStack() as stack:
        yield stack


def two_see_each_other(chat: Chat, windows: ExitStack) -> tuple[ClientConnection, ClientConnection]:
    one, two = (windows.enter_context(chat.open()) for _ in range(2))
    for sender, text in ((one, "from the first"), (two, "from the second")):
        sender.send(text)
        assert one.recv(timeout=15) == text
        assert two.recv(timeout=15) == text
    late = windows.enter_context(chat.open())
    assert [late.recv(timeout=15) for _ in range(2)] == ["from the first", "from the second"]
    with pytest.raises(InvalidStatus) as refused:
        chat.open("http://evil.example")
    assert refused.value.response.status_code == 403
    return one, two


def test_embedded(project: Path, processes: Processes, windows: ExitStack) -> None:
    chat = Chat(processes, project)
    chat.migrate()
    server = chat.start("python manage.py runserver", str(chat.port))
    server.wait_for_port(chat.port)
    two_see_each_other(chat, windows)
    page = httpx.get(f"http://127.0.0.1:{chat.port}/chat/tea/")
    assert page.status_code == 200
    assert "<h1>tea</h1>" in page.text
    assert "interface server and workers run in this process" in server.output
    windows.enter_context(chat.open()).send(b"bytes have no text")
    server.wait_for_output(r"KeyError: 'text'")


@pytest.mark.redis
def test_on_redis(project: Path, processes: Processes, windows: ExitStack, redis_url: str) -> None:
    chat = Chat(processes, project, {"REDIS_URL": redis_url.rsplit("/", 1)[0] + "/7"})
    chat.migrate()
    interface = chat.start("python -m channelsq.interface", "--port", str(chat.port))
    worker = chat.start("celery -A app worker --loglevel INFO")
    interface.wait_for_port(chat.port)
    worker.wait_for_output(r"\bready\.", timeout=60)
    one, two = two_see_each_other(chat, windows)
    chat.run("python manage.py shell -c \"from app.tasks import announce; announce.delay('tea', 'Tea is ready')\"")
    assert one.recv(timeout=15) == two.recv(timeout=15) == "Tea is ready"
    # The worker is stopped, somebody types, the worker is started again.
    assert worker.terminate() == 0
    one.send("while it was away")
    chat.start("celery -A app worker --loglevel INFO")
    assert two.recv(timeout=45) == "while it was away"
    wait_until(lambda: one.recv(timeout=15) == "while it was away", "the sender's own line")


def test_every_file_is_part_of_the_project(project: Path) -> None:
    files = {str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()}
    assert {"manage.py", "config/settings.py", "app/consumers.py", "app/routing.py", "app/tasks.py"} <= files
    assert all(len((project / name).read_text().splitlines()) <= 40 for name in files)
