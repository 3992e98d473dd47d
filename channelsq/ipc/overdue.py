"""What the processes of a site owe each other: what expired is deleted, what dead processes held is given back."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Sequence

from channelsq.transport.suspects import MOST_DEATHS

logger = logging.getLogger("channelsq.ipc")


def is_any_expired(connection: sqlite3.Connection) -> bool:
    """Whether a message, a membership or a queue has had its time."""
    now = time.time()
    (found,) = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM messages WHERE expires <= :now AND owner IS NULL) "
        "OR EXISTS (SELECT 1 FROM members WHERE expires <= :now) "
        "OR EXISTS (SELECT 1 FROM queues WHERE used + lifetime <= :now)",
        {"now": now},
    ).fetchone()
    return bool(found)


def delete_expired(connection: sqlite3.Connection) -> None:
    """Delete the messages, memberships and queues that have had their time."""
    now = time.time()
    connection.execute("DELETE FROM messages WHERE expires <= ? AND owner IS NULL", (now,))
    connection.execute("DELETE FROM members WHERE expires <= ?", (now,))
    for (queue,) in connection.execute("SELECT name FROM queues WHERE used + lifetime <= ?", (now,)).fetchall():
        delete_queue(connection, queue)


def delete_queue(connection: sqlite3.Connection, queue: str) -> None:
    """Delete a queue with what waits in it, its bindings, and the memberships of its clients."""
    connection.execute("DELETE FROM messages WHERE queue = ?", (queue,))
    connection.execute("DELETE FROM bindings WHERE queue = ?", (queue,))
    connection.execute("DELETE FROM queues WHERE name = ?", (queue,))
    # Channels of a process, "queue!client", and single-reader channels, which are queues themselves.
    connection.execute(
        "DELETE FROM members WHERE channel = ? OR (channel >= ? AND channel < ?)", (queue, queue + "!", queue + '"')
    )


def dead_processes(connection: sqlite3.Connection, is_alive: Callable[[int], bool]) -> list[int]:
    """The numbers of processes that hold messages, or read from queues, and do not live."""
    numbers = connection.execute(
        "SELECT DISTINCT owner FROM messages WHERE owner IS NOT NULL "
        "UNION SELECT reader FROM queues WHERE reader IS NOT NULL"
    )
    return [number for (number,) in numbers.fetchall() if not is_alive(number)]


def give_back(connection: sqlite3.Connection, dead: Sequence[int]) -> None:
    """Put the messages of dead processes back to their places, and delete the queues that only they read."""
    for number in dead:
        connection.execute(
            "UPDATE messages SET owner = NULL, deaths = deaths + 1 WHERE owner = ?",
            (number,),
        )
        # A reply queue's clients are gone with its reader.
        for (queue,) in connection.execute("SELECT name FROM queues WHERE reader = ?", (number,)).fetchall():
            delete_queue(connection, queue)
    killers = connection.execute(
        "SELECT id, queue FROM messages WHERE deaths >= ? AND owner IS NULL", (MOST_DEATHS,)
    ).fetchall()
    for identity, queue in killers if dead else ():
        logger.error(
            "queue %s: a message was dropped, as %d processes died with it",
            queue,
            MOST_DEATHS,
            extra={"action": "deadly_message_dropped"},
        )
        connection.execute("DELETE FROM messages WHERE id = ?", (identity,))
