"""Three Sentinels, a primary and two replicas of the tests' own."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.ports import free_port
from tests.support.processes import Process
from tests.support.servers import RedisServer
from tests.support.waiting import wait_until

#: The name under which the Sentinels know the primary.
NAME = "mymaster"

#: Milliseconds of silence after which a Sentinel takes the primary for dead.
DOWN_AFTER = 1000

#: Replicas copy at once, and a server that was frozen is soon taken back.
_OPTIONS = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1", "--repl-timeout", "60")


def client_of(port: int, **options: Any) -> redis.Redis:
    """Return a client that reports soon that there is no server."""
    return redis.Redis(port=port, socket_timeout=2, retry=Retry(NoBackoff(), 0), decode_responses=True, **options)


class Sentinels:
    """The servers, and the Sentinels that watch them.

    Args:
        directory: an existing, empty one.
        options: more command-line options of the servers.
        password: what the servers want.
        sentinel_password: what the Sentinels want.
    """

    def __init__(
        self, directory: Path, options: Sequence[str] = (), password: str | None = None,
        sentinel_password: str | None = None,
    ) -> None:  # fmt: skip
        self.password = password
        self.sentinel_password = sentinel_password
        self.directory = directory
        login = ("--requirepass", password, "--masterauth", password) if password else ()
        self.servers = [RedisServer(directory / f"redis-{n}", [*_OPTIONS, *login, *options]) for n in range(3)]
        self.ports = [free_port() for _ in range(3)]
        self.processes: list[Process] = []

    @property
    def url(self) -> str:
        """The URL of the primary's database 0."""
        login = f":{self.password}@" if self.password else ""
        options = f"master_name={NAME}" + (
            f"&sentinel_password={self.sentinel_password}" if self.sentinel_password else ""
        )
        urls = ";".join(f"sentinel://{login}127.0.0.1:{port}" for port in self.ports)
        return f"{urls}/0?{options}"

    @property
    def streams_url(self) -> str:
        """The same for the transport on streams."""
        return self.url.replace("sentinel:", "sentinel-streams:")

    def start(self) -> None:
        """Start everything, and wait until a failover is possible."""
        first, *others = self.servers
        first.start()
        for server in others:
            server.options += ["--replicaof", "127.0.0.1", str(first.port)]
        with ThreadPoolExecutor() as pool:
            list(pool.map(RedisServer.start, others))
        for number, port in enumerate(self.ports):
            self._start_sentinel(number, port, first.port)
        for port, process in zip(self.ports, self.processes, strict=True):
            process.wait_for(lambda port=port: self._is_complete(port), "two other sentinels and two replicas")  # type: ignore[misc]

    def _start_sentinel(self, number: int, port: int, primary: int) -> None:
        folder = self.directory / f"sentinel-{number}"
        folder.mkdir()
        lines = [
            f"port {port}",
            "bind 127.0.0.1",
            f"dir {folder}",
            f"sentinel monitor {NAME} 127.0.0.1 {primary} 2",
            f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER}",
            f"sentinel failover-timeout {NAME} 3000",
            f"sentinel parallel-syncs {NAME} 2",
        ]
        if self.password:
            lines.append(f"sentinel auth-pass {NAME} {self.password}")
        if self.sentinel_password:
            lines += [f"requirepass {self.sentinel_password}", f"sentinel sentinel-pass {self.sentinel_password}"]
        (folder / "sentinel.conf").write_text("\n".join(lines) + "\n")
        command = [self.servers[0].binary, str(folder / "sentinel.conf"), "--sentinel"]
        self.processes.append(Process(command, folder / "log"))

    def sentinel(self, number: int = 0) -> redis.Redis:
        """Return a client of a Sentinel."""
        return client_of(self.ports[number], password=self.sentinel_password)

    def state(self, port: int) -> dict[str, Any]:
        """Return what the Sentinel on a port knows of the primary; nothing if it does not answer."""
        with client_of(port, password=self.sentinel_password) as client:
            try:
                found: dict[str, Any] = client.execute_command("SENTINEL MASTER", NAME)
            except (redis.ConnectionError, redis.TimeoutError):
                return {}
            return found

    def _is_complete(self, port: int) -> bool:
        state = self.state(port)
        return bool(state and state["num-other-sentinels"] == 2 and state["num-slaves"] == 2 and not state["is_sdown"])

    def role(self, server: RedisServer) -> str:
        """Return the role of a server, ``"master"`` or ``"slave"``; empty if it does not answer."""
        with client_of(server.port, password=self.password) as client:
            try:
                return str(client.info("replication")["role"])
            except (redis.ConnectionError, redis.TimeoutError):
                return ""

    @property
    def primary(self) -> RedisServer:
        """The server that most Sentinels take for the primary."""
        ports = [self.state(port).get("port") for port in self.ports]
        port = max(set(ports), key=ports.count)
        return next(server for server in self.servers if server.port == port)

    def wait_for_failover(self, old: RedisServer, timeout: float = 30.0) -> RedisServer:
        """Wait until another server than ``old`` is the primary; return it."""
        others = [server for server in self.servers if server is not old]
        return wait_until(
            lambda: next((server for server in others if self.role(server) == "master"), None), "a failover", timeout,
            interval=0.005,
        )  # fmt: skip

    def wait_for_replicas(self, count: int = 2, timeout: float = 30.0) -> None:
        """Wait until so many replicas of the primary have all of its data, and the Sentinels agree."""

        def ready() -> bool:
            states = [self.state(port) for port in self.ports]
            if len({state.get("port") for state in states}) != 1 or any(state["is_sdown"] for state in states):
                return False
            with client_of(self.primary.port, password=self.password) as client:
                told: Any = client.info("replication")
            replicas = [told[name] for name in told if name.startswith("slave") and isinstance(told[name], dict)]
            return len([each for each in replicas if each["state"] == "online"]) >= count

        wait_until(ready, f"{count} replicas", timeout)

    def freeze(self, server: RedisServer) -> None:
        """Stop a server's process, so that its connections stay open and nothing is answered."""
        assert server.process is not None
        server.process.signal(signal.SIGSTOP)

    def thaw(self, server: RedisServer) -> None:
        """Let a frozen server go on."""
        assert server.process is not None
        server.process.signal(signal.SIGCONT)

    def kill(self, server: RedisServer) -> None:
        """Kill a server."""
        assert server.process is not None
        server.process.kill()
        server.process = None

    def stop(self) -> None:
        """Stop everything."""
        for process in self.processes:
            process.kill()
        for server in self.servers:
            if server.process is not None:
                server.process.kill()


@contextlib.contextmanager
def running_sentinels(directory: Path, **options: Any) -> Iterator[Sentinels]:
    """Run Sentinels and servers for the length of a block; see :class:`Sentinels`."""
    sentinels = Sentinels(directory, **options)
    try:
        sentinels.start()
        yield sentinels
    finally:
        sentinels.stop()
