"""A Kombu transport on Redis Streams for any Celery project; it does not need the rest of channelsq.

Importing the package registers the URL schemes ``redis-streams``, ``rediss-streams`` (TLS), ``sentinel-streams``
and, for Unix sockets, ``redis-streams+socket``.  Where channelsq is installed, Kombu imports the package by an entry
point::

    app = Celery("shop", broker="redis-streams://localhost/0")

See docs/how-to/extend/transport.md.
"""

from __future__ import annotations

import json
import re

from kombu.transport import TRANSPORT_ALIASES

__all__ = ["SCHEMES", "register", "streams_url"]

#: The import path of each URL scheme's transport.
SCHEMES = {
    "redis-streams": "channelsq.transport.streams_transport:Transport",
    "rediss-streams": "channelsq.transport.streams_transport:SSLTransport",
    "sentinel-streams": "channelsq.transport.streams_transport:SentinelTransport",
}


#: The scheme of this transport for each of Kombu's own.
_STREAMS = {
    "redis": "redis-streams",
    "rediss": "rediss-streams",
    "redis+socket": "redis-streams+socket",
    "unix": "redis-streams+socket",
    "sentinel": "sentinel-streams",
}


def streams_url(url: str) -> str:
    """Return the URL of the same Redis for this transport; providers give URLs that begin with ``redis://``.

    Args:
        url: one URL or several, separated by semicolons; a URL for this transport is returned unchanged.

    Raises:
        ValueError: a URL is not for Redis.
    """
    translated = []
    for each in url.split(";"):
        scheme, separator, rest = each.partition("://")
        if not separator or scheme not in {*_STREAMS, *_STREAMS.values()}:
            shown = f"{scheme}://" if separator else "a URL without a scheme"  # the rest may hold a password
            raise ValueError(f"{shown} is no Redis; write it as redis://host:6379/0 or rediss://host:6379/0")
        if scheme == "unix":  # redis-py's spelling, which names the database differently from Kombu's
            rest = re.sub(r"(?<=[?&])db=", "virtual_host=", rest)
        translated.append(f"{_STREAMS.get(scheme, scheme)}://{rest}")
    return ";".join(translated)


def register() -> None:
    """Register the schemes with Kombu; repeated calls are harmless."""
    TRANSPORT_ALIASES.update(SCHEMES)


register()

#: Kombu has no entry points for transports, but for serializers: encoder, decoder, content type and encoding.  This
#: one, plain JSON, exists only so that Kombu imports this package; no message uses it.
KOMBU_SERIALIZER = json.dumps, json.loads, "application/x-channelsq-json", "utf-8"
