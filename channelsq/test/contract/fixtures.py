"""The fixtures of the contract's tests, and their helpers."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import pytest

from channelsq.layers import BaseChannelLayer

T = TypeVar("T")

#: Returns a name that no other test uses; the same one for the same word within a test.
Unique = Callable[[str], str]


class MakeLayer(Protocol):
    """The fixture ``make_layer``: it returns a new layer with the given settings."""

    def __call__(self, **config: Any) -> BaseChannelLayer:
        """Return a layer; several layers of one test share channels and groups, if the layer can do that."""


class LayerFixtures:
    """The fixtures that the tests of a contract use.

    The author of a layer adds a fixture ``make_layer``, in the class, its module or a conftest.py.  It flushes and
    closes the layers after the test.
    """

    @pytest.fixture
    def layer(self, make_layer: MakeLayer) -> BaseChannelLayer:
        """Return a layer with its default settings."""
        return make_layer()

    @pytest.fixture
    def unique(self) -> Unique:
        """Return a function that makes names for this test."""
        token = secrets.token_hex(4)
        return lambda name: f"{token}.{name}"


def receive(layer: BaseChannelLayer, *channels: str, timeout: float = 5.0) -> tuple[str, dict[str, Any]]:
    """Return the next message of any of the channels.

    Args:
        timeout: seconds.

    Raises:
        AssertionError: no message came in time.
    """
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        channel, message = layer.receive(channels, block=True)
        if channel is not None and message is not None:
            return channel, message
    raise AssertionError(f"nothing came on {channels}")


def wait_until(condition: Callable[[], T | None], awaited: str, timeout: float = 10.0, interval: float = 0.02) -> T:
    """Call ``condition`` until it returns a true value, and return that.

    Args:
        condition: called every ``interval`` seconds.
        awaited: a description for the error.
        timeout: seconds.

    Raises:
        AssertionError: it returned no true value in time.
    """
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"after {timeout:g} s still not: {awaited}")
        pause.wait(interval)
