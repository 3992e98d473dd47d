"""RabbitMQ behind a link that swallows what is sent: interface servers and workers notice, and recover."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

from tests.support.brokers import Broker, LayerClient
from tests.support.ports import free_port
from tests.support.processes import Process
from tests.support.project import Project
from tests.support.proxy import Loop, Proxy
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.rabbitmq, pytest.mark.redis, pytest.mark.timeout(150)]

POOLS = ["threads", "prefork", "solo"]


class Site:
    """An interface server and workers of the test project, each with a way of its own to RabbitMQ."""

    def __init__(self, directory: Path, rabbitmq: str, redis: str) -> None:
        self.loop = Loop()
        self.project = Project(directory, env={"DJANGO_SETTINGS_MODULE": "tests.project.impatient"})
        self.project.embedded = False
        self.project.env |= {"TEST_GROUPS": redis}
        self.rabbitmq = rabbitmq
        self.proxies: list[Proxy] = []

    def way(self) -> Proxy:
        """One more way to RabbitMQ, which the process that is started next goes."""
        proxy = Proxy(free_port(), 5672)
        self.loop.run(proxy.start())
        self.proxies.append(proxy)
        self.project.env["TEST_BROKER"] = self.rabbitmq.replace(":5672", f":{proxy.port}")
        return proxy

    def interface(self) -> Proxy:
        way = self.way()
        self.project.start_interface("--order-timeout", "60")
        return way

    def worker(self, *args: str) -> tuple[Process, Proxy]:
        way = self.way()
        return self.project.new_worker(*args), way

    def ready(self) -> bool:
        return httpx.get(f"{self.project.url}/-/health/ready", timeout=10).status_code == 200

    def socket(self) -> ClientConnection:
        return connect(f"{self.project.ws_url}/count/1/", open_timeout=30, close_timeout=1)

    def stop(self) -> None:
        self.project.stop()
        for proxy in self.proxies:
            self.loop.run(proxy.stop())
        self.loop.stop()


@pytest.fixture
def site(tmp_path: Path, rabbitmq_url: str, redis_url: str) -> Iterator[Site]:
    if ":5672" not in rabbitmq_url:
        pytest.fail("RABBITMQ_URL must name port 5672")
    site = Site(tmp_path, rabbitmq_url, redis_url.rsplit("/", 1)[0] + "/7")
    yield site
    site.stop()


def ask(socket: ClientConnection, text: str, timeout: float = 60.0) -> None:
    socket.send(text)
    await_answer(socket, text, timeout)


def await_answer(socket: ClientConnection, text: str, timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while text != socket.recv(timeout=max(0.0, deadline - time.monotonic())):
        pass


@pytest.mark.ways("other ways")
def test_an_interface_server_notices_and_is_back(site: Site) -> None:
    way = site.interface()
    site.worker("-c", "2")
    wait_until(site.ready, "the server to be ready", 20)
    with site.socket() as socket:
        ask(socket, "before")
        site.loop.run(way.freeze())
        began = time.monotonic()
        wait_until(lambda: not site.ready(), "the server to notice", 20)
        socket.send("meanwhile")
        response = httpx.get(f"{site.project.url}/", timeout=60)
        assert response.status_code == 503
        assert time.monotonic() - began < 45
        site.loop.run(way.heal())
        wait_until(site.ready, "the server to be back", 30)
        await_answer(socket, "meanwhile")
        ask(socket, "after")
        assert httpx.get(f"{site.project.url}/", timeout=30).status_code == 200


@pytest.mark.ways("other ways")
def test_an_interface_server_whose_connections_were_forgotten(site: Site) -> None:
    way = site.interface()
    site.worker("-c", "2")
    wait_until(site.ready, "the server to be ready", 20)
    with site.socket() as socket:
        ask(socket, "before")
        site.loop.run(way.forget())
        # The request does not fail: it waits for a new connection.
        assert httpx.get(f"{site.project.url}/", timeout=60).status_code == 200
        ask(socket, "after")


@pytest.mark.ways("threads")
@pytest.mark.parametrize("pool", POOLS)
def test_a_worker_notices_and_is_back(site: Site, pool: str) -> None:
    site.interface()
    worker, way = site.worker("-P", pool, "-c", "2")
    with site.socket() as socket:
        ask(socket, "before")
        site.loop.run(way.forget())
        ask(socket, "forgotten", timeout=30)
        told = len(worker.output)
        site.loop.run(way.freeze())
        socket.send("frozen")
        worker.wait_for_output("the broker of the layer is away", after=told)
        site.loop.run(way.heal())
        await_answer(socket, "frozen", timeout=45)
        ask(socket, "after")
    assert site.project.recorded("count").count("after") == 1


def test_an_answer_that_went_into_a_forgotten_connection_comes(site: Site) -> None:
    way = site.interface()
    site.worker("-c", "2")
    with ThreadPoolExecutor() as threads:
        outstanding = threads.submit(httpx.get, f"{site.project.url}/slow/", timeout=60)
        site.project.wait_for_record("slow", "begun", 30)
        site.loop.run(way.forget())
        site.project.let_go("slow")
        assert outstanding.result(60).text == "at last"
    assert site.project.recorded("slow") == ["begun"]


@pytest.mark.ways("other ways")
def test_a_long_task_in_the_solo_pool_runs_once(site: Site) -> None:
    worker, _ = site.worker("-P", "solo")
    told = len(worker.output)
    client = LayerClient(Broker(site.rabbitmq, site.project.env["TEST_GROUPS"]))
    try:
        client.send("slow", {"seconds": 6})  # RabbitMQ waits for a heartbeat for three
        assert client.receive()["started"]
        assert client.receive()["finished"]
        client.send("echo", {"value": "next"})
        assert client.receive()["echo"] == "next"
    finally:
        client.close()
    assert "the broker of the layer is away" not in worker.output[told:]
