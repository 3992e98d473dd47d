"""Interface servers clean up after one that was killed."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from channelsq.asgi import ChannelLayerWrapper
from channelsq.interface.basis.limits import Limits
from channelsq.interface.link.replies import Delivery
from channelsq.interface.presence import heartbeat
from channelsq.interface.presence.heartbeat import Heartbeat
from channelsq.layers import KombuChannelLayer
from tests.support.brokers import layer_on
from tests.support.demo import fresh_redis
from tests.support.ports import free_port
from tests.support.project import Project
from tests.support.servers import DURABLE, RedisServer
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120)]

SCHEMES = pytest.mark.parametrize("scheme", ["redis-streams", "redis"])


class Site:
    """A project on a Redis of its own, with as many interface servers as are started."""

    def __init__(self, directory: Path, url: str, scheme: str) -> None:
        broker = url.replace("redis://", f"{scheme}://")
        self.project = Project(directory, broker, {"TEST_GROUPS": url})
        self.client: Any = redis.Redis.from_url(url, decode_responses=True)
        self.layer = layer_on(broker)

    def interface(self) -> Any:
        self.project.port = free_port()
        self.project.start_interface()
        return self.project.interface

    def open(self, sockets: contextlib.ExitStack, count: int) -> list[Any]:
        """Sockets on the interface server that was started last, which are in the group ``room``."""
        before = len(self.members)
        opened = [sockets.enter_context(connect(f"{self.project.ws_url}/left/{number}/")) for number in range(count)]
        wait_until(lambda: len(self.members) == before + count, "the sockets to be members")
        return opened

    @property
    def members(self) -> list[str]:
        return self.layer.group_channels("room")

    @property
    def processes(self) -> set[str]:
        found: set[str] = self.client.smembers("channelsq:interfaces")
        return found

    def expire(self, process: str) -> None:
        """As time does: the last word of a process that it lives ends."""
        self.client.delete(f"channelsq:interface:{process}")

    def keys_of(self, process: str) -> set[str]:
        """Return the remaining keys of a process, without those of late replies, which end in five minutes."""
        keys = {key for key in self.client.keys(f"*{process}*") if ":buried:" not in key and "_kombu" not in key}
        return {key for key in keys if not 0 < self.client.pttl(key) <= 300_000}


@pytest.fixture
def make_site(redis_url: str, tmp_path: Path) -> Iterator[Any]:
    sites: list[Site] = []

    def make(scheme: str) -> Site:
        sites.append(Site(tmp_path, fresh_redis(redis_url), scheme))
        return sites[-1]

    yield make
    for site in sites:
        site.project.stop()
        site.layer.close()
        site.client.close()


@pytest.mark.ways("redis-streams")
@SCHEMES
def test_a_killed_interface_leaves_nothing(make_site: Any, scheme: str) -> None:
    site: Site = make_site(scheme)
    victim = site.interface()
    site.project.start_worker()
    with contextlib.ExitStack() as sockets:
        site.open(sockets, 70)  # more than are told at once
        wait_until(lambda: site.processes, "the heartbeat")
        (dead,) = site.processes
        wait_until(lambda: site.client.hlen(f"channelsq:sockets:{dead}") == 70, "the sockets to be noted")
        victim.kill()
        site.expire(dead)
        survivor = site.interface()
        wait_until(lambda: "cleaned up after" in survivor.output, "the survivor to have cleaned up", 30)
        assert "70 sockets" in survivor.output
        assert site.members == []
        site.open(sockets, 1)
        wait_until(lambda: len(site.project.recorded("disconnect")) == 70, "every disconnect", 30)
        assert sorted(site.project.recorded("disconnect")) == sorted(f"/left/{number}/ 1006" for number in range(70))
        assert len(site.members) == 1
        assert dead not in site.processes
        assert site.keys_of(dead) == set()


@pytest.mark.ways("other ways")
def test_an_interface_that_was_frozen_closes_sockets_that_were_told_gone(make_site: Any) -> None:
    site: Site = make_site("redis-streams")
    frozen = site.interface()
    site.project.start_worker()
    with contextlib.ExitStack() as sockets:
        (socket,) = site.open(sockets, 1)
        (process,) = site.processes
        wait_until(lambda: site.client.hlen(f"channelsq:sockets:{process}") == 1, "the socket to be noted")
        frozen.signal(signal.SIGSTOP)
        site.expire(process)
        survivor = site.interface()
        wait_until(lambda: "cleaned up after" in survivor.output, "the survivor to have cleaned up", 30)
        frozen.signal(signal.SIGCONT)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(20)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        wait_until(lambda: "declared this one dead" in frozen.output, "it to say so")
        wait_until(lambda: process in site.processes, "it to be there again")


def test_what_is_noted_of_an_interface_that_lives_and_ends(make_site: Any) -> None:
    site: Site = make_site("redis-streams")
    interface = site.interface()
    site.project.start_worker()
    with contextlib.ExitStack() as sockets:
        first, _second = site.open(sockets, 2)
        (process,) = site.processes
        key = f"channelsq:sockets:{process}"
        wait_until(lambda: sorted(site.client.hvals(key)) == ["/left/0/", "/left/1/"], "both to be noted")
        first.close()
        wait_until(lambda: site.client.hvals(key) == ["/left/1/"], "one to be noted as gone")
        site.client.flushdb()  # with the next beat of the heart what Redis has lost is there again
        wait_until(lambda: site.client.hvals(key) == ["/left/1/"], "the other one to be noted again", 30)
        assert process in site.processes
        assert interface.terminate(30) == 0
    assert site.processes == set()
    assert site.keys_of(process) == set()


def test_a_claim_that_is_kept_lasts_longer(make_site: Any) -> None:
    site = make_site("redis-streams")
    presence = site.layer.presence
    assert presence.claim("p", 60)
    assert not presence.claim("p", 60)
    presence.keep("p", 3600)
    assert 60_000 < site.client.pttl("channelsq:sweep:p") <= 3_600_000


def test_a_process_that_comes_back_just_before_its_removal_counts_as_dead_once(make_site: Any) -> None:
    presence = make_site("redis-streams").layer.presence
    presence.beat("p", 60)
    presence.mark_dead("p")
    assert presence.beat("p", 60).is_marked_dead
    presence.revive("p")
    presence.remove("p")  # by a process that had asked before whether it is back
    assert not presence.beat("p", 60).is_marked_dead
    presence.mark_dead("q")
    presence.remove("q")
    assert presence.beat("q", 60).is_marked_dead


@SCHEMES
def test_memberships_are_restored_when_redis_has_lost_them(make_site: Any, scheme: str) -> None:
    site: Site = make_site(scheme)
    interface = site.interface()
    site.project.start_worker()
    with contextlib.ExitStack() as sockets:
        first, second, third = site.open(sockets, 3)
        members = set(site.members)
        layer = site.layer
        (process,) = site.processes
        wait_until(lambda: site.client.hlen(f"channelsq:sockets:{process}") == 3, "the sockets to be noted")
        names = {path: name for name, path in site.client.hgetall(f"channelsq:sockets:{process}").items()}
        layer.group_add("other", names["/left/0/"])
        layer.group_add("left-again", names["/left/1/"])
        layer.group_discard("left-again", names["/left/1/"])
        third.close()
        wait_until(lambda: len(site.members) == 2, "one to have left")
        site.client.flushdb()
        # On streams the interface server looks at once; else its heart beats within ten seconds.
        wait_until(lambda: len(site.members) == 2, "the memberships to be restored", 30)
        assert set(site.members) == members - {names["/left/2/"]}
        wait_until(lambda: layer.group_channels("other") == [names["/left/0/"]], "the other group")
        assert layer.group_channels("left-again") == []
        wait_until(lambda: "group memberships were restored" in interface.output, "a word")
        layer.send_group("room", {"text": "are you there"})
        assert [first.recv(20), second.recv(20)] == ["are you there"] * 2
        assert 0 < site.client.ttl("channelsq:group:{room}") <= 86_400
    wait_until(lambda: not site.client.keys("channelsq:group:*"), "nothing to be left of them")
    assert not site.client.keys("channelsq:member:*")


def test_what_a_replica_lacked_that_took_over_is_restored(make_site: Any) -> None:
    site: Site = make_site("redis-streams")
    interface = site.interface()
    site.project.start_worker()
    with contextlib.ExitStack() as sockets:
        site.open(sockets, 2)
        (process,) = site.processes
        key = f"channelsq:sockets:{process}"
        wait_until(lambda: site.client.hlen(key) == 2, "the sockets to be noted")
        members = set(site.members)
        (lost,) = (name for name, path in site.client.hgetall(key).items() if path == "/left/1/")
        site.client.hdel(key, lost)
        site.layer._groups.forget(lost)
        site.client.client_kill_filter(_type="normal", skipme=True)  # they connect again, to the same server here
        wait_until(lambda: "memberships were restored" in interface.output, "the membership to be restored", 30)
        assert set(site.members) == members
        wait_until(lambda: site.client.hlen(key) == 2, "the socket to be noted again")


def test_a_redis_that_was_restarted_empty_gets_the_memberships_back(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis")
    server.start()
    site = Site(tmp_path, server.url, "redis-streams")
    try:
        interface = site.interface()
        site.project.start_worker()
        with contextlib.ExitStack() as sockets:
            (socket,) = site.open(sockets, 1)
            (member,) = site.members
            server.stop()
            wait_until(lambda: "trying again" in interface.output, "the loss to be noticed")
            server.start()
            wait_until(lambda: "memberships were restored" in interface.output, "the membership to be restored", 30)
            assert site.members == [member]
            site.layer.send_group("room", {"text": "are you there"})
            assert socket.recv(20) == "are you there"
        # What became of it since is not undone by the restoration, which was a moment ago.
        wait_until(lambda: not site.client.keys("channelsq:member:*"), "the socket to be in no group")
        assert site.members == []
    finally:
        site.project.stop()
        site.layer.close()
        site.client.close()
        server.stop()


def heart_of(layer: KombuChannelLayer, limits: Limits) -> Heartbeat:
    assert layer.presence is not None
    return Heartbeat(ChannelLayerWrapper(layer, "default", []), layer.presence, limits, lambda: None)


def test_who_comes_back_while_another_tidies_up_is_left_alone(make_site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site = make_site("redis-streams")
    monkeypatch.setattr(heartbeat, "_AT_ONCE", 1)
    frozen = "frozen"
    presence = site.layer.presence
    presence.beat(frozen, 60)
    presence.note(frozen, {f"websocket.send.{frozen}!{n}": f"/left/{n}/" for n in range(100)}, [])
    site.layer.group_add("room", f"websocket.send.{frozen}!new")
    site.expire(frozen)
    layer = layer_on(site.layer.url)
    heart = heart_of(layer, Limits(heartbeat_every=0.1))
    heart.start()
    try:
        key = f"channelsq:sockets:{frozen}"
        wait_until(lambda: site.client.hlen(key) <= 98, "its sockets to be cleaned up", 30)
        assert presence.beat(frozen, 60).is_marked_dead  # so it closes its sockets
        presence.note(frozen, {f"websocket.send.{frozen}!new": "/new/"}, [])
        left = site.client.hlen(key)
        ends = time.monotonic() + 1
        wait_until(lambda: time.monotonic() > ends, "the other one to go on, if it does")
        assert site.client.hlen(key) >= left - 1  # it may have been at one
        assert site.members == [f"websocket.send.{frozen}!new"]  # which its process would take out
        assert presence.beat(frozen, 60).is_marked_dead  # still, as the first answer may have been lost
        presence.revive(frozen)
        assert not presence.beat(frozen, 60).is_marked_dead  # so what was opened since stays open
    finally:
        heart.stop()
        layer.close()


@SCHEMES
@pytest.mark.parametrize("end", ["killed", "stopped"])
def test_nobody_joins_a_group_for_a_server_that_is_gone(make_site: Any, scheme: str, end: str) -> None:
    """A consumer may take longer than its socket's server, as when a dead worker's message is taken over."""
    site: Site = make_site(scheme)
    presence = site.layer.presence
    assert presence is not None
    presence.beat("gone", 60)
    if end == "killed":
        site.expire("gone")
        layer = layer_on(site.layer.url)
        heart = heart_of(layer, Limits(heartbeat_every=0.1))
        heart.start()
        wait_until(lambda: "gone" not in site.processes, "another server to have cleaned up", 30)
        heart.stop()
        layer.close()
    else:
        presence.leave("gone")
    late = "websocket.send.gone!late"
    site.layer.group_add("room", late)
    site.layer.group_add("room", "websocket.send.other!1")
    assert site.members == ["websocket.send.other!1"]
    assert not site.client.exists(f"channelsq:member:{late}")


@SCHEMES
def test_who_joins_a_group_after_its_socket_has_closed_does_not_stay(make_site: Any, scheme: str) -> None:
    site: Site = make_site(scheme)
    site.interface()
    site.project.start_worker()
    with contextlib.ExitStack() as sockets:
        site.open(sockets, 1)
        (late,) = site.members
        assert late.startswith("websocket.send.")
    wait_until(lambda: not site.members, "it to have left")
    site.layer.group_add("room", late)
    wait_until(lambda: not site.members, "it to be taken out")
    assert not site.client.exists(f"channelsq:member:{late}")


def test_a_server_that_was_taken_for_dead_restores_nothing(make_site: Any) -> None:
    site = make_site("redis-streams")
    layer = layer_on(site.layer.url)
    heart = heart_of(layer, Limits(heartbeat_every=0.1))
    channel = layer.new_channel("websocket.send!")
    key = f"channelsq:sockets:{layer.process}"
    heart.start()
    try:
        heart.opened(channel, "/left/")
        wait_until(lambda: site.client.hexists(key, channel), "it to be noted")
        heart.on_reply(Delivery([f"websocket.send.{layer.process}!"], {"joined": ["room", channel]}))
        with site.client.pipeline() as pipe:  # as others do
            pipe.delete(key)
            pipe.set(f"channelsq:buried:{layer.process}", "1")
            pipe.execute()
        wait_until(lambda: not site.client.exists(f"channelsq:buried:{layer.process}"), "it to notice")
        new = layer.new_channel("websocket.send!")
        heart.opened(new, "/new/")
        wait_until(lambda: site.client.hexists(key, new), "a new one to be noted")
        ends = time.monotonic() + 0.5
        wait_until(lambda: time.monotonic() > ends, "the heart to beat some more")
        assert site.client.hkeys(key) == [new]
        assert site.members == []
    finally:
        heart.stop()
        layer.close()


def test_nobody_is_taken_for_dead_because_redis_was_away(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis", DURABLE)
    server.start()
    layers = [layer_on(server.url.replace("redis://", "redis-streams://")) for _ in range(2)]
    presence = layers[0].presence
    assert presence is not None
    heart = heart_of(layers[1], Limits(heartbeat_every=0.2, heartbeat_lifetime=1))
    client = redis.Redis.from_url(server.url, decode_responses=True)
    process = layers[1].process
    try:
        heart.start()
        presence.beat("late", 1)
        wait_until(lambda: client.sismember("channelsq:interfaces", process), "the heart to beat")
        server.stop()
        ends = time.monotonic() + 1.5
        wait_until(lambda: time.monotonic() > ends, "both to be forgotten")
        server.start()
        wait_until(lambda: client.exists(f"channelsq:interface:{process}"), "the heart to beat again")
        ends = time.monotonic() + 1
        wait_until(lambda: time.monotonic() > ends, "it to look for the dead, if it does")
        assert not client.exists("channelsq:interface:late")
        assert not presence.beat("late", 1).is_marked_dead
    finally:
        heart.stop()
        for layer in layers:
            layer.close()
        client.close()
        server.stop()


def test_another_goes_on_where_one_was_told_to_stop(make_site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site = make_site("redis-streams")
    monkeypatch.setattr(heartbeat, "_AT_ONCE", 1)
    presence = site.layer.presence
    presence.beat("dead", 60)
    presence.note("dead", {f"websocket.send.dead!{n}": f"/left/{n}/" for n in range(2000)}, [])
    site.expire("dead")
    layer = layer_on(site.layer.url)
    heart = heart_of(layer, Limits(heartbeat_every=0.1))
    heart.start()
    wait_until(lambda: site.client.hlen("channelsq:sockets:dead") <= 1998, "its sockets to be cleaned up", 30)
    heart.stop()
    layer.close()
    assert site.client.hlen("channelsq:sockets:dead") > 0
    assert presence.claim("dead", 60)


def test_two_do_not_tidy_up_after_the_same_server_however_long_it_takes(
    make_site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site("redis-streams")
    monkeypatch.setattr(heartbeat, "_AT_ONCE", 1)
    monkeypatch.setattr(heartbeat, "_PAUSE", 0.3)
    monkeypatch.setattr(heartbeat, "_CLAIM", 0.6)  # shorter than it takes, if it were not renewed
    at_work: list[Heartbeat] = []
    say_disconnect = Heartbeat._say_disconnect

    def say(heart: Heartbeat, channel: str, path: str) -> bool:
        at_work.append(heart)
        return say_disconnect(heart, channel, path)

    monkeypatch.setattr(Heartbeat, "_say_disconnect", say)
    dead = "dead"
    site.layer.presence.beat(dead, 60)
    site.layer.presence.note(dead, {f"websocket.send.{dead}!{n}": f"/left/{n}/" for n in range(6)}, [])
    site.expire(dead)
    layers = [layer_on(site.layer.url) for _ in range(2)]
    hearts = []
    for layer in layers:
        presence = layer.presence
        assert presence is not None
        limits = Limits(heartbeat_every=0.1)
        hearts.append(Heartbeat(ChannelLayerWrapper(layer, "default", []), presence, limits, lambda: None))
    try:
        for heart in hearts:
            heart.start()
        wait_until(lambda: dead not in site.processes, "another server to have cleaned up", 30)
    finally:
        for heart in hearts:
            heart.stop()
        for layer in layers:
            layer.close()
    assert len(at_work) == 6
    assert len(set(at_work)) == 1
    told = [
        message["path"] for _, message in (site.layer.receive(["websocket.disconnect"]) for _ in range(8)) if message
    ]
    assert sorted(told) == [f"/left/{n}/" for n in range(6)]
