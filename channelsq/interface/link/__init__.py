"""From the interface to the channel layer and back.

::

    base        what every link is
    direct      the layer in this process's memory
    threaded    any broker: a thread publishes, the layer's threads listen
    streams     RedisChannelLayer on Redis Streams: no threads
        address     where that Redis is
        line        a connection that is made again when it is lost
        publishing  what goes out, and capacity windows: what there is room for
        listening   what comes in
"""

from __future__ import annotations

from channelsq.asgi import ChannelLayerWrapper
from channelsq.interface.basis.counters import Counters
from channelsq.interface.link.link_contract import Link, Publication, Publisher
from channelsq.interface.link.memory_link import DirectLink
from channelsq.interface.link.redis_address import address_of
from channelsq.interface.link.store_link import StoreLink
from channelsq.interface.link.streams_link import StreamsLink
from channelsq.interface.link.threaded_link import ThreadedLink
from channelsq.layers import InMemoryChannelLayer, IPCChannelLayer

__all__ = ["Link", "Publication", "Publisher", "link_for"]


def link_for(layer: ChannelLayerWrapper, stats: Counters) -> Link:
    """The quickest link that there is for ``layer``.

    Raises:
        InvalidChannelLayerError: the layer's settings cannot be used.
    """
    channel_layer = layer.channel_layer
    if isinstance(channel_layer, InMemoryChannelLayer):
        return DirectLink(layer, stats)
    if isinstance(channel_layer, IPCChannelLayer):
        return StoreLink(layer, stats)
    address = address_of(channel_layer)
    return ThreadedLink(layer, stats) if address is None else StreamsLink(layer, stats, address)
