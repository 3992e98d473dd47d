"""The channel layer for Redis and Valkey: channels and groups in the same server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kombu.utils.url import maybe_sanitize_url

from channelsq.exceptions import InvalidChannelLayerError
from channelsq.layers.kombu import KombuChannelLayer


class RedisChannelLayer(KombuChannelLayer):
    """Channels on Kombu's Redis transport, groups as sets in the same Redis.

    Args:
        url: ``redis://``, ``rediss://`` or ``redis+socket://``; the Celery app's broker if left out.
        hosts: the same as a list of one.
        config: see :class:`KombuChannelLayer`.

    Raises:
        InvalidChannelLayerError: the URL is no Redis URL.
    """

    def __init__(self, *, url: str | None = None, hosts: Sequence[str] | None = None, **config: Any) -> None:
        if hosts is not None:
            if url is not None or isinstance(hosts, str) or len(hosts) != 1:
                raise InvalidChannelLayerError(
                    "RedisChannelLayer takes CONFIG['url'], or CONFIG['hosts'] as a list of one URL, "
                    f"not of {len(hosts)}"
                )
            url = hosts[0]
        super().__init__(url=url, **config)
        if url is not None:
            self._check(url)

    def _check(self, url: str) -> None:
        if url.partition("://")[0] not in self.redis_schemes:
            raise InvalidChannelLayerError(
                f"RedisChannelLayer needs a redis:// or rediss:// URL, not {maybe_sanitize_url(url)!r}; "
                "for other brokers use channelsq.layers.KombuChannelLayer"
            )

    @property
    def url(self) -> str:
        url = super().url
        self._check(url)
        return url
