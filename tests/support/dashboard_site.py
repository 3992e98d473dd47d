"""A project with the dashboard as docs/dashboard.md adds it: an interface server with metrics, a worker, Redis."""

from __future__ import annotations

import re
from pathlib import Path

import redis
from playwright.sync_api import Page

from tests.support.markdown import blocks
from tests.support.polls import PollsSite
from tests.support.processes import ROOT

PAGE = "/-/dashboard/"

_CONSUMERS = """\
def connect(message):
    message.reply_channel.send({"accept": True})


def echo(message):
    message.reply_channel.send({"text": message["text"]})


def slow(message):
    raise AssertionError("no worker reads this")
"""

_ROUTING = """\
from channelsq import include, route
from channelsq.staticfiles import StaticFilesConsumer

from mysite import consumers

channel_routing = [
    route("http.request", StaticFilesConsumer()),
    route("websocket.connect", consumers.connect, path="^/echo/"),
    route("websocket.receive", consumers.echo, path="^/echo/"),
    route("reports", consumers.slow),
]
"""

_PEOPLE = """
from django.contrib.auth.models import Permission, User

User.objects.create_superuser("alice", password="polls-example")
User.objects.create_user("stranger", password="polls-example")
User.objects.create_user("reader", password="polls-example", is_staff=True)
operator = User.objects.create_user("operator", password="polls-example", is_staff=True)
operator.user_permissions.add(Permission.objects.get(codename="delete_session"))
"""


class DashboardSite(PollsSite):
    """Its files, database and processes.

    Args:
        folder: an existing, empty one.
        redis_url: of a database of its own.
    """

    def __init__(self, folder: Path, redis_url: str) -> None:
        super().__init__(folder, redis_url, {"mysite/consumers.py": _CONSUMERS, "mysite/routing.py": _ROUTING})
        self.redis_url = redis_url

    def make(self) -> None:
        """Make the project, and add the lines of docs/dashboard.md."""
        super().make()
        shown = [block for block in blocks(ROOT / "docs" / "dashboard.md") if block.language == "diff"]
        assert [block.file for block in shown] == ["mysite/settings.py", "mysite/urls.py", "mysite/routing.py"]
        for block in shown:
            below, (added,) = block.text.partition("\n")[0][1:], re.findall(r"^\+(.*)$", block.text, re.MULTILINE)
            path = self.folder / block.file
            text = path.read_text()
            assert text.count(f"{below}\n") == 1, below
            path.write_text(text.replace(f"{below}\n", f"{below}\n{added}\n"))
        with (self.folder / "mysite" / "urls.py").open("a") as file:
            file.write("\nfrom django.urls import include\n")
            file.seek(0)
        urls = self.folder / "mysite" / "urls.py"
        urls.write_text(urls.read_text().replace("import path", "import include, path"))
        with (self.folder / "mysite" / "settings.py").open("a") as file:
            file.write(
                f'\nDEBUG = False\nCHANNEL_DASHBOARD = {{"enabled": True, "permission": "sessions.delete_session", '
                f'"metrics": ["{self.url}/-/metrics"]}}\n'
            )

    def fill(self) -> None:
        """Make the database, with users."""
        self.run("python", "manage.py", "migrate", "--verbosity", "0")
        self.shell(_PEOPLE)

    def start(self, *options: str) -> None:
        """Start both programs; the worker leaves the channel ``reports`` to others."""
        self.start_interface("--metrics", *options)
        self.start_worker()

    def add_dead_letter(self, queue: str = "reports") -> str:
        """Write a dead letter as the transport does; return its id."""
        from channelsq.transport import payloads

        with redis.Redis.from_url(self.redis_url) as client:
            body = {"body": "e30=", "headers": {"task": queue, "id": "1"}, "properties": {"delivery_tag": "1"}}
            data = payloads.encode({**body, "content-type": "application/json", "content-encoding": "utf-8"})
            fields = {"m": data, "s": queue, "d": 5, "r": "WorkerLostError: signal 9"}
            return str(client.xadd(f"stream-dead:{queue}", fields).decode())  # type: ignore[arg-type,union-attr]


def violations_of_policy(page: Page) -> list[str]:
    """Return a list to which each violation of the content security policy of a page is added."""
    found: list[str] = []
    page.on("console", lambda line: found.append(line.text) if "Content Security Policy" in line.text else None)
    return found
