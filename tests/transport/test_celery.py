"""Celery workers on streams, with each pool: what they promise, and what is left when they are killed."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from channelsq.transport.dead_letter_store import DeadLetters
from tests.support.apps import as_before
from tests.support.processes import Process, Processes
from tests.support.servers import RedisServer
from tests.support.waiting import wait_until
from tests.transport.broker import admin, keys

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120), pytest.mark.ways("^(?!.*solo)")]

POOLS = pytest.mark.parametrize("pool", ["threads", "prefork", "solo"])
APP = "tests.transport.celery_app"

Worker = Callable[..., Process]


@pytest.fixture
def celery(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The project's module in this process, as a client."""
    import importlib
    import sys

    monkeypatch.setenv("REDIS_PORT", str(server.port))
    sys.modules.pop(APP, None)
    with as_before():  # the module's app makes itself the current one
        module = importlib.import_module(APP)
        yield module
    module.app.close()
    module.records.close()


@pytest.fixture
def worker(processes: Processes, server: RedisServer) -> Worker:
    def start(pool: str, name: str = "w1", **env: str) -> Process:
        return processes.worker(
            "--pool", pool, "--concurrency", "2", "--hostname", f"{name}@here",
            env={"REDIS_PORT": str(server.port), **env}, app=APP,
        )  # fmt: skip

    return start


def done(celery: Any, name: str) -> dict[int, int]:
    """Return how often each number ran."""
    return {int(number): int(times) for number, times in celery.records.hgetall(name).items()}


@POOLS
def test_a_workers_life(celery: Any, worker: Worker, server: RedisServer, pool: str) -> None:
    process = worker(pool)
    app = celery.app
    sent = time.time()
    celery.ran.apply_async(("eta", 1), countdown=1.5)
    with app.producer_pool.acquire(block=True) as producer:
        for number in range(400):
            celery.ran.apply_async(("many", number), producer=producer)
            celery.late.apply_async(("late", number), producer=producer, priority=number % 10)
    for number in range(5):
        celery.third_time.delay("retried", number)
    wait_until(lambda: len(done(celery, "many")) == 400 and len(done(celery, "late")) == 400, "every task", 40)
    wait_until(lambda: len(done(celery, "retried")) == 5, "the retries", 20)

    inspect = app.control.inspect(timeout=5, destination=["w1@here"])
    assert APP + ".ran" in inspect.registered()["w1@here"]
    assert inspect.ping() == {"w1@here": {"ok": "pong"}}
    assert [queue["name"] for queue in inspect.active_queues()["w1@here"]] == ["celery"]

    revoked = celery.ran.apply_async(("revoked", 1), countdown=1)
    app.control.revoke(revoked.id, reply=True, timeout=5, destination=["w1@here"])
    wait_until(lambda: done(celery, "eta") == {1: 1}, "the task with a countdown")
    assert time.time() - sent >= 1.5
    celery.ran.apply_async(("marker", 1), countdown=1)  # received after the revoked one
    wait_until(lambda: done(celery, "marker") == {1: 1}, "the task after the revoked one")
    process.wait_for_output(rf"Discarding revoked task: {APP}.ran\[{revoked.id}\]")

    app.control.shutdown(destination=["w1@here"])
    assert process.wait(20) == 0
    for name in ("many", "late"):
        assert set(done(celery, name).values()) == {1}
    assert set(done(celery, "retried").values()) == {1}
    assert done(celery, "revoked") == {}
    celery.app.close()
    assert {key for key in keys(server) if "pidbox" not in key} == set()
    with admin(server) as client:
        # A reply that came after its reader had left: its queue ends by itself.
        assert all(client.pttl(key) > 0 for key in keys(server, "stream:*pidbox*"))


def test_a_task_that_expires_is_revoked_by_its_worker(celery: Any, worker: Worker) -> None:
    """As nothing else tells whoever waits for its result."""
    expired = celery.ran.apply_async(("expired", 1), expires=0.001)
    celery.ran.apply_async(("in time", 1), expires=60)
    with celery.app.connection_for_write() as connection:
        queue = connection.default_channel.queue_declare("celery", passive=True)
        assert queue.message_count == 2  # which deletes what is over for everybody else's messages
    process = worker("solo")
    process.wait_for_output(rf"Discarding revoked task: {APP}.ran\[{expired.id}\]")
    wait_until(lambda: done(celery, "in time") == {1: 1}, "the other one")
    assert done(celery, "expired") == {}


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_killed_worker_loses_nothing(celery: Any, worker: Worker, server: RedisServer, pool: str) -> None:
    total = 300
    with celery.app.producer_pool.acquire(block=True) as producer:
        for number in range(total):
            celery.late.apply_async(("killed", number, 0.01), producer=producer)
    first = worker(pool, LEASE="1")
    wait_until(lambda: len(done(celery, "killed")) >= 60, "a part of it to be done", interval=0.005)
    first.kill()
    at_death = len(done(celery, "killed"))
    assert at_death < total
    second = worker(pool, "w2", LEASE="1")
    wait_until(lambda: len(done(celery, "killed")) == total, "all of it to be done", 30)
    second.terminate()
    times = done(celery, "killed")
    assert sorted(times) == list(range(total))
    # Twice ran at most what was running or finished within the last moments.
    assert sum(times.values()) - total <= 20
    assert keys(server, "stream:*") == set()


@pytest.mark.ways("threads")
@POOLS
def test_a_terminated_worker_loses_and_doubles_nothing(
    celery: Any, worker: Worker, server: RedisServer, pool: str
) -> None:
    total = 300
    with celery.app.producer_pool.acquire(block=True) as producer:
        for number in range(total):
            task = celery.late if number % 2 else celery.ran
            task.apply_async(("terminated", number, 0.01), producer=producer)
    first = worker(pool)
    wait_until(lambda: len(done(celery, "terminated")) >= 50, "a part of it to be done", interval=0.005)
    first.signal(signal.SIGTERM)
    # A child of the prefork pool waits up to 30 s for the parent to have read its last results; on redis:// too.
    assert first.wait(45 if pool == "prefork" else 15) == 0
    assert len(done(celery, "terminated")) < total
    second = worker(pool, "w2")
    wait_until(lambda: len(done(celery, "terminated")) == total, "all of it to be done", 20)
    second.terminate()
    times = done(celery, "terminated")
    if pool == "prefork":  # what a child finished while its parent read no more results is not acknowledged
        assert sorted(times) == list(range(total))
        assert sum(times.values()) - total <= 2
    else:
        assert times == dict.fromkeys(range(total), 1)
    assert keys(server, "stream*") == set()


def test_a_task_that_kills_its_process_is_buried(celery: Any, worker: Worker) -> None:
    """In a prefork pool, whose worker goes on; the process that died cannot say so itself."""
    process = worker("prefork", MAX_DEATHS="2")  # Celery's pool takes seconds over each
    celery.kill.delay("killed", 1)
    for number in range(20):
        celery.late.delay("innocent", number)
    process.wait_for_output("it is a dead letter now", timeout=60)
    wait_until(lambda: len(done(celery, "innocent")) == 20, "the others", 20)
    assert done(celery, "killed") == {1: 2}
    with celery.app.connection_for_write() as connection:
        (letter,) = DeadLetters(connection).all()
        assert (letter.queue, letter.deaths, letter.task) == ("celery", 2, f"{APP}.kill")
        assert letter.reason.startswith("WorkerLostError: ")
        assert DeadLetters(connection).delete(letter)
    assert process.terminate() == 0


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_a_task_that_kills_its_worker_is_buried(celery: Any, worker: Worker, pool: str) -> None:
    """Each worker dies with it, and holds others that it has not begun, or not finished."""
    celery.kill.delay("killed", 1)
    for number in range(20):
        celery.late.delay("innocent", number, 0.01)
    env = {"LEASE": "1", "MAX_DEATHS": "3"}
    for life in range(3):
        worker(pool, f"w{life}", **env).wait()
    last = worker(pool, "w4", **env)
    last.wait_for_output("it is a dead letter now", timeout=30)
    wait_until(lambda: len(done(celery, "innocent")) == 20, "the others", 20)
    assert done(celery, "killed") == {1: 3}
    with celery.app.connection_for_write() as connection:
        (letter,) = DeadLetters(connection).all()
        assert (letter.deaths, letter.task) == (3, f"{APP}.kill")
