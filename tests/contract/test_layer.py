"""The contract of channel layers, held against every layer there is."""

from __future__ import annotations

from channelsq.test.contract import LayerContract, QueueContract, StatisticsContract


class TestLayer(LayerContract):
    """All that a layer must do."""


class TestQueues(QueueContract):
    """The numbers that monitoring reads."""


class TestStatistics(StatisticsContract):
    """The extension of ASGI 1."""
