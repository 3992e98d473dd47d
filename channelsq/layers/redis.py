"""The channel layer for Redis and Valkey: channels and groups in the same server.

On the transport's own URLs (``redis-streams://`` …) it talks to Redis itself, see :mod:`channelsq.layers.direct`;
on Kombu's (``redis://`` …) as any Kombu layer does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from channelsq.exceptions import InvalidChannelLayerError
from channelsq.layers.base import Send
from channelsq.layers.direct import DirectSender
from channelsq.layers.kombu import KombuChannelLayer
from channelsq.layers.urls import shown


class RedisChannelLayer(KombuChannelLayer):
    """Channels on Redis, groups as sets in the same Redis.

    Args:
        url: ``redis-streams://``, ``rediss-streams://`` or ``redis-streams+socket://`` for streams, ``redis://``,
            ``rediss://`` or ``redis+socket://`` for Kombu's own, slower transport; the Celery app's broker if left
            out.
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
        self.sender = DirectSender(self, self._connections)

    def _check(self, url: str) -> None:
        if url.partition("://")[0] not in self.redis_schemes:
            raise InvalidChannelLayerError(
                f"RedisChannelLayer needs a redis:// or rediss:// URL, not {shown(url)!r}; "
                "for other brokers use channelsq.layers.KombuChannelLayer"
            )

    @property
    def url(self) -> str:
        url = super().url
        self._check(url)
        return url

    @cached_property
    def streams(self) -> bool:
        """Whether the broker is the streams transport."""
        return "-streams" in self.scheme

    def dispatch(self, sends: Sequence[Send]) -> None:
        if not self.streams:
            super().dispatch(sends)
            return
        self._send(sends, self.sender.dispatch)

    def settle(self, sends: Sequence[Send]) -> None:
        if self.streams:
            self._send(sends, self.sender.settle)
        else:
            super().settle(sends)

    def _send(self, sends: Sequence[Send], send: Callable[[Sequence[Send]], None]) -> None:
        for each in sends:
            if each.delay:
                break
        else:
            send(sends)
            return
        try:
            super().dispatch([each for each in sends if each.delay])  # rare, and Kombu knows how to write them
        finally:
            send([each for each in sends if not each.delay])

    def flush(self) -> None:
        super().flush()
        self.sender.forget_rooms()

    def close(self) -> None:
        super().close()
        self.sender.close()
