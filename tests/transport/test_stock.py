"""Kombu's own Redis transport as workers use it: what is in a worker's hands while Redis refuses is not lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from channelsq.layers.kombu_broker.kombu_redis_internals import Channel, _left
from channelsq.layers.kombu_broker.worker_connection import Connection
from channelsq.redis_io.away import ServerAway
from tests.support.refusals import full, noreplicas
from tests.support.servers import RedisServer
from tests.support.waiting import wait_until
from tests.transport.broker import admin

pytestmark = pytest.mark.redis

QUEUE = "work"


class Worker:
    """A connection that takes messages as a worker's does; each step is told to it."""

    def __init__(self, server: RedisServer) -> None:
        self.connection = Connection(server.url)
        self.channel: Any = self.connection.channel()
        assert isinstance(self.channel, Channel)
        self.taken: list[Any] = []
        queue: Any = self.connection.SimpleQueue(QUEUE, channel=self.channel).queue
        queue.consume("tag", callback=self.taken.append)

    def ask(self) -> None:
        """Send BRPOP, which the server answers with the next message."""
        transport: Any = self.connection.transport
        transport.cycle.on_poll_start()
        assert self.channel._in_poll

    def read(self) -> Any:
        """Read the answer, and give the message."""
        self.channel._brpop_read()
        return self.taken[-1]

    def take(self) -> Any:
        """Take one message."""
        self.ask()
        return self.read()

    def close(self) -> None:
        """Close the connection as Celery does one that is lost."""
        self.connection.collect()


@pytest.fixture
def new_worker(server: RedisServer) -> Iterator[Callable[[], Worker]]:
    made: list[Worker] = []

    def make() -> Worker:
        made.append(Worker(server))
        return made[-1]

    yield make
    for each in made:
        each.close()
    assert not any(_left.values())


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    with admin(server) as client:
        yield client


def publish(server: RedisServer, *bodies: str) -> None:
    with Connection(server.url) as connection, connection.SimpleQueue(QUEUE) as queue:
        for body in bodies:
            queue.put(body)


def held(client: redis.Redis) -> tuple[Any, Any, Any]:
    """Return how many messages wait, and how many are noted as taken, in either key."""
    return client.llen(QUEUE), client.hlen("unacked"), client.zcard("unacked_index")


def test_what_was_taken_just_before_a_refusal_is_noted_behind_it(
    server: RedisServer, client: redis.Redis, new_worker: Callable[[], Worker]
) -> None:
    worker = new_worker()
    worker.ask()
    publish(server, "one")
    reader = threading.Thread(target=worker.read)
    with noreplicas(server):
        assert held(client) == (0, 0, 0)  # it is in the worker alone
        reader.start()
        reader.join(1)
        assert reader.is_alive()
    reader.join(10)
    assert held(client) == (0, 1, 1)
    assert worker.taken[0].payload == "one"


def test_what_was_taken_just_before_connections_are_lost_is_noted_on_another(
    server: RedisServer, client: redis.Redis, new_worker: Callable[[], Worker]
) -> None:
    worker = new_worker()
    worker.ask()
    publish(server, "one")
    client.config_set("requirepass", "another")
    client.client_kill_filter(skipme=True)
    reader = threading.Thread(target=worker.read)
    try:
        reader.start()
        reader.join(1)
        assert reader.is_alive()
    finally:
        client.config_set("requirepass", "")
    reader.join(10)
    assert held(client) == (0, 1, 1)


def test_what_comes_while_the_connection_is_closed_is_put_back_and_not_run(
    server: RedisServer, client: redis.Redis, new_worker: Callable[[], Worker]
) -> None:
    worker = new_worker()
    worker.ask()
    publish(server, "one")
    wait_until(lambda: client.llen(QUEUE) == 0, "the server to hand it out")
    worker.close()
    assert worker.taken == []
    assert held(client) == (1, 0, 0)
    assert new_worker().take().payload == "one"


@pytest.mark.parametrize("forgotten", [False, True])
@pytest.mark.parametrize("noted", [True, False])
def test_what_cannot_be_put_back_is_by_the_next_connection(
    server: RedisServer, client: redis.Redis, new_worker: Callable[[], Worker], noted: bool, forgotten: bool
) -> None:
    """Not first after the visibility timeout, which is an hour.

    The transport may have been closed before its channels, and then has forgotten its connection.
    """
    worker = new_worker()
    worker.ask()
    publish(server, "one")
    if noted:
        worker.read()
    with noreplicas(server):
        if forgotten:
            transport: Any = worker.connection.transport
            transport.client = None
        worker.close()
        assert held(client) == ((0, 1, 1) if noted else (0, 0, 0))
        with pytest.raises(ServerAway):
            Connection(server.url).connect()
    again = new_worker()
    assert held(client) == (1, 0, 0)
    assert again.take().payload == "one"


def test_what_could_not_be_noted_in_time_is_run_and_may_be_rejected(
    server: RedisServer, client: redis.Redis, new_worker: Callable[[], Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channelsq.layers.kombu_broker.kombu_redis_internals._NOTED_WITHIN", 0.3)
    worker = new_worker()
    worker.ask()
    publish(server, "one")
    with noreplicas(server):
        message = worker.read()
    assert held(client) == (0, 0, 0)
    message.reject(requeue=True)
    assert held(client) == (1, 0, 0)
    assert worker.take().payload == "one"
    assert held(client) == (0, 1, 1)


def test_what_was_done_meanwhile_is_not_put_back(
    server: RedisServer, client: redis.Redis, new_worker: Callable[[], Worker]
) -> None:
    worker = new_worker()
    publish(server, "one", "two", "three")
    one, two, _ = worker.take(), worker.take(), worker.take()
    with noreplicas(server):
        one.ack()
        worker.close()
        two.ack()
        assert held(client) == (0, 3, 3)
    again = new_worker()
    assert held(client) == (1, 0, 0)
    assert again.take().payload == "three"


def test_what_was_done_is_forgotten_on_the_same_connection_too(
    server: RedisServer, client: redis.Redis, new_worker: Callable[[], Worker]
) -> None:
    worker = new_worker()
    publish(server, "one", "two")
    one, two = worker.take(), worker.take()
    with noreplicas(server):
        one.ack()
        two.reject()
    assert held(client) == (0, 2, 2)
    worker.channel.qos.restore_visible()  # which is called all the time
    assert held(client) == (0, 0, 0)


def test_a_full_server_takes_messages_back(
    server: RedisServer, client: redis.Redis, new_worker: Callable[[], Worker]
) -> None:
    worker = new_worker()
    publish(server, "one", "two")
    with full(server):
        worker.take().reject(requeue=True)
        assert held(client) == (2, 0, 0)
        assert worker.take().payload == "two"  # Kombu puts a rejected one behind the others
        worker.close()
        assert held(client) == (2, 0, 0)
        again = new_worker().take()
        assert again.payload == "two"
        assert again.headers["redelivered"]
