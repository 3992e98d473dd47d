"""A worker that a test of a source polls, and the fixtures of these tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import pytest

from channelsq.layers import BaseChannelLayer
from channelsq.layers.contract.source_contract import Source, SourceOptions
from channelsq.layers.wire import codec
from channelsq.layers.wire.wire_forms import CONTENT_TYPE
from channelsq.test.contract.fixtures import LayerFixtures, wait_until


class SourceWorker:
    """A source that a test polls.

    Args:
        layer: the layer.
        channels: the channels that it reads.
        credit: how many messages it may hold.
    """

    def __init__(self, layer: BaseChannelLayer, *channels: str, credit: int = 10) -> None:
        self.source: Source[Any] = layer.source(SourceOptions(channels, credit, {CONTENT_TYPE}))
        self.source.connect()

    def poll(self, seconds: float = 0.2) -> list[Any]:
        """Return the deliveries of one poll."""
        self.source.connect()
        return list(self.source.poll(seconds)) if self.source.has_credit() else []

    def take(self, number: int = 1) -> list[Any]:
        """Poll until there are so many deliveries, and return them."""
        found: list[Any] = []

        def enough() -> bool:
            found.extend(self.poll())
            return len(found) >= number

        wait_until(enough, f"{number} deliveries")
        assert len(found) == number
        return found

    def read(self, delivery: Any) -> tuple[str, dict[str, Any]]:
        """Return the channel and the content of a message, as a worker's intake reads them."""
        plain = self.source.plain(delivery)
        if plain is not None:
            channel, identity, content = plain
            assert identity
            return channel, content
        message = self.source.open(delivery)
        assert message is not None
        assert message.headers["task"] == self.source.queue_of(delivery)
        decoded = codec.loads(message.body) if message.content_type == CONTENT_TYPE else message.payload
        (channel, content), _, _ = decoded
        return channel, content

    def is_redelivered(self, delivery: Any) -> bool:
        """Return whether the source says that a message was delivered before."""
        message = self.source.open(delivery)
        assert message is not None
        return self.source.is_redelivered(delivery, message)

    def contents(self, number: int) -> list[dict[str, Any]]:
        """Take and settle messages, and return their contents."""
        found = []
        for delivery in self.take(number):
            found.append(self.read(delivery)[1])
            self.source.settle(delivery, None)
        self.source.flush()
        return found

    def gets_nothing(self) -> bool:
        """Return whether three short polls bring nothing."""
        return not any(self.poll(0.1) for _ in range(3))


class MakeWorker(Protocol):
    """The fixture ``work``: it returns a new worker of the test's layer."""

    def __call__(self, *channels: str, credit: int = 10) -> SourceWorker:
        """Return a worker that reads ``channels``."""


class SourceFixtures(LayerFixtures):
    """The fixtures of tests of a source, and the differences that a layer may have."""

    @pytest.fixture
    def work(self, layer: BaseChannelLayer) -> Iterator[MakeWorker]:
        """Return a function that makes workers of the layer; they are closed after the test."""
        workers: list[SourceWorker] = []

        def make(*channels: str, credit: int = 10) -> SourceWorker:
            workers.append(SourceWorker(layer, *channels, credit=credit))
            return workers[-1]

        yield make
        for each in workers:
            each.source.close()

    def says_redelivered(self, layer: BaseChannelLayer) -> bool:
        """Return whether the layer marks messages that come again."""
        return True

    def says_left(self, layer: BaseChannelLayer) -> bool:
        """Return whether the layer may also mark messages that were only left to newer workers."""
        return False

    def keeps_dead_letters(self, layer: BaseChannelLayer) -> bool:
        """Return whether the layer keeps messages that are set aside, and counts them."""
        return False
