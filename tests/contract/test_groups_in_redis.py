"""Groups in a Redis that answers, but does not do what it is asked."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import pytest
import redis

from channelsq.exceptions import BrokerUnavailable
from channelsq.layers.groups.group_stores import MemoryGroups, RedisGroups
from channelsq.redis_core import groups as module
from tests.support.waiting import wait_until

pytestmark = pytest.mark.redis


@pytest.mark.parametrize(
    "ask",
    [
        lambda groups: groups.add("room", "a!b"),
        lambda groups: groups.discard("room", "a!b"),
        lambda groups: groups.members("room"),
        lambda groups: groups.addresses("room"),
        lambda groups: groups.forget("a!b"),
    ],
    ids=["add", "discard", "members", "addresses", "forget"],
)
def test_what_redis_refuses_is_a_layers_error(redis_url: str, ask: Callable[[RedisGroups], object]) -> None:
    prefix = f"refused-{secrets.token_hex(4)}"
    groups = RedisGroups(redis_url, prefix, 60)
    with redis.Redis.from_url(redis_url) as client:
        # Somebody else's, of another type.
        client.set(f"{prefix}:group:{{room}}", "taken")
        client.set(f"{prefix}:member:a!b", "taken")
    try:
        with pytest.raises(BrokerUnavailable, match="WRONGTYPE"):
            ask(groups)
    finally:
        groups.flush()
        groups.close()


def test_addresses_are_the_members_by_process(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_TOGETHER", 4)
    members = [f"websocket.send.{process}!{number}" for process in "ab" for number in range(9)]
    inside, here = RedisGroups(redis_url, f"addresses-{secrets.token_hex(4)}", 60), MemoryGroups(60)
    try:
        for groups in (inside, here):
            for channel in [*members, "plain", "single?reader"]:
                groups.add("room", channel)
            groups.add("other", "websocket.send.c!1")
            addresses, others = groups.addresses("room")
            assert sorted(others) == ["plain", "single?reader"]
            assert sorted(channel for _, channels in addresses for channel in channels) == members
            assert all(channel.startswith(prefix) for prefix, channels in addresses for channel in channels)
            assert groups.addresses("nobody") == ([], [])
        assert [len(channels) for _, channels in inside.addresses("room")[0]].count(1) == 2  # 4, 4 and 1 of each
    finally:
        inside.flush()
        inside.close()


def test_who_has_left_in_silence_is_not_addressed(redis_url: str) -> None:
    groups = RedisGroups(redis_url, f"addresses-{secrets.token_hex(4)}", 0.05)
    try:
        groups.add("room", "a.b!old")
        groups.expiry = 60
        groups.add("room", "a.b!new")
        wait_until(lambda: [list(channels) for _, channels in groups.addresses("room")[0]] == [["a.b!new"]], "its end")
        assert groups.members("room") == ["a.b!new"]
    finally:
        groups.flush()
        groups.close()


@pytest.fixture
def large(redis_url: str) -> Iterator[RedisGroups]:
    """Groups, one of which is large enough to have its addresses kept, which they are."""
    groups = RedisGroups(redis_url, f"kept-{secrets.token_hex(4)}", 60)
    groups.add_all(("room", f"a.b!{number}", 60.0) for number in range(module.LARGE))
    try:
        assert addressed(groups) == set(groups.members("room"))
        yield groups
    finally:
        groups.flush()
        assert not list(groups.client.scan_iter(match=f"{groups.prefix}:*"))
        groups.close()


def addressed(groups: RedisGroups) -> set[str]:
    """Return the channels that a message to the group is sent to."""
    addresses, others = groups.addresses("room")
    return {*others, *(channel for _, channels in addresses for channel in channels)}


def test_the_addresses_of_a_large_group_are_kept(large: RedisGroups) -> None:
    before = large.client.info("commandstats")["cmdstat_smembers"]["calls"]
    assert len(addressed(large)) == module.LARGE
    assert large.client.info("commandstats")["cmdstat_smembers"]["calls"] == before
    assert 0 < large.client.pttl(f"{large.commands.group_key('room')}:addresses") <= module.KEPT_MS


@pytest.mark.parametrize(
    "change",
    [
        lambda groups: groups.add("room", "a.b!new"),
        lambda groups: groups.add("room", "c.d!new"),
        lambda groups: groups.discard("room", "a.b!1"),
        lambda groups: groups.forget("a.b!1"),
        lambda groups: groups.forget_all(["a.b!1", "a.b!2"]),
        lambda groups: (groups.discard("room", "a.b!1"), groups.add("room", "a.b!new")),
        lambda groups: groups.add_all([("room", "a.b!new", 1.0), ("room", "plain", 1.0)]),
        lambda groups: (groups.discard("room", "a.b!1"), groups.add_all([("room", "a.b!new", 1.0)])),
        lambda groups: groups.flush(),
    ],
    ids=["add", "another process", "discard", "forget", "forget all", "both", "add all", "both, in the past", "flush"],
)
def test_kept_addresses_follow_the_members(large: RedisGroups, change: Callable[[RedisGroups], object]) -> None:
    change(large)
    assert addressed(large) == set(large.members("room"))
    assert addressed(large) == set(large.members("room"))  # as kept now


def test_kept_addresses_end_with_the_membership(large: RedisGroups) -> None:
    large.add_all([("room", "a.b!short", 0.05)])
    addressed(large)
    wait_until(lambda: "a.b!short" not in addressed(large), "its end")


def test_kept_addresses_follow_a_process_that_knows_nothing_of_them(large: RedisGroups) -> None:
    key = large.commands.group_key("room")
    large.discard("room", "a.b!1")
    addressed(large)
    large.client.srem(key, "a.b!2")  # one leaves and another joins, as an older version writes it
    large.client.zrem(f"{key}:expiry", "a.b!2")
    large.client.sadd(key, "a.b!new")
    large.client.zadd(f"{key}:expiry", {"a.b!new": large.clock.now() + 61})
    assert addressed(large) == set(large.members("room"))


def test_addresses_are_told_where_they_cannot_be_kept(large: RedisGroups) -> None:
    large.client.config_set("maxmemory-policy", "noeviction")
    large.add("room", "a.b!new")
    large.client.config_set("maxmemory", "1")
    try:
        assert len(addressed(large)) == module.LARGE + 1
    finally:
        large.client.config_set("maxmemory", "0")
