"""Servers of a layer with several die, freeze and come back empty under sockets that account for every message."""

from __future__ import annotations

import contextlib
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

from channelsq.layers import RedisChannelLayer
from channelsq.layers.shards.placement import Placement, server_name
from channelsq.layers.shards.sharded_layer import ShardedChannelLayer
from tests.support.demo import fresh_redis
from tests.support.ports import free_port
from tests.support.processes import Process
from tests.support.project import Project
from tests.support.proxy import Loop, Proxy
from tests.support.servers import RedisServer
from tests.support.swarm import Swarm, echoes
from tests.support.waiting import wait_until

#: The usual ways: all but these.
USUAL = "^(?!.*(prefork|gevent|cut_off.*interface|without_a_server))"

pytestmark = [pytest.mark.redis, pytest.mark.timeout(180), pytest.mark.ways(USUAL)]

SOCKETS = 20

#: Seconds without an answer that the clients of other servers may notice.
BACK_WITHIN = 3.0


class Stack:
    """Two servers, an interface server and a worker.

    Args:
        directory: an existing, empty one.
        celery_url: Celery's broker, another server.
        pool: the worker's.
        proxied: whether a proxy is before each server, from which single processes can be cut off.
    """

    def __init__(self, directory: Path, celery_url: str, pool: str, *, proxied: bool = False) -> None:
        self.servers = [RedisServer(directory / f"redis-{number}") for number in range(2)]
        for server in self.servers:
            server.start()
        self.loop = Loop()
        self.proxies = [Proxy(free_port(), server.port) for server in self.servers] if proxied else []
        for proxy in self.proxies:
            self.loop.run(proxy.start())
        urls = [f"redis://127.0.0.1:{proxy.port}/0" for proxy in self.proxies] or [each.url for each in self.servers]
        env = {
            "TEST_SHARDS": " ".join(urls),
            "TEST_BROKER": celery_url,
            "TEST_FAST": "1",
            "TEST_CAPACITY": "1000",
        }
        self.project = Project(directory, celery_url, env)
        self.project.start_interface("--order-timeout", "30")
        self.project.start_worker("-P", pool, "-c", "4")
        layer = RedisChannelLayer(hosts=urls)
        assert isinstance(layer, ShardedChannelLayer)
        self.layer: ShardedChannelLayer = layer
        self.swarms: list[Swarm] = []
        wait_until(self.serves, "an answer", 30)

    def swarm(self) -> Swarm:
        """Sockets that talk already."""
        swarm = Swarm(f"{self.project.ws_url}/count/{{}}/", SOCKETS)
        self.swarms.append(swarm)
        swarm.start()
        return swarm

    def serves(self) -> bool:
        """Return whether a new socket gets an answer."""
        return echoes(f"{self.project.ws_url}/count/99/")

    def runs(self) -> Counter[str]:
        """Return how often each frame was handled."""
        return Counter(line for line in self.project.recorded("count") if line != "probe")

    @property
    def given_up(self) -> int:
        """The number of messages that the interface server has reported as lost so far."""
        return self.project.interface.output.count("the next message is published without it")

    @property
    def disconnects(self) -> list[str]:
        """The disconnects that the application was told of, without those of :meth:`serves`."""
        return [line for line in self.project.recorded("disconnect") if not line.startswith("/count/99/")]

    def forget(self) -> None:
        """Begin the accounts anew, with both servers there."""
        while self.swarms:  # of a test that failed
            self.swarms.pop().give_up()
        for name in ("count", "disconnect"):
            (self.project.records / name).unlink(missing_ok=True)

    def process_of(self, server: int) -> Process:
        """The process of a server that runs."""
        process = self.servers[server].process
        assert process is not None
        return process

    def stop(self) -> None:
        """Stop everything."""
        self.project.stop()
        self.layer.close()
        for proxy in self.proxies:
            self.loop.run(proxy.stop())
        self.loop.stop()
        for server in self.servers:
            server.stop()


@pytest.fixture(scope="module", params=["threads", "prefork", "gevent"])
def module_stack(
    request: pytest.FixtureRequest, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("shards"), fresh_redis(redis_url), request.param)
    yield stack
    stack.stop()


@pytest.fixture
def stack(module_stack: Stack) -> Stack:
    """The stack with its accounts empty, and no socket of an earlier test."""
    module_stack.forget()
    return module_stack


def test_sockets_are_on_both_servers(stack: Stack) -> None:
    swarm = stack.swarm()
    swarm.wait_for(200)
    homes = {
        stack.layer.placement.first(channel) for server in range(2) for channel in sockets_recorded_on(stack, server)
    }
    assert homes == {0, 1}
    for server in range(2):
        here = sockets_recorded_on(stack, server)
        assert here
        assert {stack.layer.placement.first(channel) for channel in here} == {server}
    assert swarm.stop() == set()
    assert stack.runs() == Counter(swarm.sent) == swarm.answers  # none lost, none twice


def sockets_recorded_on(stack: Stack, server: int) -> set[str]:
    """The reply channels of open sockets that one server knows."""
    group_store = stack.layer.shards[server].group_store
    assert group_store is not None
    presence = stack.layer.shards[server].presence
    assert presence is not None
    names = [each.name for each in presence.announced() if each.kind == "interface"]
    return {channel for name in names for channel in presence.some_sockets(name, 1000)}


def test_a_server_is_killed_and_comes_back_empty(stack: Stack) -> None:
    swarm = stack.swarm()
    swarm.wait_for(200)
    before = stack.given_up
    stack.servers[0].stop()
    dead = time.monotonic()
    swarm.wait_for(400)
    assert swarm.longest_gap(dead) < BACK_WITHIN  # those of the other server do not notice
    wait_until(lambda: _all_answer(swarm), "an answer to every socket", 60)
    for number in range(10):
        assert httpx.get(f"{stack.project.url}/own/{number}", timeout=20).status_code == 200
    stack.servers[0].start()
    swarm.wait_for(200)
    wait_until(stack.serves, "an answer to a new socket")
    lost = swarm.stop(patience=15, quiet=4)
    assert len(lost) <= stack.given_up - before
    assert len(lost) <= SOCKETS
    runs = stack.runs()
    assert len([text for text, times in runs.items() if times > 1]) <= SOCKETS
    wait_until(lambda: len(stack.disconnects) >= SOCKETS, "the disconnects of the sockets")
    # No disconnect was told that was none, as of a dead interface server (1006), and each once.
    assert sorted(stack.disconnects) == sorted(f"/count/{number}/ 1000" for number in range(SOCKETS))


def _all_answer(swarm: Swarm) -> bool:
    """Return whether every socket has had an answer within the time of this call."""
    before = Counter(text.partition("-")[0] for text in list(swarm.answers))
    time.sleep(0.3)
    after = Counter(text.partition("-")[0] for text in list(swarm.answers))
    return len(after) == SOCKETS and all(after[number] > count for number, count in before.items())


def test_a_server_is_frozen(stack: Stack) -> None:
    swarm = stack.swarm()
    swarm.wait_for(200)
    stack.process_of(1).signal(signal.SIGSTOP)
    frozen = time.monotonic()
    try:
        swarm.wait_for(200)
        wait_until(lambda: time.monotonic() - frozen > 20, "twenty seconds to pass", 30, interval=0.5)
        assert swarm.longest_gap(frozen) < BACK_WITHIN  # those of the other server
        wait_until(lambda: _all_answer(swarm), "an answer to every socket", 60)  # those of this one have moved
    finally:
        stack.process_of(1).signal(signal.SIGCONT)
    swarm.wait_for(200)
    swarm.stop(patience=15, quiet=4)
    runs = stack.runs()
    assert max(runs.values()) <= 2
    assert len([text for text, times in runs.items() if times > 1]) <= SOCKETS
    wait_until(lambda: len(stack.disconnects) >= SOCKETS, "the disconnects of the sockets")
    # No disconnect was told that was none, as of a dead interface server (1006), and each once.
    assert sorted(stack.disconnects) == sorted(f"/count/{number}/ 1000" for number in range(SOCKETS))


@pytest.fixture(scope="module")
def proxied(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Processes of which one can be cut off from a server that the others have."""
    stack = Stack(tmp_path_factory.mktemp("proxied"), fresh_redis(redis_url), "threads", proxied=True)
    yield stack
    stack.stop()


@pytest.mark.parametrize("who", ["interface", "worker"])
def test_a_process_is_cut_off_from_a_server_that_others_have(proxied: Stack, who: str) -> None:
    """The two processes disagree about which servers are there."""
    proxied.forget()
    swarm = proxied.swarm()
    swarm.wait_for(200)
    before = proxied.given_up
    proxy = proxied.proxies[1]
    proxied.loop.run(proxy.cut_off(getattr(proxied.project, who).pid))
    begin = time.monotonic()
    swarm.wait_for(200)
    if who == "interface":  # it moves the server's sockets; otherwise their messages wait for the worker
        wait_until(lambda: _all_answer(swarm), "an answer to every socket", 60)
    assert swarm.longest_gap(begin) < BACK_WITHIN
    proxied.loop.run(proxy.heal())
    swarm.wait_for(200)
    wait_until(lambda: _all_answer(swarm), "an answer to every socket again", 60)
    lost = swarm.stop(patience=15)
    assert len(lost) <= proxied.given_up - before
    runs = proxied.runs()
    assert max(runs.values()) <= 2
    assert len([text for text, times in runs.items() if times > 1]) <= SOCKETS
    wait_until(lambda: len(proxied.disconnects) >= SOCKETS, "the disconnects of the sockets")
    assert sorted(proxied.disconnects) == sorted(f"/count/{number}/ 1000" for number in range(SOCKETS))


def test_memberships_come_back_with_an_empty_server(stack: Stack) -> None:
    with contextlib.ExitStack() as sockets:
        opened: list[ClientConnection] = [
            sockets.enter_context(connect(f"{stack.project.ws_url}/left/{number}/")) for number in range(4)
        ]
        wait_until(lambda: len(stack.layer.group_channels("room")) == 4, "the sockets to be members")
        stack.layer.send_group("room", {"text": "one"})
        assert [socket.recv(timeout=10) for socket in opened] == ["one"] * 4
        server = stack.layer.placement.first("room")
        stack.servers[server].stop()
        stack.servers[server].start()
        wait_until(lambda: len(stack.layer.group_channels("room")) == 4, "the memberships", 40)
        stack.layer.send_group("room", {"text": "two"})
        assert [socket.recv(timeout=10) for socket in opened] == ["two"] * 4


def test_processes_start_without_a_server(redis_url: str, tmp_path: Path) -> None:
    servers = [RedisServer(tmp_path / f"redis-{number}") for number in range(2)]
    placement = Placement([server_name(server.url) for server in servers])
    there = placement.first("room")  # every socket joins it
    servers[there].start()
    env = {"TEST_SHARDS": " ".join(server.url for server in servers), "TEST_BROKER": fresh_redis(redis_url)}
    project = Project(tmp_path, env["TEST_BROKER"], env)
    try:
        project.start_interface()
        project.start_worker()

        def serve(count: int) -> None:
            for number in range(count):
                with connect(f"{project.ws_url}/count/{number}/", compression=None, open_timeout=20) as socket:
                    socket.send("hello")
                    assert socket.recv(timeout=15) == "hello"

        serve(6)
        servers[1 - there].start()
        layer = RedisChannelLayer(hosts=[server.url for server in servers])
        assert isinstance(layer, ShardedChannelLayer)
        presence = layer.shards[1 - there].presence
        assert presence is not None
        wait_until(lambda: any(each.kind == "worker" for each in presence.announced()), "the worker there", 40)
        serve(6)
        layer.close()
    finally:
        project.stop()
        for server in servers:
            server.stop()
