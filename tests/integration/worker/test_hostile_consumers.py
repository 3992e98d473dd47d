"""A worker survives any exception of a consumer, a view or a receiver: same process, every slot free."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.project.hostile import WAYS
from tests.support.brokers import Broker, LayerClient, make_broker, operator
from tests.support.processes import Process, Processes
from tests.support.project import Project
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.redis,
    pytest.mark.timeout(180),
    pytest.mark.ways(r"quiet.*(threads|prefork)|(threads|prefork).*quiet|prefork-redis-streams\]"),
]

POOLS = ["solo", "threads", "prefork"]

#: On streams without Celery's tracer, and with it, as while events are on.
BROKERS = ["redis-streams-quiet", "redis-streams", "redis", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)]

Start = Callable[..., Process]


@pytest.fixture(params=BROKERS)
def broker(request: pytest.FixtureRequest) -> Broker:
    return make_broker(request)


@pytest.fixture
def client(broker: Broker) -> Iterator[LayerClient]:
    client = LayerClient(broker)
    yield client
    client.close()


@pytest.fixture
def start(broker: Broker, processes: Processes, tmp_path: Path) -> Start:
    """Starts a worker with two threads or processes; with events but on the quiet broker."""

    def start(pool: str, *args: str, waits: bool = True, **env: str) -> Process:
        env = {**broker.env, "TEST_DATABASE": str(tmp_path / "db"), "TEST_RECORDS": str(tmp_path), **env}
        options: tuple[str, ...] = (
            "-n",
            f"{tmp_path.name}@%h",
            "--without-mingle",
            "--without-gossip",
            "-P",
            pool,
            "-c",
            "2",
        )
        if not broker.quiet:
            options = (*options, "-E")
        level = "WARNING" if broker.quiet else "INFO"
        return processes.worker(*options, *args, env=env, app="tests.project", loglevel=level, waits=waits)

    return start


def assert_is_as_before(worker: Process, client: LayerClient, broker: Broker) -> None:
    """The worker answers more messages than it has slots, and holds none."""
    for value in range(30):
        client.send("echo", {"value": value})
    answered: list[int] = []

    def is_answered() -> bool:
        answer = client.receive()
        answered.extend([answer["echo"]] if "echo" in answer else [])
        return len(answered) == 30

    wait_until(is_answered, "30 answers", 30)
    assert sorted(answered) == list(range(30))
    assert worker.running
    with operator(broker) as app:

        def is_idle() -> bool:
            inspect = app.control.inspect(timeout=2)
            answers = [inspect.active(), inspect.reserved()]
            return all(answer and not any(answer.values()) for answer in answers)

        wait_until(is_idle, "nothing active and nothing reserved", 20)


@pytest.mark.parametrize("pool", POOLS)
def test_it_is_a_failed_consumer(start: Start, client: LayerClient, broker: Broker, pool: str) -> None:
    worker = start(pool, "-Q", "hostile.hostile,hostile.bound,hostile.once,hostile.rated,echo")
    order = 0
    for name in ("hostile", "bound", "once", "rated"):
        first = order
        for way in WAYS:
            client.send(f"hostile.{name}", {"way": way, "order": order})
            order += 1
        done = {client.receive()["done"] for _ in WAYS}  # nothing that they sent
        assert done == set(range(first, order))
    # More of one kind than there are slots, at once.
    for way in ("MemoryError", "KeyboardInterrupt"):
        for number in range(20):
            client.send("hostile.hostile", {"way": way, "order": 1000 + number})
        assert {client.receive()["done"] for _ in range(20)} == set(range(1000, 1020))
    assert_is_as_before(worker, client, broker)
    assert client.nothing()
    assert worker.output.count("raised KeyboardInterrupt(); a consumer cannot end its worker") >= 23
    assert "a message could not be handled" not in worker.output  # the consumers' failures are told as such
    assert "pid:" not in worker.output.replace("pid: ", ""), "a process of the pool has ended"


def wait_until_done(client: LayerClient, order: int, what: str) -> None:
    wait_until(lambda: client.receive() == {"done": order}, what)


@pytest.mark.parametrize("pool", POOLS)
def test_receivers(start: Start, client: LayerClient, broker: Broker, pool: str) -> None:
    worker = start(pool, "-Q", "hostile.quiet,echo", TEST_HOSTILE_RECEIVERS="1")
    order = 0
    for moment in ("started", "finished", "prerun", "postrun", "success", "failure", "received"):
        for way in ("KeyboardInterrupt", "SystemExit", "MemoryError", "WorkerShutdown", "Unprintable"):
            client.send("hostile.quiet", {"at": moment, "way": way, "order": order})
            # The guard around Celery's tracer and the consumer may both report the message done.
            wait_until_done(client, order, f"{way} at {moment}")
            order += 1
    client.send("hostile.quiet", {"at": "", "way": "", "order": order})
    wait_until_done(client, order, "the last one")
    assert_is_as_before(worker, client, broker)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("broker", ["redis-streams-quiet", "redis"], indirect=True)
def test_views(broker: Broker, processes: Processes, tmp_path: Path, pool: str) -> None:
    project = Project(tmp_path, broker.url, broker.env)
    project.start_interface()
    try:
        project.start_worker("-P", pool, "-c", "2")
        with httpx.Client(base_url=project.url, timeout=20) as client:
            for way in WAYS:
                for kind in ("view", "async_view"):
                    assert client.get(f"/hostile/{kind}/{way}/").status_code == 500, (kind, way)
                for kind in ("stream", "async_stream"):
                    with pytest.raises(httpx.RemoteProtocolError):
                        client.get(f"/hostile/{kind}/{way}/")
            assert client.get("/").text == "hello"
        assert project.worker.running
    finally:
        project.stop()


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("broker", ["redis-streams"], indirect=True)
def test_what_ends_the_process_is_a_death(start: Start, client: LayerClient, pool: str, tmp_path: Path) -> None:
    """Twice, as is set here, makes a dead letter: its socket goes on."""

    def run(*, waits: bool = True) -> Process:
        env = {"TEST_DEATHS": "2", "TEST_VISIBILITY": "1"}
        return start(pool, "-Q", "hostile.leaves_at_once,echo", waits=waits, **env)

    worker = run()
    client.send("hostile.leaves_at_once", {"code": 0, "order": 0})
    if pool != "prefork":  # there only a process of the pool ends
        worker.wait()
        worker = run(waits=False)  # a source reads before its worker is ready
        worker.wait()
        worker = run()
    assert client.receive(30) == {"done": 0}
    client.send("echo", {"value": 1})
    assert client.receive()["echo"] == 1
    assert "it is a dead letter now" in worker.output
    assert len((tmp_path / "leaves").read_text().splitlines()) == 2
