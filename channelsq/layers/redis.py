"""The channel layer for Redis and Valkey: channels on streams and groups as sets, in the same server.

It talks to Redis directly, see :mod:`channelsq.layers.stream_sender`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from inspect import signature
from typing import Any, cast

from channelsq.core import names
from channelsq.exceptions import InvalidChannelLayerError
from channelsq.layers.contract.broker_urls import check_sentinel_url, same_broker, shown
from channelsq.layers.contract.layer_settings import LayerSettings
from channelsq.layers.contract.layer_values import ChannelState, Send
from channelsq.layers.contract.membership_notes import Change, note
from channelsq.layers.contract.source_contract import Source, SourceOptions
from channelsq.layers.groups.begun_marks import RedisBegun
from channelsq.layers.groups.group_stores import RedisGroups
from channelsq.layers.kombu import KombuChannelLayer
from channelsq.layers.redis_hosts import Host, urls_of
from channelsq.layers.shards.sharded_layer import ShardedChannelLayer
from channelsq.layers.stream_sender import DirectSender
from channelsq.redis_core.commands import Command
from channelsq.redis_io.sentinel_urls import is_sentinel_url
from channelsq.transport import streams_url

#: Keys of the Redis layer of Channels 1 without a meaning here, and what to do instead.  Empty values are ignored.
_OF_CHANNELS_1 = {
    "stats_prefix": "no statistics are kept in Redis under keys of their own; leave it out (layer.statistics() works "
    "without it)",
    "connection_kwargs": "write what they were for into the URL's query or CONFIG['transport_options'], as Kombu reads "
    "them",
}


def _sharded(url: object, hosts: object, standby: object, config: dict[str, Any]) -> ShardedChannelLayer:
    """Return the layer of several servers; raise InvalidChannelLayerError for settings that do not fit."""
    if url is not None:
        raise InvalidChannelLayerError("RedisChannelLayer takes CONFIG['url'] or CONFIG['hosts'], not both")
    if config.get("groups_url"):
        raise InvalidChannelLayerError(
            "RedisChannelLayer takes no CONFIG['groups_url'] with several CONFIG['hosts'], which keep the groups; "
            "leave it out"
        )
    shards = [RedisChannelLayer(url=each, **config) for each in urls_of(hosts)]
    first = shards[0]
    own = {name: config[name] for name in signature(LayerSettings).parameters if name in config}
    return ShardedChannelLayer(
        shards,
        standby=[_standby_url(first, each) for each in (urls_of(standby, "standby") if standby else ())],
        threads=first.threads,
        processes=first.processes,
        **own,
    )


def _standby_url(layer: RedisChannelLayer, url: str) -> str:
    url = layer.streams_url_of(url)
    if is_sentinel_url(url):
        check_sentinel_url("RedisChannelLayer's CONFIG['standby']", url, lambda: layer.transport_options)
    return url


class RedisChannelLayer(KombuChannelLayer):
    """Channels on Redis Streams, groups as sets in the same Redis.

    A worker reads it through its own connections, independent of Celery's broker.

    Args:
        url: the Redis: ``redis://``, ``rediss://``, ``unix://``, ``redis+socket://`` or ``sentinel://``, or the
            transport's schemes, such as ``redis-streams://``; the Celery app's broker if left out.
        hosts: the Redis servers in the form of Channels, a list of ``redis://`` URLs, ``(host, port)`` or, for a
            primary that Sentinels name, ``{"sentinels": [(host, port)], "master_name": name}``.  With more than one, a
            :class:`ShardedChannelLayer` is returned, which spreads channels and groups over them.
        standby: those of several ``hosts`` that are read and given nothing new, while servers are added or removed.
        config: see :class:`KombuChannelLayer`.

    Raises:
        InvalidChannelLayerError: the URL is not a Redis URL, or ``config`` has a key of Channels 1's Redis layer
            without
                a meaning here; the text names the alternative.
    """

    def __new__(
        cls,
        *,
        url: str | None = None,
        hosts: Sequence[Host] | None = None,
        standby: Sequence[Host] = (),
        **config: Any,
    ) -> Any:
        if cls is RedisChannelLayer and isinstance(hosts, (list, tuple)) and len(hosts) > 1:
            return _sharded(url, hosts, standby, config)
        return super().__new__(cls)

    def __init__(
        self,
        *,
        url: str | None = None,
        hosts: Sequence[Host] | None = None,
        standby: Sequence[Host] = (),
        **config: Any,
    ) -> None:
        for name, remedy in _OF_CHANNELS_1.items():
            if config.pop(name, None):
                raise InvalidChannelLayerError(f"RedisChannelLayer takes no CONFIG[{name!r}]: {remedy}")
        if hosts is not None:
            if url is not None:
                raise InvalidChannelLayerError("RedisChannelLayer takes CONFIG['url'] or CONFIG['hosts'], not both")
            (url,) = urls_of(hosts)
        if standby:
            raise InvalidChannelLayerError(
                "RedisChannelLayer's CONFIG['standby'] is for several CONFIG['hosts']; leave it out"
            )
        super().__init__(url=url, **config)
        if url is not None and isinstance(url, str):
            self._url = self.streams_url_of(url)
        self.sender = DirectSender(self, self._connections)

    def streams_url_of(self, url: str) -> str:
        """Return a Redis URL with the transport's scheme; raise InvalidChannelLayerError for any other URL."""
        try:
            streams = streams_url(url)
        except ValueError:
            streams = ""
        if any(each.partition("://")[0] not in self.redis_schemes for each in streams.split(";")):
            raise InvalidChannelLayerError(
                f"RedisChannelLayer needs a redis:// or rediss:// URL, not {shown(url)!r}; "
                "for other brokers use channelsq.layers.KombuChannelLayer"
            )
        return streams

    def _celerys_url(self) -> str:
        url = super()._celerys_url()
        return self.streams_url_of(url) if url else url

    def is_on(self, url: str) -> bool:
        try:
            return same_broker(self.url, streams_url(url))
        except ValueError:  # it is not a Redis
            return False

    def dispatch(self, sends: Sequence[Send]) -> None:
        self._send(sends, self.sender.dispatch)

    def settle(self, sends: Sequence[Send]) -> None:
        self._send(sends, self.sender.settle)

    def _send(self, sends: Sequence[Send], send: Callable[[Sequence[Send]], None]) -> None:
        for each in sends:
            if each.delay:
                break
        else:
            send(sends)
            return
        try:
            super().dispatch([each for each in sends if each.delay])  # rare, and Kombu can write them
        finally:
            send([each for each in sends if not each.delay])

    def group_add(self, group: str, channel: str) -> None:
        if self._groups_are_here:
            change = Change(names.check_group_name(group), names.check_channel_name(channel), joined=True)
            cast(RedisGroups, self._groups).add(group, channel, self._note(change))
        else:
            super().group_add(group, channel)

    def group_discard(self, group: str, channel: str) -> None:
        if self._groups_are_here:
            change = Change(names.check_group_name(group), names.check_channel_name(channel), joined=False)
            cast(RedisGroups, self._groups).discard(group, channel, self._note(change))
        else:
            super().group_discard(group, channel)

    def end_reply_queues(self, process: str) -> None:
        """Do nothing: a stream of replies that is not read expires."""

    def source(self, options: SourceOptions) -> Source[Any]:
        from channelsq.layers.stream_source import StreamSource  # not at the top: only workers need it

        return StreamSource(self, self.sender.render, options)

    def channel_state(self, channel: str) -> ChannelState:
        return self.sender.state(channel)

    def end(self, mark: str, *, at_once: bool = False) -> None:
        store = self._begun
        if at_once or not self._groups_are_here or not isinstance(store, RedisBegun):
            super().end(mark, at_once=at_once)
        elif not self.sender.join_acknowledgement([("ZREM", store.key, mark)]):
            super().end(mark)

    @cached_property
    def _groups_are_here(self) -> bool:
        """True if a change of a group and its note to the socket's process are one transaction."""
        return not self.has_other_groups

    def _note(self, change: Change) -> list[Command]:
        send = note(change)
        return [] if send is None else self.sender.commands_for((send,))

    def flush(self) -> None:
        super().flush()
        self.sender.forget_windows()

    def close(self) -> None:
        super().close()
        self.sender.close()
