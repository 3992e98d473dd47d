"""Fixtures for pytest, there wherever channelsq is installed.

pytest loads this in every project, so nothing here is imported before a test asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from channelsq.asgi import ChannelLayerWrapper
    from channelsq.test import WSClient

__all__ = ["channel_layer", "ws_client"]


@pytest.fixture
def channel_layer() -> Iterator[ChannelLayerWrapper]:
    """A new channel layer in memory in place of the default one, with its routing."""
    from channelsq.conf import DEFAULT_CHANNEL_LAYER
    from channelsq.test.layers import installed, memory_layer

    layer = memory_layer(DEFAULT_CHANNEL_LAYER)
    with installed([layer]):
        yield layer


@pytest.fixture
def ws_client(channel_layer: ChannelLayerWrapper) -> WSClient:
    """A client of that layer; for more of them, make ``channelsq.test.WSClient()`` yourself."""
    from channelsq.test import WSClient

    return WSClient()
