"""Groups, and marks of runs that have begun, in the site's file."""

from __future__ import annotations

import sqlite3
import time
from typing import Any

from channelsq.ipc.messages import Transaction
from channelsq.ipc.store import Store
from channelsq.layers.groups.begun_marks import KEPT, BegunStore
from channelsq.layers.groups.group_stores import GroupSizes, GroupStore
from channelsq.layers.ipc_broker.store_errors import store_errors


def write(store: Store, statement: str, values: tuple[Any, ...] = ()) -> int:
    """Return how many rows one statement changed, in a transaction that others may share."""

    def work(tx: Transaction) -> int:
        return tx.connection.execute(statement, values).rowcount

    with store_errors(store.path):
        return store.write(work)


def rows(store: Store, statement: str, values: tuple[Any, ...]) -> list[Any]:
    def work(connection: sqlite3.Connection) -> list[Any]:
        return connection.execute(statement, values).fetchall()

    with store_errors(store.path):
        return store.read(work)


class StoreBegun(BegunStore):
    """Marks in a store.

    Args:
        store: the site's.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def begin(self, mark: str) -> bool:
        def work(tx: Transaction) -> bool:
            tx.connection.execute("DELETE FROM begun WHERE mark = ? AND expires <= ?", (mark, tx.now))
            insert = "INSERT OR IGNORE INTO begun VALUES (?, ?)"
            return tx.connection.execute(insert, (mark, tx.now + KEPT)).rowcount > 0

        with store_errors(self._store.path):
            return self._store.write(work)

    def has(self, mark: str) -> bool:
        return bool(rows(self._store, "SELECT 1 FROM begun WHERE mark = ? AND expires > ?", (mark, time.time())))

    def end(self, mark: str, after: float) -> None:
        if after:
            write(self._store, "UPDATE begun SET expires = ? WHERE mark = ?", (time.time() + after, mark))
        else:
            write(self._store, "DELETE FROM begun WHERE mark = ?", (mark,))

    def flush(self) -> None:
        write(self._store, "DELETE FROM begun")


class StoreGroups(GroupStore):
    """Groups in a store.

    Args:
        store: the site's.
        expiry: seconds that a membership lives after the last ``add``.
    """

    def __init__(self, store: Store, expiry: float) -> None:
        super().__init__(expiry)
        self._store = store

    def add(self, group: str, channel: str) -> None:
        row = (group, channel, time.time() + self.expiry)
        write(self._store, "INSERT OR REPLACE INTO members VALUES (?, ?, ?)", row)

    def discard(self, group: str, channel: str) -> None:
        write(self._store, "DELETE FROM members WHERE in_group = ? AND channel = ?", (group, channel))

    def members(self, group: str) -> list[str]:
        statement = "SELECT channel FROM members WHERE in_group = ? AND expires > ?"
        return [channel for (channel,) in rows(self._store, statement, (group, time.time()))]

    def sizes(self, most: int, seconds: float) -> GroupSizes:
        statement = "SELECT in_group, count(*) FROM members WHERE expires > ? GROUP BY in_group ORDER BY 2 DESC LIMIT ?"
        found = rows(self._store, statement, (time.time(), most + 1))
        return GroupSizes(dict(found[:most]), len(found) > most)

    def forget(self, channel: str) -> None:
        write(self._store, "DELETE FROM members WHERE channel = ?", (channel,))

    def flush(self) -> None:
        write(self._store, "DELETE FROM members")

    def close(self) -> None:
        """Do nothing: the layer closes the store."""
