"""Fixtures for pytest, available where channelsq is installed.

pytest loads this module in every project, so it imports nothing before a test uses a fixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from channelsq.asgi import ChannelLayerWrapper
    from channelsq.test import WSClient

__all__ = ["channel_layer", "ws_client"]

# For authors of layers: assertions of these tests show their values.
pytest.register_assert_rewrite("channelsq.test.contract")


@pytest.fixture
def channel_layer() -> Iterator[ChannelLayerWrapper]:
    """Return a new channel layer in memory in place of the default one, with its routing."""
    from channelsq.conf import DEFAULT_CHANNEL_LAYER
    from channelsq.test.layers import installed, memory_layer

    layer = memory_layer(DEFAULT_CHANNEL_LAYER)
    with installed([layer]):
        yield layer


@pytest.fixture
def ws_client(channel_layer: ChannelLayerWrapper) -> WSClient:
    """Return a client of that layer; to get further clients, call ``channelsq.test.WSClient()``."""
    from channelsq.test import WSClient

    return WSClient()
