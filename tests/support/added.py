"""The page "add to your project", done as it says to a project of ``django-admin startproject`` with Celery."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from celery import Celery
from websockets.sync.client import ClientConnection, connect

from tests.support.markdown import Block, blocks, doc_page
from tests.support.ports import free_port
from tests.support.processes import Process, Processes, environment

PAGE = doc_page("add-to-your-project")

#: As Celery's documentation has it.
_CELERY = """\
import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")

app = Celery("shop")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
"""

_PACKAGE = 'from .celery import app as celery_app\n\n__all__ = ("celery_app",)\n'

_SETTINGS = """
import os

INSTALLED_APPS += ["orders"]
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
CELERY_BROKER_URL = os.environ["CELERY_BROKER_URL"]
"""

_TASKS = """\
from celery import shared_task


@shared_task
def ship(number):
    return number
"""


def block(word: str) -> Block:
    """Return the page's one block with a word in it."""
    (found,) = [each for each in blocks(PAGE) if word in each.text]
    return found


def command(word: str) -> list[str]:
    """Return the page's command with a word in it, as arguments."""
    found = block(word)
    assert found.language == "sh"
    return shlex.split(found.text)


class Added:
    """The project and what runs of it.

    Args:
        folder: an existing, empty one.
        processes: start what runs.
        env: for all of them; ``CELERY_BROKER_URL`` and ``CHANNELS_URL`` at least.
        python: of the environment that everything is installed in.
    """

    def __init__(
        self, folder: Path, processes: Processes, env: Mapping[str, str], python: str | Path = sys.executable
    ) -> None:
        self.folder = folder
        self.processes = processes
        self.env = dict(env)
        self.python = Path(python)
        self.port = free_port()

    def make(self) -> None:
        """Make the project as it was before."""
        self.run("python", "-m", "django", "startproject", "shop", ".")
        self.run("python", "manage.py", "startapp", "orders")
        (self.folder / "shop" / "celery.py").write_text(_CELERY)
        (self.folder / "shop" / "__init__.py").write_text(_PACKAGE)
        (self.folder / "orders" / "tasks.py").write_text(_TASKS)
        with (self.folder / "shop" / "settings.py").open("a") as settings:
            settings.write(_SETTINGS)
        self.run("python", "manage.py", "migrate", "--verbosity", "0")

    def add(self) -> None:
        """Do the page's sections 2 to 4."""
        shown = {each.file: each.text for each in blocks(PAGE) if each.file}
        for name in ("shop/settings.py", "shop/routing.py", "orders/tasks.py"):
            with (self.folder / name).open("a") as file:
                file.write("\n" + shown[name])
        self.run(*command("manage.py check"))

    def interface(self, *options: str) -> Process:
        """Start the interface server as the page says, on a port of its own."""
        said = command("channelsq.interface")
        assert said[-2:] == ["--port", "8001"]
        process = self.start(*said[:-1], str(self.port), *options)
        process.wait_for_port(self.port)
        return process

    def worker(self, *options: str) -> Process:
        """Start the worker as the page says, and wait until it is ready."""
        process = self.start(*command("--loglevel INFO"), *options)
        process.wait_for_output(r"\bready\.", timeout=60)
        return process

    def listen(self, path: str | None = None, port: int | None = None) -> ClientConnection:
        """Open a socket, once the worker takes it; the page's unless another is named."""
        said = re.search(r"ws://127.0.0.1:8001(\S+)", block("python -m websockets").text)
        assert said
        url = f"ws://127.0.0.1:{port or self.port}{path or said[1]}"
        return connect(url, open_timeout=30, close_timeout=5)

    def push(self, **env: str) -> None:
        """Have a task push ``hello``, as the page says."""
        self.run(*command("announce.delay"), **env)

    def push_quickly(self) -> None:
        """Have a task push ``hello``, without a program for it."""
        with Celery(broker=self.env["CELERY_BROKER_URL"], set_as_current=False) as app:
            app.send_task("orders.tasks.announce", ["hello"])

    def start(self, *args: str, cwd: Path | None = None, **env: str) -> Process:
        """Start a program of the environment."""
        return self.processes.start(*self._command(args), env={**self.env, **env}, cwd=cwd or self.folder)

    def run(self, *args: str, **env: str) -> str:
        """Run a program of the environment to its end and return what it wrote; AssertionError if it fails."""
        done = subprocess.run(
            self._command(args),
            cwd=self.folder,
            env=environment({**self.env, **env}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{shlex.join(args)}\n{done.stdout}"
        return done.stdout

    def _command(self, args: tuple[str, ...]) -> list[str]:
        if args[0] == "python":
            return [str(self.python), *args[1:]]
        beside = self.python.with_name(args[0])
        return [str(beside) if os.access(beside, os.X_OK) else args[0], *args[1:]]
