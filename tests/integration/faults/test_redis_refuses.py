"""Redis answers, and refuses: everybody waits, says so, and goes on in the same process, with nothing lost."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.project import Project
from tests.support.refusals import OPTIONS, REFUSALS
from tests.support.servers import RedisServer
from tests.support.swarm import Swarm
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.redis,
    pytest.mark.timeout(180),
    # Of codes that are handled alike one: BUSY as LOADING, NOREPLICAS and MISCONF as READONLY.
    pytest.mark.ways(r"redis-streams-threads-(?!BUSY|NOREPLICAS|MISCONF)"),
]

#: Of Kombu's stock transport one pool: it is the transport that goes on.
WAYS = [
    *(("redis-streams", pool) for pool in ("threads", "solo", "prefork")),
    ("redis beside streams", "prefork"),
    ("redis", "threads"),
]

SOCKETS = 10

#: Seconds that a refusal lasts.
LASTS = 4.0


class Stack:
    """Redis, an interface server and a worker.

    Args:
        directory: an existing, empty one.
        kind: ``"redis-streams"``, ``"redis"``, or ``"redis beside streams"`` for another Redis as Celery's broker.
        pool: the worker's.
        celery_url: that other Redis.
    """

    def __init__(self, directory: Path, kind: str, pool: str, celery_url: str) -> None:
        self.on_streams = "streams" in kind
        self.redis = RedisServer(directory / "redis", OPTIONS)
        self.redis.start()
        url = self.redis.url.replace("redis:", "redis-streams:") if self.on_streams else self.redis.url
        # On Kombu's stock transport nothing may be left to the visibility timeout, which is an hour.
        env = {"TEST_CAPACITY": "1000", "TEST_VISIBILITY": "30" if self.on_streams else "3600"}
        if "beside" in kind:
            env |= {"TEST_LAYER": url, "TEST_BROKER": celery_url}
        self.project = Project(directory, url, env)
        self.project.start_interface("--order-timeout", "60")
        self.project.start_worker("-P", pool, "-c", "1" if pool == "solo" else "4")

    def ready(self) -> int:
        """The status of ``/-/health/ready``."""
        return self.status("/-/health/ready")

    def status(self, path: str) -> int:
        """The status of a page."""
        try:
            with urllib.request.urlopen(self.project.url + path, timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def stop(self) -> None:
        self.project.stop()
        self.redis.stop()


@pytest.fixture(
    scope="module",
    params=WAYS,
    ids=lambda way: "-".join(way),
)
def stack(request: pytest.FixtureRequest, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    kind, pool = request.param
    stack = Stack(tmp_path_factory.mktemp("refuses"), kind, pool, redis_url)
    yield stack
    stack.stop()


@pytest.mark.parametrize("code", REFUSALS)
def test_everybody_goes_on(stack: Stack, code: str) -> None:
    project, worker = stack.project, stack.project.worker
    (project.records / "count").unlink(missing_ok=True)
    said, pid = len(worker.output), worker.pid
    wait_until(lambda: stack.ready() == 200, "the interface server to be ready")
    swarm = Swarm(f"{project.ws_url}/count/{{}}/", SOCKETS)
    swarm.start()
    swarm.wait_for(100)
    with REFUSALS[code](stack.redis):
        began = time.monotonic()
        wait_until(lambda: stack.ready() == 503, "the interface server to be not ready", 15)
        assert stack.status("/own/1") == 503
        wait_until(lambda: time.monotonic() - began > LASTS, "some seconds to pass", 20, interval=0.2)
        assert stack.ready() == 503
    wait_until(lambda: stack.ready() == 200, "the interface server to be ready again", 15)
    assert stack.status("/own/1") == 200
    swarm.wait_for(100)
    lost = swarm.stop(patience=60)
    assert not lost, lost
    assert worker.running
    assert worker.pid == pid
    new = worker.output[said:]
    assert "Unrecoverable" not in new
    assert "could not be sent" not in new, new
    runs = Counter(project.recorded("count"))
    assert swarm.sent <= set(runs)
    assert sum(runs.values()) - len(runs) <= 2 * SOCKETS
    if stack.on_streams:
        # It is said, and not again and again.  A line begins with its time; Kombu's tracebacks have more lines.
        assert sum(line.startswith("[20") for line in new.splitlines()) < 40, new
    if code == "OOM" and stack.on_streams:
        assert set(runs.values()) == {1}  # nothing of what a worker does is refused then
        assert set(swarm.answers.values()) == {1}
