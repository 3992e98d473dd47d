"""Machines whose clocks differ by 90 seconds, more than a message lives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis
from websockets.sync.client import connect

from tests.support.brokers import Broker, LayerClient
from tests.support.processes import ROOT, Processes
from tests.support.project import Project

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120)]

SKEWED = ROOT / "tests" / "support" / "skewed"

BROKERS = ["redis", "redis-streams", pytest.param("amqp", marks=pytest.mark.rabbitmq)]


@pytest.fixture(params=BROKERS)
def project(request: pytest.FixtureRequest, tmp_path: Path, redis_url: str) -> Iterator[Project]:
    """A project on each broker; nothing has been started."""
    groups = redis_url.rsplit("/", 1)[0] + "/9"
    with redis.Redis.from_url(groups) as client:
        client.flushdb()
    amqp = request.param == "amqp"
    broker = request.getfixturevalue("rabbitmq_url") if amqp else groups.replace("redis:", f"{request.param}:")
    project = Project(tmp_path, broker, {"TEST_GROUPS": groups})
    yield project
    project.stop()


def skewed(seconds: float) -> dict[str, str]:
    return {"PYTHONPATH": str(SKEWED), "CLOCK_OFFSET": str(seconds)}


@pytest.mark.parametrize("seconds", [90, -90], ids=["ahead", "behind"])
def test_a_worker_whose_clock_is_wrong_works(project: Project, seconds: float) -> None:
    project.start_interface()
    project.env |= skewed(seconds)
    project.start_worker()
    assert httpx.get(f"{project.url}/cookies/", timeout=20).status_code == 200
    with connect(f"{project.ws_url}/count/1/", open_timeout=20, close_timeout=1) as socket:
        for number in range(3):
            socket.send(str(number))
            assert socket.recv(timeout=20) == str(number)


def test_an_interface_server_and_a_worker_that_are_wrong_differently(project: Project) -> None:
    right = dict(project.env)
    project.env |= skewed(-50)
    project.start_interface()
    project.env |= skewed(50)
    project.start_worker()
    with connect(f"{project.ws_url}/count/1/", open_timeout=20, close_timeout=1) as socket:
        socket.send("text")
        assert socket.recv(timeout=20) == "text"
    project.env = right


def test_a_delayed_message_is_not_taken_for_an_old_one(project: Project) -> None:
    project.env |= skewed(90)
    project.start_worker()
    client = LayerClient(Broker(project.env["TEST_BROKER"], project.env["TEST_GROUPS"]))
    try:
        client.send("echo", {"value": 1}, delay=0.1)
        assert client.receive()["echo"] == 1
    finally:
        client.close()


def test_memberships_end_by_the_servers_clock(redis_url: str, tmp_path: Path) -> None:
    """A process whose clock is ahead takes nobody out of a group before the time."""
    script = tmp_path / "members.py"
    script.write_text("""
import sys, django
from django.conf import settings
settings.configure(SECRET_KEY="x")
django.setup()
from channelsq.layers import RedisChannelLayer
layer = RedisChannelLayer(url=sys.argv[1], group_expiry=60)
layer.group_add("skewed", "second") if sys.argv[2:] else print(sorted(layer.group_channels("skewed")))
layer.close()
""")
    processes = Processes(tmp_path)
    try:
        for seconds, more in ((0, "add"), (90, ""), (-90, "add"), (0, "")):
            arguments = [redis_url.replace("/0", "/10"), *([more] if more else [])]
            process = processes.start("python", str(script), *arguments, env=skewed(seconds))
            assert process.wait(30) == 0, process.output
            if not more:
                assert process.output.splitlines()[-1] == "['second']"
    finally:
        processes.stop()


def test_a_clock_that_is_wrong_is_told_of(redis_url: str, tmp_path: Path) -> None:
    project = Project(tmp_path, redis_url.replace("/0", "/11"))
    try:
        project.env |= skewed(90)
        worker = project.new_worker()
        client = LayerClient(Broker(project.env["TEST_BROKER"], project.env["TEST_GROUPS"]))
        try:
            client.send("echo", {"value": 1})
            assert client.receive()["echo"] == 1
        finally:
            client.close()
        worker.wait_for_output("the clock of this machine is 90 s ahead of that of redis://")
    finally:
        project.stop()
