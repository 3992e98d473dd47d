"""Shared maintenance by the processes of a site: expired data is deleted, dead processes' messages are given back."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence

from channelsq.ipc.messages import UNUSED, Transaction

#: The most marks of runs; those that expire first are deleted.
MOST_BEGUN = 100_000

#: The owners of held messages, without reading each message.
_OWNERS = """
    WITH RECURSIVE owners (owner) AS (
        SELECT min(owner) FROM held
        UNION ALL SELECT (SELECT min(owner) FROM held WHERE owner > owners.owner) FROM owners
        WHERE owners.owner IS NOT NULL
    ) SELECT owner FROM owners WHERE owner IS NOT NULL
"""


def is_anything_overdue(connection: sqlite3.Connection) -> bool:
    """Return whether a message, a membership, a mark or a queue may have expired."""
    now = time.time()
    (found,) = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM queues WHERE waiting > 0) "
        "OR EXISTS (SELECT 1 FROM delayed WHERE due <= :now) "
        "OR EXISTS (SELECT 1 FROM members WHERE expires <= :now) "
        "OR EXISTS (SELECT 1 FROM begun WHERE expires <= :now) "
        "OR EXISTS (SELECT 1 FROM record_ends WHERE expires <= :now) "
        "OR EXISTS (SELECT 1 FROM queues WHERE used + coalesce(lifetime, :unused) <= :now AND NOT declared)",
        {"now": now, "unused": UNUSED},
    ).fetchone()
    return bool(found)


def put_in_order(tx: Transaction) -> None:
    """Delete expired data, and put due messages into their queues."""
    connection, now = tx.connection, tx.now
    tx.put_due()
    for (number,) in connection.execute("SELECT id FROM queues WHERE waiting > 0").fetchall():
        tx.drop_expired_at_front(number)
    connection.execute("DELETE FROM members WHERE expires <= ?", (now,))
    connection.execute("DELETE FROM begun WHERE expires <= ?", (now,))
    connection.execute(
        "DELETE FROM begun WHERE mark IN (SELECT mark FROM begun ORDER BY expires DESC LIMIT -1 OFFSET ?)",
        (MOST_BEGUN,),
    )
    ended = "SELECT record FROM record_ends WHERE expires <= ?"
    connection.execute(f"DELETE FROM records WHERE record IN ({ended})", (now,))  # noqa: S608 - ours
    connection.execute("DELETE FROM record_ends WHERE expires <= ?", (now,))
    # A queue with a lifetime is deleted with its messages; any other only when it is empty.
    unread = connection.execute(
        "SELECT name FROM queues WHERE NOT declared AND used + coalesce(lifetime, ?) <= ? "
        "AND (lifetime IS NOT NULL OR (waiting = 0 AND id NOT IN (SELECT queue FROM held)))",
        (UNUSED, now),
    )
    for (name,) in unread.fetchall():
        tx.delete_queue(name)


def dead_processes(connection: sqlite3.Connection, is_alive: Callable[[int], bool]) -> list[int]:
    """Return the numbers of dead processes that hold messages or read from queues."""
    numbers = connection.execute(
        f"SELECT owner FROM ({_OWNERS}) UNION SELECT reader FROM queues WHERE reader IS NOT NULL "  # noqa: S608 - ours
        "UNION SELECT process FROM waiters"
    )
    return [number for (number,) in numbers.fetchall() if not is_alive(number)]


def bury_processes(tx: Transaction, dead: Sequence[int], unlink: Callable[[int], None]) -> None:
    """Give back the messages of dead processes, and delete the queues that they alone read.

    Args:
        tx: the transaction.
        dead: the numbers of the processes.
        unlink: removes the socket of a waiter.
    """
    connection = tx.connection
    for number in dead:
        tx.give_back(number)
        # A reply queue's clients are gone with its reader.
        for (queue,) in connection.execute("SELECT name FROM queues WHERE reader = ?", (number,)).fetchall():
            tx.delete_queue(queue)
        for (slot,) in connection.execute("SELECT slot FROM waiters WHERE process = ?", (number,)).fetchall():
            unlink(slot)  # before a new waiter can have the slot
            connection.execute("DELETE FROM readers WHERE slot = ?", (slot,))
            connection.execute("DELETE FROM waiters WHERE slot = ?", (slot,))
