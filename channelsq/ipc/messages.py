"""Messages in the file: the statements of a transaction.  Nothing here begins or ends one."""

from __future__ import annotations

import heapq
import itertools
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from channelsq.transport.payloads import is_early

#: Seconds that an empty, undeclared queue lives without use.
UNUSED = 300.0

#: The most messages that may be delayed, in all queues together.
MOST_DELAYED = 10_000

#: Seconds after which a delayed message checks again for space in its queue.
ROOM_EVERY = 0.1


#: The most dead letters of a queue; the oldest are dropped.
MOST_DEAD_LETTERS = 1000

#: Seconds for which a suspect must be held before it no longer blocks other suspects, see Suspects.
LEASE = 30.0

#: The number of rows that a sweep reads together.
_AT_ONCE = 100

#: Columns that are read together.
_HELD = "queue, rank, id, payload, deaths"
_ROW = "rank, id, payload, expires, deaths, again"

#: The most names in one statement; SQLite allows 999 in all.
_NAMES = 400


class Message(NamedTuple):
    """A message on its way into a queue."""

    payload: bytes
    #: Seconds that it may wait; None for no limit.
    lifetime: float | None
    #: Its priority, 0 first.
    rank: int = 0


class Key(NamedTuple):
    """The key that identifies a held message."""

    queue: int
    id: int


class Taken(NamedTuple):
    """A message that was taken off its queue."""

    key: Key
    queue: str
    payload: bytes
    #: Whether it was delivered before.
    again: bool
    #: How many processes died while they held it.
    deaths: int
    #: Whether it has expired.
    is_expired: bool


class Transaction:
    """One write to the file.

    Args:
        connection: within a transaction.
        me: the number of this process.
    """

    __slots__ = ("connection", "me", "news", "now")

    def __init__(self, connection: sqlite3.Connection, me: int) -> None:
        self.connection = connection
        self.me = me
        self.now = time.time()
        #: How many messages each queue received.
        self.news: dict[str, int] = {}

    # -- sending ----------------------------------------------------------------------------

    def put(
        self,
        queue: str,
        messages: Sequence[Message],
        capacity: int | None = None,
        lifetime: float | None = None,
    ) -> int:
        """Add messages to a queue; return how many, the first ones, were accepted.

        Args:
            queue: the queue's name; the queue is created if it does not exist.
            messages: the messages.
            capacity: the most messages that may wait in it; None for no limit.
            lifetime: the seconds that a new queue lives without a reader.
        """
        connection = self.connection
        found = connection.execute("SELECT id, last, waiting FROM queues WHERE name = ?", (queue,)).fetchone()
        if found is None:
            made = connection.execute(
                "INSERT INTO queues (name, lifetime, used) VALUES (?, ?, ?)", (queue, lifetime, self.now)
            )
            found = made.lastrowid, 0, 0
        number, last, waiting = found
        if capacity is not None and waiting + len(messages) > capacity:
            waiting -= self._drop_expired(number)
            messages = messages[: max(0, capacity - waiting)]
            if not messages:
                return 0
        connection.executemany(
            "INSERT INTO messages (queue, rank, id, payload, expires) VALUES (?, ?, ?, ?, ?)",
            [
                (number, rank, last + place, payload, None if seconds is None else self.now + seconds)
                for place, (payload, seconds, rank) in enumerate(messages, 1)
            ],
        )
        added = len(messages)
        connection.execute(
            "UPDATE queues SET last = ?, waiting = waiting + ?, used = CASE WHEN lifetime IS NULL THEN ? ELSE used END "
            "WHERE id = ?",
            (last + added, added, self.now, number),
        )
        self.news[queue] = self.news.get(queue, 0) + added
        return added

    def delay(self, queue: str, message: Message, capacity: int, seconds: float) -> bool:
        """Delay a message for a queue by so many seconds; return False if too many messages are delayed."""
        (count,) = self.connection.execute(
            "SELECT count(*) FROM (SELECT 1 FROM delayed LIMIT ?)", (MOST_DELAYED,)
        ).fetchone()
        if count >= MOST_DELAYED:
            return False
        self.connection.execute(
            "INSERT INTO delayed (due, queue, payload, lifetime, capacity) VALUES (?, ?, ?, ?, ?)",
            (self.now + seconds, queue, message.payload, message.lifetime, capacity),
        )
        self.news.setdefault(queue, 1)  # its readers must check when it is due
        return True

    def put_due(self) -> None:
        """Put due messages into their queues; a message whose queue is full waits on."""
        due = self.connection.execute(
            "SELECT id, queue, payload, lifetime, capacity FROM delayed WHERE due <= ? ORDER BY due, id LIMIT ?",
            (self.now, _AT_ONCE),
        ).fetchall()
        for number, queue, payload, lifetime, capacity in due:
            if self.put(queue, [Message(payload, lifetime)], capacity):
                self.connection.execute("DELETE FROM delayed WHERE id = ?", (number,))
            else:  # its sender cannot be told any more
                self.connection.execute("UPDATE delayed SET due = ? WHERE id = ?", (self.now + ROOM_EVERY, number))

    # -- receiving --------------------------------------------------------------------------

    def take(
        self,
        queues: Sequence[str],
        limit: int,
        *,
        held: bool = True,
        admits: Callable[[int], bool] = lambda deaths: True,
    ) -> list[Taken]:
        """Take messages from queues, a fair share of each.

        Args:
            queues: their names; if shares cannot be equal, the first ones get more.
            limit: the most messages.
            held: whether this process holds them until :meth:`remove` or :meth:`release`; otherwise they are
                deleted.
            admits: returns whether one more message with so many deaths may be taken.
        """
        found = self._waiting(queues)
        taken: list[Taken] = []
        for place, (number, name) in enumerate(found):
            share = -(-(limit - len(taken)) // (len(found) - place))
            taken += self._take(number, name, share, held, admits)
        if len(taken) < limit and len(found) > 1:  # the first ones may have more
            for number, name in found:
                taken += self._take(number, name, limit - len(taken), held, admits)
                if len(taken) >= limit:
                    break
        return taken

    def _waiting(self, queues: Sequence[str]) -> list[tuple[int, str]]:
        found: dict[str, int] = {}
        for start in range(0, len(queues), _NAMES):
            part = queues[start : start + _NAMES]
            marks = ",".join("?" * len(part))
            some = f"SELECT name, id FROM queues WHERE waiting > 0 AND name IN ({marks})"  # noqa: S608 - question marks
            found.update(self.connection.execute(some, part).fetchall())
        return [(found[name], name) for name in queues if name in found]

    def _take(self, number: int, name: str, limit: int, held: bool, admits: Callable[[int], bool]) -> list[Taken]:
        if limit <= 0:
            return []
        connection = self.connection
        # Suspects are few and are read separately: they may be left while others are taken.
        suspect = connection.execute(
            f"SELECT {_ROW} FROM messages INDEXED BY messages_suspect WHERE queue = ? AND deaths > 1 "  # noqa: S608
            "ORDER BY rank, id LIMIT ?",
            (number, limit),
        ).fetchall()
        rows = connection.execute(
            f"SELECT {_ROW} FROM messages WHERE queue = ? AND deaths <= 1 ORDER BY rank, id LIMIT ?",  # noqa: S608
            (number, limit),
        ).fetchall()
        if suspect:
            first = heapq.merge(rows, suspect)
            rows = list(itertools.islice((row for row in first if row[4] <= 1 or admits(row[4])), limit))
        if not rows:
            return []
        connection.executemany(
            "DELETE FROM messages WHERE queue = ? AND rank = ? AND id = ?", [(number, *row[:2]) for row in rows]
        )
        if held:
            connection.executemany(
                "INSERT INTO held (owner, queue, id, rank, payload, deaths) VALUES (?, ?, ?, ?, ?, ?)",
                [(self.me, number, id_, rank, payload, deaths) for rank, id_, payload, _, deaths, _ in rows],
            )
        connection.execute("UPDATE queues SET waiting = waiting - ? WHERE id = ?", (len(rows), number))
        return [
            Taken(Key(number, id_), name, payload, bool(again), deaths, expires is not None and expires <= self.now)
            for _, id_, payload, expires, deaths, again in rows
        ]

    # -- outcomes

    def remove(self, keys: Iterable[Key]) -> int:
        """Delete messages that this process holds and that are done; return how many it held."""
        return self.connection.executemany(
            "DELETE FROM held WHERE owner = ? AND queue = ? AND id = ?", [(self.me, *key) for key in keys]
        ).rowcount

    def release(self, keys: Iterable[Key], *, again: bool) -> None:
        """Put messages that this process holds back to their places.

        Args:
            keys: the messages'.
            again: whether they count as delivered.
        """
        which = f"SELECT {_HELD} FROM held WHERE owner = ? AND queue = ? AND id = ?"  # noqa: S608 - ours
        rows = [row for key in keys for row in self.connection.execute(which, (self.me, *key)).fetchall()]
        self._put_back(self.me, [(*row, again) for row in rows])

    def give_back(self, owner: int) -> None:
        """Put the messages of a dead process back to their places, with one more death.

        A message that waited there for its ETA was not started, so no death is counted.
        """
        now = int(self.now * 1000)
        which = f"SELECT {_HELD} FROM held WHERE owner = ?"  # noqa: S608 - ours
        rows = self.connection.execute(which, (owner,)).fetchall()
        self._put_back(
            owner,
            [
                (queue, rank, id_, payload, deaths + (not is_early(payload, now)), True)
                for queue, rank, id_, payload, deaths in rows
            ],
        )

    def _put_back(self, owner: int, rows: Sequence[tuple[int, int, int, bytes, int, bool]]) -> None:
        connection = self.connection
        connection.executemany(
            "INSERT INTO messages (queue, rank, id, payload, deaths, again) VALUES (?, ?, ?, ?, ?, ?)", rows
        )
        connection.executemany(
            "DELETE FROM held WHERE owner = ? AND queue = ? AND id = ?", [(owner, row[0], row[2]) for row in rows]
        )
        for number, count in Counter(row[0] for row in rows).items():
            connection.execute("UPDATE queues SET waiting = waiting + ? WHERE id = ?", (count, number))
            (name,) = connection.execute("SELECT name FROM queues WHERE id = ?", (number,)).fetchone()
            self.news[name] = self.news.get(name, 0) + count

    def dead_letter(self, key: Key, reason: str) -> bool:
        """Make a message that this process holds a dead letter; return False if it does not hold it."""
        connection = self.connection
        found = connection.execute(
            "SELECT name, deaths, rank, payload FROM held JOIN queues ON queues.id = held.queue "
            "WHERE owner = ? AND held.queue = ? AND held.id = ?",
            (self.me, *key),
        ).fetchone()
        if found is None:
            return False
        name, deaths, rank, payload = found
        self.remove([key])
        self.keep_dead(name, payload, deaths, reason, rank)
        return True

    def keep_dead(self, queue: str, payload: bytes, deaths: int, reason: str, rank: int = 0) -> None:
        """Add a dead letter; delete the oldest of its queue if there are too many."""
        self.connection.execute(
            "INSERT INTO dead_letters (queue, died, deaths, reason, rank, payload) VALUES (?, ?, ?, ?, ?, ?)",
            (queue, self.now, deaths, reason, rank, payload),
        )
        self.connection.execute(
            "DELETE FROM dead_letters WHERE queue = ? AND id <= "
            "(SELECT id FROM dead_letters WHERE queue = ? ORDER BY id DESC LIMIT 1 OFFSET ?)",
            (queue, queue, MOST_DEAD_LETTERS),
        )

    # -- queues -----------------------------------------------------------------------------

    def delete_queue(self, name: str) -> None:
        """Delete a queue with its messages, its bindings, and the memberships of its clients."""
        connection = self.connection
        found = connection.execute("SELECT id FROM queues WHERE name = ?", (name,)).fetchone()
        if found is not None:
            connection.execute("DELETE FROM messages WHERE queue = ?", found)
            for (owner,) in connection.execute("SELECT DISTINCT owner FROM held").fetchall():
                connection.execute("DELETE FROM held WHERE owner = ? AND queue = ?", (owner, *found))
            connection.execute("DELETE FROM queues WHERE id = ?", found)
        connection.execute("DELETE FROM bindings WHERE queue = ?", (name,))
        # Channels of a process, "queue!client", and single-reader channels, which are queues themselves.
        connection.execute(
            "DELETE FROM members WHERE channel = ? OR (channel >= ? AND channel < ?)", (name, name + "!", name + '"')
        )

    def _drop_expired(self, number: int) -> int:
        """Delete every message of a queue that has expired; return how many."""
        dropped = self.connection.execute(
            "DELETE FROM messages WHERE queue = ? AND expires <= ?", (number, self.now)
        ).rowcount
        if dropped:
            self.connection.execute("UPDATE queues SET waiting = waiting - ? WHERE id = ?", (dropped, number))
        return dropped

    def drop_expired_at_front(self, number: int) -> None:
        """Delete expired messages at the head of a queue."""
        rows = self.connection.execute(
            "SELECT rank, id, expires FROM messages WHERE queue = ? ORDER BY rank, id LIMIT ?", (number, _AT_ONCE)
        ).fetchall()
        old = [(number, rank, id_) for rank, id_, expires in rows if expires is not None and expires <= self.now]
        if old:
            self.connection.executemany("DELETE FROM messages WHERE queue = ? AND rank = ? AND id = ?", old)
            self.connection.execute("UPDATE queues SET waiting = waiting - ? WHERE id = ?", (len(old), number))
