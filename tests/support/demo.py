"""The demo project with a database of its own, served in each of the ways that users serve it."""

from __future__ import annotations

import itertools
import shutil
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path

import redis

from tests.support.ports import free_port
from tests.support.processes import ROOT, Process, Processes

#: What `manage.py demo` gives alice, bob and admin.
PASSWORD = "channelsq-demo"

#: Workers that look for no neighbours are ready sooner.
QUICK = ("--without-mingle", "--without-gossip")

_databases = itertools.count()


def make_template(directory: Path) -> Path:
    """A SQLite file with the demo's tables and data, for :class:`Demo` to copy."""
    path = directory / "template.sqlite3"
    processes = Processes(directory)
    try:
        env = {"DATABASE_URL": f"sqlite:///{path}"}
        processes.manage("migrate", "--verbosity", "0", env=env)
        processes.manage("demo", env=env)
    finally:
        processes.stop()
    return path


def copy_project(folder: Path) -> Path:
    """Copy what the demo consists of into ``folder``, which is made; a process in there has no database yet."""
    for name in ("app", "config", "bin"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("manage.py", "Procfile"):
        shutil.copy2(ROOT / name, folder)
    return folder


def fresh_redis(url: str) -> str:
    """One of the databases 4 to 15 of a Redis server of the tests' own, emptied; taken in turn."""
    fresh = f"{url.rsplit('/', 1)[0]}/{4 + next(_databases) % 12}"
    with redis.Redis.from_url(fresh) as client:
        client.flushdb()
    return fresh


def fresh_streams(url: str) -> str:
    """The same, as a broker on streams: what a RedisChannelLayer makes of a ``redis://`` URL."""
    return fresh_redis(url).replace("redis:", "redis-streams:")


class Demo:
    """The demo's processes and database.

    Args:
        template: what :func:`make_template` gave.
        directory: an existing, empty one.
        env: environment of every process, such as ``{"REDIS_URL": …}``.
    """

    def __init__(self, template: Path, directory: Path, env: Mapping[str, str] | None = None) -> None:
        self.database = directory / "chat.sqlite3"
        with sqlite3.connect(template) as source:
            source.execute("VACUUM INTO ?", (str(self.database),))
        source.close()
        self.processes = Processes(directory / "logs")
        self.env = {
            "DATABASE_URL": f"sqlite:///{self.database}",
            "MEDIA_ROOT": str(directory / "media"),
            **(env or {}),
        }
        self.port = free_port()
        self.server: Process
        self.worker: Process

    @property
    def url(self) -> str:
        """The URL of the site."""
        return f"http://127.0.0.1:{self.port}"

    def start_runserver(self, *args: str) -> Process:
        """``manage.py runserver``."""
        self.server, _ = self.processes.runserver(*args, env=self.env, port=self.port)
        return self.server

    def start_interface(self, *args: str) -> Process:
        """``python -m channelsq.interface``, with a line in its log for each request and socket."""
        self.server, _ = self.processes.interface("--access-log", *args, env=self.env, port=self.port)
        return self.server

    def start_worker(self, *args: str) -> Process:
        """``celery -A app worker``."""
        self.worker = self.processes.worker(*QUICK, *args, env=self.env)
        return self.worker

    def manage(self, *args: str) -> str:
        """``manage.py`` to its end; gives its output."""
        return self.processes.manage(*args, env=self.env)

    def query(self, sql: str, parameters: Iterable[object] = ()) -> list[tuple[object, ...]]:
        """Return the result of a query on the database."""
        connection = sqlite3.connect(self.database, timeout=20)
        try:
            return connection.execute(sql, tuple(parameters)).fetchall()
        finally:
            connection.close()

    def stop(self) -> None:
        """Stop every process."""
        self.processes.stop()
