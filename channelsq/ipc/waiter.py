"""A waiter: a thread or an event loop waits with it for messages of some queues."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable
from typing import Protocol

from channelsq.ipc.messages import Transaction
from channelsq.ipc.wake_ups import SLOTS, WakeUps

#: Seconds after which a waiter checks for messages without a wake-up.
LOOK_EVERY = 0.5

#: Seconds between two checks of a waiter that cannot be woken: the first, and the longest.
_PAUSES = 0.001, 0.03


class Site(Protocol):
    """The store as a waiter uses it."""

    #: How often the file was opened: a waiter's slot is lost with a deleted file.
    openings: int

    def enter(self, waiter: Waiter) -> None:
        """Call :meth:`Waiter.enter` in a transaction, with the wake-ups."""

    def leave(self, slot: int) -> None:
        """Record in the file that a slot is free."""


class Waiter:
    """Waits for messages of some queues.

    One thread at a time arms it, checks for messages, and sleeps if there are none; a message that comes after the
    check ends the sleep.

    Args:
        site: the store.
        queues: the names of the queues.
    """

    def __init__(self, site: Site, queues: Iterable[str] = ()) -> None:
        self._site = site
        self._queues = dict.fromkeys(queues)
        self._entered = 0
        self._changed = True
        self._wake_ups: WakeUps | None = None
        self._slot = -1
        #: The socket that receives wake-ups; None without one.
        self.socket: socket.socket | None = None
        self._pause = _PAUSES[0]
        self._interrupted = threading.Event()

    def watch(self, queues: Iterable[str]) -> None:
        """Wait for messages of these queues from now on, and of no others."""
        wanted = dict.fromkeys(queues)
        if wanted.keys() != self._queues.keys():
            self._queues, self._changed = wanted, True

    def arm(self) -> None:
        """Make senders wake it from now on; raise errors of SQLite and the system."""
        if self._changed or self._entered != self._site.openings:
            self._site.enter(self)
        if self.socket is not None and self._wake_ups is not None:
            self._wake_ups.arm(self._slot, waits=True)

    def rearm(self) -> bool:
        """Arm it without a write; return False if a write is needed, which :meth:`arm` does."""
        if self._changed or self._entered != self._site.openings:
            return False
        self.arm()
        return True

    def enter(self, tx: Transaction, wake_ups: WakeUps, openings: int) -> None:
        """Record the queues of the waiter; called within a transaction."""
        if self._entered != openings:
            before, self.socket, self._slot = self.socket, None, _free_slot(tx)
            if self._slot < SLOTS:
                tx.connection.execute("INSERT INTO waiters VALUES (?, ?)", (self._slot, tx.me))
                self.socket = wake_ups.bind(self._slot)
            if before is not None:  # an event loop must not confuse the two sockets
                before.close()
            self._wake_ups, self._entered = wake_ups, openings
        tx.connection.execute("DELETE FROM readers WHERE slot = ?", (self._slot,))
        if self.socket is not None:
            tx.connection.executemany(
                "INSERT INTO readers VALUES (?, ?)", [(queue, self._slot) for queue in self._queues]
            )
        self._changed = False

    def disarm(self) -> None:
        """Stop senders from waking it, because it is awake."""
        if self.socket is not None and self._wake_ups is not None:
            self._wake_ups.arm(self._slot, waits=False)
        self._pause = _PAUSES[0]

    def sleep(self, seconds: float) -> bool:
        """Wait for a wake-up, at most so many seconds and :data:`LOOK_EVERY`; return whether one came."""
        bound = self.socket
        if bound is None:
            self._interrupted.wait(min(seconds, self._pause))
            self._interrupted.clear()
            self._pause = min(self._pause * 1.3, _PAUSES[1])
            return False
        try:
            bound.settimeout(max(0.0, min(seconds, LOOK_EVERY)))
            bound.recv(1)
        except OSError:  # the time is over, or the socket was closed meanwhile
            return False
        return True

    def interrupt(self) -> None:
        """End a :meth:`sleep`.  From any thread."""
        self._interrupted.set()
        wake_ups = self._wake_ups
        if wake_ups is not None and self.socket is not None:
            wake_ups.send(self._slot)

    def close(self) -> None:
        """Stop waiting."""
        self.interrupt()
        if self._wake_ups is not None and self._entered == self._site.openings and self._slot < SLOTS:
            self.disarm()
            self._wake_ups.unlink(self._slot)
            self._site.leave(self._slot)
        self._entered, self._changed = 0, True
        self._lose_socket()

    def _lose_socket(self) -> None:
        bound, self.socket = self.socket, None
        if bound is not None:
            bound.close()


def _free_slot(tx: Transaction) -> int:
    """Return the lowest free slot."""
    (slot,) = tx.connection.execute(
        "SELECT CASE WHEN NOT EXISTS (SELECT 1 FROM waiters WHERE slot = 0) THEN 0 ELSE "
        "(SELECT min(slot) + 1 FROM waiters AS one WHERE NOT EXISTS "
        "(SELECT 1 FROM waiters AS next WHERE next.slot = one.slot + 1)) END"
    ).fetchone()
    return int(slot)
