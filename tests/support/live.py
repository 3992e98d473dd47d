"""The project with live tasks, and a page that watches them as the browser library does."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.support.demo import fresh_redis
from tests.support.project import Project


@contextlib.contextmanager
def live_project(redis_url: str, directory: Path, *worker: str, **env: str) -> Iterator[Project]:
    """Run the test project with its layer on Redis Streams, and Celery's own broker and results beside it.

    Args:
        redis_url: a server.
        directory: an existing, empty one.
        worker: options of its worker.
        env: more environment for every process.
    """
    url = fresh_redis(redis_url)
    found = {"TEST_LAYER": url.replace("redis:", "redis-streams:"), "TEST_RESULTS": url, **env}
    project = Project(directory, url, found)
    project.migrate()
    project.start_interface()
    project.start_worker(*(worker or ("-c", "4")))
    try:
        yield project
    finally:
        project.stop()


class Page:
    """A socket, and what it was told about live tasks.

    Args:
        url: of the socket.
        cookie: the header of its handshake; empty for none.
    """

    def __init__(self, url: str, cookie: str = "") -> None:
        self._opened = contextlib.ExitStack()
        headers = {"Cookie": cookie} if cookie else {}
        self.socket: ClientConnection = self._opened.enter_context(
            connect(url, max_size=None, additional_headers=headers, proxy=None)
        )
        #: The payloads about live tasks, in the order in which they came.
        self.payloads: list[dict[str, Any]] = []
        #: Other messages.
        self.others: list[dict[str, Any]] = []

    def __enter__(self) -> Page:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._opened.close()

    def send(self, **content: Any) -> None:
        """Send JSON."""
        self.socket.send(json.dumps(content))

    def ask(self, what: str, *tickets: str) -> None:
        """Send a frame about live tasks, in the library's form."""
        payload = {"stream": "channelsq.task", "payload": {what: list(tickets)}}
        self.socket.send(json.dumps(payload, separators=(",", ":")))

    def read(self, timeout: float) -> bool:
        """Read one message; return False if none came in time."""
        try:
            text = str(self.socket.recv(timeout))
        except TimeoutError:
            return False
        content: dict[str, Any] = json.loads(text) if text.startswith("{") else {"text": text}
        if content.get("stream") == "channelsq.task":
            self.payloads.append(content["payload"])
        else:
            self.others.append(content)
        return True

    def until(self, condition: Any, what: str, timeout: float = 20.0) -> Any:
        """Read until ``condition()`` is true, and return that."""
        deadline = time.monotonic() + timeout
        while not (found := condition()):
            if not self.read(max(0.0, deadline - time.monotonic())):
                raise AssertionError(f"after {timeout:g} s still not: {what}; {self.payloads[-5:]} {self.others[-5:]}")
        return found

    def start(self, name: str, *args: Any, to: str = "me") -> str:
        """Start a task, and return its id."""
        count = len(self.others)
        self.send(start=name, args=args, to=to)
        self.until(lambda: len(self.others) > count, f"{name} to be started")
        return str(self.others[-1]["started"])

    def of(self, task: str) -> list[dict[str, Any]]:
        """Return the states of a task that came, without its text."""
        return [each for each in self.payloads if each.get("id") == task and "state" in each]

    def state(self, task: str, *states: str, timeout: float = 20.0) -> dict[str, Any]:
        """Read until a task is in one of some states; return what was told then."""

        def last() -> dict[str, Any] | None:
            found = self.of(task)
            return found[-1] if found and found[-1]["state"] in states else None

        found: dict[str, Any] = self.until(last, f"{task} to be {states}", timeout)
        return found

    def end(self, task: str) -> dict[str, Any]:
        """Read until a task has ended; return what was told then."""
        return self.state(task, "success", "failure", "revoked")

    def ticket(self, task: str) -> str:
        """Return the ticket that came with the first message about a task."""
        return str(next(each["ticket"] for each in self.of(task) if "ticket" in each))

    def text(self, task: str, stream: str) -> tuple[str, bool]:
        """Return the text of a stream, put together as the browser library does it, and whether it has ended.

        Raises:
            AssertionError: a piece is missing.
        """
        text, run, ended = "", "", False
        for each in self.payloads:
            if each.get("id") != task or each.get("stream") != stream:
                continue
            if each["run"] != run or each.get("begin"):
                run, text, ended = each["run"], "", False
            if each.get("end"):
                ended = True
                assert each["at"] == len(text), (each, len(text))
                continue
            assert each["at"] <= len(text), (each, len(text))
            text = text[: each["at"]] + each["piece"] if each["at"] + len(each["piece"]) > len(text) else text
        return text, ended
