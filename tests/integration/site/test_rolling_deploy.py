"""A deploy under load: the previous state of channelsq beside this one, in both orders, and the way back.

Which state that is stands in tests/rolling/previous.txt; ``ROLLING_FROM=<commit>`` tries another.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.support.demo import QUICK
from tests.support.ports import free_port
from tests.support.processes import Process, Processes
from tests.support.servers import running_redis
from tests.support.states import State, current, previous
from tests.support.swarm import Swarm
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.timeout(240), pytest.mark.ways("^(?!.*(rabbitmq|and back))")]

SOCKETS = 20

#: Answers that must come after each step.
ANSWERS = 200

#: What no process may log in a deploy.
_TROUBLE = re.compile(
    r"Traceback|\bERROR\b|\bCRITICAL\b|\b(refused|dropped|foreign|was ignored|lost|dead letters?|not understand)\b"
)


class Pages(threading.Thread):
    """Asks for pages all the time: small ones, uploads, answers in parts, and broadcasts to all sockets.

    Args:
        port: of the interface server.
    """

    def __init__(self, port: int) -> None:
        super().__init__(name=f"pages-{port}", daemon=True)
        self.port = port
        self.problems: list[str] = []
        #: Which channelsq has run the views.
        self.seen: set[str] = set()
        self.asked = 0
        self._numbers = itertools.count()
        self._next = 0
        self._ended = threading.Event()

    def text(self, number: int) -> str:
        """Return the text of a broadcast."""
        return f"broadcast-{self.port}-{number}"

    def next_broadcast(self) -> int:
        """The number of a broadcast that has not begun yet."""
        return self._next + 1

    def stop(self) -> int:
        """End; returns the number of the last broadcast."""
        self._ended.set()
        self.join(60)
        assert not self.is_alive()
        return self._next

    def run(self) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30) as client:
            while not self._ended.is_set():
                try:
                    self._ask(client)
                except httpx.HTTPError as error:
                    self.problems.append(repr(error))
                self.asked += 1

    def _ask(self, client: httpx.Client) -> None:
        self.seen.add(self._right(client.get("/where/")))
        self._next = next(self._numbers)
        self._right(client.get(f"/broadcast/{self.text(self._next)}/"))
        size = 700_000
        if (told := self._right(client.post("/upload/", content=b"u" * size))) != str(size):
            self.problems.append(f"of an upload there came {told}")
        if (body := self._right(client.get("/stream/"))) != "".join(letter * 100_000 for letter in "ABCD"):
            self.problems.append(f"an answer in parts had {len(body)} bytes")

    def _right(self, response: httpx.Response) -> str:
        if response.status_code != 200:
            self.problems.append(f"{response.request.url}: {response.status_code} {response.text:.200}")
        return response.text


class Deploy:
    """The site's processes, of whichever state.

    Args:
        directory: an empty one.
        env: where the broker is.
    """

    def __init__(self, directory: Path, env: dict[str, str]) -> None:
        self.processes = Processes(directory / "logs")
        self.env = env
        self._numbers = itertools.count()

    def interface(self, state: State) -> tuple[Process, int]:
        """Start an interface server."""
        port = free_port()
        args = "-m", "channelsq.interface", "--port", str(port), "--drain-window", "0"
        process = self._start(state, "python", *args)
        process.wait_for_port(port)
        return process, port

    def worker(self, state: State) -> Process:
        """Start a worker, and wait until it is ready."""
        name = f"rolling-{next(self._numbers)}@%h"
        args = "-A", "rolling_site", "worker", "-n", name, "-P", "threads", "-c", "4", "--loglevel", "WARNING", *QUICK
        process = self._start(state, "celery", *args)
        process.wait_for_output(r"\bready\.", timeout=60)
        return process

    def _start(self, state: State, *args: str) -> Process:
        process = self.processes.start(*args, env={**self.env, **state.env}, cwd=state.directory)
        process.wait_for_output(re.escape(f"channelsq is {state.package}"), timeout=60)
        return process

    def replace(self, worker: Process, state: State) -> Process:
        """Start a worker, then end another as a deploy does."""
        new = self.worker(state)
        assert worker.terminate(60) == 0
        return new

    def announced(self, state: State) -> dict[str, list[dict[str, Any]]]:
        """Return the interface servers and workers that ``manage.py channels`` of this state lists."""
        process = self._start(state, "python", "-m", "django", "channels", "--json")
        assert process.wait(60) == 0, process.output
        (layer,) = json.loads(process.output[process.output.index("{\n") :])["layers"]
        return {kind: layer[kind] for kind in ("interfaces", "workers")}

    def trouble(self) -> list[str]:
        """Lines of any log that a deploy must not have."""
        return [
            f"{command}: {line}"
            for command, output in self.processes.report()
            for line in output.splitlines()
            if _TROUBLE.search(line)
        ]


@pytest.fixture(params=["redis-streams", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def deploy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deploy]:
    streams = request.param == "redis-streams"
    broker = "" if streams else request.getfixturevalue("rabbitmq_url")
    with running_redis(tmp_path / "redis") as server:
        url = server.url
        made = Deploy(tmp_path, {"TEST_BROKER": broker or url.replace("redis:", "redis-streams:"), "TEST_GROUPS": url})
        yield made
        made.processes.stop()


@contextlib.contextmanager
def talking(port: int) -> Iterator[tuple[Swarm, Pages]]:
    """Sockets and pages of one interface server, which are right as long as this lasts."""
    swarm, pages = Swarm(f"ws://127.0.0.1:{port}/{{}}", SOCKETS), Pages(port)
    try:
        swarm.start()
        pages.start()
        yield swarm, pages
        last = pages.stop()
        wait_until(
            lambda: all(swarm.answers[pages.text(number)] == SOCKETS for number in range(last + 1)),
            "every broadcast at every socket",
            30,
        )
        assert swarm.stop() == set(), "frames without an echo"
        assert {text: count for text, count in swarm.answers.items() if text in swarm.sent and count > 1} == {}
        assert pages.problems == []
        assert pages.asked > 1
    finally:
        pages.stop()
        swarm.give_up()


def hear_all(socket: ClientConnection) -> None:
    """Read frames until the socket is closed, or none comes for a while."""
    for _ in iter(lambda: socket.recv(30), None):
        pass


def states(tmp_path: Path, way: str) -> tuple[State, State]:
    """From which state the deploy goes to which."""
    old, new = previous(tmp_path), current(tmp_path)
    return (old, new) if way == "there" else (new, old)


WAYS = pytest.mark.parametrize("way", ["there", "and back"])


@WAYS
def test_workers_first(deploy: Deploy, tmp_path: Path, way: str) -> None:
    before, after = states(tmp_path, way)
    _, port = deploy.interface(before)
    workers = [deploy.worker(before) for _ in range(2)]
    with talking(port) as (swarm, pages):
        swarm.wait_for(ANSWERS)
        for place, worker in enumerate(workers):
            workers[place] = deploy.replace(worker, after)
            swarm.wait_for(ANSWERS)
        seen = len(pages.seen)
        wait_until(lambda: pages.seen == {before.package, after.package}, "views by both states")
        pages.seen.clear()
        wait_until(lambda: pages.seen, "views by the workers that are left")
        assert pages.seen == {after.package}, f"{seen} states had views before"
    assert deploy.trouble() == []


@WAYS
def test_interface_servers_first(deploy: Deploy, tmp_path: Path, way: str) -> None:
    before, after = states(tmp_path, way)
    leaving, port = deploy.interface(before)
    workers = [deploy.worker(before) for _ in range(2)]
    with contextlib.ExitStack() as idle:
        with talking(port) as (swarm, _):
            swarm.wait_for(ANSWERS)
            _, other_port = deploy.interface(after)
            with talking(other_port) as (other_swarm, pages):
                both = swarm, other_swarm
                for each in both:
                    each.wait_for(ANSWERS)
                assert pages.seen == {before.package}
                for place, worker in enumerate(workers):
                    workers[place] = deploy.replace(worker, after)
                    for each in both:
                        each.wait_for(ANSWERS)
                wait_until(lambda: pages.seen == {before.package, after.package}, "views by both states")
                socket = idle.enter_context(connect(f"ws://127.0.0.1:{port}/idle", compression=None))
                socket.send("open")
                wait_until(lambda: socket.recv(30) == "open", "the echo among broadcasts")
        # Nobody talks to the server that leaves any more, but for one socket that it takes leave of.
        leaving.begin_stop()
        with pytest.raises(ConnectionClosed) as closed:
            hear_all(socket)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code in (1001, 1012)  # of an older and of this state
        assert leaving.wait(30) == 0
    assert deploy.trouble() == []


def test_a_mixed_deploy_is_seen(deploy: Deploy, tmp_path: Path) -> None:
    old, new = states(tmp_path, "there")
    deploy.interface(old)
    deploy.worker(old)
    deploy.interface(new)
    deploy.worker(new)
    found = wait_until(
        lambda: listed if sum(map(len, (listed := deploy.announced(new)).values())) >= 3 else None,
        "the processes to be announced",
        60,
    )
    assert len(found["interfaces"]) == 2
    assert 1 <= len(found["workers"]) <= 2
    assert {each["wire"] for kind in found.values() for each in kind} == {1}
    assert deploy.trouble() == []
