"""The source of each layer: a worker reads the layer through it, and the tests poll it by hand."""

from __future__ import annotations

import pytest

from channelsq.layers import (
    BaseChannelLayer,
    InMemoryChannelLayer,
    IPCChannelLayer,
    KombuChannelLayer,
    RedisChannelLayer,
)
from channelsq.layers.shards.sharded_layer import ShardedChannelLayer
from channelsq.test.contract import SourceContract

pytestmark = pytest.mark.timeout(120)

#: The layers on Redis Streams.
STREAMS = RedisChannelLayer, ShardedChannelLayer


class TestSource(SourceContract):
    """Every layer's source."""

    def says_redelivered(self, layer: BaseChannelLayer) -> bool:
        return not (isinstance(layer, KombuChannelLayer) and layer.in_process)  # Kombu's transport in memory

    def says_left(self, layer: BaseChannelLayer) -> bool:
        return not isinstance(layer, (*STREAMS, InMemoryChannelLayer))

    def keeps_dead_letters(self, layer: BaseChannelLayer) -> bool:
        return isinstance(layer, (*STREAMS, IPCChannelLayer))
