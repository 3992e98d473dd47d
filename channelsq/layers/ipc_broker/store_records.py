"""Records in the site's file."""

from __future__ import annotations

import time
from collections.abc import Mapping

from channelsq.ipc.messages import Transaction
from channelsq.ipc.store import Store
from channelsq.layers.groups.records import StoredRecords
from channelsq.layers.ipc_broker.store_errors import store_errors
from channelsq.layers.ipc_broker.store_groups import rows, write
from channelsq.layers.wire.protection import Protection

_INSERT = "INSERT OR REPLACE INTO records VALUES (?, ?, ?)"
_RENEW = "INSERT OR REPLACE INTO record_ends VALUES (?, ?)"


class StoreRecords(StoredRecords):
    """Records in a store.

    Args:
        store: the site's.
        protection: see :class:`StoredRecords`.
    """

    def __init__(self, store: Store, protection: Protection) -> None:
        super().__init__(protection)
        self._store = store

    def _read(self, record: str) -> dict[str, bytes]:
        statement = (
            "SELECT field, value FROM records WHERE record = ? "
            "AND EXISTS (SELECT 1 FROM record_ends WHERE record = ? AND expires > ?)"
        )
        return dict(rows(self._store, statement, (record, record, time.time())))

    def _write(self, record: str, fields: Mapping[str, bytes], seconds: float) -> None:
        def work(tx: Transaction) -> None:
            _drop_expired(tx, record)
            tx.connection.executemany(_INSERT, [(record, field, value) for field, value in fields.items()])
            tx.connection.execute(_RENEW, (record, tx.now + seconds))

        with store_errors(self._store.path):
            self._store.write(work)

    def _replace(
        self, record: str, field: str, expected: bytes | None, value: bytes, seconds: float
    ) -> tuple[bool, bytes | None]:
        def work(tx: Transaction) -> tuple[bool, bytes | None]:
            _drop_expired(tx, record)
            statement = "SELECT value FROM records WHERE record = ? AND field = ?"
            found = tx.connection.execute(statement, (record, field)).fetchone()
            current = None if found is None else found[0]
            if current != expected:
                return False, current
            tx.connection.execute(_INSERT, (record, field, value))
            tx.connection.execute(_RENEW, (record, tx.now + seconds))
            return True, None

        with store_errors(self._store.path):
            return self._store.write(work)

    def delete(self, record: str) -> None:
        def work(tx: Transaction) -> None:
            tx.connection.execute("DELETE FROM records WHERE record = ?", (record,))
            tx.connection.execute("DELETE FROM record_ends WHERE record = ?", (record,))

        with store_errors(self._store.path):
            self._store.write(work)

    def flush(self) -> None:
        write(self._store, "DELETE FROM records")
        write(self._store, "DELETE FROM record_ends")


def _drop_expired(tx: Transaction, record: str) -> None:
    """Delete the fields of a record that has ended."""
    ended = "SELECT record FROM record_ends WHERE record = ? AND expires <= ?"
    tx.connection.execute(f"DELETE FROM records WHERE record IN ({ended})", (record, tx.now))  # noqa: S608 - ours
