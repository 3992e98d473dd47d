"""Records of a store that does not answer."""

from __future__ import annotations

from collections.abc import Callable

from channelsq.exceptions import BrokerUnavailable
from channelsq.layers.groups.records import MemoryRecords


class FakeAwayRecords(MemoryRecords):
    """Records in memory whose first changes fail.

    Args:
        times: how many.
    """

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def change(
        self, record: str, field: str, work: Callable[[bytes | None], bytes | None], seconds: float
    ) -> bytes | None:
        self.times -= 1
        if self.times >= 0:
            raise BrokerUnavailable("change", "the records are away")
        return super().change(record, field, work, seconds)
