"""The dead letters in a site's file: messages with which too many processes died."""

from __future__ import annotations

import logging
import re
import sqlite3
from collections.abc import Iterator
from typing import Any

from channelsq.ipc.messages import Message, Taken, Transaction
from channelsq.ipc.store import Store
from channelsq.redis_core.compact import ForeignPayload
from channelsq.transport import dead_letters, payloads
from channelsq.transport.dead_letter_store import DeadLetter

logger = logging.getLogger("channelsq.ipc")

#: The number of dead letters that are read at a time.
_CHUNK = 20

_COLUMNS = "id, queue, died, deaths, reason, payload"


def dead_letter(store: Store, taken: Taken) -> None:
    """Make a message that this process holds a dead letter, and call the listeners."""
    reason = f"{taken.deaths} processes died with it"
    if not store.write(lambda tx: tx.dead_letter(taken.key, reason)):
        return
    logger.error(
        "queue %s: a message became a dead letter, as %d processes died with it",
        taken.queue, taken.deaths,
        extra={"action": "dead_letter", "queue": taken.queue},
    )  # fmt: skip
    try:
        payload = payloads.decode(taken.payload)
    except ForeignPayload:
        return  # no listener can read it
    dead_letters.tell(taken.queue, payload)


class StoredDeadLetters:
    """The dead letters of one site, like :class:`channelsq.transport.dead_letter_store.DeadLetters` for Redis.

    Args:
        store: the site's.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def queues(self) -> list[str]:
        """Return the sorted names of the queues that have dead letters."""
        return [queue for (queue,) in self._rows("SELECT DISTINCT queue FROM dead_letters ORDER BY queue", ())]

    def all(self, queue: str | None = None) -> Iterator[DeadLetter]:
        """Yield the dead letters of one queue, or of all, the oldest first."""
        for name in self.queues() if queue is None else [queue]:
            last = 0
            while rows := self._rows(
                f"SELECT {_COLUMNS} FROM dead_letters WHERE queue = ? AND id > ? ORDER BY id LIMIT ?",  # noqa: S608
                (name, last, _CHUNK),
            ):
                yield from map(_letter, rows)
                last = rows[-1][0]

    def find(self, identity: str, queue: str | None = None) -> list[DeadLetter]:
        """Return the dead letter with an id in a list, of one queue or of any; an empty list if there is none."""
        if not re.fullmatch(r"\d{1,18}-\d{1,18}", identity):
            return []
        rows = self._rows(
            f"SELECT {_COLUMNS} FROM dead_letters WHERE id = ?",  # noqa: S608 - ours
            (int(identity.partition("-")[2]),),
        )
        return [letter for letter in map(_letter, rows) if letter.id == identity and queue in (None, letter.queue)]

    def replay(self, letter: DeadLetter) -> bool:
        """Put the message at the end of its queue, marked redelivered, with no deaths and without an expiration.

        Returns:
            False, and nothing is sent, if the dead letter does not exist any more.
        """
        payload = letter.payload
        payloads.set_deaths(payload, 0)
        payloads.mark_redelivered(payload)
        payload["properties"].pop("expiration", None)
        message = Message(payloads.encode(payload), None)

        def replay(tx: Transaction) -> bool:
            return _delete(tx, letter) and bool(tx.put(letter.queue, [message]))

        return self._store.write(replay)

    def delete(self, letter: DeadLetter) -> bool:
        """Delete the dead letter; return False if it does not exist any more."""
        return self._store.write(lambda tx: _delete(tx, letter))

    def _rows(self, statement: str, values: tuple[Any, ...]) -> list[Any]:
        def look(connection: sqlite3.Connection) -> list[Any]:
            return connection.execute(statement, values).fetchall()

        return self._store.read(look)


def _delete(tx: Transaction, letter: DeadLetter) -> bool:
    number = int(letter.id.partition("-")[2])
    return tx.connection.execute("DELETE FROM dead_letters WHERE id = ?", (number,)).rowcount > 0


def _letter(row: Any) -> DeadLetter:
    number, queue, died, deaths, reason, payload = row
    return DeadLetter(
        id=f"{int(died * 1000)}-{number}", queue=queue, deaths=deaths, reason=reason, data=payload, stream=queue
    )
