"""Celery's broker and the layer's are two servers: while one of them is away, the worker goes on with the other."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from kombu import pools
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.support.brokers import Broker, LayerClient
from tests.support.demo import QUICK
from tests.support.ports import free_port
from tests.support.processes import Process
from tests.support.project import Project
from tests.support.proxy import Loop, Proxy
from tests.support.rabbit import RabbitServer
from tests.support.servers import DURABLE, RedisServer
from tests.support.swarm import Swarm
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.timeout(240), pytest.mark.ways(r"redis-prefork")]

SOCKETS = 10

#: Seconds that a broker is away.
LASTS = 5.0

#: Seconds after which a frame, or a task, that has nothing to do with what is away counts as delayed.
DELAYED = 2.0

#: Seconds within which a worker is back with a server that is back.
BACK_WITHIN = 10.0


class Stack:
    """Two brokers, an interface server, and a worker that reaches the brokers through proxies.

    Args:
        directory: an existing, empty one.
        kind: of Celery's broker: ``"redis"`` or ``"rabbitmq"``.
        pool: Celery's.
    """

    def __init__(self, directory: Path, kind: str, pool: str) -> None:
        self.pool = pool
        (directory / "tasks").mkdir()
        self.tasks: RedisServer | RabbitServer = (
            RedisServer(directory / "tasks") if kind == "redis" else RabbitServer(directory / "tasks")
        )
        self.layer = RedisServer(directory / "layer", DURABLE)
        self.tasks.start()
        self.layer.start()
        self.loop = Loop()
        #: The worker's ways to either.
        self.to_tasks = Proxy(free_port(), self.tasks.port)
        self.to_layer = Proxy(free_port(), self.layer.port)
        self.loop.run(self.to_tasks.start())
        self.loop.run(self.to_layer.start())
        env = {
            "TEST_BROKER": self.tasks.url,
            "TEST_LAYER": self.layer.url.replace("redis:", "redis-streams:"),
            "TEST_GROUPS": self.layer.url,
            "TEST_CAPACITY": "1000",
            "TEST_VISIBILITY": "30",
        }
        self.project = Project(directory, None, env)
        self.project.start_interface("--order-timeout", "4")
        self.project.env |= {
            "TEST_BROKER": self.tasks.url.replace(f":{self.tasks.port}", f":{self.to_tasks.port}"),
            "TEST_LAYER": env["TEST_LAYER"].replace(f":{self.layer.port}", f":{self.to_layer.port}"),
        }
        self.swarms: list[Swarm] = []
        self._numbers = itertools.count()
        self.worker: Process | None = None

    def have_worker(self) -> Process:
        """Have a worker that is ready."""
        if self.worker is None or not self.worker.running:
            self.start_worker().wait_for_output(r"\bready\.", 60)
            self.task()
        assert self.worker is not None
        return self.worker

    def start_worker(self) -> Process:
        """Start another worker in the place of the one that there is."""
        self.end_worker()
        self.worker = self.project.processes.start(
            "celery", "-A", "tests.project", "worker", "--loglevel", "WARNING", *QUICK,
            "-n", f"{self.project.port}-{next(self._numbers)}@%h", "-P", self.pool,
            "-c", "1" if self.pool == "solo" else "2",
            env=self.project.env,
        )  # fmt: skip
        return self.worker

    def end_worker(self) -> None:
        """Tell the worker to end."""
        worker, self.worker = self.worker, None
        if worker is not None and worker.running:
            assert worker.terminate(30) == 0, worker.output

    def swarm(self) -> Swarm:
        """Sockets that talk already."""
        swarm = Swarm(f"{self.project.ws_url}/count/{{}}/", SOCKETS)
        self.swarms.append(swarm)
        swarm.start()
        return swarm

    def echoes(self) -> bool:
        """Return whether a new socket gets an answer."""
        try:
            with connect(f"{self.project.ws_url}/count/0/", compression=None, open_timeout=5, proxy=None) as socket:
                socket.send("probe")
                return socket.recv(timeout=5) == "probe"
        except (OSError, TimeoutError, InvalidStatus, ConnectionClosed):
            return False

    def client(self) -> LayerClient:
        """A client of the layer, past the proxy."""
        url = self.layer.url.replace("redis:", "redis-streams:")
        return LayerClient(Broker(url, self.layer.url, celery_url=self.tasks.url))

    def send_task(self) -> str:
        """Send a task, past the proxy; returns what it writes."""
        line = f"task {next(self._numbers)}"
        with Celery("operator", broker=self.tasks.url, set_as_current=False) as app:
            try:
                app.send_task("tests.project.tasks.write", ("tasks", line))
            finally:
                pools.reset()
        return line

    def task(self, timeout: float = 30.0) -> float:
        """Send a task; returns the seconds until it was done."""
        began = time.monotonic()
        self.project.wait_for_record("tasks", self.send_task(), timeout)
        return time.monotonic() - began

    def stop(self) -> None:
        """Stop everything."""
        while self.swarms:
            self.swarms.pop().give_up()
        self.project.stop()
        for proxy in (self.to_tasks, self.to_layer):
            self.loop.run(proxy.stop())
        self.loop.stop()
        self.tasks.stop()
        self.layer.stop()

    def forget(self) -> None:
        """Begin the accounts anew."""
        while self.swarms:  # of a test that failed
            self.swarms.pop().give_up()
        (self.project.records / "count").unlink(missing_ok=True)


def _frozen(server: RedisServer | RabbitServer) -> tuple[Callable[[], object], Callable[[], object]]:
    if isinstance(server, RabbitServer):
        return server.pause, server.resume
    process = server.process
    assert process is not None
    return lambda: process.signal(signal.SIGSTOP), lambda: process.signal(signal.SIGCONT)


#: What happens to a broker: how it begins, and how it ends.
TROUBLES: dict[str, Callable[[Stack, RedisServer | RabbitServer, Proxy], tuple[Callable[[], object], ...]]] = {
    "killed": lambda stack, server, proxy: (server.stop, server.start),
    "frozen": lambda stack, server, proxy: _frozen(server),
    "cut off": lambda stack, server, proxy: (
        lambda: stack.loop.run(proxy.cut()),
        lambda: stack.loop.run(proxy.heal()),
    ),
}


@pytest.fixture(
    scope="module",
    params=[
        "redis-prefork",
        "redis-threads",
        "redis-solo",
        *(pytest.param(f"rabbitmq-{pool}", marks=pytest.mark.rabbitmq) for pool in ("prefork", "threads")),
    ],
)
def module_stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("two"), *request.param.split("-"))
    yield stack
    stack.stop()


@pytest.fixture
def stack(module_stack: Stack) -> Iterator[Stack]:
    """The stack with its accounts empty."""
    module_stack.forget()
    yield module_stack
    for proxy in (module_stack.to_tasks, module_stack.to_layer):
        module_stack.loop.run(proxy.heal())


def test_celerys_broker_is_absent_at_the_start(stack: Stack) -> None:
    stack.end_worker()
    stack.loop.run(stack.to_tasks.cut())
    stack.start_worker()
    wait_until(stack.echoes, "an answer without Celery's broker", 40)
    swarm = stack.swarm()
    swarm.wait_for(100)
    stack.end_worker()  # in good time, and with code 0
    worker = stack.start_worker()
    swarm.wait_for(100, timeout=40)
    line = stack.send_task()
    assert line not in stack.project.recorded("tasks")
    stack.loop.run(stack.to_tasks.heal())
    stack.project.wait_for_record("tasks", line, 30)
    swarm.wait_for(100)
    assert swarm.stop() == set()
    assert set(swarm.answers.values()) == {1}
    worker.wait_for_output(r"\bready\.", 30)
    assert "Traceback" not in worker.output


@pytest.mark.parametrize("trouble", TROUBLES)
def test_celerys_broker_goes_away(stack: Stack, trouble: str) -> None:
    worker = stack.have_worker()
    pid = worker.pid
    swarm = stack.swarm()
    swarm.wait_for(100)
    begin, end = TROUBLES[trouble](stack, stack.tasks, stack.to_tasks)
    began = time.monotonic()
    begin()
    try:
        wait_until(lambda: time.monotonic() - began > LASTS, "some seconds to pass", 20, interval=0.2)
        assert swarm.longest_gap(began) < DELAYED
        assert stack.echoes()
    finally:
        end()
    back = time.monotonic()
    assert stack.task() < BACK_WITHIN
    swarm.wait_for(100)
    assert swarm.longest_gap(back) < DELAYED
    assert swarm.stop() == set()
    assert set(swarm.answers.values()) == {1}
    assert set(stack.project.recorded("count")) - {"probe"} == swarm.sent
    assert worker.running
    assert worker.pid == pid


def test_the_layers_broker_is_absent_at_the_start(stack: Stack) -> None:
    stack.end_worker()
    stack.loop.run(stack.to_layer.cut())
    worker = stack.start_worker()
    worker.wait_for_output(r"\bready\.", 60)
    assert stack.task() < BACK_WITHIN
    worker.wait_for_output("the broker of the layer is away")
    began = time.monotonic()
    while time.monotonic() - began < LASTS:
        assert stack.task() < DELAYED
    said = worker.output
    assert said.count("the broker of the layer is away") <= 5  # the first, second, fourth, eighth, sixteenth time
    assert "Traceback" not in said
    stack.end_worker()  # in good time, and with code 0
    worker = stack.start_worker()
    worker.wait_for_output("the broker of the layer is away", 60)
    stack.loop.run(stack.to_layer.heal())
    wait_until(stack.echoes, "an answer to a socket", 20)
    worker.wait_for_output(r"\bready\.", 60)
    assert stack.task() < BACK_WITHIN
    assert "Traceback" not in worker.output


@pytest.mark.parametrize("trouble", TROUBLES)
def test_the_layers_broker_goes_away(stack: Stack, trouble: str) -> None:
    worker = stack.have_worker()
    pid = worker.pid
    swarm = stack.swarm()
    swarm.wait_for(100)
    begin, end = TROUBLES[trouble](stack, stack.layer, stack.to_layer)
    begin()
    try:
        began = time.monotonic()
        while time.monotonic() - began < LASTS:
            assert stack.task() < DELAYED
    finally:
        end()
    swarm.wait_for(200)
    assert stack.task() < DELAYED
    assert swarm.stop() == set()
    runs = stack.project.recorded("count")
    assert set(runs) == swarm.sent
    assert len(runs) - len(set(runs)) <= 2 * SOCKETS
    assert worker.running
    assert worker.pid == pid
    assert "Traceback" not in worker.output


def _held(server: redis.Redis) -> int:
    pending: Any = server.xpending("stream:echo", "kombu")
    return int(pending["pending"])


def test_messages_whose_time_comes_while_the_layers_broker_is_away(stack: Stack) -> None:
    stack.have_worker()
    client = stack.client()
    try:
        client.send("echo", {"value": "now"})
        assert client.receive(30)["echo"] == "now"
        for value in range(10):
            client.send("echo", {"value": value}, delay=1.5 + value / 10)
        with redis.Redis(port=stack.layer.port) as server:
            wait_until(lambda: _held(server) == 10, "the worker to hold them")
        began = time.monotonic()
        stack.loop.run(stack.to_layer.cut())
        wait_until(lambda: time.monotonic() - began > LASTS, "some seconds to pass", 20, interval=0.2)
        stack.loop.run(stack.to_layer.heal())
        assert {client.receive()["echo"] for _ in range(10)} == set(range(10))
    finally:
        client.close()


def test_what_runs_at_most_once_is_not_kept_for_ever(stack: Stack) -> None:
    """A message that could not be acknowledged before its run, as the connection was lost, runs on the next one."""
    stack.have_worker()
    client = stack.client()
    messages, running = 40, 8
    try:
        for number in range(messages):
            client.send("once", {"number": number, "seconds": 0.2})
        assert client.receive()["started"]
        for _ in range(3):
            wait_until(lambda: stack.loop.run(stack.to_layer.drop()), "the worker to connect")
        stack.loop.run(stack.to_layer.cut())
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > LASTS, "some seconds to pass", 20, interval=0.2)
        stack.loop.run(stack.to_layer.heal())
        finished = 0
        while finished < messages - 4 * running:
            finished += bool(client.receive(30).get("finished"))
        with redis.Redis(port=stack.layer.port) as server:
            wait_until(lambda: not server.xlen("stream:once"), "nothing to be left", 30)
    finally:
        client.close()


def test_the_layers_broker_is_emptied(stack: Stack) -> None:
    """A socket whose message Redis forgot goes on after the order timeout."""
    stack.have_worker()
    swarm = stack.swarm()
    swarm.wait_for(100)
    with redis.Redis(port=stack.layer.port) as client:
        client.flushall()
    assert stack.task() < DELAYED
    wait_until(stack.echoes, "an answer to a new socket")
    swarm.wait_for(100)
    assert len(swarm.stop(patience=8)) <= 2 * SOCKETS


@pytest.mark.ways("other ways")
def test_a_channel_process_dies_while_the_layers_broker_is_away(stack: Stack) -> None:
    worker = stack.have_worker()
    if stack.pool != "prefork":
        return

    def channel_process() -> int:
        """Its id; 0 if there is none."""
        threads = Path(f"/proc/{worker.pid}/task").iterdir()  # each has the children that it has started
        for pid in (int(pid) for thread in threads for pid in (thread / "children").read_text().split()):
            if b"channelsq.worker.processes.channel_process" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        return 0

    swarm = stack.swarm()
    swarm.wait_for(100)
    before = channel_process()
    assert before
    stack.loop.run(stack.to_layer.cut())
    killed = time.monotonic()
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: channel_process() not in (0, before), "another process", 10)
    assert time.monotonic() - killed < BACK_WITHIN
    assert stack.task() < DELAYED
    stack.loop.run(stack.to_layer.heal())
    swarm.wait_for(200, timeout=60)
    assert swarm.stop(patience=40) == set()
