"""The pages that may open a WebSocket; the interface server checks them before it publishes a handshake.

A browser lets any page open a WebSocket to any site, with that site's cookies, and names the page in ``Origin``
(RFC 6455, section 10.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from django.conf import settings
from django.http.request import split_domain_port, validate_host

from channelsq import conf

#: Django's own default for a project in development.
_DEVELOPMENT_HOSTS = [".localhost", "127.0.0.1", "[::1]"]


def allowed_hosts() -> list[str]:
    """Return ``ALLOWED_HOSTS`` as Django uses it."""
    if settings.DEBUG and not settings.ALLOWED_HOSTS:
        return list(_DEVELOPMENT_HOSTS)
    return list(settings.ALLOWED_HOSTS)


def host_is_allowed(origin: str, allowed: Iterable[str]) -> bool:
    """Return whether the host of an origin is one of ``allowed``, by Django's rules for the ``Host`` header."""
    try:
        host, _port = split_domain_port(urlsplit(origin).netloc)
    except ValueError:  # an IPv6 address with one bracket
        return False
    return bool(host) and validate_host(host, allowed)


class OriginPolicy:
    """The rule for clients that may open a WebSocket.

    A page may if its host is in ``ALLOWED_HOSTS``, or its origin in ``CSRF_TRUSTED_ORIGINS`` or ``origins``.  If
    ``ALLOWED_HOSTS`` is ``"*"``, which does not identify pages, its host and port must be those of the handshake.

    Args:
        hosts: as ``ALLOWED_HOSTS``.
        origins: origins, such as ``"https://example.com"``, ``"https://*.example.com"`` or ``"null"``; ``"*"`` accepts
            every page.
        required: whether a client without an ``Origin``, which is not a browser, is refused.
    """

    def __init__(self, hosts: Sequence[str], origins: Sequence[str], required: bool) -> None:
        self._everybody = "*" in origins
        self._same_host = "*" in hosts
        self._hosts = [host for host in hosts if host != "*"]
        self._origins = {origin.lower() for origin in origins}
        self._wildcards = [tuple(origin.lower().split("*", 1)) for origin in origins if "://*." in origin]
        self._required = required

    @classmethod
    def from_settings(cls) -> OriginPolicy:
        """Return the policy of the project's settings.

        Raises:
            ImproperlyConfigured: ``CHANNEL_ALLOWED_ORIGINS`` or ``CHANNEL_REQUIRE_ORIGIN`` cannot be used.
        """
        origins = [*settings.CSRF_TRUSTED_ORIGINS, *conf.allowed_origins()]
        return cls(allowed_hosts(), origins, conf.requires_origin())

    def refusal(self, origins: Sequence[bytes], host: bytes) -> str | None:
        """Return the reason to refuse a handshake; None if it is accepted.

        Args:
            origins: the values of its ``Origin`` headers.
            host: the value of its ``Host`` header.
        """
        if not origins:
            return "there is no Origin header" if self._required else None
        if self._everybody:
            return None
        if len(origins) > 1:
            return "there are several Origin headers"
        origin = origins[0].decode("ascii", "backslashreplace")
        if self._takes(origin.lower(), host.decode("ascii", "backslashreplace").lower()):
            return None
        return f"the origin {origin[:200]!r} is not allowed"

    def _takes(self, origin: str, host: str) -> bool:
        if origin in self._origins:
            return True
        if any(origin.startswith(start) and origin.endswith(end) for start, end in self._wildcards):
            return True
        if host_is_allowed(origin, self._hosts):
            return True
        return self._same_host and bool(host) and origin in (f"http://{host}", f"https://{host}")
