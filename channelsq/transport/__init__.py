"""A Kombu transport on Redis Streams, which any Celery project can use; nothing here needs the rest of channelsq.

Importing the package registers the URL schemes ``redis-streams``, ``rediss-streams`` (TLS), ``sentinel-streams``
and, for Unix sockets, ``redis-streams+socket``::

    import channelsq.transport

    app = Celery("shop", broker="redis-streams://localhost/0")

See docs/transport.md.
"""

from __future__ import annotations

from kombu.transport import TRANSPORT_ALIASES

__all__ = ["SCHEMES", "register"]

#: Each URL scheme's transport, as Kombu imports it.
SCHEMES = {
    "redis-streams": "channelsq.transport.transport:Transport",
    "rediss-streams": "channelsq.transport.transport:SSLTransport",
    "sentinel-streams": "channelsq.transport.transport:SentinelTransport",
}


def register() -> None:
    """Tell Kombu about the schemes; harmless to repeat."""
    TRANSPORT_ALIASES.update(SCHEMES)


register()
