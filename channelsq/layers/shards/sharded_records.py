"""The records of a layer of several servers: each record on the server of its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from channelsq.layers.groups.records import RecordStore
from channelsq.layers.kombu_broker.broker_access import KombuBroker
from channelsq.layers.shards.sharded_groups import Servers, T


class ShardedRecords(RecordStore):
    """See :class:`RecordStore`.  A record whose server is away cannot be read or changed.

    Args:
        layer: the layer.
    """

    def __init__(self, layer: Servers) -> None:
        self._layer = layer

    def _of(self, record: str, call: Callable[[RecordStore], T]) -> T:
        def ask(shard: KombuBroker) -> T:
            assert shard.records is not None
            return call(shard.records)

        return self._layer.on(self._layer.placement.first(record), ask)

    def read(self, record: str) -> dict[str, bytes]:
        return self._of(record, lambda records: records.read(record))

    def write(self, record: str, fields: Mapping[str, bytes], seconds: float) -> None:
        self._of(record, lambda records: records.write(record, fields, seconds))

    def change(
        self, record: str, field: str, work: Callable[[bytes | None], bytes | None], seconds: float
    ) -> bytes | None:
        return self._of(record, lambda records: records.change(record, field, work, seconds))

    def delete(self, record: str) -> None:
        self._of(record, lambda records: records.delete(record))

    def flush(self) -> None:
        """Do nothing: the layers of the servers flush their own."""
