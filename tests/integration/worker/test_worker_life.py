"""Workers that start, stop, die and are replaced, on real brokers."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.brokers import Broker, LayerClient, operator
from tests.support.processes import Process, Processes
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.redis,
    pytest.mark.timeout(120),
    pytest.mark.ways("redis-streams"),
]

POOLS = ["threads", "prefork", "solo", "gevent"]

BROKERS = ["redis", "redis-streams", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)]

StartWorker = Callable[..., Process]


@pytest.fixture
def client(broker: Broker) -> Iterator[LayerClient]:
    client = LayerClient(broker)
    yield client
    client.close()


@pytest.fixture
def start_worker(broker: Broker, processes: Processes, tmp_path: Path) -> StartWorker:
    """Starts workers of the test project; quick to start, as they look for no neighbours."""
    env = {
        **broker.env,
        "TEST_DATABASE": str(tmp_path / "db.sqlite3"),
        "TEST_RECORDS": str(tmp_path),
        "TEST_VISIBILITY": "2",
    }
    numbers = iter(range(100))

    def start(*args: str) -> Process:
        name = f"{tmp_path.name}-{next(numbers)}@%h"
        quick = ("--without-mingle", "--without-gossip")
        return processes.worker("-n", name, *quick, *args, env=env, app="tests.project")

    return start


@pytest.mark.parametrize("broker", BROKERS, indirect=True)
def test_database_connections_are_kept(start_worker: StartWorker, client: LayerClient) -> None:
    start_worker("-P", "solo", "-Q", "database")
    used = []
    for _ in range(4):
        client.send("database")
        used.append(client.receive()["connection"])
    assert len(set(used)) == 1


@pytest.mark.ways(r"threads|prefork-redis-streams")  # a way for each broker, and for processes
@pytest.mark.parametrize("broker", BROKERS, indirect=True)
@pytest.mark.parametrize("pool", POOLS)
def test_warm_shutdown_finishes_what_runs(start_worker: StartWorker, client: LayerClient, pool: str) -> None:
    worker = start_worker("-Q", "slow", "-P", pool, "-c", "1")
    client.send("slow", {"seconds": 1, "order": 1})
    assert "started" in client.receive()
    worker.signal(signal.SIGTERM)
    assert "finished" in client.receive()
    assert client.receive() == {"done": 1}
    assert worker.wait() == 0


@pytest.mark.ways("prefork-redis-streams")
@pytest.mark.parametrize("broker", BROKERS, indirect=True)
@pytest.mark.parametrize("pool", POOLS)
def test_control_shutdown(start_worker: StartWorker, client: LayerClient, broker: Broker, pool: str) -> None:
    worker = start_worker("-Q", "slow", "-P", pool)
    client.send("slow", {"seconds": 1, "order": 1})
    assert "started" in client.receive()
    with operator(broker) as app:
        wait_until(lambda: app.control.inspect(timeout=1).ping(), "an answer")
        app.control.shutdown()
        assert worker.wait() == 0
    assert "finished" in client.receive()
    assert client.receive() == {"done": 1}


@pytest.mark.ways(r"threads|prefork-redis-streams")  # a way for each broker, and for processes
@pytest.mark.parametrize("broker", BROKERS, indirect=True)
@pytest.mark.parametrize("pool", POOLS)
def test_a_killed_workers_message_is_taken_over(start_worker: StartWorker, client: LayerClient, pool: str) -> None:
    first = start_worker("-Q", "slow", "-P", pool, "-c", "1")
    client.send("slow", {"seconds": 1, "order": 1})
    pid = client.receive()["pid"]
    first.kill()
    start_worker("-Q", "slow", "-P", pool, "-c", "1")
    again = client.receive(timeout=60)
    assert "started" in again
    assert again["pid"] != pid
    assert "finished" in client.receive()
    assert client.receive() == {"done": 1}


@pytest.mark.ways("threads-redis-streams")
@pytest.mark.parametrize("broker", BROKERS, indirect=True)
@pytest.mark.parametrize("pool", POOLS)
def test_a_retry_that_waits_outlives_its_worker(
    start_worker: StartWorker, client: LayerClient, broker: Broker, tmp_path: Path, pool: str
) -> None:
    first = start_worker("-Q", "bound", "-P", pool, "-c", "1")
    client.send("bound", {"countdown": 5, "order": 1})
    with operator(broker) as app:
        wait_until(lambda: any((app.control.inspect(timeout=1).scheduled() or {}).values()), "the retry", 20)
    first.kill()
    start_worker("-Q", "bound", "-P", pool, "-c", "1")
    answer = client.receive(timeout=60)
    assert answer["retries"] == 2
    assert client.receive() == {"done": 1}
    assert (tmp_path / "bound").read_text().split() == [answer["id"]] * 3
    assert client.nothing()


@pytest.mark.ways("redis")
@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_a_message_that_was_read_in_time_does_not_expire_with_its_worker(
    start_worker: StartWorker, client: LayerClient
) -> None:
    first = start_worker("-Q", "slow", "-P", "threads", "-c", "1")
    client.layer.channel_layer.expiry = 1  # less than it takes until another worker gets the message
    client.send("slow", {"seconds": 2, "order": 1})
    pid = client.receive()["pid"]
    first.kill()
    start_worker("-Q", "slow", "-c", "1")
    assert client.receive(timeout=60)["pid"] != pid
    assert "finished" in client.receive()
    assert client.receive() == {"done": 1}


@pytest.mark.ways("prefork-redis-streams")
@pytest.mark.parametrize("broker", BROKERS, indirect=True)
@pytest.mark.parametrize("pool", POOLS)
def test_at_most_once_is_not_taken_over(start_worker: StartWorker, client: LayerClient, pool: str) -> None:
    first = start_worker("-Q", "once,echo", "-P", pool)
    client.send("once", {"seconds": 300})
    assert "started" in client.receive()
    first.kill()
    start_worker("-Q", "once,echo", "-P", pool)
    client.send("echo", {"value": 1})
    assert client.receive()["echo"] == 1
    assert client.nothing()


@pytest.mark.ways("solo-redis-streams")  # the others are in test_hostile_consumers
@pytest.mark.parametrize("broker", BROKERS, indirect=True)
@pytest.mark.parametrize("pool", POOLS)
def test_a_consumer_cannot_end_its_worker(start_worker: StartWorker, client: LayerClient, pool: str) -> None:
    # More of them than the worker takes at once.
    worker = start_worker("-Q", "leave,echo", "-P", pool, "-c", "1", "--prefetch-multiplier", "2")
    for order in range(5):
        client.send("leave", {"order": order})
        assert client.receive() == {"done": order}
    client.send("echo", {"value": 1})
    assert client.receive()["echo"] == 1
    assert worker.output.count("raised SystemExit(3); a consumer cannot end its worker") >= 5


@pytest.mark.ways("rabbitmq")  # test_channel_processes has it on streams
@pytest.mark.parametrize("broker", BROKERS, indirect=True)
def test_time_limit_in_prefork(start_worker: StartWorker, client: LayerClient, broker: Broker) -> None:
    worker = start_worker("-Q", "limited,celery", "-P", "prefork", "-c", "1")
    client.send("limited", {"seconds": 60, "order": 4})
    assert "started" in client.receive()
    assert client.receive() == {"done": 4}
    worker.wait_for_output("Hard time limit .* exceeded")


@pytest.mark.parametrize("broker", BROKERS, indirect=True)
def test_an_http_client_waits_no_longer_for_a_consumer_that_was_killed(
    start_worker: StartWorker, client: LayerClient, broker: Broker
) -> None:
    start_worker("-Q", "http.request,celery", "-P", "prefork", "-c", "1")
    client.send("http.request", {"path": "/limited/", "method": "GET", "seconds": 60})
    assert "started" in client.receive()
    assert client.receive() == {"content": b"", "more_content": False, "abort": True}


@pytest.mark.ways("nothing")  # but for the default one, which test_worker looks at
@pytest.mark.parametrize("broker", ["redis-streams"], indirect=True)
@pytest.mark.parametrize(
    ("args", "shown"),
    [
        ((), "(prefork)"),
        (("-c", "3"), "concurrency: 3 (prefork)"),
        (("-P", "prefork", "-c", "1"), "concurrency: 1 (prefork)"),
        (("-P", "solo"), "(solo)"),
    ],
    ids=["default", "concurrency", "prefork", "solo"],
)
def test_pool(start_worker: StartWorker, args: tuple[str, ...], shown: str) -> None:
    assert shown in start_worker("-Q", "echo", *args).output
