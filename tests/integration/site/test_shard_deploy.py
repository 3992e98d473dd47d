"""A third server is added to a layer of two, and removed again, by rolling deploys under sockets and groups."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection

from channelsq.layers import RedisChannelLayer
from channelsq.layers.shards.placement import Placement, server_name
from channelsq.layers.shards.sharded_layer import ShardedChannelLayer
from tests.support.demo import fresh_redis
from tests.support.ports import free_port
from tests.support.processes import Process
from tests.support.project import Project
from tests.support.servers import RedisServer
from tests.support.swarm import Sockets, Swarm
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.timeout(180), pytest.mark.ways("threads")]

SOCKETS = 20

#: Groups, of which each server has several; the sockets of an interface server are members of one each.
ROOMS = 12

#: Seconds that a socket may be without an answer while processes start and end on two cores.
UNNOTICED = 5.0


class Members(Sockets):
    """Sockets that are members of a group each, and keep what is sent there.

    Args:
        url: the page; ``{}`` is the number of the group.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url, ROOMS, self._listen)
        self.heard: list[list[str]] = [[] for _ in range(ROOMS)]
        self.closing = False

    async def _listen(self, number: int, socket: ClientConnection) -> None:
        while not self.closing:
            try:
                text = await asyncio.wait_for(socket.recv(), 0.1)
            except TimeoutError:
                continue
            assert isinstance(text, str)
            self.heard[number].append(text)

    def leave(self) -> None:
        """Close the sockets."""
        self.closing = True
        self.join(20)


class Visitors:
    """The sockets of one interface server: a swarm that sends, and members of groups.

    Args:
        server: the interface server.
        url: its URL.
    """

    def __init__(self, server: Process, url: str) -> None:
        self.server = server
        self.swarm = Swarm(f"{url}/count/{{}}/", SOCKETS)
        self.members = Members(f"{url}/rooms/{{}}/")
        self.swarm.start()
        self.members.start()
        wait_until(lambda: self.members.opened == ROOMS, "the members' sockets", 30)
        self.since = time.monotonic()

    def check_unnoticed(self) -> None:
        """Check that no socket has waited long for an answer."""
        self.swarm.wait_for(200)
        assert self.swarm.longest_silence(self.since) < UNNOTICED

    def leave(self) -> None:
        """Close the sockets, and end their interface server, as its deploy does."""
        self.check_unnoticed()
        assert self.swarm.stop() == set()
        self.members.leave()
        assert self.server.terminate() == 0


class Site:
    """Three servers, and the processes that a deploy replaces.  Web processes are layers in this one.

    Args:
        directory: an existing, empty one.
        celery_url: Celery's broker, another server.
        pool: the workers'.
    """

    def __init__(self, directory: Path, celery_url: str, pool: str) -> None:
        self.servers = [RedisServer(directory / f"redis-{number}") for number in range(3)]
        for server in self.servers:
            server.start()
        env = {"TEST_FAST": "1", "TEST_CAPACITY": "1000", "TEST_BROKER": celery_url}
        self.project = Project(directory, celery_url, env)
        self._pool = pool
        self._numbers = 0
        #: The layers of the web processes: of old and new settings while these are deployed.
        self.webs: list[ShardedChannelLayer] = []
        self.visitors: list[Visitors] = []
        self.gone: list[Visitors] = []
        #: Ordinary messages that were sent.
        self.sent: list[str] = []
        self.worker: Process

    def start(self, hosts: str) -> None:
        """Start a site on the servers with the numbers ``hosts``."""
        self.configure(hosts)
        self.start_workers()
        self.open_visitors()

    def configure(self, hosts: str, standby: str = "") -> None:
        """Change the settings of the processes that start from now on.

        Args:
            hosts: the numbers of servers, such as ``"012"``.
            standby: those of them on standby.
        """
        self._urls, self._standby = ([self.servers[int(each)].url for each in some] for some in (hosts, standby))
        self.project.env |= {"TEST_SHARDS": " ".join(self._urls), "TEST_STANDBY": " ".join(self._standby)}

    def start_workers(self) -> None:
        """Start a worker, and a web process."""
        self.worker = self.project.new_worker("-P", self._pool, "-c", "4")
        layer = RedisChannelLayer(hosts=self._urls, standby=self._standby)
        assert isinstance(layer, ShardedChannelLayer)
        self.webs.append(layer)

    def deploy_workers(self) -> None:
        """Start a new worker and a new web process, and end the old ones."""
        old = self.worker
        self.start_workers()
        self.check_groups()
        self.check_changes_are_seen()
        assert old.terminate(60) == 0
        self.check_groups()
        self.webs.pop(0).close()

    def open_visitors(self) -> None:
        """Start an interface server, and open sockets there."""
        self.project.port = free_port()
        self.project.start_interface("--order-timeout", "30", "--drain-window", "0")
        self.visitors.append(Visitors(self.project.interface, self.project.ws_url))
        self.check_groups()

    def deploy_interfaces(self) -> None:
        """Start a new interface server, and end the old one when its sockets have left."""
        self.open_visitors()
        self.gone.append(self.visitors.pop(0))
        self.gone[-1].leave()
        self.check_groups()

    def check_groups(self) -> None:
        """Check that every web process reaches every member of every group, once; send ordinary messages as well."""
        members = [each.members for each in self.visitors]
        for layer in self.webs:
            for room in range(ROOMS):
                wait_until(
                    lambda layer=layer, room=room: len(layer.group_channels(f"room-{room}")) == len(members),  # type: ignore[misc]
                    f"{len(members)} members of room-{room} for a process with {len(layer.shards)} servers",
                )
        heard = [each for some in members for each in some.heard]
        before = list(map(len, heard))
        texts = []
        for layer in self.webs:
            self._numbers += 1
            texts.append(str(self._numbers))
            for room in range(ROOMS):
                layer.send_group(f"room-{room}", {"text": texts[-1]})
                self.sent.append(f"{texts[-1]}-{room}")
                layer.send("kills", {"number": self.sent[-1], "kill": False})
        wait_until(
            lambda: all(len(each) >= known + len(texts) for each, known in zip(heard, before, strict=True)),
            "the messages to groups",
            20,
        )
        assert all(sorted(each[known:]) == sorted(texts) for each, known in zip(heard, before, strict=True))

    def check_changes_are_seen(self) -> None:
        """Check that what a web process with old settings writes is seen by one with new settings, and vice versa."""
        for here, there in (self.webs, self.webs[::-1]):
            (member, *_) = here.group_channels("room-0")
            for room in range(ROOMS):
                group = f"other-room-{room}"
                here.group_add(group, member)
                wait_until(lambda group=group: there.group_channels(group) == [member], "the member")  # type: ignore[misc]  # noqa: B023
                there.group_discard(group, member)
                wait_until(lambda group=group: not here.group_channels(group), "its end")  # type: ignore[misc]  # noqa: B023

    def check_runs(self) -> None:
        """Check that each frame and each ordinary message was handled once; the sockets end here."""
        for each in self.visitors:
            each.leave()
        frames = sum((Counter(each.swarm.sent) for each in [*self.gone, *self.visitors]), Counter[str]())
        assert Counter(self.project.recorded("count")) == frames
        wait_until(lambda: len(self.project.recorded("kills")) >= len(self.sent), "the ordinary messages")
        assert sorted(self.project.recorded("kills")) == sorted(self.sent)
        codes = {line.rpartition(" ")[2] for line in self.project.recorded("disconnect")}
        assert codes == {"1000"}  # the sockets left by themselves

    def homes(self) -> dict[str, int]:
        """Return the server of each open socket of the swarm, by its reply channel, as the servers have recorded it."""
        (layer,) = self.webs
        homes: dict[str, int] = {}
        for shard in layer.shards:
            presence = shard.presence
            assert presence is not None
            for each in presence.announced():
                for channel in presence.some_sockets(each.name, 1000) if each.kind == "interface" else ():
                    homes[channel] = self._number_of(shard.url)
        return homes

    def own_homes(self, hosts: str) -> dict[str, int]:
        """Return the server that each open socket would have with other ``hosts``."""
        placement = Placement([server_name(self.servers[int(each)].url) for each in hosts])
        return {channel: int(hosts[placement.first(channel)]) for channel in self.homes()}

    def _number_of(self, url: str) -> int:
        return [server_name(each.url) for each in self.servers].index(server_name(url))

    def has_nothing_left(self, server: int) -> bool:
        """Return whether a server has no messages and no sockets, so that it can be removed."""
        layer = next(shard for shard in self.webs[0].shards if self._number_of(shard.url) == server)
        states = [layer.channel_state(channel) for channel in ("kills", "websocket.receive", "websocket.disconnect")]
        return server not in self.homes().values() and not any(state.waiting or state.held for state in states)

    def stop(self) -> None:
        """Stop everything."""
        for each in self.visitors:
            each.swarm.give_up()
            each.members.closing = True
        self.project.stop()
        for layer in self.webs:
            layer.close()
        for server in self.servers:
            server.stop()


@pytest.fixture(params=["threads", "prefork", "gevent"])
def site(request: pytest.FixtureRequest, redis_url: str, tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path, fresh_redis(redis_url), request.param)
    try:
        yield made
    finally:
        made.stop()


def test_a_server_is_added(site: Site) -> None:
    site.start("01")
    site.configure("012", standby="2")
    site.deploy_workers()
    site.deploy_interfaces()
    assert set(site.homes().values()) == {0, 1}  # the new server is given nothing yet
    site.configure("012")
    site.deploy_workers()
    assert set(site.homes().values()) == {0, 1}  # live sockets stay where they are
    site.deploy_interfaces()
    homes = site.homes()
    assert homes == site.own_homes("012")
    stayed = {channel: home for channel, home in homes.items() if home != 2}
    assert set(homes.values()) == {0, 1, 2}
    assert stayed == {channel: home for channel, home in site.own_homes("01").items() if channel in stayed}
    site.check_runs()


def test_a_server_is_removed(site: Site) -> None:
    site.start("012")
    assert set(site.homes().values()) == {0, 1, 2}
    site.configure("012", standby="2")
    site.deploy_interfaces()
    homes = site.homes()
    before = site.own_homes("012")
    assert homes == site.own_homes("01")
    assert all(home == homes[channel] for channel, home in before.items() if home != 2)  # only its share has moved
    site.deploy_workers()
    wait_until(lambda: site.has_nothing_left(2), "the end of what is on the server")
    site.configure("01")
    site.deploy_interfaces()
    site.deploy_workers()
    site.servers[2].stop()
    site.check_groups()
    site.check_runs()
