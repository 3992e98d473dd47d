"""Groups in a Redis that answers, but does not do what it is asked."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import pytest
import redis

from channelsq.exceptions import BrokerUnavailable
from channelsq.layers.groups import RedisGroups

pytestmark = pytest.mark.redis


@pytest.mark.parametrize(
    "ask",
    [
        lambda groups: groups.add("room", "a!b"),
        lambda groups: groups.discard("room", "a!b"),
        lambda groups: groups.members("room"),
        lambda groups: groups.forget("a!b"),
    ],
    ids=["add", "discard", "members", "forget"],
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
