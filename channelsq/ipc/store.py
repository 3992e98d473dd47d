"""Messages, queues and memberships of one site in a SQLite file that its processes share.

What a dead process held is handed out again.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from channelsq.ipc.file import SharedFile
from channelsq.ipc.overdue import dead_processes, delete_expired, delete_queue, give_back, is_any_expired

#: How often (seconds) a process looks for what is overdue: messages and memberships, and processes that died.
SWEEP_EVERY = 1.0

#: A message with which a process died is suspect: a process holds one such at a time, so that the next death tells
#: which it was.  One that it still holds after so many seconds, as it may have an ETA, keeps no other waiting.
SUSPECT_ALONE = 30.0

#: How often (seconds) the reader of a queue says that it still is.
_READING_EVERY = 2.0

#: Queues that are looked into with one statement; SQLite allows 500.
_AT_ONCE = 400


class Taken(NamedTuple):
    """A message that was taken off its queue."""

    id: int
    queue: str
    payload: bytes
    #: Whether it had been handed out before.
    again: bool


class Store(SharedFile):
    """One site's messages, as this process sees them; safe to call from any thread.

    Get one with :func:`store_at`.

    Args:
        directory: as :func:`channelsq.ipc.directory.make_private` gives it.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._swept = 0.0
        #: What :meth:`take` found when it found nothing, by the queues that it looked into.
        self._empty: dict[tuple[str, ...], tuple[int, int]] = {}
        self._read: dict[str, float] = {}

    # -- messages ---------------------------------------------------------------------------

    def put(self, queue: str, payload: bytes, lifetime: float | None) -> None:
        """Add a message.

        Args:
            lifetime: seconds that it may wait; None for ever.
        """
        expires = None if lifetime is None else time.time() + lifetime
        with self._reading() as connection:  # a statement of its own is a transaction
            connection.execute(
                "INSERT INTO messages (queue, payload, expires) VALUES (?, ?, ?)", (queue, payload, expires)
            )
        self._tell()
        self.sweep()

    def take(self, queues: Sequence[str], unacknowledged: frozenset[str] | set[str]) -> Taken | None:
        """Take the oldest message of these queues; None if there is none.

        Args:
            unacknowledged: those of the queues whose messages are gone when they are taken.  Others are held by this
                process until :meth:`remove` or :meth:`release`.
        """
        self.sweep()
        wanted = tuple(queues)
        with self._lock:
            connection = self._open()
            self._say_reading(connection, wanted)
            # Half of all looks find nothing new; then nothing is looked for.
            version = connection.execute("PRAGMA data_version").fetchone()[0], self._wakes
            if self._empty.get(wanted) == version:
                return None
            taken = self._take(connection, wanted, unacknowledged)
            if taken is None:
                if len(self._empty) > 1000:
                    self._empty.clear()
                self._empty[wanted] = version
            return taken

    def _take(
        self, connection: sqlite3.Connection, wanted: tuple[str, ...], unacknowledged: frozenset[str] | set[str]
    ) -> Taken | None:
        if _oldest(connection, wanted) is None:
            return None
        with self._writing():
            innocent = self._holds_suspect(connection)
            while (identity := _oldest(connection, wanted, innocent=innocent)) is not None:
                queue, payload, expires, handed_out = connection.execute(
                    "SELECT queue, payload, expires, handed_out FROM messages WHERE id = ?", (identity,)
                ).fetchone()
                expired = expires is not None and expires <= time.time()
                if expired or queue in unacknowledged:
                    connection.execute("DELETE FROM messages WHERE id = ?", (identity,))
                else:
                    connection.execute(
                        "UPDATE messages SET owner = ?, expires = NULL, handed_out = ? WHERE id = ?",
                        (self._me, time.time(), identity),
                    )
                if not expired:
                    return Taken(identity, queue, payload, handed_out is not None)
        return None

    def _holds_suspect(self, connection: sqlite3.Connection) -> bool:
        (found,) = connection.execute(
            "SELECT EXISTS (SELECT 1 FROM messages WHERE owner = ? AND deaths > 0 AND handed_out > ?)",
            (self._me, time.time() - SUSPECT_ALONE),
        ).fetchone()
        return bool(found)

    def remove(self, identity: int) -> None:
        """A message that this process holds is done with."""
        with self._reading() as connection:
            connection.execute("DELETE FROM messages WHERE id = ? AND owner = ?", (identity, self._me))
        self.wake()  # there is room in a prefetch window

    def release(self, identity: int) -> None:
        """A message that this process holds goes back to its place in the queue."""
        with self._reading() as connection:
            connection.execute("UPDATE messages SET owner = NULL WHERE id = ? AND owner = ?", (identity, self._me))
        self._tell()

    def size(self, queue: str) -> int:
        """How many messages wait in a queue."""
        with self._reading() as connection:
            (count,) = connection.execute(
                "SELECT count(*) FROM messages WHERE queue = ? AND owner IS NULL AND (expires IS NULL OR expires > ?)",
                (queue, time.time()),
            ).fetchone()
        return int(count)

    def state(self, queue: str) -> tuple[int, int, float | None]:
        """How many messages of a queue wait, how many are held, and when the one expires that waits longest."""
        with self._reading() as connection:
            held, waiting, expires = connection.execute(
                "SELECT count(owner), count(*) FILTER (WHERE owner IS NULL AND (expires IS NULL OR expires > ?1)), "
                "min(expires) FILTER (WHERE owner IS NULL AND expires > ?1) FROM messages WHERE queue = ?2",
                (time.time(), queue),
            ).fetchone()
        return int(waiting), int(held), expires

    def purge(self, queue: str) -> int:
        """Delete the messages that wait in a queue; gives how many."""
        with self._reading() as connection:
            return connection.execute("DELETE FROM messages WHERE queue = ? AND owner IS NULL", (queue,)).rowcount

    # -- queues -----------------------------------------------------------------------------

    def declare(self, queue: str, lifetime: float | None) -> None:
        """Have a queue.

        Args:
            lifetime: seconds that it lives when nobody reads from it; None for ever.
        """
        with self._reading() as connection:
            found = connection.execute("SELECT reader FROM queues WHERE name = ?", (queue,)).fetchone()
            left = found is not None and found[0] is not None and not self._is_alive(found[0])
            if found is not None and not left:
                return
            with self._writing():
                if left:  # by a process that died: not for its successor of the same name to lose in a moment
                    delete_queue(connection, queue)
                connection.execute(
                    "INSERT OR IGNORE INTO queues (name, lifetime, used) VALUES (?, ?, ?)",
                    (queue, lifetime, time.time()),
                )

    def has_queue(self, queue: str) -> bool:
        """Whether there is such a queue."""
        with self._reading() as connection:
            return connection.execute("SELECT 1 FROM queues WHERE name = ?", (queue,)).fetchone() is not None

    def bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        """Have messages of an exchange come to a queue."""
        with self._reading() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO bindings VALUES (?, ?, ?, ?)", (exchange, routing_key, pattern, queue)
            )

    def bindings(self, exchange: str) -> list[tuple[str, str, str]]:
        """The bindings of an exchange, as ``(routing key, pattern, queue)``."""
        with self._reading() as connection:
            return connection.execute(
                "SELECT routing_key, pattern, queue FROM bindings WHERE exchange = ?", (exchange,)
            ).fetchall()

    def delete(self, queue: str) -> None:
        """Delete a queue with what waits in it, and its bindings."""
        with self._writing() as connection:
            delete_queue(connection, queue)

    def _say_reading(self, connection: sqlite3.Connection, queues: tuple[str, ...]) -> None:
        now = time.monotonic()
        due = [queue for queue in queues if now - self._read.get(queue, -1e9) >= _READING_EVERY]
        if not due:
            return
        if len(self._read) > 10_000:
            self._read.clear()
        self._read.update(dict.fromkeys(due, now))
        stamp, me = time.time(), self._me
        connection.executemany(
            "UPDATE queues SET used = ?, reader = ? WHERE name = ? AND lifetime IS NOT NULL",
            [(stamp, me, queue) for queue in due],
        )

    # -- memberships ------------------------------------------------------------------------

    def join(self, group: str, channel: str, lifetime: float) -> None:
        """Make ``channel`` a member of ``group`` for so many seconds."""
        with self._reading() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO members VALUES (?, ?, ?)", (group, channel, time.time() + lifetime)
            )

    def leave(self, group: str | None, channel: str) -> None:
        """End the membership of ``channel`` in ``group``; None for every group."""
        with self._reading() as connection:
            if group is None:
                connection.execute("DELETE FROM members WHERE channel = ?", (channel,))
            else:
                connection.execute("DELETE FROM members WHERE in_group = ? AND channel = ?", (group, channel))

    def members(self, group: str) -> list[str]:
        """The channels in ``group``."""
        with self._reading() as connection:
            found = connection.execute(
                "SELECT channel FROM members WHERE in_group = ? AND expires > ?", (group, time.time())
            )
            return [channel for (channel,) in found]

    def group_sizes(self, most: int) -> list[tuple[str, int]]:
        """The largest groups with the numbers of their members."""
        with self._reading() as connection:
            return connection.execute(
                "SELECT in_group, count(*) FROM members WHERE expires > ? GROUP BY in_group ORDER BY 2 DESC LIMIT ?",
                (time.time(), most),
            ).fetchall()

    def forget_groups(self) -> None:
        """End every membership."""
        with self._reading() as connection:
            connection.execute("DELETE FROM members")

    # -- runs that must not be repeated -----------------------------------------------------

    def begin(self, mark: str, lifetime: float) -> bool:
        """Write a mark for so many seconds; return False if it is there."""
        now = time.time()
        with self._writing() as connection:
            connection.execute("DELETE FROM begun WHERE expires <= ?", (now,))
            return connection.execute("INSERT OR IGNORE INTO begun VALUES (?, ?)", (mark, now + lifetime)).rowcount > 0

    def end(self, mark: str, after: float) -> None:
        """Forget a mark in so many seconds."""
        with self._reading() as connection:
            if after:
                connection.execute("UPDATE begun SET expires = ? WHERE mark = ?", (time.time() + after, mark))
            else:
                connection.execute("DELETE FROM begun WHERE mark = ?", (mark,))

    def forget_begun(self) -> None:
        """Forget every mark."""
        with self._reading() as connection:
            connection.execute("DELETE FROM begun")

    # -- what is overdue --------------------------------------------------------------------

    def sweep(self, *, now: bool = False) -> None:
        """Look, now and then, for what expired, and give back what dead processes held.

        Args:
            now: do not wait until it is time.
        """
        with self._lock:
            if not now and time.monotonic() - self._swept < SWEEP_EVERY:
                return
            self._swept = time.monotonic()
            if self._begin_anew_if_gone():
                self._read.clear()
                self._empty.clear()
            with self._reading() as connection:
                dead = dead_processes(connection, self._is_alive)
                expired = is_any_expired(connection)
            if dead or expired:
                with self._writing() as connection:
                    give_back(connection, dead)
                    delete_expired(connection)
                self._tell()


def _oldest(connection: sqlite3.Connection, queues: tuple[str, ...], *, innocent: bool = False) -> int | None:
    """The id of the oldest message that waits in any of the queues; with ``innocent`` of those not suspect."""
    oldest: list[int] = []
    waiting = "queue = ? AND owner IS NULL" + (" AND deaths = 0" if innocent else "")
    for start in range(0, len(queues), _AT_ONCE):
        part = queues[start : start + _AT_ONCE]
        first = f"SELECT * FROM (SELECT id FROM messages WHERE {waiting} ORDER BY id LIMIT 1)"  # noqa: S608 - ours
        found = connection.execute(" UNION ALL ".join([first] * len(part)) + " ORDER BY 1 LIMIT 1", part).fetchone()
        if found is not None:
            oldest.append(found[0])
    return min(oldest, default=None)


_stores: dict[tuple[int, Path], Store] = {}
_stores_lock = threading.Lock()


def store_at(directory: Path) -> Store:
    """This process's store in a directory: always the same one, and another after a fork."""
    key = os.getpid(), directory.resolve()
    with _stores_lock:
        store = _stores.get(key)
        if store is None:
            # What a parent process had open stays so here, unused: closing it would end the parent's locks.
            store = _stores[key] = Store(key[1])
        return store


def _after_fork() -> None:
    global _stores_lock
    _stores_lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
