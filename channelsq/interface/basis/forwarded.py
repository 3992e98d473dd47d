"""The headers in which a proxy describes the client: ``X-Forwarded-For`` and ``X-Forwarded-Proto``.

The server trusts one proxy, and the last value of its headers: this proxy added that value itself, while the client may
have invented the values before it.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, Sequence
from typing import Any

_SECURE = {"https": True, "wss": True, "http": False, "ws": False}


def believed(headers: Iterable[Sequence[bytes]], client: list[Any] | None, scheme: str) -> tuple[list[Any] | None, str]:
    """Return client and scheme as a proxy reports them; keep the given ones if a header is missing or malformed.

    Args:
        headers: the headers of the request, names in lower case.
        client: ``[host, port]`` of the connection.
        scheme: ``http`` or ``ws``, with an ``s`` if the connection is encrypted.
    """
    chain = forwarded_proto = b""
    for name, value in headers:
        if name == b"x-forwarded-for":
            chain = value
        elif name == b"x-forwarded-proto":
            forwarded_proto = value
    address = _address(chain)
    if address is not None:
        client = [address, 0]
    secure = _SECURE.get(forwarded_proto.decode("latin-1").rpartition(",")[2].strip().lower())
    if secure is not None:
        scheme = ("http" if scheme.startswith("http") else "ws") + ("s" if secure else "")
    return client, scheme


def forwarded_for(headers: Iterable[Sequence[bytes]]) -> str | None:
    """Return the client's address as a proxy reports it; None if the header is missing or malformed."""
    chain = b""
    for name, value in headers:
        if name == b"x-forwarded-for":
            chain = value
    return _address(chain) if chain else None


@functools.lru_cache(maxsize=1024)
def _address(chain: bytes) -> str | None:
    """Return the last IP address of a list, each like ``1.2.3.4``, ``1.2.3.4:567``, ``::1`` or ``[::1]:567``."""
    text = chain.decode("latin-1").rpartition(",")[2].strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None
