"""A worker loses its connections to the broker, again and again: all that was sent runs, as many at once as before."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from celery import Celery

from tests.support.brokers import Broker, LayerClient, make_broker, operator
from tests.support.ports import free_port
from tests.support.processes import Process
from tests.support.project import Project
from tests.support.proxy import Loop, Proxy
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.redis,
    pytest.mark.timeout(180),
    pytest.mark.ways(r"redis-streams-threads"),
]

POOLS = "threads", "prefork", "solo"

#: Of Kombu's stock transport one pool, as the transport takes care of what is lost, not the pool.
WAYS = [
    *(("redis-streams", pool) for pool in POOLS),
    ("redis", "threads"),
    *(pytest.param(("rabbitmq", pool), marks=pytest.mark.rabbitmq) for pool in POOLS),
    pytest.param(("rabbitmq beside streams", "prefork"), marks=pytest.mark.rabbitmq),
]

#: Seconds that Kombu's stock transport may need to find what a lost connection took along, and the work after that.
PATIENCE = 60.0

CONCURRENCY = 2


class Storm:
    """A project whose worker speaks to its brokers through proxies; the test goes past those."""

    def __init__(self, directory: Path, broker: Broker, pool: str) -> None:
        self.broker = broker
        self.pool = pool
        self.loop = Loop()
        self.proxies: list[Proxy] = []
        env = {
            **broker.env,
            "DJANGO_SETTINGS_MODULE": "tests.project.storm_settings",
            "TEST_BROKER": self._through_proxy(broker.celery_url),
        }
        if broker.url != broker.celery_url:
            env["TEST_LAYER"] = self._through_proxy(broker.url)
        self.project = Project(directory, None, env)
        self.client = LayerClient(broker)
        self.numbers = 0
        #: Kombu's stock transport takes a message from Redis in one step and notes it in another: what was on its way
        #: between the two when the connection was lost is lost with it.
        self.may_lose = 0
        self.worker: Process

    def _through_proxy(self, url: str) -> str:
        port = urlsplit(url).port
        assert port is not None
        proxy = Proxy(free_port(), port)
        self.loop.run(proxy.start())
        self.proxies.append(proxy)
        return url.replace(f":{port}", f":{proxy.port}")

    def start(self, *args: str) -> None:
        """Start the worker."""
        self.worker = self.project.new_worker("-P", self.pool, "-c", str(CONCURRENCY), *args)

    def drop(self) -> None:
        """Reset every connection of the worker, once it has connected."""
        for proxy in self.proxies:
            self._wait(partial(self._cut, proxy), "the worker to connect", 30)
        if urlsplit(self.broker.celery_url).scheme == "redis":
            self.may_lose += 1

    def _cut(self, proxy: Proxy) -> object:
        return self.loop.run(proxy.drop())

    def _wait(self, condition: Callable[[], object], what: str, timeout: float) -> None:
        try:
            wait_until(condition, what, timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.worker.output}") from None

    def message(self, seconds: float = 0.0) -> str:
        """Send one; returns what the consumer writes down of it."""
        self.numbers += 1
        self.client.send("work", {"number": self.numbers, "seconds": seconds})
        return f"message {self.numbers}"

    @contextlib.contextmanager
    def _confirming(self) -> Iterator[Celery]:
        """A Celery app whose messages have arrived when they are sent."""
        with operator(self.broker) as app:
            app.conf.broker_transport_options = {"confirm_publish": True}
            yield app

    def task(self, seconds: float = 0.0) -> str:
        """The same as an ordinary task."""
        self.numbers += 1
        with self._confirming() as app:
            app.send_task("storm.work", (self.numbers, seconds))
        return f"task {self.numbers}"

    def wait_for(self, record: str, lines: list[str], timeout: float = PATIENCE) -> None:
        """Wait until a record has all of the lines."""

        def are_there() -> bool:
            missing = set(lines) - set(self.project.recorded(record))
            if any(line.startswith("message") for line in missing):
                return False
            return len(missing) <= self.may_lose

        self._wait(are_there, f"{lines} in the record {record}", timeout)

    def check_concurrency(self) -> None:
        """As many tasks, and as many consumers, run at once as the pool has room for."""
        if self.pool == "solo":
            return
        with self._confirming() as app:
            for number in range(CONCURRENCY):
                app.send_task("storm.meet", ("tasks", number))
        self._wait(lambda: len(set(self.project.recorded("tasks-met"))) == 2, "two tasks at the same time", PATIENCE)
        for number in range(CONCURRENCY):
            self.client.send("meet", {"name": "consumers", "number": number})
        self._wait(
            lambda: len(set(self.project.recorded("consumers-met"))) == 2, "two consumers at the same time", PATIENCE
        )

    def stop(self) -> None:
        """Stop everything."""
        self.client.close()
        self.project.stop()
        for proxy in self.proxies:
            self.loop.run(proxy.stop())
        self.loop.stop()


@pytest.fixture(params=WAYS, ids=lambda way: "-".join(way))
def storm(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storm]:
    request.param, pool = request.param
    storm = Storm(tmp_path, make_broker(request), pool)
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
    storm.may_lose = 0
    after = [storm.message() for _ in range(30)]
    storm.wait_for("done", after, timeout=20)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("broker", ["redis-streams"])
def test_events_that_are_turned_on_after_a_lost_connection(
    request: pytest.FixtureRequest, tmp_path: Path, broker: str, pool: str
) -> None:
    """Celery makes a new event dispatcher then, through which the events of consumers go."""
    request.param = broker
    storm = Storm(tmp_path, make_broker(request), pool)
    try:
        storm.start()
        sent = [storm.message()]
        storm.wait_for("done", sent)
        storm.drop()
        sent += [storm.message() for _ in range(3)]
        storm.wait_for("done", sent)
        with operator(storm.broker) as app, app.connection_for_read() as connection:
            app.control.enable_events()
            seen: list[str] = []
            receiver = app.events.Receiver(connection, {"task-succeeded": lambda event: seen.append(event["uuid"])})
            listening = threading.Thread(target=receiver.capture, kwargs={"limit": None, "wakeup": False}, daemon=True)
            listening.start()

            def heard() -> bool:
                storm.message()
                return bool(seen)

            try:
                wait_until(heard, "the event of a consumer", 30, interval=0.5)
            finally:
                receiver.should_stop = True
                listening.join(10)
    finally:
        storm.stop()
