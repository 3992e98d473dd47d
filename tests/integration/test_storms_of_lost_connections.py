"""A worker loses its connections to the broker, again and again: all that was sent runs, as many at once as before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.brokers import Broker, LayerClient, make_broker, operator
from tests.support.ports import free_port
from tests.support.processes import Process
from tests.support.project import Project
from tests.support.proxy import Loop, Proxy
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.timeout(180)]

#: Seconds that Kombu's stock transport may need to find what a lost connection took along, and the work after that.
PATIENCE = 60.0

CONCURRENCY = 2


@pytest.fixture(scope="module", params=["redis-streams", "redis", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def broker(request: pytest.FixtureRequest) -> Broker:
    return make_broker(request)


class Storm:
    """A project whose worker speaks to its broker through a proxy; the test goes past that."""

    def __init__(self, directory: Path, broker: Broker, pool: str) -> None:
        self.broker = broker
        self.pool = pool
        self.loop = Loop()
        parts = urlsplit(broker.url)
        assert parts.port is not None
        self.proxy = Proxy(free_port(), parts.port)
        self.loop.run(self.proxy.start())
        env = {
            **broker.env,
            "DJANGO_SETTINGS_MODULE": "tests.project.storm_settings",
            "TEST_BROKER": broker.url.replace(f":{parts.port}", f":{self.proxy.port}"),
        }
        self.project = Project(directory, None, env)
        self.client = LayerClient(broker)
        self.numbers = 0
        self.worker: Process

    def start(self, *args: str) -> None:
        """Start the worker."""
        self.worker = self.project.new_worker("-P", self.pool, "-c", str(CONCURRENCY), *args)

    def drop(self) -> None:
        """Reset every connection of the worker, once it has connected."""
        wait_until(lambda: self.loop.run(self.proxy.drop()), "the worker to connect", 30)

    def message(self, seconds: float = 0.0) -> str:
        """Send one; returns what the consumer writes down of it."""
        self.numbers += 1
        self.client.send("work", {"number": self.numbers, "seconds": seconds})
        return f"message {self.numbers}"

    def task(self, seconds: float = 0.0) -> str:
        """The same as an ordinary task."""
        self.numbers += 1
        with operator(self.broker) as app:
            app.send_task("storm.work", (self.numbers, seconds))
        return f"task {self.numbers}"

    def wait_for(self, record: str, lines: list[str], timeout: float = PATIENCE) -> None:
        """Wait until a record has all of the lines."""
        missing: set[str] = set()

        def written() -> bool:
            missing.clear()
            missing.update(set(lines) - set(self.project.recorded(record)))
            return not missing

        try:
            wait_until(written, f"{len(lines)} lines in the record {record}", timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}; missing: {sorted(missing)}\n{self.worker.output}") from None

    def check_concurrency(self) -> None:
        """As many tasks, and as many consumers, run at once as the pool has room for."""
        if self.pool == "solo":
            return
        with operator(self.broker) as app:
            for number in range(CONCURRENCY):
                app.send_task("storm.meet", ("tasks", number))
        wait_until(lambda: len(set(self.project.recorded("tasks-met"))) == 2, "two tasks at the same time", PATIENCE)
        for number in range(CONCURRENCY):
            self.client.send("meet", {"name": "consumers", "number": number})
        wait_until(
            lambda: len(set(self.project.recorded("consumers-met"))) == 2, "two consumers at the same time", PATIENCE
        )

    def stop(self) -> None:
        """Stop everything."""
        self.client.close()
        self.project.stop()
        self.loop.run(self.proxy.stop())
        self.loop.stop()


@pytest.fixture(params=["threads", "prefork", "solo"])
def storm(request: pytest.FixtureRequest, tmp_path: Path, broker: Broker) -> Iterator[Storm]:
    storm = Storm(tmp_path, broker, request.param)
    try:
        storm.start()
        yield storm
    finally:
        storm.stop()


def test_one_lost_connection_while_tasks_keep_the_pool_busy(storm: Storm) -> None:
    places = 1 if storm.pool == "solo" else CONCURRENCY
    sent = [storm.task(4.0) for _ in range(places)]
    storm.wait_for("begun", sent)
    sent += [storm.message() for _ in range(3)]
    storm.drop()
    sent += [storm.message() for _ in range(20)] + [storm.task() for _ in range(3)]
    storm.wait_for("done", sent)
    storm.check_concurrency()


def test_a_storm_while_consumers_and_tasks_run(storm: Storm) -> None:
    sent = []
    for _ in range(4):
        sent += [storm.message(0.7), storm.task(0.7), *(storm.message() for _ in range(5))]
        storm.drop()
        storm.drop()
        sent += [storm.message(0.01) for _ in range(5)]
        storm.drop()
    sent += [storm.message() for _ in range(10)] + [storm.task() for _ in range(3)]
    storm.wait_for("done", sent)
    storm.check_concurrency()
    after = [storm.message() for _ in range(30)]
    storm.wait_for("done", after, timeout=20)
