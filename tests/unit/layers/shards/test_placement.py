"""Rendezvous hashing: every process agrees, shares are even, and a change of servers moves only its share."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channelsq.layers.shards.placement import Placement, server_name

SERVERS = st.lists(st.from_regex(r"[a-z]{1,8}:[0-9]{1,5}/0", fullmatch=True), min_size=2, max_size=6, unique=True)
NAMES = st.from_regex(r"[a-zA-Z0-9_.-]{1,40}", fullmatch=True)


def names_in_order(servers: list[str], name: str, standby: tuple[str, ...] = ()) -> list[str]:
    return [servers[place] for place in Placement(servers, standby).order(name)]


@given(SERVERS, NAMES)
def test_the_order_does_not_depend_on_that_of_the_settings(servers: list[str], name: str) -> None:
    order = names_in_order(servers, name)
    assert sorted(order) == sorted(servers)
    assert names_in_order(sorted(servers), name) == order
    assert Placement(servers).first(name) == servers.index(order[0])


@given(SERVERS, NAMES, st.integers(0, 5))
def test_a_server_less_leaves_the_order_of_the_others(servers: list[str], name: str, place: int) -> None:
    gone = servers[place % len(servers)]
    rest = [server for server in servers if server != gone]
    before = names_in_order(servers, name)
    assert names_in_order(rest, name) == [server for server in before if server != gone]
    assert names_in_order(servers, name, (gone,)) == names_in_order(rest, name)


@given(SERVERS, NAMES, st.sets(st.integers(0, 5)))
def test_groups_are_kept_where_other_settings_have_them(servers: list[str], name: str, places: set[int]) -> None:
    """Each server may leave standby before the others, or after them."""
    standby = [server for place, server in enumerate(servers) if place in places][: len(servers) - 1]
    kept = [servers[place] for place in Placement(servers, standby).kept_on(name)]
    assert kept[-1] == names_in_order(servers, name, tuple(standby))[0]
    assert set(kept[:-1]) <= set(standby)
    for count in range(len(standby) + 1):
        assert names_in_order(servers, name, tuple(standby[:count]))[0] in kept


def test_shares_are_even_and_a_new_server_takes_only_its_own() -> None:
    servers = ["a:6379/0", "b:6379/0", "c:6379/0"]
    names = [f"websocket.send.0123456789ab!{number}" for number in range(6000)]
    before, after = Placement(servers), Placement([*servers, "d:6379/0"])
    shares = Counter(before.first(name) for name in names)
    assert all(1800 < shares[place] < 2200 for place in range(3))
    moved = [name for name in names if before.first(name) != after.first(name)]
    assert {after.first(name) for name in moved} == {3}
    assert 1300 < len(moved) < 1700


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("redis://localhost", "localhost:6379/0"),
        ("redis-streams://Redis.Example/2", "redis.example:6379/2"),
        ("rediss://user:secret@redis.example:7000/0?ssl_cert_reqs=none", "redis.example:7000/0"),
        ("redis://[::1]", "[::1]:6379/0"),
        ("redis://[::1]:7000/1", "[::1]:7000/1"),
        ("redis-streams+socket:///run/redis.sock?virtual_host=2", "/run/redis.sock/2"),
        ("unix:///run/redis.sock", "/run/redis.sock/0"),
        ("redis://a:7000;redis://b:7000/1", "a:7000/0;b:7000/1"),
        ("sentinel://:secret@a:26379;sentinel://b:26379/1?master_name=first", "first/1"),
        ("sentinel-streams://c:26379/0?master_name=first", "first/0"),
        ("sentinel://a:26379;sentinel://b:26379", "a:26379/0;b:26379/0"),
    ],
)
def test_a_servers_name_has_no_password_and_no_options(url: str, name: str) -> None:
    assert server_name(url) == name
