"""The servers of clients' messages, as a process has seen them come."""

from __future__ import annotations

import pytest

from channelsq.layers.shards import homes
from channelsq.layers.shards.homes import Homes
from channelsq.layers.shards.placement import Placement

PLACEMENT = Placement(["a:6379/0", "b:6379/0", "c:6379/0"])
CLIENT = "websocket.send.0123456789ab!client"


def test_a_client_is_at_home_until_it_is_seen_elsewhere() -> None:
    known = Homes(PLACEMENT)
    first, second, third = PLACEMENT.order(CLIENT)
    assert known.order(CLIENT) == (first, second, third)
    known.seen(CLIENT, first)
    assert known.order(CLIENT) == (first, second, third)
    known.seen(CLIENT, third)
    assert known.order(CLIENT) == (third, first, second)
    known.seen(CLIENT, first)
    assert known.order(CLIENT) == (first, second, third)


def test_only_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(homes, "MOST_MOVED", 2)
    known = Homes(PLACEMENT)
    clients = [f"{CLIENT}{number}" for number in range(3)]
    for client in clients:
        known.seen(client, PLACEMENT.order(client)[1])
    assert known.order(clients[0]) == PLACEMENT.order(clients[0])
    for client in clients[1:]:
        assert known.order(client)[0] == PLACEMENT.order(client)[1]
