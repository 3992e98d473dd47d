"""A project with the dashboard as its page adds it: an interface server with metrics, a worker, Redis."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgpack
import redis

from channelsq.redis_core.compact import encode_compact
from tests.support.markdown import blocks, doc_page
from tests.support.polls import PollsSite

PAGE = "/-/dashboard/"

_CONSUMERS = """\
def connect(message):
    message.reply_channel.send({"accept": True})


def echo(message):
    message.reply_channel.send({"text": message["text"]})


def report(message):
    pass
"""

_ROUTING = """\
from channelsq import include, route
from channelsq.staticfiles import StaticFilesConsumer

from mysite import consumers

channel_routing = [
    route("http.request", StaticFilesConsumer()),
    route("websocket.connect", consumers.connect, path="^/echo/"),
    route("websocket.receive", consumers.echo, path="^/echo/"),
    route("reports", consumers.report),
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
        """Make the project, and add the lines of docs/how-to/run/dashboard.md."""
        super().make()
        shown = [block for block in blocks(doc_page("dashboard")) if block.language == "diff"]
        assert [block.file for block in shown] == ["mysite/settings.py", "mysite/urls.py", "mysite/routing.py"]
        for block in shown:
            below, (added,) = block.text.partition("\n")[0][1:], re.findall(r"^\+(.*)$", block.text, re.MULTILINE)
            path = self.folder / block.file
            text = path.read_text()
            assert text.count(f"{below}\n") == 1, below
            path.write_text(text.replace(f"{below}\n", f"{below}\n{added}\n"))
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
        """Start both programs."""
        self.start_interface("--metrics", *options)
        self.start_worker()

    def add_dead_letter(self, queue: str = "reports") -> str:
        """Write a dead letter as the transport does; return its id."""
        data = encode_compact(queue, "id-1", msgpack.packb([[queue, {}], {}, {}]), 60_000)
        client: Any = redis.Redis.from_url(self.redis_url)
        identity = client.xadd(
            f"stream-dead:{queue}", {"m": data, "s": queue, "d": 5, "r": "WorkerLostError: signal 9"}
        )
        client.close()
        return str(identity.decode())
