"""The link between an interface server and its channel layer; each layer has the one that suits it.

::

    link_contract     what every link does
    memory_link       the layer in this process's memory
    store_link        IPCChannelLayer: transactions of the site's file in the event loop
    streams_link      RedisChannelLayer on Redis Streams, in the event loop
    sharded_link      several Redis servers: a streams_link to each
    threaded_link     any other broker: a thread publishes, the layer's threads listen
"""

from __future__ import annotations

import functools

from channelsq.asgi import ChannelLayerWrapper
from channelsq.interface.basis.counters import Counters
from channelsq.interface.link.link_contract import Link, Publication, Publisher
from channelsq.interface.link.memory_link import DirectLink
from channelsq.interface.link.redis_address import address_of
from channelsq.interface.link.sharded_link import ShardedLink
from channelsq.interface.link.store_link import StoreLink
from channelsq.interface.link.streams_link import StreamsLink
from channelsq.interface.link.threaded_link import ThreadedLink
from channelsq.layers import BaseChannelLayer, InMemoryChannelLayer, IPCChannelLayer, RedisChannelLayer
from channelsq.layers.shards.sharded_layer import ShardedChannelLayer

__all__ = ["Link", "Publication", "Publisher", "link_for"]


def link_for(layer: ChannelLayerWrapper, stats: Counters) -> Link:
    """Return the fastest link that exists for ``layer``.

    Raises:
        InvalidChannelLayerError: the layer's settings cannot be used.
    """
    return _link(layer.channel_layer, layer, stats)


@functools.singledispatch
def _link(channel_layer: BaseChannelLayer, layer: ChannelLayerWrapper, stats: Counters) -> Link:
    """Return the link of a layer of a kind for which no other link is registered below."""
    return ThreadedLink(layer, stats)


@_link.register
def _(channel_layer: InMemoryChannelLayer, layer: ChannelLayerWrapper, stats: Counters) -> Link:
    return DirectLink(layer, stats)


@_link.register
def _(channel_layer: IPCChannelLayer, layer: ChannelLayerWrapper, stats: Counters) -> Link:
    return StoreLink(layer, stats, channel_layer)


@_link.register
def _(channel_layer: RedisChannelLayer, layer: ChannelLayerWrapper, stats: Counters) -> Link:
    address = address_of(channel_layer)
    return ThreadedLink(layer, stats) if address is None else StreamsLink(layer, stats, address)


@_link.register
def _(channel_layer: ShardedChannelLayer, layer: ChannelLayerWrapper, stats: Counters) -> Link:
    links = []
    for shard in channel_layer.shards:
        link = _link(shard, ChannelLayerWrapper(shard, layer.alias, layer.routing), stats)
        if not isinstance(link, StreamsLink):  # of several URLs for failover
            return ThreadedLink(layer, stats)
        links.append(link)
    return ShardedLink(layer, stats, links)
