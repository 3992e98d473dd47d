"""Layers that stand in for the configured ones while a test runs."""

from __future__ import annotations

import contextlib
import sys
import unittest
from collections.abc import Iterable, Iterator

from channelsq import conf
from channelsq.asgi import ChannelLayerWrapper, channel_layers
from channelsq.binding.commits import watch_atomic_blocks
from channelsq.layers import InMemoryChannelLayer


def memory_layer(alias: str) -> ChannelLayerWrapper:
    """A new layer in memory with the routing of ``alias``."""
    return ChannelLayerWrapper(InMemoryChannelLayer(), alias, conf.layer_settings(alias).routing)


@contextlib.contextmanager
def installed(layers: Iterable[ChannelLayerWrapper]) -> Iterator[None]:
    """Have layers stand in for those of the same aliases within the block; they are closed at its end."""
    watch_atomic_blocks()
    with contextlib.ExitStack() as undo:
        for layer in layers:
            undo.callback(layer.close)
            undo.callback(channel_layers.set, layer.alias, channel_layers.set(layer.alias, layer))
        yield


class LayersMixin(unittest.TestCase):
    """A test case that runs within a context of its own, whatever its ``setUp`` does."""

    def surroundings(self) -> contextlib.AbstractContextManager[object]:
        """What a test runs within."""
        raise NotImplementedError

    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        """Run the test; its layers are there before ``setUp`` and until after ``tearDown``."""
        if result is None:
            result = self.defaultTestResult()
        with contextlib.ExitStack() as undo:
            try:
                undo.enter_context(self.surroundings())
            except Exception:
                result.startTest(self)
                result.addError(self, sys.exc_info())
                result.stopTest(self)
                return result
            return super().run(result)

    def debug(self) -> None:
        """Run the test without collecting errors."""
        with self.surroundings():
            super().debug()
