"""What is to be broken: Redis, interface servers, workers and a publisher, each with a way of its own to Redis."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path
from typing import Any

import redis

from tests.support.demo import QUICK
from tests.support.ports import free_port
from tests.support.processes import Process, Processes
from tests.support.proxy import Loop, Proxy
from tests.support.servers import RedisServer
from tests.support.waiting import wait_until

#: Threads of a worker.
THREADS = 4


class Place:
    """A process that is started anew when it has ended.

    Args:
        name: ``"interface-0"``.
        proxy: its way to Redis.
        port: where it listens; 0 if it does not.
    """

    def __init__(self, name: str, proxy: Proxy, port: int) -> None:
        self.name = name
        self.proxy = proxy
        self.port = port
        self.process: Process
        #: All that have been here.
        self.processes: list[Process] = []

    @property
    def kind(self) -> str:
        """``"interface"``."""
        return self.name.partition("-")[0]


class Site:
    """The processes.

    Args:
        directory: an existing, empty one.
        binary: Redis, see :func:`tests.support.servers.redis_binary`.
        scheme: ``"redis-streams"`` or ``"redis"``.
        rooms: how many groups the publisher sends to.
        broadcasts: how many messages it sends a second.
    """

    def __init__(self, directory: Path, binary: str, scheme: str, rooms: int, broadcasts: float) -> None:
        self.scheme = scheme
        self.rooms = rooms
        self.broadcasts = broadcasts
        #: Workers that were started anew, as their transport had ended them.
        self.revived = 0
        self.journal = directory / "journal"
        self.journal.mkdir()
        data = directory / "redis"
        data.mkdir()
        self.redis = RedisServer(binary, data, ["--appendonly", "yes", "--appendfsync", "always"])
        self.loop = Loop()
        self.processes = Processes(directory / "logs")
        names = ["interface-0", "interface-1", "worker-0", "worker-1", "publisher"]
        self.places = {
            name: Place(name, Proxy(free_port(), self.redis.port), free_port() if "interface" in name else 0)
            for name in names
        }

    @property
    def ports(self) -> list[int]:
        """Where the interface servers listen."""
        return [place.port for place in self.places.values() if place.port]

    @property
    def client(self) -> redis.Redis:
        """Redis, past every proxy."""
        return redis.Redis(port=self.redis.port, decode_responses=True)

    def start(self) -> None:
        """Start all but the publisher."""
        self.redis.start()
        for place in self.places.values():
            self.loop.run(place.proxy.start())
        for place in self.places.values():
            if place.name != "publisher":
                self.start_process(place)

    def start_process(self, place: Place) -> None:
        """Start a process where there is none; returns when it is ready."""
        env = {
            "DJANGO_SETTINGS_MODULE": "tests.chaos.project.settings",
            "CHAOS_BROKER": f"{self.scheme}://127.0.0.1:{place.proxy.port}/0",
            "CHAOS_JOURNAL": str(self.journal),
        }
        start = self.processes.start
        if place.kind == "interface":
            process = start("python", "-m", "tests.chaos.project.serve", "--port", str(place.port), env=env)
            process.wait_for_port(place.port)
        elif place.kind == "worker":
            name = f"{place.name}-{len(place.processes)}-{place.proxy.port}@%h"
            command = ("celery", "-A", "tests.chaos.project", "worker", "--loglevel", "WARNING")
            process = start(*command, "-n", name, "-c", str(THREADS), *QUICK, env=env)
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
            self.loop.run(place.proxy.heal())
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

    def wait_until_idle(self) -> None:
        """Wait until workers have nothing more to do; Kombu's stock transport gives back late what a dead one held."""
        timeout = 150.0 if self.scheme == "redis" else 60.0
        with self.client as client:
            wait_until(lambda: not self._waiting(client), "the workers to have nothing to do", timeout, interval=0.1)

    def _waiting(self, client: Any) -> dict[str, int]:
        found = {}
        for name in ("connect", "receive", "disconnect"):
            if self.scheme == "redis":
                found[name] = client.llen(f"websocket.{name}") + client.hlen("unacked")
            else:
                found[name] = client.xlen(f"stream:websocket.{name}")
        return {name: count for name, count in found.items() if count}

    def stop(self) -> None:
        """Stop everything."""
        for place in self.places.values():
            for process in place.processes[-1:]:
                with contextlib.suppress(ProcessLookupError):
                    process.signal(signal.SIGCONT)
        if self.redis.process is not None:
            self.redis.process.signal(signal.SIGCONT)
        self.processes.stop()
        for place in self.places.values():
            self.loop.run(place.proxy.stop())
        self.loop.stop()
        self.redis.stop()
