from __future__ import annotations

import pytest

from channelsq.interface.basis.config import InterfaceConfig
from channelsq.interface.presence.clients import Clients, is_public
from channelsq.interface.websocket.idle import Idle


def clients(limit: int, *, proxy_headers: bool) -> Clients:
    return Clients(InterfaceConfig(max_connections_per_client=limit, proxy_headers=proxy_headers))


@pytest.mark.parametrize(
    ("host", "public"),
    [
        ("8.8.8.8", True),
        ("2a00:1450::1", True),
        ("::ffff:8.8.8.8", True),
        ("127.0.0.1", False),
        ("::1", False),
        ("10.1.2.3", False),
        ("172.20.0.3", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.1.1", False),
        ("fd00::1", False),
        ("fe80::1%eth0", False),
        ("::ffff:10.0.0.1", False),
    ],
)
def test_which_addresses_may_be_a_proxys(host: str, public: bool) -> None:
    assert is_public(host) is public
    counts = clients(1, proxy_headers=False)
    assert counts.enter_connection((host, 1)) is not None
    assert (counts.enter_connection((host, 2)) is None) is public
    assert len(counts) == public


def forwarded(address: str) -> list[list[bytes]]:
    return [[b"host", b"a"], [b"x-forwarded-for", address.encode()]]


def test_what_was_forwarded_counts_whatever_it_is() -> None:
    counts = clients(1, proxy_headers=True)
    proxy = ("10.0.0.1", 80)
    for address in ("10.7.7.7", "6.6.6.6, 8.8.8.8", "[2001:db8::1]:55"):
        place = counts.enter_request(forwarded(address), proxy)
        assert place
        assert counts.enter_request(forwarded(address), proxy) is None
        counts.leave(place)
        assert counts.enter_request(forwarded(address), proxy) == place
    # Nobody says who it is, and it is the proxy itself: its health check.
    assert counts.enter_request([], proxy) == counts.enter_request([], None) == ""
    assert counts.enter_request(forwarded("nonsense"), proxy) == ""
    # The connections are the proxy's.
    assert counts.enter_connection(("8.8.4.4", 1)) == counts.enter_connection(("8.8.4.4", 2)) == ""


def test_an_ipv6_client_is_its_network() -> None:
    counts = clients(1, proxy_headers=False)
    assert counts.enter_connection(("2a00:1450:1:2::1", 1)) == "2a00:1450:1:2::/64"
    assert counts.enter_connection(("2a00:1450:1:2:ffff::9", 1)) is None
    assert counts.enter_connection(("2a00:1450:1:3::1", 1)) is not None
    assert counts.enter_connection(("8.8.8.8", 1)) == "8.8.8.8"
    assert counts.enter_connection(("::ffff:8.8.8.8", 1)) is None


def test_the_table_holds_no_more_than_there_is() -> None:
    counts = clients(2, proxy_headers=False)
    places = [counts.enter_connection((f"8.8.{n}.8", 1)) for n in range(200)] * 2
    places[200:] = [counts.enter_connection((f"8.8.{n}.8", 1)) for n in range(200)]
    assert len(counts) == 200
    for place in places:
        assert place
        counts.leave(place)
    assert len(counts) == 0


def test_no_limit() -> None:
    counts = clients(0, proxy_headers=False)
    assert not counts.by_connection
    assert not counts.by_request
    assert counts.enter_connection(("8.8.8.8", 1)) == counts.enter_request(forwarded("8.8.8.8"), None) == ""
    assert len(counts) == 0


def test_idleness() -> None:
    idle = Idle(10)
    assert not idle.is_over(100, 0, 0, busy=False)
    assert not idle.is_over(109, 0, 0, busy=False)
    assert idle.is_over(110, 0, 0, busy=False)
    assert not idle.is_over(111, 1, 0, busy=False)
    assert not idle.is_over(120, 1, 1, busy=False)
    assert not idle.is_over(135, 1, 1, busy=True)
    assert not idle.is_over(144, 1, 1, busy=False)
    assert idle.is_over(145, 1, 1, busy=False)
