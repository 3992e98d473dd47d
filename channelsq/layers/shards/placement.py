"""The server of a name among several: rendezvous hashing, so that an added or removed server moves only its share.

No I/O.  Every process computes the same order of servers for a name, from the servers' names alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b

from kombu.utils.url import url_to_parts

from channelsq.redis_io.sentinel_urls import is_sentinel_url, read_sentinel_url

#: The most names whose order is remembered.
_MOST_REMEMBERED = 65_536

_HAS_PORT = re.compile(r":\d+$")


def server_name(url: str) -> str:
    """Return the name of a server in placements: its URL without scheme, user, password and options.

    So a changed password moves nothing.  Several URLs joined by ``;`` are one server; one that Sentinels watch has the
    name that they know it by.
    """
    if is_sentinel_url(url):
        watched = read_sentinel_url(url)
        if watched.master_name:
            return f"{watched.master_name}/{watched.db}"
    return ";".join(_place(each) for each in url.split(";"))


def _place(url: str) -> str:
    scheme, _, rest = url.partition("://")
    place = rest.rpartition("@")[2].partition("?")[0].rstrip("/")
    if "socket" in scheme or scheme == "unix":
        query = url_to_parts(url)[6]
        return f"{place}/{query.get('virtual_host') or query.get('db') or 0}"
    server, _, database = place.partition("/")
    server = (server or "localhost").lower()
    return f"{server if _HAS_PORT.search(server) else f'{server}:6379'}/{database or 0}"


class Placement:
    """The order of servers for each name.

    Args:
        servers: the servers' names, all different.
        standby: those of them that are given nothing new.
    """

    def __init__(self, servers: Sequence[str], standby: Sequence[str] = ()) -> None:
        self.servers = tuple(servers)
        #: The place and the key of the hash of each server.
        self._keys = [
            (place, blake2b(server.encode(), digest_size=32).digest()) for place, server in enumerate(servers)
        ]
        self._idle = frozenset(place for place, server in enumerate(servers) if server in standby)
        self._orders: dict[str, tuple[int, ...]] = {}

    def order(self, name: str) -> tuple[int, ...]:
        """Return the places of the servers in :attr:`servers`, the name's own first, then those that stand in for it.

        Without the first one, or with another one added, the rest of the order stays the same.
        """
        order = self._orders.get(name)
        if order is None:
            if len(self._orders) >= _MOST_REMEMBERED:
                self._orders.clear()
            order = self._orders[name] = tuple(place for place in self._order_of_all(name) if place not in self._idle)
        return order

    def _order_of_all(self, name: str) -> list[int]:
        encoded = name.encode()
        weights = [(blake2b(encoded, digest_size=8, key=key).digest(), place) for place, key in self._keys]
        return [place for _, place in sorted(weights, reverse=True)]

    def first(self, name: str) -> int:
        """Return the place of the name's own server."""
        return self.order(name)[0]

    def kept_on(self, group: str) -> tuple[int, ...]:
        """Return the places of the servers that keep the members of a group, its own last.

        The others are on standby, and are the group's own for processes with settings before or after these.
        """
        first = self.first(group)
        if not self._idle:
            return (first,)
        order = self._order_of_all(group)
        return tuple(order[: order.index(first) + 1])
