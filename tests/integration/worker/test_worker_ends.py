"""Consumers that run when their worker, or its process, is ended: none is lost, and none is said to have failed."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
import redis

from tests.support.brokers import Broker, LayerClient, make_broker, operator
from tests.support.processes import Process, Processes
from tests.support.servers import RedisServer
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.redis,
    pytest.mark.timeout(120),
    pytest.mark.ways(r"^(?!.*(gevent|solo|prefork)).*redis-streams"),
]

POOLS = ["solo", "threads", "prefork", "gevent"]

#: Of Celery's consumer, through which a KombuChannelLayer is read.
KOMBU = ["redis", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)]
BROKERS = ["redis-streams", *KOMBU]

#: How long a consumer takes that is to be ended.
SECONDS = 5


@pytest.fixture(params=BROKERS)
def broker(request: pytest.FixtureRequest) -> Broker:
    return make_broker(request)


@pytest.fixture
def client(broker: Broker) -> Iterator[LayerClient]:
    client = LayerClient(broker)
    yield client
    client.close()


class Site:
    """Workers that follow one another, and what their consumers have written down."""

    def __init__(self, broker: Broker, processes: Processes, records: Path) -> None:
        self._broker = broker
        self._processes = processes
        self._records = records / "lasts"
        self._names = iter(range(100))
        self._database = str(records / "db")

    def start(self, pool: str, *args: str, processes: int = 3) -> Process:
        """Start a worker."""
        broker = self._broker
        env = {
            **broker.env,
            "TEST_DATABASE": self._database,
            "TEST_RECORDS": str(self._records.parent),
            "TEST_VISIBILITY": "60",  # nobody waits for that
        }
        name = f"{self._records.parent.name}-{next(self._names)}@%h"
        options = ["-n", name, "--without-mingle", "--without-gossip", "-P", pool, "-c", str(processes)]
        options += ["-Q", "hostile.lasts,hostile.lasts_limited,echo,celery"]
        return self._processes.worker(*options, *args, env=env, app="tests.project")

    def noted(self, what: str) -> list[int]:
        """The numbers of the consumers that have begun, have ended or were interrupted, in their order."""
        lines = self._records.read_text().splitlines() if self._records.exists() else []
        return [int(line.split()[1]) for line in lines if line.startswith(what)]

    def wait_for(self, what: str, count: int) -> None:
        """Wait until that many have."""
        wait_until(lambda: len(self.noted(what)) >= count, f"{count} x {what}", 30)

    def wait_for_active(self, count: int) -> None:
        """Wait until that many have begun and the worker, not its process alone, knows; a solo worker does at once."""
        self.wait_for("begin", count)
        with operator(self._broker) as app:

            def are_active() -> bool:
                answers = app.control.inspect(timeout=1).active() or {}
                return sum(map(len, answers.values())) >= count

            wait_until(are_active, f"{count} active requests", 20)


@pytest.fixture
def site(broker: Broker, processes: Processes, tmp_path: Path) -> Site:
    return Site(broker, processes, tmp_path)


def send(client: LayerClient, *seconds: float, first: int = 0, channel: str = "hostile.lasts", **more: object) -> None:
    """Send a message for each."""
    for number, duration in enumerate(seconds, first):
        client.send(channel, {"number": number, "seconds": duration, "order": number, **more})


def assert_answers(client: LayerClient, count: int) -> None:
    """Each of the first messages is answered and reported done once, and nothing else arrives."""
    wanted = Counter([f"answer {number}" for number in range(count)] + [f"done {number}" for number in range(count)])
    found: Counter[str] = Counter()
    while found.total() < wanted.total():
        answer = client.receive(timeout=30)
        found[answer["text"] if "text" in answer else f"done {answer['done']}"] += 1
    assert found == wanted
    assert client.nothing()


def assert_silent(worker: Process) -> None:
    """The worker has logged no failure."""
    assert "Traceback" not in worker.output, worker.output
    assert "cannot end its worker" not in worker.output, worker.output


@pytest.mark.parametrize("pool", POOLS)
def test_cold_shutdown(site: Site, client: LayerClient, broker: Broker, pool: str) -> None:
    worker = site.start(pool)
    send(client, *[SECONDS] * 3)
    if pool == "solo":
        site.wait_for("begin", 1)
    else:
        site.wait_for_active(3)
    worker.signal(signal.SIGQUIT)
    worker.wait(20)
    assert_silent(worker)
    ended = site.noted("end")
    if pool == "solo":
        assert len(ended) == 1  # in a thread, too
    else:
        assert len(ended) == (0 if pool == "prefork" else 3)  # threads cannot be ended
    site.start(pool)
    assert_answers(client, 3)
    assert sorted(site.noted("end")) == [0, 1, 2]


@pytest.mark.parametrize("broker", ["redis-streams", "redis"], indirect=True)
@pytest.mark.parametrize("pool", POOLS)
def test_soft_shutdown_that_runs_out(site: Site, client: LayerClient, pool: str) -> None:
    worker = site.start(pool, "--", "worker.soft_shutdown_timeout=1")
    send(client, 0.5, SECONDS)
    site.wait_for("begin", 1 if pool == "solo" else 2)
    worker.signal(signal.SIGQUIT)
    worker.wait(30)
    assert_silent(worker)
    site.start(pool)
    assert_answers(client, 2)
    assert sorted(site.noted("end")) == [0, 1]
    assert site.noted("begin").count(0) <= (2 if pool == "solo" else 1)


@pytest.mark.ways("other ways")
@pytest.mark.parametrize("broker", ["redis-streams"], indirect=True)
def test_what_is_done_when_a_channel_process_is_cut(site: Site, client: LayerClient) -> None:
    """Finished messages count as done, the one that runs comes again, and what was not begun is left to the next."""
    worker = site.start("prefork", "--channel-threads", "1")
    send(client, *[0] * 20, SECONDS, *[0] * 5)
    site.wait_for("begin", 21)
    worker.signal(signal.SIGQUIT)
    worker.wait(20)
    assert_silent(worker)
    site.start("prefork")
    assert_answers(client, 26)
    assert sorted(site.noted("end")) == list(range(26))
    begun = Counter(site.noted("begin"))
    assert [number for number, times in begun.items() if times > 1] == [20]


def revoke(broker: Broker, number: int) -> None:
    """Revoke the consumer that runs with a number, and end it."""
    with operator(broker) as app:

        def find() -> str | None:
            active = app.control.inspect(timeout=1).active() or {}
            for request in chain(*active.values()):
                content = request["args"][1] if request["args"] else {}
                if content.get("number") == number:
                    return str(request["id"])
            return None

        app.control.revoke(wait_until(find, "the request", 20), terminate=True)


def test_a_hard_time_limit_is_the_only_failure(site: Site, client: LayerClient) -> None:
    worker = site.start("prefork", processes=1)
    send(client, 60, channel="hostile.lasts_limited")
    site.wait_for("begin", 1)
    assert client.receive() == {"done": 0}
    send(client, 0, first=1)
    wait_until(lambda: client.receive() == {"text": "answer 1"}, "the next one")  # Celery tells of the limit twice
    worker.wait_for_output("Hard time limit .* exceeded")
    assert "cannot end its worker" not in worker.output
    assert site.noted("begin") == [0, 1]


@pytest.mark.parametrize("broker", ["redis-streams", "redis"], indirect=True)
def test_a_lost_connection_cancels_nothing_in_channel_processes(
    site: Site, client: LayerClient, redis_server: RedisServer
) -> None:
    setting = "worker.cancel_long_running_tasks_on_connection_loss=(bool)True"
    worker = site.start("prefork", "--", setting, processes=2)
    send(client, SECONDS, SECONDS)
    site.wait_for_active(2)
    with redis.Redis(port=redis_server.port) as operator:
        operator.execute_command("CLIENT", "KILL", "TYPE", "normal")
    assert_answers(client, 2)
    assert sorted(site.noted("begin")) == sorted(site.noted("end")) == [0, 1]
    assert worker.running


def test_a_signal_to_every_process(site: Site, client: LayerClient) -> None:
    """As platforms do it: the pool's processes are told to end, too, while the worker waits for them."""
    worker = site.start("prefork")
    send(client, *[SECONDS] * 3)
    site.wait_for_active(3)
    os.killpg(worker.pid, signal.SIGTERM)
    worker.wait(20)
    assert "cannot end its worker" not in worker.output
    site.start("prefork")
    assert_answers(client, 3)
    assert sorted(site.noted("end")) == [0, 1, 2]
