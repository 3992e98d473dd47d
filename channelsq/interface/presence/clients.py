"""How many connections one client has at once, by its address.

Behind a proxy that is believed a connection carries many clients, one after another: then requests that wait for
their answers, and WebSockets, are counted.  Where no proxy is believed, an address that is not public may be one in
front of all clients, and is not counted.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, Sequence

from channelsq.interface.basis.config import InterfaceConfig
from channelsq.interface.basis.forwarded import forwarded_for


class Clients:
    """The counts, one for each address that has any connection.

    Args:
        config: the interface's settings.
    """

    def __init__(self, config: InterfaceConfig) -> None:
        self._limit = config.max_connections_per_client
        #: What is counted: connections, or what comes on them.
        self.by_connection = self._limit > 0 and not config.proxy_headers
        self.by_request = self._limit > 0 and config.proxy_headers
        self._counts: dict[str, int] = {}

    def __len__(self) -> int:
        """How many addresses are counted now."""
        return len(self._counts)

    def enter_connection(self, peer: Sequence[object] | None) -> str | None:
        """A connection begins: its place, to :meth:`leave`; None if its client has enough of them.

        Args:
            peer: its address and port; None on a Unix socket.
        """
        return self._enter(_peer(str(peer[0])) if peer and self.by_connection else "")

    def enter_request(self, headers: Iterable[Sequence[bytes]], peer: Sequence[object] | None) -> str | None:
        """The same of a request, or of a WebSocket.

        Args:
            headers: its own, their names in lower case.
            peer: of its connection.
        """
        if not self.by_request:
            return ""
        address = forwarded_for(headers)
        if address is not None:
            return self._enter(_network(address))
        return self._enter(_peer(str(peer[0])) if peer else "")

    def leave(self, place: str) -> None:
        """What had ``place`` is over."""
        if place:
            left = self._counts[place] - 1
            if left:
                self._counts[place] = left
            else:
                del self._counts[place]

    @property
    def reason(self) -> str:
        """Why somebody was turned away."""
        what = "requests and WebSockets" if self.by_request else "connections"
        return f"its address has {self._limit} {what} already (--max-connections-per-client)"

    def _enter(self, place: str) -> str | None:
        if place:
            count = self._counts.get(place, 0)
            if count >= self._limit:
                return None
            self._counts[place] = count + 1
        return place


@functools.lru_cache(maxsize=4096)
def _peer(host: str) -> str:
    """What a connection from ``host`` counts for; empty if it may be that of a proxy."""
    return _network(host) if is_public(host) else ""


@functools.lru_cache(maxsize=4096)
def _network(host: str) -> str:
    """Whom an address stands for: itself, or the /64 that every IPv6 client has to choose from."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.ip_network((address, 64), strict=False))
        address = address.ipv4_mapped
    return str(address)


def is_public(host: str) -> bool:
    """Whether an address is one of the internet, not of this machine or of a network behind it."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_global
