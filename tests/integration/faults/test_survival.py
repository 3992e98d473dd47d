"""Workers and Redis die, freeze and come back under sockets that account for every message."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from tests.support.processes import Process
from tests.support.project import Project
from tests.support.servers import RedisServer
from tests.support.swarm import Swarm, echoes
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.redis,
    pytest.mark.timeout(120),
    pytest.mark.ways(r"redis-streams-threads|killed.*redis-streams-prefork"),
]

SOCKETS = 20

#: Seconds without an answer that a client may notice after an interruption.
BACK_WITHIN = 2.0

#: Threads of a worker.
THREADS = 4


class Stack:
    """Redis, an interface server and two workers, all of them this module's own.

    Args:
        directory: an existing, empty one.
        pool: the workers'.
        celery_url: Celery's broker, if that is another server than this Redis.
    """

    def __init__(self, directory: Path, pool: str, celery_url: str | None) -> None:
        self.pool = pool
        self.redis = RedisServer(directory / "redis")
        self.redis.start()
        url = self.redis.url.replace("redis:", "redis-streams:")
        env = {"TEST_FAST": "1", "TEST_CAPACITY": "1000"}
        if celery_url is not None:
            env |= {"TEST_LAYER": url, "TEST_BROKER": celery_url}
        self.project = Project(directory, url, env)
        self.project.start_interface("--order-timeout", "4")
        self.workers: list[Process] = []
        self.swarms: list[Swarm] = []
        self.lease = 0.0

    def swarm(self, count: int = SOCKETS) -> Swarm:
        """Sockets that talk already."""
        swarm = Swarm(f"{self.project.ws_url}/count/{{}}/", count)
        self.swarms.append(swarm)
        swarm.start()
        return swarm

    def have_workers(self, lease: float) -> None:
        """Have two workers with that lease, and no others."""
        if lease == self.lease and all(worker.running for worker in self.workers):
            return
        for worker in self.workers:
            worker.begin_stop()
        for worker in self.workers:
            worker.stop()
        self.lease = lease
        self.project.env["TEST_VISIBILITY"] = str(lease)
        with ThreadPoolExecutor() as pool:
            self.workers = list(pool.map(lambda _: self.new_worker(), range(2)))
        # A channel process starts to read after its worker is ready, on a busy machine by more than --order-timeout.
        wait_until(self.serves, "an answer", 30)

    def new_worker(self) -> Process:
        """Start one more."""
        return self.project.new_worker("-P", self.pool, "-c", "1" if self.pool == "solo" else str(THREADS))

    def serves(self) -> bool:
        """Return whether a new socket gets an answer."""
        return echoes(f"{self.project.ws_url}/count/0/")

    def runs(self) -> Counter[str]:
        """Return how often each frame was handled since :meth:`forget`."""
        return Counter(line for line in self.project.recorded("count") if line != "probe")

    def forget(self) -> None:
        """Begin the accounts anew."""
        while self.swarms:  # of a test that failed
            self.swarms.pop().give_up()
        (self.project.records / "count").unlink(missing_ok=True)

    @property
    def given_up(self) -> int:
        """The number of messages that the interface server has reported as lost so far."""
        return self.project.interface.output.count("the next message is published without it")

    def stop(self) -> None:
        """Stop everything."""
        self.project.stop()
        self.redis.stop()


@pytest.fixture(
    scope="module",
    params=[
        ("redis-streams", "threads"),
        ("redis-streams", "prefork"),
        ("redis-streams", "solo"),
        ("redis-streams", "gevent"),
        ("redis beside streams", "prefork"),
    ],
    ids=lambda way: "-".join(way),
)
def module_stack(
    request: pytest.FixtureRequest, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    kind, pool = request.param
    stack = Stack(tmp_path_factory.mktemp("survival"), pool, redis_url if "beside" in kind else None)
    yield stack
    stack.stop()


@pytest.fixture
def stack(module_stack: Stack) -> Stack:
    """The stack with its accounts empty, and Redis running."""
    if module_stack.redis.process is None:
        module_stack.redis.start()
    module_stack.forget()
    return module_stack


def test_a_worker_is_killed(stack: Stack) -> None:
    stack.have_workers(lease=2)
    swarm = stack.swarm()
    swarm.wait_for(200)
    stack.workers[0].kill()
    swarm.wait_for(200)
    stack.workers[0] = stack.new_worker()
    swarm.wait_for(200)
    assert swarm.stop() == set()  # none lost
    runs = stack.runs()
    assert set(runs) == swarm.sent
    assert set(swarm.answers.values()) == {1}
    twice = [text for text, times in runs.items() if times > 1]
    # What ran when it was killed, and what had run within the last milliseconds: of each socket, one at most.
    assert len(twice) <= SOCKETS, twice
    assert max(runs.values()) <= 2


def test_a_worker_is_told_to_stop(stack: Stack) -> None:
    stack.have_workers(lease=2)
    swarm = stack.swarm()
    swarm.wait_for(200)
    started = time.monotonic()
    assert stack.workers[0].terminate() == 0
    # Less than a second on a machine that has nothing else to do; the consumers take a few milliseconds.  Celery takes
    # longer to end processes of its own, and with gevent some seconds to notice.
    assert time.monotonic() - started < (5 if stack.pool in ("threads", "solo") else 30)
    assert swarm.longest_gap(started) < BACK_WITHIN
    swarm.wait_for(100)
    assert swarm.stop() == set()
    assert stack.runs() == Counter(swarm.sent) == swarm.answers  # none lost, none twice
    stack.workers[0] = stack.new_worker()


def test_redis_is_frozen(stack: Stack) -> None:
    assert stack.redis.process is not None
    stack.have_workers(lease=30)
    swarm = stack.swarm()
    swarm.wait_for(100)
    stack.redis.process.signal(signal.SIGSTOP)
    try:
        frozen = time.monotonic()
        wait_until(lambda: time.monotonic() - frozen > 10, "ten seconds to pass", 20, interval=0.5)
    finally:
        stack.redis.process.signal(signal.SIGCONT)
    back = time.monotonic()
    swarm.wait_for(200)
    assert swarm.longest_gap(back) < BACK_WITHIN
    assert swarm.stop() == set()
    assert set(swarm.answers.values()) == {1}
    runs = stack.runs()
    assert set(runs) == swarm.sent
    assert len([text for text, times in runs.items() if times > 1]) <= SOCKETS


def test_connections_are_cut_one_by_one(stack: Stack) -> None:
    stack.have_workers(lease=30)
    swarm = stack.swarm()
    swarm.wait_for(100)
    with redis.Redis(port=stack.redis.port, decode_responses=True) as client:
        mine = client.client_id()
        began = time.monotonic()
        victims = [item["id"] for item in client.client_list() if int(item["id"]) != mine]
        assert len(victims) >= 4
        for victim in victims:
            client.client_kill_filter(_id=victim)
            swarm.wait_for(20, timeout=10)
    assert swarm.longest_gap(began) < BACK_WITHIN
    assert swarm.stop() == set()
    runs = stack.runs()
    assert set(runs) == swarm.sent
    assert len([text for text, times in runs.items() if times > 1]) <= THREADS * len(victims) + SOCKETS
    # An interface server that loses the answer to a send sends it again: there may be a message too many.
    assert len([text for text, times in swarm.answers.items() if times > 1]) <= SOCKETS


def test_redis_is_restarted_with_its_data(stack: Stack) -> None:
    stack.have_workers(lease=30)
    stack.redis.options[:] = ["--appendonly", "yes"]
    with redis.Redis(port=stack.redis.port) as client:
        client.config_set("appendonly", "yes")
        wait_until(lambda: not client.info("persistence")["aof_rewrite_in_progress"], "the first rewrite")
    before = stack.given_up
    swarm = stack.swarm()
    swarm.wait_for(100)
    stack.redis.stop()
    stack.redis.start()
    back = time.monotonic()
    swarm.wait_for(200)
    assert swarm.longest_gap(back) < BACK_WITHIN
    assert swarm.stop() == set()
    runs = stack.runs()
    assert set(runs) == swarm.sent
    assert stack.given_up == before  # every socket went on because it was answered
    assert len([text for text, times in runs.items() if times > 1]) <= SOCKETS


def test_redis_is_restarted_empty(stack: Stack) -> None:
    """A message that Redis forgot is reported as lost, and its socket goes on."""
    stack.have_workers(lease=30)
    stack.redis.options.clear()
    swarm = stack.swarm()
    swarm.wait_for(100)
    before = stack.given_up
    stack.redis.stop()
    for file in stack.redis.directory.glob("appendonlydir/*"):
        file.unlink()
    stack.redis.start()
    back = time.monotonic()
    wait_until(stack.serves, "an answer to a new socket")
    assert time.monotonic() - back < BACK_WITHIN
    swarm.wait_for(200)
    lost = swarm.stop(patience=8, quiet=4)
    assert len(lost) <= stack.given_up - before
    assert len(lost) <= SOCKETS
