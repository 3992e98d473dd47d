"""A worker in the publisher's own process: nobody receives a message before its publisher knows that it is sent."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from functools import partial
from operator import contains
from typing import Any

import pytest
from celery import Celery, Task
from celery.contrib.testing.worker import start_worker
from celery.signals import setup_logging, task_received
from celery.worker import state

from channelsq.transport import publishing
from tests.support.apps import as_before
from tests.support.ports import free_port
from tests.support.proxy import Loop, Proxy
from tests.support.servers import RedisServer
from tests.support.waiting import wait_until
from tests.transport.broker import Peer, queue

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120)]

JOBS = queue("jobs")

#: Seconds by which the publisher's answer is late, well within the patience of a consumer.
LATE = 0.005


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[Proxy]:
    """A link to the server on which everything is late."""
    loop = Loop()
    proxy = Proxy(free_port(), server.port)
    loop.run(proxy.start())
    loop.run(proxy.lag(LATE))
    yield proxy
    loop.run(proxy.stop())
    loop.stop()


class MessageOrder:
    """MessageOrder a consumer in a thread; ``received`` has, of each message, whether its publisher knew."""

    def __init__(self, peer: Peer) -> None:
        self.published: set[int] = set()
        self.received: dict[int, bool] = {}
        self.peer = peer
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.consumer = peer.connection.Consumer([JOBS], on_message=self.on_message)

    def __enter__(self) -> MessageOrder:
        self.consumer.consume()
        if self.peer.hub is not None:
            self.peer.connection.register_with_event_loop(self.peer.hub)
        self.thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.ending.set()
        self.thread.join(20)
        self.consumer.cancel()

    def run(self) -> None:
        while not self.ending.is_set():
            self.peer.turn(timeout=0.1)

    def on_message(self, message: Any) -> None:
        self.received[message.payload] = message.payload in self.published
        message.ack()


@pytest.mark.parametrize("hub", [False, True], ids=["drain", "hub"])
def test_the_publishers_answer_comes_first(url: str, proxy: Proxy, hub: bool) -> None:
    """Redis's answer reaches the consumer first, by some milliseconds here."""
    with (
        Peer(f"redis-streams://127.0.0.1:{proxy.port}/0") as publisher,
        Peer(url, hub=hub) as consumer,
        MessageOrder(consumer) as turns,
    ):
        publisher.publish(JOBS, 0)  # which also opens the connections
        wait_until(lambda: 0 in turns.received, "the first message")
        for number in range(1, 41):
            publisher.publish(JOBS, number)
            turns.published.add(number)
            wait_until(partial(contains, turns.received, number), "the message", interval=0.001)
    # On a busy machine the publisher may be too slow from its answer to the next line.
    early = [number for number in range(1, 41) if not turns.received[number]]
    assert len(early) <= 20, early


def test_an_answer_that_does_not_come_holds_nothing_up(url: str) -> None:
    lost = publishing.begin()
    with Peer(url) as publisher, Peer(url) as consumer, MessageOrder(consumer) as turns:
        publisher.publish(JOBS, 1)
        wait_until(lambda: 1 in turns.received, "the message")
        assert lost not in publishing._under_way  # nor will the next one wait for it
    publishing.end(lost)  # harmless


def test_a_child_does_not_wait_for_its_parents_publishers() -> None:
    publication = publishing.begin()
    try:
        child = os.fork()
        if not child:
            os._exit(len(publishing._under_way))
        assert os.waitpid(child, 0)[1] == 0
    finally:
        publishing.end(publication)


def _no_logging(**kwargs: object) -> None:
    """Set up no logging: Celery does it only if nothing listens to its signal."""


@pytest.fixture
def app(server: RedisServer, proxy: Proxy, url: str) -> Iterator[Celery]:
    """A project that publishes over the late link."""
    with as_before():
        # Without Celery's fixup for Django, whose receivers of signals would stay in this process.
        app = Celery("same_process", set_as_current=False, fixups=[])
        app.conf.update(
            broker_write_url=f"redis-streams://127.0.0.1:{proxy.port}/0",
            broker_read_url=url,
            result_backend=f"redis://127.0.0.1:{server.port}/1",
            broker_connection_retry_on_startup=True,
        )
        app.set_current()
        # The worker would set the level of this process's root logger, for all tests that follow.
        setup_logging.connect(_no_logging)

        @app.task(bind=True, shared=False)
        def add(self: Task[Any, Any], x: int, y: int) -> int:
            return x + y

        @app.task(bind=True, shared=False)
        def nested(self: Task[Any, Any], times: int, seen: list[int]) -> Any:
            seen = [*seen, self.request.replaced_task_nesting]
            if times:
                raise self.replace(nested.s(times - 1, seen))
            return seen

        yield app
        setup_logging.disconnect(_no_logging)
        app.close()


@pytest.mark.filterwarnings("default::DeprecationWarning")  # redis-py deprecates what Celery's backend calls
@pytest.mark.filterwarnings("default::ResourceWarning")  # a worker that ends in its process leaves connections open
@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_task_is_received_when_its_call_has_returned(app: Celery, pool: str) -> None:
    """As Celery's own integration tests have it, whose worker is a thread of the process that calls."""
    returned: set[str] = set()
    received: dict[str, tuple[bool, int]] = {}

    def on_received(request: Any, **kwargs: Any) -> None:
        received[request.id] = request.id in returned, request.replaced_task_nesting

    task_received.connect(on_received)
    add, nested = app.tasks[f"{__name__}.add"], app.tasks[f"{__name__}.nested"]
    try:
        with start_worker(app, pool=pool, concurrency=2, perform_ping_check=False, shutdown_timeout=30):
            assert add.delay(1, 2).get(timeout=30) == 3
            results = []
            for number in range(20):
                result = add.delay(number, 2)
                returned.add(result.id)
                assert result.get(timeout=30) == number + 2
                results.append(received[result.id])
            assert nested.delay(3, []).get(timeout=30) == [0, 1, 2, 3]
            # A pool that is terminated may leave the last result of a process unread, and billiard's process then waits
            # 30 s for its reader.  (The result's backend has it before the pool does.)
            wait_until(lambda: not state.reserved_requests, "the pool to read its processes' results")
    finally:
        task_received.disconnect(on_received)
    assert {nesting for _, nesting in results} == {0}
    assert sum(1 for late, _ in results if not late) <= 10, results
