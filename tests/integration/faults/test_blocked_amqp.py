"""RabbitMQ that takes no messages, as it is short of memory: publishers are told so at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from channelsq.exceptions import BrokerUnavailable
from channelsq.layers import KombuChannelLayer
from tests.support.project import Project
from tests.support.rabbit import RabbitServer
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.rabbitmq, pytest.mark.redis, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    server = RabbitServer(tmp_path_factory.mktemp("rabbitmq"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def relief(rabbit: RabbitServer) -> Iterator[None]:
    yield
    rabbit.alarm(on=False)


def test_a_send_says_so_at_once(rabbit: RabbitServer) -> None:
    layer = KombuChannelLayer(url=rabbit.url)
    try:
        layer.send("blocked", {"number": 1})
        rabbit.alarm(on=True)
        for number in (2, 3, 4):
            began = time.monotonic()
            with pytest.raises(BrokerUnavailable, match="short of memory"):
                layer.send("blocked", {"number": number})
            assert time.monotonic() - began < 5
        rabbit.alarm(on=False)
        layer.send("blocked", {"number": 5})
        received = []
        while (message := layer.receive(["blocked"])[1]) is not None:
            received.append(message["number"])
        # The first one that was refused was on its way already, and may have arrived; the others were not sent.
        assert [number for number in received if number != 2] == [1, 5]
    finally:
        layer.close()


def test_requests_get_503_and_the_server_is_not_ready(rabbit: RabbitServer, redis_url: str, tmp_path: Path) -> None:
    groups = redis_url.rsplit("/", 1)[0] + "/8"
    project = Project(tmp_path, env={"TEST_BROKER": rabbit.url, "TEST_GROUPS": groups})
    project.embedded = False
    try:
        project.start()

        def status(path: str) -> int:
            return httpx.get(project.url + path, timeout=30).status_code

        wait_until(lambda: status("/-/health/ready") == 200, "the server to be ready", 20)
        assert status("/") == 200
        rabbit.alarm(on=True)
        assert status("/") == 503
        began = time.monotonic()
        assert status("/") == 503
        assert time.monotonic() - began < 5
        assert status("/-/health/ready") == 503
        rabbit.alarm(on=False)
        wait_until(lambda: status("/-/health/ready") == 200, "the server to be ready again", 20)
        assert status("/") == 200
    finally:
        project.stop()
