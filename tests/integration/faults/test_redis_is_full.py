"""A Redis without memory left, and one that makes room by dropping keys."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from channelsq.exceptions import BrokerUnavailable
from channelsq.layers import RedisChannelLayer
from tests.support.project import Project
from tests.support.refusals import full
from tests.support.servers import RedisServer, running_redis
from tests.support.swarm import Swarm
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.timeout(180)]

#: Seconds; a full server stays so for longer.
LEASE = 2.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[Any]:
    with redis.Redis(port=server.port, decode_responses=True) as client:
        yield client


@pytest.fixture
def project(request: pytest.FixtureRequest, server: RedisServer, redis_url: str, tmp_path: Path) -> Iterator[Project]:
    """With the layer beside Celery's broker, another Redis, if a test asks for that."""
    (tmp_path / "project").mkdir()
    url = server.url.replace("redis:", "redis-streams:")
    env = {"TEST_CAPACITY": "1000", "TEST_VISIBILITY": str(LEASE)}
    if getattr(request, "param", None) == "redis beside streams":
        env |= {"TEST_LAYER": url, "TEST_BROKER": redis_url}
    project = Project(tmp_path / "project", url, env)
    yield project
    project.stop()


@pytest.mark.ways(r"redis-streams-threads")
@pytest.mark.parametrize(
    ("project", "pool"),
    [
        ("redis-streams", "threads"),
        ("redis-streams", "solo"),
        ("redis-streams", "prefork"),
        ("redis beside streams", "prefork"),
    ],
    indirect=["project"],
)
def test_a_backlog_is_worked_off_and_nothing_runs_twice(
    server: RedisServer, project: Project, client: Any, pool: str
) -> None:
    """Two workers, with a lease that is over several times meanwhile: each knows that the other lives."""
    layer = RedisChannelLayer(url=server.url.replace("redis:", "redis-streams:"), capacity=2000)
    reply = layer.new_channel("answers!")
    workers = [project.new_worker("-P", pool, "-c", "2") for _ in range(2)]
    of_each = 1 if "TEST_LAYER" in project.env else 2  # leases: the source's, and Celery's own if it is on this Redis
    wait_until(lambda: len(client.keys("stream-lease:*")) == 2 * of_each, "both to read", 30)
    numbers = {str(number) for number in range(700 if pool != "solo" else 400)}
    for number in sorted(numbers):
        layer.send("websocket.receive", {"path": "/count/1/", "text": number, "reply_channel": reply})
    with full(server):
        began = time.monotonic()
        with pytest.raises(BrokerUnavailable, match="OOM"):
            layer.send("websocket.receive", {"path": "/count/1/", "text": "refused"})
        wait_until(lambda: set(project.recorded("count")) == numbers, "the backlog to be worked off", 60)
        wait_until(lambda: time.monotonic() - began > 3 * LEASE, "some leases to pass", 20, interval=0.2)
        assert client.xpending("stream:websocket.receive", "kombu")["pending"] == 0  # all is acknowledged
        assert len(client.keys("stream-lease:*")) == 2 * of_each
        late = project.new_worker("-P", pool, "-c", "2")  # a deploy
        wait_until(lambda: len(client.keys("stream-lease:*")) == 3 * of_each, "it to read as well", 30)
    layer.send("websocket.receive", {"path": "/count/1/", "text": "after", "reply_channel": reply})
    project.wait_for_record("count", "after")
    assert Counter(project.recorded("count")) == Counter({*numbers, "after"})
    for worker in (*workers, late):
        assert worker.running
        assert "Unrecoverable" not in worker.output
        assert "took over" not in worker.output
    layer.close()


@pytest.mark.ways("threads")
@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_long_consumers_keep_their_messages(server: RedisServer, project: Project, pool: str) -> None:
    """A consumer that runs for several leases, while nothing can be written, is not begun by the other worker."""
    layer = RedisChannelLayer(url=server.url.replace("redis:", "redis-streams:"))
    workers = [project.new_worker("-P", pool, "-c", "2") for _ in range(2)]
    reply = layer.new_channel("answers!")
    for _ in range(3):
        layer.send("slow", {"seconds": 4 * LEASE, "reply_channel": reply})
    answers: list[Any] = []

    def arrived(kind: str) -> int:
        answers.append(layer.receive([reply], block=True)[1])
        return sum(answer is not None and kind in answer for answer in answers)

    wait_until(lambda: arrived("started") == 3, "all to begin", 30)
    with full(server):
        wait_until(lambda: arrived("finished") == 3, "all to be finished", 30)
    assert arrived("started") == 3
    for worker in workers:
        assert "could not be renewed" not in worker.output
        assert "took over" not in worker.output
    layer.close()


def test_groups_and_interface_servers_survive(server: RedisServer, project: Project, client: Any) -> None:
    project.start_interface("--order-timeout", "60")
    project.start_worker("-c", "4")
    swarm = Swarm(f"{project.ws_url}/count/{{}}/", 10)
    swarm.start()
    (process,) = client.smembers("channelsq:interfaces")
    members = client.scard("channelsq:group:{room}")
    with full(server):
        client.pexpire(f"channelsq:interface:{process}", 15_000)
        wait_until(
            lambda: client.pttl(f"channelsq:interface:{process}") > 20_000, "the heart to beat", 15, interval=0.1
        )
    swarm.wait_for(50)
    assert client.scard("channelsq:group:{room}") == members
    assert swarm.stop() == set()
    assert "declared this one dead" not in project.interface.output


@pytest.mark.ways("other ways")
def test_a_living_server_whose_key_was_evicted_is_not_tidied_up_after(
    server: RedisServer, project: Project, client: Any
) -> None:
    project.start_interface()
    first = project.interface
    wait_until(lambda: client.scard("channelsq:interfaces") == 1, "its heart to beat")
    (process,) = client.smembers("channelsq:interfaces")
    port = project.port
    project.port = port + 1 if port < 60_000 else port - 1
    project.start_interface()
    wait_until(lambda: client.scard("channelsq:interfaces") == 2, "both hearts")
    key = f"channelsq:interface:{process}"
    for _ in range(3):
        wait_until(lambda: client.delete(key), "the key, to evict it", 25, interval=0.001)
    wait_until(lambda: client.exists(key), "the heart to beat again", 25)
    assert not client.exists(f"channelsq:buried:{process}")
    assert "dead" not in first.output
    assert "cleaned up after" not in project.interface.output


@pytest.mark.parametrize("policy", ["volatile-lru", "allkeys-lru", "volatile-ttl"])
def test_a_redis_that_evicts_is_warned_of(project: Project, client: Any, policy: str) -> None:
    client.config_set("maxmemory-policy", policy)
    project.start_interface()
    project.start_worker("-c", "1")
    for process in (project.interface, project.worker):
        process.wait_for_output(f"maxmemory-policy is {policy}")


def test_a_redis_that_does_not_evict_is_not(project: Project, client: Any) -> None:
    project.start_interface()
    project.start_worker("-c", "1")
    wait_until(lambda: client.smembers("channelsq:interfaces"), "the heart to beat")
    assert "maxmemory-policy" not in project.interface.output + project.worker.output
