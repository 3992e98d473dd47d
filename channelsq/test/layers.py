"""Layers that replace the configured ones while a test runs."""

from __future__ import annotations

import contextlib
import sys
import unittest
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

from django.test.signals import setting_changed

from channelsq import conf
from channelsq.asgi import ChannelLayerWrapper, channel_layers
from channelsq.layers import InMemoryChannelLayer

#: The layers that a live server's workers consume.
served: set[ChannelLayerWrapper] = set()


def memory_layer(alias: str) -> ChannelLayerWrapper:
    """Return a new layer in memory with the routing of ``alias``."""
    return ChannelLayerWrapper(InMemoryChannelLayer(), alias, conf.layer_settings(alias).routing)


@contextlib.contextmanager
def private_layer(alias: str) -> Iterator[ChannelLayerWrapper]:
    """Yield a new layer from the ``TEST_CONFIG`` of ``alias``, in memory if there is none.

    On a broker it gets a new prefix, on one machine a new directory.  So it sees neither messages of other processes
    that test at the same time, nor those of a killed run, nor the site's.
    """
    if conf.layer_settings(alias).test_config is None:
        yield memory_layer(alias)
        return
    layer = channel_layers.make_test_backend(alias)
    with layer.separate_config() as changes:
        yield channel_layers.make_test_backend(alias, **changes) if changes else layer


def remove(layer: ChannelLayerWrapper) -> None:
    """Delete the data of a :func:`private_layer`: its groups and, on a broker, its queues."""
    layer.flush()
    layer.delete_queues(layer.router.channels)


@contextlib.contextmanager
def installed(
    layers: Iterable[ChannelLayerWrapper], changes: Iterable[contextlib.AbstractContextManager[object]] = ()
) -> Iterator[None]:
    """Replace the layers of the same aliases within the block; the new ones are closed at its end.

    They stay when ``CHANNEL_LAYERS`` is overridden in the block, and get the routings of the new settings.

    Args:
        layers: the layers.
        changes: context managers to enter, in order, once the layers are installed.
    """
    layers = list(layers)
    overridden = 0

    def stay(setting: str, enter: bool, **kwargs: Any) -> None:
        nonlocal overridden
        if setting != "CHANNEL_LAYERS":
            return
        overridden += 1 if enter else -1
        for layer in layers:
            if layer not in served and layer.alias in channel_layers:
                vars(layer).pop("router", None)
                layer.routing = conf.layer_settings(layer.alias).routing
            channel_layers.set(layer.alias, layer)

    def put_back(alias: str, before: ChannelLayerWrapper | None) -> None:
        channel_layers.set(alias, None if overridden else before)  # None: other settings may have created it

    with contextlib.ExitStack() as undo:
        for layer in layers:
            undo.callback(layer.close)
            undo.callback(put_back, layer.alias, channel_layers.set(layer.alias, layer))
        setting_changed.connect(stay)
        undo.callback(setting_changed.disconnect, stay)
        for change in changes:
            undo.enter_context(change)
        yield


class LayersMixin(unittest.TestCase):
    """A test case that runs within a context, independent of its ``setUp``."""

    #: Changes to the layers of every test, such as :class:`channelsq.test.apply_routes`.
    layer_changes: ClassVar[Sequence[contextlib.AbstractContextManager[object]]] = ()

    def surroundings(self) -> contextlib.AbstractContextManager[object]:
        """Return the context in which a test runs."""
        raise NotImplementedError

    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        """Run the test; its layers exist from before ``setUp`` until after ``tearDown``."""
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
