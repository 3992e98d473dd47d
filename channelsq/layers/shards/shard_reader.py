"""One server of a source on several: connected and polled by the source's thread, or reconnected by a thread apart."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from channelsq.exceptions import BrokerUnavailable
from channelsq.layers.contract.source_contract import WaitableSource
from channelsq.layers.shards.shard_health import ShardHealth

logger = logging.getLogger("channelsq.worker")

#: Seconds between two attempts to connect; short, as sockets wait meanwhile.
EVERY = 0.5

#: Seconds after a server's return for which its messages may be older than they look: what an interface server wrote
#: before, and gave up, may reach the server with the time of its return.
DOUBTED = 60.0


class ShardReader:
    """Reads one server.

    While it is open, its source belongs to the polling thread; otherwise to the thread that connects again.  So a
    server that is frozen or cut off delays no other.

    Args:
        source: the server's source.
        place: its place among the servers.
        shown: its URL, for the log.
        health: is told whether the server is there.
        woken: called, in the other thread, when the server is back.
    """

    def __init__(
        self,
        source: WaitableSource[Any],
        place: int,
        shown: str,
        health: ShardHealth,
        woken: Callable[[], None],
    ) -> None:
        self.source = source
        self.place = place
        self._shown = shown
        self._health = health
        self._woken = woken
        #: True while the polling thread may use the source.
        self.is_open = False
        #: Whether no outcome waits for the answer to earlier ones.
        self.is_flushed = True
        #: Why the last attempt to connect failed.
        self.error: BaseException | None = None
        #: The messages that the thread which connected has brought.
        self.brought: deque[Any] = deque()
        #: Until when, by the monotonic clock, messages may be older than they look.
        self.doubted_until = 0.0
        self._orders: deque[Callable[[], None]] = deque()
        self._closing = threading.Event()
        self._failures = 0
        self._thread: threading.Thread | None = None
        #: The orders and the end must not meet the thread that connects.
        self._lock = threading.Lock()

    # -- in the polling thread

    def order(self, order: Callable[[], None]) -> None:
        """Carry out an order about channels when the server is there, before its next poll."""
        self._orders.append(order)

    def begin(self, seconds: float) -> int | None:
        """Send outcomes, request messages, and return the descriptor of the answer; None for no request.

        Raises:
            source.errors: the connection is lost; call :meth:`lose`.
        """
        source = self.source
        self._carry_out()
        if source.has_credit():
            source.begin_poll(seconds)
        self.is_flushed = source.flush_soon()
        return source.wait_handle()

    def lose(self, error: BaseException) -> None:
        """Leave a lost server to a thread that connects again."""
        self.is_open = False
        self.source.lost()
        self.connect(error)

    def connect(self, error: BaseException | None = None) -> None:
        """Connect in a thread of its own, until that succeeds or the source is closed."""
        if error is not None:
            self._failed(error)
        self._thread = threading.Thread(target=self._connect, name=f"channelsq-shard-{self.place}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Give back what is held, and close; a thread that still connects does so at its end."""
        self._closing.set()
        with self._lock:
            if not self.is_open and self._thread is not None and self._thread.is_alive():
                return
        self.source.close()

    # -- in the thread that connects

    def _connect(self) -> None:
        while not self._closing.is_set():
            try:
                self.source.connect()
                self._carry_out()
                found = self.source.poll(0.0) if self.source.has_credit() else ()
            except self.source.errors as error:
                self.source.lost()
                self._failed(error)
            except Exception as error:  # an error of this code, or unusable options
                self._failed(error)
                logger.exception("%s: connecting failed", self._shown, extra={"action": "poll_failed"})
            else:
                if self._done(found):
                    return
            self._closing.wait(EVERY)
        self.source.close()

    def _done(self, found: Sequence[Any]) -> bool:
        """Hand the server over to the polling thread; return False if the source was closed meanwhile."""
        self.brought.extend(found)
        if self._failures:
            self._failures = 0
            self.doubted_until = monotonic() + DOUBTED
            logger.info("%s: the server is back", self._shown, extra={"action": "shard_back"})
        self.error = None
        self._health.answered(self.place)
        with self._lock:
            if self._closing.is_set():
                return False
            self.is_open = True
        self._woken()
        return True

    def _failed(self, error: BaseException) -> None:
        """Record and log a failure; log the first, the second, the fourth, the eighth … in a row."""
        self.error = error
        self._health.failed(self.place, BrokerUnavailable(self._shown, error))
        self._failures += 1
        if self._failures & (self._failures - 1) == 0:
            logger.warning(
                "%s: the server is away (%s); the others are read, and it is tried every %g s",
                self._shown, error, EVERY,
                extra={"action": "shard_away"},
            )  # fmt: skip
        self._woken()

    def _carry_out(self) -> None:
        while self._orders:
            self._orders[0]()  # if the connection is lost, the order is kept for the next one
            self._orders.popleft()
