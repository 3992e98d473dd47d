"""The site that is broken: Redis, interface servers, workers and a publisher, each with its own way to Redis."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import redis
from celery import Celery
from kombu import pools

from channelsq.layers import KombuChannelLayer
from tests.support.brokers import layer_on
from tests.support.demo import QUICK
from tests.support.ports import free_port
from tests.support.processes import Process, Processes
from tests.support.proxy import Loop, Proxy
from tests.support.rabbit import RabbitServer
from tests.support.servers import RedisServer
from tests.support.waiting import wait_until

#: Options of a Redis that loses nothing when it is killed.
_DURABLE = "--appendonly", "yes", "--appendfsync", "always"

#: Threads of a worker.
THREADS = 4

#: Queues of sockets' messages on RabbitMQ.
_CONSUMED = ("websocket.connect", "websocket.receive", "websocket.disconnect")


class Place:
    """A process that is started anew when it has ended.

    Args:
        name: ``"interface-0"``.
        proxies: its ways to the broker, and to the groups if they are elsewhere.
        port: where it listens; 0 if it does not.
        to_tasks: its way to Celery's broker, if that is not the layer's.
    """

    def __init__(self, name: str, proxies: list[Proxy], port: int, to_tasks: Proxy | None = None) -> None:
        self.name = name
        self.to_layer = proxies
        self.to_tasks = to_tasks
        self.port = port
        self.process: Process
        #: All that have been here.
        self.processes: list[Process] = []

    @property
    def kind(self) -> str:
        """``"interface"``."""
        return self.name.partition("-")[0]

    @property
    def proxies(self) -> list[Proxy]:
        """All its ways."""
        return self.to_layer if self.to_tasks is None else [*self.to_layer, self.to_tasks]

    def channel_processes(self) -> list[int]:
        """A worker's processes that run consumers, if it has such."""
        threads = Path(f"/proc/{self.process.pid}/task").iterdir()  # each has the children that it has started
        children = [int(pid) for thread in threads for pid in (thread / "children").read_text().split()]
        program = b"channelsq.worker.processes.channel_process"
        return [pid for pid in children if program in Path(f"/proc/{pid}/cmdline").read_bytes()]


class Site:
    """The processes.

    Args:
        directory: an existing, empty one.
        scheme: ``"redis-streams"``, ``"redis"`` or ``"amqp"``.
        rooms: how many groups the publisher sends to.
        broadcasts: how many messages it sends a second.
        tasks: ``"redis"`` or ``"amqp"`` for a broker of Celery's own beside the layer's; empty for none.
        pool: the workers'; empty for the usual one.
    """

    def __init__(
        self,
        directory: Path,
        scheme: str,
        rooms: int,
        broadcasts: float,
        tasks: str = "",
        pool: str = "",
    ) -> None:
        self.scheme = scheme
        self.pool = pool
        self.rooms = rooms
        self.broadcasts = broadcasts
        #: Workers that were started anew, as their transport had ended them.
        self.revived = 0
        self.journal = directory / "journal"
        self.journal.mkdir()
        self.redis = RedisServer(directory / "redis", _DURABLE)
        self.rabbit: RabbitServer | None = None
        if scheme == "amqp":
            data = directory / "rabbitmq"
            data.mkdir()
            self.rabbit = RabbitServer(data)
        self.tasks: RedisServer | RabbitServer | None = None
        if tasks:
            data = directory / "tasks"
            data.mkdir()
            self.tasks = RabbitServer(data) if tasks == "amqp" else RedisServer(data, _DURABLE)
        servers = [self.redis.port] if self.rabbit is None else [self.rabbit.port, self.redis.port]
        self.loop = Loop()
        self.processes = Processes(directory / "logs")
        names = ["interface-0", "interface-1", "worker-0", "worker-1", "publisher"]
        self.places = {
            name: Place(
                name,
                [Proxy(free_port(), port) for port in servers],
                free_port() if "interface" in name else 0,
                Proxy(free_port(), self.tasks.port) if self.tasks is not None and "worker" in name else None,
            )
            for name in names
        }

    @property
    def ports(self) -> list[int]:
        """The ports of the interface servers."""
        return [place.port for place in self.places.values() if place.port]

    @property
    def client(self) -> redis.Redis:
        """Redis, past every proxy."""
        return redis.Redis(port=self.redis.port, decode_responses=True)

    def url(self, port: int) -> str:
        """The broker's URL at a port."""
        user = "guest:guest@" if self.rabbit is not None else ""
        return f"{self.scheme}://{user}127.0.0.1:{port}/" + ("/" if self.rabbit is not None else "0")

    def layer(self) -> KombuChannelLayer:
        """A channel layer of this process, past every proxy."""
        if self.rabbit is not None:
            return KombuChannelLayer(url=self.rabbit.url, groups_url=self.redis.url)
        return layer_on(self.url(self.redis.port))

    def start(self) -> None:
        """Start all but the publisher."""
        self.redis.start()
        if self.rabbit is not None:
            self.rabbit.start()
        if self.tasks is not None:
            self.tasks.start()
        for place in self.places.values():
            for proxy in place.proxies:
                self.loop.run(proxy.start())
        for place in self.places.values():
            if place.name != "publisher":
                self.start_process(place)
        if self.scheme == "redis-streams":
            # A worker's consumers may have processes of their own, which begin when it is ready; each has a lease, and
            # so has Celery's own consumer if its broker is this Redis.
            leases = sum(place.kind == "worker" for place in self.places.values()) * (1 if self.tasks else 2)
            with self.client as client:
                wait_until(lambda: len(client.keys("stream-lease:*")) == leases, "all consumers to be there", 60)

    def start_process(self, place: Place) -> None:
        """Start a process where there is none; returns when it is ready."""
        env = {
            "DJANGO_SETTINGS_MODULE": "tests.chaos.project.settings",
            "CHAOS_BROKER": self.url(place.to_layer[0].port),
            "CHAOS_GROUPS": f"redis://127.0.0.1:{place.to_layer[-1].port}/0",
            "CHAOS_JOURNAL": str(self.journal),
        }
        if self.tasks is not None:
            port = self.tasks.port if place.to_tasks is None else place.to_tasks.port
            env |= {
                "CHAOS_LAYER": env["CHAOS_BROKER"],
                "CHAOS_BROKER": self.tasks.url.replace(f":{self.tasks.port}", f":{port}"),
            }
        start = self.processes.start
        if place.kind == "interface":
            process = start("python", "-m", "tests.chaos.project.serve", "--port", str(place.port), env=env)
            process.wait_for_port(place.port)
        elif place.kind == "worker":
            name = f"{place.name}-{len(place.processes)}-{place.proxies[0].port}@%h"
            command = ("celery", "-A", "tests.chaos.project", "worker", "--loglevel", "WARNING")
            pool = ("-P", self.pool) if self.pool else ()
            process = start(*command, "-n", name, *pool, "-c", str(THREADS), *QUICK, env=env)
            process.wait_for_output(r"\bready\.", timeout=60)
        else:
            module = "tests.chaos.project.publish"
            process = start("python", "-m", module, str(self.rooms), str(self.broadcasts), env=env)
        place.process = process
        place.processes.append(process)

    def end_publisher(self) -> None:
        """Have it finish what it is at."""
        if self.places["publisher"].process.terminate(60):
            raise AssertionError(f"the publisher failed:\n{self.places['publisher'].process.output}")

    def heal(self) -> None:
        """Everything runs, and nothing stands in its way."""
        for place in self.places.values():
            for proxy in place.proxies:
                self.loop.run(proxy.heal())
        self.revive()

    def revive(self) -> None:
        """Do what a supervisor does for a worker whose transport, Kombu's own, ended it; nothing else may end."""
        for place in self.places.values():
            if hasattr(place, "process") and not place.process.running:
                stock = self.scheme == "redis" and place.kind == "worker"
                output = place.process.output
                expected = stock and "Unrecoverable error" in output
                assert expected, f"{place.name} has ended by itself:\n{output}"
                self.revived += 1
                self.start_process(place)

    def untold(self) -> int:
        """Return the number of sockets whose end the interface servers have not published yet."""
        found = 0
        for port in self.ports:
            page = httpx.get(f"http://127.0.0.1:{port}/-/metrics", timeout=10).text
            found += int(float(page.partition("\nchannelsq_websockets ")[2].partition("\n")[0]))
        return found

    def wait_until_idle(self) -> None:
        """Wait until workers have nothing more to do; Kombu's stock transport gives back late what a dead one held."""
        timeout = 150.0 if self.scheme == "redis" else 60.0
        with self.client as client:
            interval = 0.1 if self.rabbit is None else 1.0
            wait_until(lambda: not self._waiting(client), "workers to have nothing to do", timeout, interval)

    def _waiting(self, client: Any) -> dict[str, int]:
        found: dict[str, int] = {}
        if self.rabbit is not None:
            queues = self.rabbit.control("list_queues", "--no-table-headers", "name", "messages")
            for line in queues.splitlines():
                name, _, count = line.partition("\t")
                if name in _CONSUMED:
                    found[name] = int(count)
            return {name: count for name, count in found.items() if count}
        for name in ("connect", "receive", "disconnect"):
            if self.scheme == "redis":
                found[name] = client.llen(f"websocket.{name}") + client.hlen("unacked")
            else:
                found[name] = client.xlen(f"stream:websocket.{name}")
        return {name: count for name, count in found.items() if count}

    @contextlib.contextmanager
    def celery(self) -> Iterator[Celery]:
        """A Celery app of this process on Celery's own broker, past every proxy."""
        assert self.tasks is not None
        with Celery("chaos", broker=self.tasks.url, set_as_current=False) as app:
            try:
                yield app
            finally:
                pools.reset()

    def tasks_done(self) -> set[str]:
        """Return the records of Celery's tasks."""
        return {line for path in self.journal.glob("tasks-*") for line in path.read_text().splitlines()}

    def stop(self) -> None:
        """Stop everything."""
        for place in self.places.values():
            for process in place.processes[-1:]:
                with contextlib.suppress(ProcessLookupError):
                    process.signal_all(signal.SIGCONT)
        if self.redis.process is not None:
            self.redis.process.signal(signal.SIGCONT)
        if self.rabbit is not None:
            self.rabbit.resume()
        if self.tasks is not None:
            freeze(self.tasks, frozen=False)
        self.processes.stop()
        for place in self.places.values():
            for proxy in place.proxies:
                self.loop.run(proxy.stop())
        self.loop.stop()
        self.redis.stop()
        if self.rabbit is not None:
            self.rabbit.stop()
        if self.tasks is not None:
            self.tasks.stop()


def freeze(server: RedisServer | RabbitServer, *, frozen: bool) -> None:
    """Have a server stand still, or go on."""
    if isinstance(server, RabbitServer):
        (server.pause if frozen else server.resume)()
    elif server.process is not None:
        server.process.signal(signal.SIGSTOP if frozen else signal.SIGCONT)
