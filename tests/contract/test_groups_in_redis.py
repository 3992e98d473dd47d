"""Groups in a Redis that answers, but does not do what it is asked."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import pytest
import redis

from channelsq.exceptions import BrokerUnavailable
from channelsq.layers.groups import group_stores as module
from channelsq.layers.groups.group_stores import MemoryGroups, RedisGroups
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
    monkeypatch.setattr(module, "_MOST_TOGETHER", 4)
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
