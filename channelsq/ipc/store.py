"""One site's file from the view of one process: messages, queues, memberships, and wake-ups of others.

The messages of dead processes are redelivered.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import random
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from channelsq.ipc.database import Database
from channelsq.ipc.directory import open_private
from channelsq.ipc.messages import Key, Message, Taken, Transaction
from channelsq.ipc.overdue import bury_processes, dead_processes, is_anything_overdue, put_in_order
from channelsq.ipc.owners import Owners
from channelsq.ipc.waiter import Waiter
from channelsq.ipc.wake_ups import WakeUps

logger = logging.getLogger("channelsq.ipc")

#: Seconds between two checks for expired messages and memberships, and for dead processes.
SWEEP_EVERY = 1.0

#: Seconds between two updates by the reader of a queue.
_READING_EVERY = 2.0

_Result = TypeVar("_Result")

#: The waiters of each queue that received messages, and the number of messages.
News = list[tuple[list[int], int]]


class _Job(Generic[_Result]):
    """A write that may share its transaction with those of other threads."""

    def __init__(self, work: Callable[[Transaction], _Result], adds: bool) -> None:
        self.work = work
        self.adds = adds
        self.done = False
        self.result: _Result | None = None
        self.error: BaseException | None = None


class Store:
    """One site's file from the view of this process; safe to call from any thread.

    Get one with :func:`store_at`.

    Args:
        directory: the result of :func:`channelsq.ipc.directory.make_private`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.database = Database(directory)
        self._lock = threading.RLock()
        self._jobs: deque[_Job[Any]] = deque()
        self._owners: Owners | None = None
        self._wake_ups: WakeUps | None = None
        self._guard = -1
        #: How often the file was opened.
        self.openings = 0
        self._swept = 0.0
        self._read: dict[str, float] = {}
        self._waiters: WeakSet[Waiter] = WeakSet()

    @property
    def path(self) -> Path:
        """The file."""
        return self.database.path

    @property
    def me(self) -> int:
        """The number of this process."""
        with self._lock:
            self._open()
            assert self._owners is not None
            return self._owners.me

    @property
    def wake_ups(self) -> WakeUps:
        """The waiters of the site."""
        with self._lock:
            self._open()
            assert self._wake_ups is not None
            return self._wake_ups

    def _open(self) -> None:
        if self._wake_ups is not None:
            return
        self.database.open()
        if self._owners is None:
            self._owners = Owners(self.directory / "owners")
        # systemd-tmpfiles does not clean up a directory with such a lock.
        guard = open_private(self.directory)
        try:
            fcntl.flock(guard, fcntl.LOCK_SH)
            self._wake_ups = WakeUps(self.directory, guard)
        except BaseException:
            os.close(guard)
            raise
        self._guard = guard
        self.openings += 1

    def close(self) -> None:
        """Close the file; it is opened again at the next use."""
        for waiter in list(self._waiters):
            with contextlib.suppress(sqlite3.Error, OSError):  # other processes clean up for this one
                waiter.close()
        with self._lock:
            self.database.close()
            wake_ups, self._wake_ups = self._wake_ups, None
            if wake_ups is not None:
                wake_ups.close()
                os.close(self._guard)
                self._guard = -1
                self.openings += 1

    # -- reading and writing ----------------------------------------------------------------

    def read(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Return the result of ``work(connection)``, which reads; raise errors of SQLite and the system."""
        with self._lock:
            self._open()
            return self.database.read(work)

    def write(self, work: Callable[[Transaction], _Result], *, adds: bool = False) -> _Result:
        """Return the result of ``work(transaction)``, and wake the readers of the sent messages.

        Threads that write at the same time share a transaction.

        Args:
            work: may be called again; its changes are rolled back if it raises.
            adds: whether it adds messages, and removes none: it fails before there is no room for other writes.
        """
        job = _Job(work, adds)
        self._jobs.append(job)
        news: News = []
        with self._lock:
            if not job.done:
                news = self._write_all()
        if job.error is not None:
            raise job.error
        self.tell(news)
        return job.result  # type: ignore[return-value]  # it is done

    def _write_all(self) -> News:
        """Write the waiting jobs of all threads; the caller holds the lock."""
        jobs = [self._jobs.popleft() for _ in range(len(self._jobs))]
        try:
            self._open()
            if len(jobs) > 1:
                try:
                    return self._write(jobs)
                except Exception:  # one of them failed, so each is tried alone
                    logger.debug("a transaction of %d writes failed, trying each alone", len(jobs), exc_info=True)
            news: News = []
            for job in jobs:
                try:
                    news += self._write([job])
                except Exception as error:
                    job.error = error
            return news
        except BaseException as error:
            for job in jobs:
                job.error = job.error or error
            return []
        finally:
            for job in jobs:
                job.done = True

    def _write(self, jobs: Sequence[_Job[Any]]) -> News:
        def work(connection: sqlite3.Connection) -> News:
            assert self._owners is not None
            tx = Transaction(connection, self._owners.me)
            if any(job.adds for job in jobs):
                self.database.check_room(connection)
            for job in jobs:
                job.result = job.work(tx)
            return readers_of(tx)

        return self.database.write(work)

    def tell(self, news: News) -> None:
        """Wake the readers of sent messages."""
        wake_ups = self._wake_ups
        for slots, count in news:
            if slots and wake_ups is not None:
                wake_ups.wake(slots, count)

    # -- messages ---------------------------------------------------------------------------

    def put(self, queue: str, message: Message) -> None:
        """Add a message to a queue of any length."""
        self.write(lambda tx: tx.put(queue, [message]), adds=True)
        self.sweep()

    def take(
        self,
        queues: Sequence[str],
        limit: int = 1,
        *,
        held: bool = True,
        admits: Callable[[int], bool] = lambda deaths: True,
    ) -> list[Taken]:
        """Take messages off queues; see :meth:`channelsq.ipc.messages.Transaction.take`."""
        self.sweep()
        self.say_reading(queues)
        if not self.read(lambda connection: has_messages(connection, queues)):
            return []
        mixed = random.sample(list(queues), len(queues))
        return self.write(lambda tx: tx.take(mixed, limit, held=held, admits=admits))

    def remove(self, key: Key) -> None:
        """Delete a message that this process holds and that is done."""
        self.write(lambda tx: tx.remove([key]))

    def release(self, key: Key) -> None:
        """Put a message that this process holds back to its place in the queue."""
        self.write(lambda tx: tx.release([key], again=True))

    def waiting(self, queue: str) -> int:
        """Return how many messages wait in a queue, including expired ones; a fast query."""

        def look(connection: sqlite3.Connection) -> int:
            found = connection.execute("SELECT waiting FROM queues WHERE name = ?", (queue,)).fetchone()
            return 0 if found is None else int(found[0])

        return self.read(look)

    def size(self, queue: str) -> int:
        """Return how many messages wait in a queue."""
        return self.state(queue)[0]

    def state(self, queue: str) -> tuple[int, int, float | None, int, int]:
        """Return the state of a queue.

        Returns:
            the number of waiting messages, of held ones, the expiry of the one that waits longest, the number of dead
            letters, and that of all messages that were put into it.
        """

        def look(connection: sqlite3.Connection) -> tuple[int, int, float | None, int, int]:
            waiting, expires = connection.execute(
                "SELECT count(*), min(expires) FROM messages WHERE queue = (SELECT id FROM queues WHERE name = ?) "
                "AND (expires IS NULL OR expires > ?)",
                (queue, time.time()),
            ).fetchone()
            (held,) = connection.execute(
                "SELECT count(*) FROM held WHERE queue = (SELECT id FROM queues WHERE name = ?)", (queue,)
            ).fetchone()
            (dead,) = connection.execute("SELECT count(*) FROM dead_letters WHERE queue = ?", (queue,)).fetchone()
            numbered = connection.execute("SELECT last FROM queues WHERE name = ?", (queue,)).fetchone()
            return waiting, held, expires, dead, numbered[0] if numbered else 0

        return self.read(look)

    def purge(self, queue: str) -> int:
        """Delete the messages that wait in a queue; return how many."""

        def purge(tx: Transaction) -> int:
            which = "(SELECT id FROM queues WHERE name = ?)"
            gone = tx.connection.execute(f"DELETE FROM messages WHERE queue = {which}", (queue,)).rowcount  # noqa: S608
            tx.connection.execute("UPDATE queues SET waiting = 0 WHERE name = ?", (queue,))
            return gone + tx.connection.execute("DELETE FROM delayed WHERE queue = ?", (queue,)).rowcount

        return self.write(purge)

    # -- queues -----------------------------------------------------------------------------

    def declare(self, queue: str, lifetime: float | None) -> None:
        """Create a queue, unless it exists.

        Args:
            queue: its name.
            lifetime: seconds that it lives without a reader; None for ever.
        """
        found = self.read(
            lambda connection: connection.execute(
                "SELECT reader, declared FROM queues WHERE name = ?", (queue,)
            ).fetchone()
        )
        is_left = found is not None and found[0] is not None and not self._is_alive(found[0])
        if found is not None and not is_left and (found[1] or lifetime is not None):
            return

        def declare(tx: Transaction) -> None:
            if is_left:  # by a process that died: its successor of the same name must not lose the new queue
                tx.delete_queue(queue)
            tx.connection.execute(
                "INSERT OR IGNORE INTO queues (name, lifetime, used) VALUES (?, ?, ?)", (queue, lifetime, tx.now)
            )
            tx.connection.execute("UPDATE queues SET declared = ? WHERE name = ?", (lifetime is None, queue))

        self.write(declare)

    def has_queue(self, queue: str) -> bool:
        """Return whether the queue exists."""
        return self.read(
            lambda connection: (
                connection.execute("SELECT 1 FROM queues WHERE name = ?", (queue,)).fetchone() is not None
            )
        )

    def bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        """Bind a queue to an exchange."""
        row = (exchange, routing_key, pattern, queue)
        self.write(lambda tx: tx.connection.execute("INSERT OR IGNORE INTO bindings VALUES (?, ?, ?, ?)", row))

    def bindings(self, exchange: str) -> list[tuple[str, str, str]]:
        """Return the bindings of an exchange, as ``(routing key, pattern, queue)``."""
        return self.read(
            lambda connection: connection.execute(
                "SELECT routing_key, pattern, queue FROM bindings WHERE exchange = ?", (exchange,)
            ).fetchall()
        )

    def delete(self, queue: str) -> None:
        """Delete a queue with its messages and bindings."""
        self.write(lambda tx: tx.delete_queue(queue))

    def say_reading(self, queues: Iterable[str]) -> None:
        """Record regularly that this process reads from queues."""
        now = time.monotonic()
        due = [queue for queue in queues if now - self._read.get(queue, -1e9) >= _READING_EVERY]
        if not due:
            return
        if len(self._read) > 10_000:
            self._read.clear()
        self._read.update(dict.fromkeys(due, now))
        self.write(
            lambda tx: tx.connection.executemany(
                "UPDATE queues SET used = ?, reader = CASE WHEN lifetime IS NULL THEN NULL ELSE ? END WHERE name = ?",
                [(tx.now, tx.me, queue) for queue in due],
            )
        )

    # -- waiting ----------------------------------------------------------------------------

    def waiter(self, queues: Iterable[str] = ()) -> Waiter:
        """Return a new waiter for messages of queues."""
        waiter = Waiter(self, queues)
        self._waiters.add(waiter)
        return waiter

    def enter(self, waiter: Waiter) -> None:
        """See :class:`channelsq.ipc.waiter.Site`."""
        wake_ups = self.wake_ups
        self.write(lambda tx: waiter.enter(tx, wake_ups, self.openings))

    def leave(self, slot: int) -> None:
        """See :class:`channelsq.ipc.waiter.Site`."""

        def leave(tx: Transaction) -> None:
            tx.connection.execute("DELETE FROM readers WHERE slot = ?", (slot,))
            tx.connection.execute("DELETE FROM waiters WHERE slot = ?", (slot,))

        self.write(leave)

    # -- what is overdue --------------------------------------------------------------------

    def _is_alive(self, number: int) -> bool:
        assert self._owners is not None
        return self._owners.is_alive(number)

    def sweep(self, *, now: bool = False) -> None:
        """Delete expired data regularly, and give back the messages of dead processes.

        Args:
            now: do not wait until the next check is due.
        """
        if not now and time.monotonic() - self._swept < SWEEP_EVERY:
            return
        with self._lock:
            self._swept = time.monotonic()
            self._begin_anew_if_gone()
            self._open()
            self.database.measure()
            dead = self.read(lambda connection: dead_processes(connection, self._is_alive))
            if dead:
                self.write(lambda tx: bury_processes(tx, dead, self.wake_ups.unlink))
            if self.read(is_anything_overdue):
                self.write(put_in_order)

    def _begin_anew_if_gone(self) -> None:
        """Create a new file if this one was deleted, together with the other processes, which notice it as well."""
        if self.database.is_gone:
            logger.error(
                "%s was deleted or replaced, with every message in it; going on with a new one",
                self.path,
                extra={"action": "ipc_file_lost"},
            )
            self.close()
            self._owners = None
            self._read.clear()


def has_messages(connection: sqlite3.Connection, queues: Sequence[str]) -> bool:
    """Return whether a message waits in any of these queues."""
    for start in range(0, len(queues), 400):  # of the 999 that SQLite allows
        part = queues[start : start + 400]
        marks = ",".join("?" * len(part))
        some = f"SELECT 1 FROM queues WHERE waiting > 0 AND name IN ({marks}) LIMIT 1"  # noqa: S608 - question marks
        if connection.execute(some, part).fetchone() is not None:
            return True
    return False


def readers_of(tx: Transaction) -> News:
    """Return the waiters that read the queues which received messages in a transaction."""
    read = tx.connection.execute
    return [
        ([slot for (slot,) in read("SELECT slot FROM readers WHERE queue = ?", (queue,)).fetchall()], count)
        for queue, count in tx.news.items()
    ]


_stores: dict[tuple[int, Path], Store] = {}
_stores_lock = threading.Lock()


def store_at(directory: Path) -> Store:
    """Return this process's store in a directory: always the same one, and another after a fork."""
    key = os.getpid(), directory.resolve()
    with _stores_lock:
        store = _stores.get(key)
        if store is None:
            # The store of a parent process stays open here, unused: closing it would end the parent's locks.
            store = _stores[key] = Store(key[1])
        return store


def _after_fork() -> None:
    global _stores_lock
    _stores_lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
