"""Leases: while a consumer's key exists in Redis, no other consumer takes over its messages.

A separate thread renews them, because one task may block a worker's event loop for longer than a lease.  A process
that is killed or frozen renews nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Protocol
from weakref import WeakSet

from redis.exceptions import RedisError

from channelsq.redis_core.commands import Command
from channelsq.redis_core.operations import run
from channelsq.redis_core.scripts import SETTLE, settle_args
from channelsq.redis_io.blocking import carry_out

logger = logging.getLogger("channelsq.transport")

#: Seconds before the next attempt after a failure.
RETRY = 1.0


class Holder(Protocol):
    """A channel with a lease."""

    #: The duration of the lease in seconds.
    lease: float

    def renewals(self) -> list[Command]:
        """Return the commands that renew the lease and other keys that expire without renewal."""

    def renew_every(self) -> float:
        """Return the seconds between two renewals."""

    def private_pool(self) -> Any:
        """Return a connection pool that no other thread uses."""


class Leases:
    """The leases of a transport's channels, renewed by one daemon thread while there are any."""

    def __init__(self) -> None:
        self._holders: WeakSet[Holder] = WeakSet()
        self._lock = threading.Lock()
        self._thread: _Renewer | None = None

    def hold(self, channel: Holder) -> None:
        """Renew a channel's lease from now on; it was just set.  Call it again when its renewals change."""
        with self._lock:
            self._holders.add(channel)
            if self._thread is None:
                self._thread = _Renewer(self, channel)
                self._thread.start()
            self._thread.wake.set()

    def release(self, channel: Holder) -> None:
        """Stop renewing a channel's lease; the thread ends with the last one."""
        with self._lock:
            self._holders.discard(channel)
            thread = self._thread
            if thread is None or self._holders:
                return
            self._thread = None
            thread.stopped = True
            thread.wake.set()
        if thread is not threading.current_thread():
            thread.join(timeout=RETRY)  # it may be waiting for a server that does not answer

    def holders(self) -> list[Holder]:
        """Return the channels whose leases are renewed."""
        with self._lock:
            return list(self._holders)


class _Renewer(threading.Thread):
    def __init__(self, leases: Leases, channel: Holder) -> None:
        super().__init__(name="redis-streams-leases", daemon=True)
        self.leases = leases
        self.stopped = False
        self.wake = threading.Event()
        self._pool = channel.private_pool()
        self._failing = False

    def run(self) -> None:
        renewed = time.monotonic()  # a channel that joins sets its own lease first
        pause = RETRY
        try:
            while not self.stopped:
                holders = self.leases.holders()
                pause = RETRY if self._failing else min((h.renew_every() for h in holders), default=RETRY)
                if not self.wake.wait(max(0.0, renewed + pause - time.monotonic())):
                    self._renew(holders)
                    renewed = time.monotonic()
                self.wake.clear()
        finally:
            self._pool.disconnect()

    def _renew(self, holders: list[Holder]) -> None:
        commands = [command for holder in holders for command in holder.renewals()]
        if not commands:
            return
        try:
            # A server with full memory does not refuse these commands; they create lost leases again.
            refused = carry_out(self._pool, run(SETTLE, (), *settle_args(commands)))
            problem = refused[0].decode(errors="replace") if refused else None
        except (RedisError, OSError) as error:
            problem = str(error)
        if problem is None:
            if self._failing:
                logger.info("leases are renewed again", extra={"action": "lease_renewed"})
        elif not self._failing:
            logger.warning(
                "leases could not be renewed (%s); trying every %g s",
                problem,
                RETRY,
                extra={"action": "lease_failed"},
            )
        self._failing = problem is not None
