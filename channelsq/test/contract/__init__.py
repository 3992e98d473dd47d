"""The tests of a channel layer's contract, for the authors of layers; they need pytest.

A test class for a layer inherits from the classes below, and has a fixture ``make_layer``::

    class TestMyLayer(LayerContract):
        @pytest.fixture
        def make_layer(self):
            made = []

            def make(**config):
                made.append(MyLayer(url=URL, **config))
                return made[-1]

            yield make
            for layer in made:
                layer.flush()
                layer.close()
"""

from channelsq.test.contract.bounds import BoundsContract
from channelsq.test.contract.fixtures import LayerFixtures, MakeLayer, Unique
from channelsq.test.contract.groups import GroupContract
from channelsq.test.contract.housekeeping import HousekeepingContract, QueueContract
from channelsq.test.contract.marks import MarkContract
from channelsq.test.contract.messages import MessageContract
from channelsq.test.contract.names_and_values import NameContract
from channelsq.test.contract.records import RecordContract
from channelsq.test.contract.source_outcomes import OutcomeContract
from channelsq.test.contract.sources import ReadingContract
from channelsq.test.contract.statistics import StatisticsContract

__all__ = [
    "LayerContract",
    "LayerFixtures",
    "MakeLayer",
    "MarkContract",
    "QueueContract",
    "RecordContract",
    "SourceContract",
    "StatisticsContract",
    "Unique",
]


class LayerContract(MessageContract, NameContract, BoundsContract, GroupContract, HousekeepingContract):
    """The tests that every layer passes: messages, names, capacity, expiry, groups, ``flush`` and ``close``."""


class SourceContract(ReadingContract, OutcomeContract):
    """The tests of :meth:`BaseChannelLayer.source`, for layers that workers in other processes read.

    Override ``says_redelivered``, ``says_left`` and ``keeps_dead_letters`` where the layer differs.
    """
