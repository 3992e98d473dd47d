"""A worker serves the layers beside any broker of Celery's, and reads the channels that it is told to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from kombu import Connection

from tests.support.brokers import Broker, LayerClient, make_broker, operator
from tests.support.demo import QUICK, fresh_redis
from tests.support.processes import ROOT, Process, Processes
from tests.support.servers import RedisServer, running_redis
from tests.support.sites import Site, ask, socket_on
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120)]

WRITE = "tests.project.tasks.write"


# -- brokers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "gevent"])
@pytest.mark.parametrize("url", ["memory://", "filesystem://", "sqla+sqlite:///tasks.sqlite3", ""])
@pytest.mark.ways(r"\[(memory://)?-prefork")
def test_channels_beside_a_broker_that_is_no_server(
    redis_url: str, processes: Processes, tmp_path: Path, url: str, pool: str
) -> None:
    for folder in ("data_in", "data_out", "records"):
        (tmp_path / folder).mkdir()
    channels = fresh_redis(redis_url)
    broker = Broker(channels.replace("redis:", "redis-streams:"), channels, celery_url=url)
    env = {
        **broker.env,
        "TEST_BROKER": url,  # "": channelsq gives Celery the layer's
        "TEST_LAYER": broker.url,
        "PYTHONPATH": str(ROOT),
        "TEST_RECORDS": str(tmp_path / "records"),
    }
    name = f"{os.getpid()}-{pool}@%h"
    args = ("-A", "tests.project", "worker", "--loglevel", "WARNING", "-P", pool, "-c", "1", "-n", name, *QUICK)
    worker = processes.start("celery", *args, env=env, cwd=tmp_path)
    worker.wait_for_output(r"\bready\.", 60)
    client = LayerClient(broker)
    try:
        for value in ("one", "two"):
            client.send("echo", {"value": value})
            assert client.receive()["echo"] == value
    finally:
        client.close()
    assert worker.terminate() == 0
    assert "Traceback" not in worker.output


# -- several layers --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def other_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_redis(tmp_path_factory.mktemp("other")) as server:
        yield server


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_two_layers_beside_and_a_third_on_celerys_broker(
    redis_url: str, other_server: RedisServer, tmp_path: Path, pool: str
) -> None:
    def layer(url: str, prefix: str) -> dict[str, Any]:
        config = {"url": url.replace("redis:", "redis-streams:"), "prefix": prefix}
        return {"BACKEND": "channelsq.layers.RedisChannelLayer", "CONFIG": config}

    celery_url = fresh_redis(redis_url)
    layers = {
        "default": layer(fresh_redis(redis_url), "one"),
        "other": layer(other_server.url, "two"),
        "third": layer(celery_url, "three"),
    }
    site = Site(layers, tmp_path, TEST_BROKER=celery_url.replace("redis:", "redis-streams:"))
    try:
        worker = site.worker("-P", pool, "-c", "2")
        urls = {alias: site.interface("--layer", alias)[1] for alias in layers}
        with socket_on(urls["default"]) as one, socket_on(urls["other"]) as two, socket_on(urls["third"]) as three:
            for alias, socket in (("default", one), ("other", two), ("third", three)):
                assert ask(socket, "where").startswith(f"{alias} {alias} ")
            for here, there, mine, its in (("default", "third", one, three), ("third", "other", three, two)):
                assert ask(mine, f"tell {there} hello") == f"{here} told {there}"
                assert its.recv(timeout=30) == f"hello from {here}"
            assert ask(three, "job") == "job done on other"
            assert ask(one, "fail") == "retried on default"
        assert "does not consume" not in worker.output
        assert worker.terminate() == 0
    finally:
        site.processes.stop()


#: Read with any other channel of a layer.
DELAYED = "channelsq.delayed"


# -- which channels --------------------------------------------------------------------------------


class Choice:
    """A project with two brokers, and workers that are told what to consume."""

    def __init__(self, broker: Broker, directory: Path) -> None:
        self.broker = broker
        self.records = directory
        self.processes = Processes(directory / "logs")
        self.client = LayerClient(broker)
        self.hostname = ""

    def worker(self, *args: str) -> Process:
        env = {**self.broker.env, "TEST_RECORDS": str(self.records)}
        name = f"{os.urandom(4).hex()}@here"
        self.hostname = name
        return self.processes.worker("-n", name, *QUICK, "-c", "2", *args, env=env, app="tests.project")

    def echoes(self, value: object) -> bool:
        """Return whether the channel ``echo`` is read: everything that was sent to it comes back."""
        self.client.send("echo", {"value": value})
        return bool(self.client.receive()["echo"] == value)

    def does_tasks(self, app: Celery, line: str) -> None:
        app.send_task(WRITE, ("tasks", line))
        record = self.records / "tasks"
        wait_until(lambda: record.exists() and line in record.read_text().splitlines(), "the task", 30)

    def queues(self, app: Celery) -> set[str]:
        """Return the queues that the worker says it consumes."""

        def ask() -> Any:
            return app.control.inspect([self.hostname], timeout=2).active_queues()

        return {queue["name"] for queue in wait_until(ask, "an answer", 20)[self.hostname]}


@pytest.fixture(
    params=["redis-streams", pytest.param("rabbitmq beside streams", marks=pytest.mark.rabbitmq)],
)
def choice(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Choice]:
    broker = make_broker(request)
    with redis.Redis.from_url(broker.groups_url) as client:
        client.flushdb()
    made = Choice(broker, tmp_path)
    yield made
    made.processes.stop()
    made.client.close()


def has_queue(url: str, name: str) -> bool:
    """Return whether a queue is declared on Celery's broker."""
    with Connection(url) as connection:
        channel: Any = connection.default_channel
        if url.startswith("redis"):
            return bool(channel.client.exists(f"_kombu.binding.{name}"))
        try:
            channel.queue_declare(name, passive=True)
        except connection.channel_errors:
            return False
        return True


def test_a_channel_alone(choice: Choice) -> None:
    with operator(choice.broker) as app:
        known = has_queue(choice.broker.celery_url, "celery")
        worker = choice.worker("-Q", "echo", "-P", "prefork")
        assert choice.echoes(1)
        assert choice.queues(app) == {"echo", DELAYED}
        assert has_queue(choice.broker.celery_url, "celery") is known  # nothing is declared there
        choice.client.send("slow", {"seconds": 0})
        assert choice.echoes(2)
        assert choice.client.nothing()
        worker.wait_for_output(r"\[channels\]")


def test_celerys_queue_alone(choice: Choice) -> None:
    with operator(choice.broker) as app:
        for value in range(3):
            choice.client.send("echo", {"value": value})
        app.send_task(WRITE, ("tasks", "purged"))
        command = choice.processes.start(
            "celery", "-A", "tests.project", "purge", "-f", "-Q", "echo,celery", env=choice.broker.env
        )
        assert command.wait(60) == 0
        assert "Purged 3 messages from the channels echo." in command.output
        assert "Purged 1 message from 1 known task queue." in command.output
        worker = choice.worker("-Q", "celery", "-P", "prefork")
        choice.does_tasks(app, "task")
        assert choice.queues(app) == {"celery"}
        choice.client.send("echo", {"value": 1})
        choice.does_tasks(app, "another")
        assert choice.client.nothing()
        assert "no channel is read" in worker.output
        # It has read nothing of the layer, and begins to.
        app.control.add_consumer("echo", destination=[choice.hostname], reply=True, timeout=5)
        assert choice.client.receive(30)["echo"] == 1
        assert choice.queues(app) == {"celery", "echo"}
        presence = choice.client.layer.presence
        assert presence is not None
        wait_until(lambda: choice.hostname in [each.name for each in presence.announced()], "it to be announced")


def test_all_but_some(choice: Choice) -> None:
    with operator(choice.broker) as app:
        choice.worker("-X", "slow,websocket.connect", "-P", "threads")
        assert choice.echoes(1)
        choice.does_tasks(app, "task")
        queues = choice.queues(app)
        assert {"celery", "echo", "websocket.receive"} <= queues
        assert not {"slow", "websocket.connect"} & queues
        choice.client.send("slow", {"seconds": 0})
        assert choice.echoes(2)
        assert choice.client.nothing()


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_consumers_are_added_and_cancelled(choice: Choice, pool: str) -> None:
    with operator(choice.broker) as app:
        choice.worker("-Q", "celery,echo", "-P", pool)
        assert choice.echoes(1)
        control, here = app.control, [choice.hostname]

        def told(answers: Any) -> Any:
            ((answer,),) = [list(each.values()) for each in answers]
            return answer

        answer = told(control.cancel_consumer("echo", destination=here, reply=True, timeout=5))
        assert answer == {"ok": "no longer consuming from echo"}
        assert choice.queues(app) == {"celery", DELAYED}
        answer = told(control.add_consumer("slow", destination=here, reply=True, timeout=5))
        assert answer == {"ok": "add consumer slow"}
        assert choice.queues(app) == {"celery", "slow", DELAYED}
        choice.client.send("slow", {"seconds": 0})
        assert choice.client.receive()["started"]
        assert choice.client.receive()["finished"]
        choice.client.send("echo", {"value": 2})
        choice.client.send("slow", {"seconds": 0})
        assert choice.client.receive()["started"]
        assert choice.client.receive()["finished"]
        assert choice.client.nothing()
        told(control.add_consumer("echo", destination=here, reply=True, timeout=5))
        assert choice.client.receive()["echo"] == 2
        # Celery's own queues go the old way, and answer before it is done.
        told(control.add_consumer("another", destination=here, reply=True, timeout=5))
        wait_until(lambda: choice.queues(app) == {"celery", "another", "slow", "echo", DELAYED}, "another queue")
        told(control.cancel_consumer("another", destination=here, reply=True, timeout=5))
        wait_until(lambda: choice.queues(app) == {"celery", "slow", "echo", DELAYED}, "a queue less")
