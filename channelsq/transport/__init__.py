"""A Kombu transport on Redis Streams, which any Celery project can use; nothing here needs the rest of channelsq.

Importing the package registers the URL schemes ``redis-streams``, ``rediss-streams`` (TLS), ``sentinel-streams``
and, for Unix sockets, ``redis-streams+socket``.  Where channelsq is installed, Kombu imports it for Celery, by an entry
point::

    app = Celery("shop", broker="redis-streams://localhost/0")

See docs/transport.md.
"""

from __future__ import annotations

import json
import re

from kombu.transport import TRANSPORT_ALIASES

__all__ = ["SCHEMES", "register", "streams_url"]

#: Each URL scheme's transport, as Kombu imports it.
SCHEMES = {
    "redis-streams": "channelsq.transport.streams_transport:Transport",
    "rediss-streams": "channelsq.transport.streams_transport:SSLTransport",
    "sentinel-streams": "channelsq.transport.streams_transport:SentinelTransport",
}


#: What stands for each of Kombu's own schemes.
_STREAMS = {
    "redis": "redis-streams",
    "rediss": "rediss-streams",
    "redis+socket": "redis-streams+socket",
    "unix": "redis-streams+socket",
    "sentinel": "sentinel-streams",
}


def streams_url(url: str) -> str:
    """The URL of the same Redis for this transport, as providers give one that begins with ``redis://``.

    Args:
        url: one URL or several, separated by semicolons; one that is for this transport already stays as it is.

    Raises:
        ValueError: it is no Redis URL.
    """
    translated = []
    for each in url.split(";"):
        scheme, separator, rest = each.partition("://")
        if not separator or scheme not in {*_STREAMS, *_STREAMS.values()}:
            shown = f"{scheme}://" if separator else "a URL without a scheme"  # the rest may hold a password
            raise ValueError(f"{shown} is no Redis; write it as redis://host:6379/0 or rediss://host:6379/0")
        if scheme == "unix":  # redis-py's spelling, which names the database otherwise than Kombu's
            rest = re.sub(r"(?<=[?&])db=", "virtual_host=", rest)
        translated.append(f"{_STREAMS.get(scheme, scheme)}://{rest}")
    return ";".join(translated)


def register() -> None:
    """Tell Kombu about the schemes; harmless to repeat."""
    TRANSPORT_ALIASES.update(SCHEMES)


register()

#: Kombu has no entry points for transports, but for serializers: encoder, decoder, content type and encoding.  This
#: one, plain JSON, is there to have this package imported with Kombu; it is used by nothing.
KOMBU_SERIALIZER = json.dumps, json.loads, "application/x-channelsq-json", "utf-8"
