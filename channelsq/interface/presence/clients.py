"""The number of simultaneous connections of each client, by its address.

Behind a trusted proxy one connection carries many clients, one after another.  The server then counts requests that
wait for their responses, and WebSockets.  Without a trusted proxy, an address that is not public is not counted, as it
may belong to a proxy in front of all clients.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, Sequence

from channelsq.interface.basis.config import InterfaceConfig
from channelsq.interface.basis.forwarded import forwarded_for


class Clients:
    """The counts, one for each address with at least one connection.

    Args:
        config: the interface's settings.
    """

    def __init__(self, config: InterfaceConfig) -> None:
        self._limit = config.max_connections_per_client
        #: Whether connections are counted, or the requests and WebSockets on them.
        self.by_connection = self._limit > 0 and not config.proxy_headers
        self.by_request = self._limit > 0 and config.proxy_headers
        self._counts: dict[str, int] = {}

    def __len__(self) -> int:
        """Return the number of counted addresses."""
        return len(self._counts)

    def enter_connection(self, peer: Sequence[object] | None) -> str | None:
        """Count a new connection; return its place, for :meth:`leave`, or None if its client has enough connections.

        Args:
            peer: its address and port; None on a Unix socket.
        """
        return self._enter(_peer(str(peer[0])) if peer and self.by_connection else "")

    def enter_request(self, headers: Iterable[Sequence[bytes]], peer: Sequence[object] | None) -> str | None:
        """Count a new request or WebSocket in the same way.

        Args:
            headers: its headers, names in lower case.
            peer: the address and port of its connection.
        """
        if not self.by_request:
            return ""
        address = forwarded_for(headers)
        if address is not None:
            return self._enter(_network(address))
        return self._enter(_peer(str(peer[0])) if peer else "")

    def leave(self, place: str) -> None:
        """End the connection, request or WebSocket that holds ``place``."""
        if place:
            left = self._counts[place] - 1
            if left:
                self._counts[place] = left
            else:
                del self._counts[place]

    @property
    def reason(self) -> str:
        """Return the reason for a refusal."""
        what = "requests and WebSockets" if self.by_request else "connections"
        return f"its address already has {self._limit} {what} (--max-connections-per-client)"

    def _enter(self, place: str) -> str | None:
        if place:
            count = self._counts.get(place, 0)
            if count >= self._limit:
                return None
            self._counts[place] = count + 1
        return place


@functools.lru_cache(maxsize=4096)
def _peer(host: str) -> str:
    """Return the key under which a connection from ``host`` counts; empty if it may be a proxy's."""
    return _network(host) if is_public(host) else ""


@functools.lru_cache(maxsize=4096)
def _network(host: str) -> str:
    """Return the network of an address: the address itself, or the /64 from which each IPv6 client can choose."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.ip_network((address, 64), strict=False))
        address = address.ipv4_mapped
    return str(address)


def is_public(host: str) -> bool:
    """Return whether an address is a public one, not one of this machine or of a private network."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_global
