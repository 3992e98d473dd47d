"""Kombu's stock Redis transport: sweeps that died, and links that swallow, under a worker of the test project."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from tests.support.brokers import Broker, LayerClient
from tests.support.project import Project
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120)]


@pytest.fixture
def url(redis_url: str) -> str:
    url = redis_url.rsplit("/", 1)[0] + "/12"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


@pytest.mark.ways("threads")
@pytest.mark.parametrize("pool", ["threads", "prefork", "solo"])
def test_a_sweep_keeps_others_out_for_seconds_only(tmp_path: Path, url: str, pool: str) -> None:
    """A worker that dies in a sweep leaves a lock behind; what it held is redelivered all the same."""
    project = Project(tmp_path, url, {"TEST_VISIBILITY": "3"})
    project.embedded = False
    client = LayerClient(Broker(url, url))
    try:
        with redis.Redis.from_url(url) as admin, admin.monitor() as monitor:
            worker = project.new_worker("-P", pool, "-c", "1")
            taken: list[str] = []

            def locked() -> bool:
                command = str(monitor.next_command()["command"])
                if command.startswith("SET unacked_mutex "):
                    taken.append(command)
                return bool(taken)

            wait_until(locked, "a sweep", 30, interval=0)
            assert taken[0].endswith(" NX PX 5000")
        client.send("slow", {"seconds": 60})
        assert client.receive(30)["started"]
        worker.kill()
        with redis.Redis.from_url(url) as admin:
            # As it would be if the worker had been killed in the middle of a sweep.
            admin.set("unacked_mutex", "dead", px=5000)
            project.new_worker("-c", "1")
            assert client.receive(45)["started"]
    finally:
        client.close()
        project.stop()
