"""Many WebSockets of one page that account for every message."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect as connect_here

from tests.support.waiting import wait_until

Talk = Callable[[int, ClientConnection], Awaitable[None]]


class Sockets:
    """Sockets in a thread with an event loop, each in the hands of a coroutine.

    Args:
        url: of the page; ``{}`` is the socket's number.
        count: how many.
        talk: called with the number and the connection, which is closed when it returns.
    """

    def __init__(self, url: str, count: int, talk: Talk) -> None:
        self.url = url
        self.count = count
        self.opened = 0
        #: What ended sockets early, by number.
        self.failures: dict[int, BaseException] = {}
        self._talk = talk
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="sockets", daemon=True)

    def start(self) -> None:
        """Open them."""
        self._thread.start()

    def join(self, timeout: float) -> None:
        """Wait until all have ended; AssertionError if they do not, or if any ended early."""
        self._thread.join(timeout)
        assert not self._thread.is_alive(), f"sockets still talk after {timeout:g} s"
        assert not self.failures, self.failures

    async def _run(self) -> None:
        await asyncio.gather(*(self._one(number) for number in range(self.count)))

    async def _one(self, number: int) -> None:
        try:
            async with connect(self.url.format(number), compression=None, open_timeout=60, ping_interval=None) as one:
                self.opened += 1
                await self._talk(number, one)
        except (OSError, ConnectionClosed, InvalidStatus, TimeoutError) as error:
            self.failures[number] = error


class Swarm(Sockets):
    """Sockets that send numbered frames and wait for each one's echo, and so on until they are told to stop.

    Args:
        url: of a page that echoes; ``{}`` is the socket's number.
        count: how many sockets.
        window: how many frames of one may be unanswered.
    """

    def __init__(self, url: str, count: int, window: int = 2) -> None:
        super().__init__(url, count, self._echo)
        self.window = window
        self.sent: set[str] = set()
        self.answers: Counter[str] = Counter()
        #: When answers came, by time.monotonic().
        self.times: list[float] = []
        #: The same of each socket, by number.
        self.times_of: defaultdict[int, list[float]] = defaultdict(list)
        self._stopping = False
        self._patience, self._quiet = 0.0, math.inf

    def start(self) -> None:
        """Open the sockets; returns when each has had an answer."""
        super().start()
        wait_until(lambda: len(self.answers) >= self.count or self.failures, "the first answers", 60)
        assert not self.failures, self.failures

    def wait_for(self, answers: int, timeout: float = 30.0) -> None:
        """Wait for so many more answers."""
        goal = len(self.times) + answers
        wait_until(lambda: len(self.times) >= goal or self.failures, f"{answers} more answers", timeout)
        assert not self.failures, self.failures

    def stop(self, patience: float = 30.0, quiet: float = math.inf) -> set[str]:
        """Send no more, wait for what is unanswered; gives what stayed so.

        Args:
            patience: seconds to wait at most.
            quiet: seconds in which no socket gets an answer, after which the rest counts as lost.
        """
        self._patience, self._quiet = patience, quiet
        self._stopping = True
        self.join(patience + 30)
        return self.sent - set(self.answers)

    def give_up(self) -> None:
        """End, if it has not yet, whatever is unanswered."""
        self._stopping = True
        self._thread.join(10)

    def longest_gap(self, since: float) -> float:
        """The most seconds without any answer, from ``since`` (time.monotonic()) on."""
        return _longest_gap(self.times, since)

    def longest_silence(self, since: float) -> float:
        """The most seconds that any single socket was without an answer, from ``since`` on."""
        return max(_longest_gap(self.times_of[number], since) for number in range(self.count))

    async def _echo(self, number: int, socket: ClientConnection) -> None:
        credit = asyncio.Semaphore(self.window)
        mine: set[str] = set()

        async def read() -> None:
            async for text in socket:
                assert isinstance(text, str)
                self.times.append(time.monotonic())
                self.times_of[number].append(self.times[-1])
                self.answers[text] += 1
                if text in mine:
                    mine.discard(text)
                    credit.release()

        reader = asyncio.ensure_future(read())
        try:
            frame = 0
            while not self._stopping and not reader.done():
                try:
                    await asyncio.wait_for(credit.acquire(), 0.1)
                except TimeoutError:
                    continue
                text = f"{number}-{frame}"
                frame += 1
                mine.add(text)
                self.sent.add(text)
                await socket.send(text)
                await asyncio.sleep(random.uniform(0.0, 0.05))
            end = time.monotonic() + self._patience
            began = time.monotonic()
            while mine and time.monotonic() < min(end, max(began, self.times[-1]) + self._quiet) and not reader.done():
                await asyncio.sleep(0.02)
            if reader.done():
                reader.result()
                raise ConnectionClosed(None, None)  # before its time
        finally:
            reader.cancel()


def _longest_gap(moments: Iterable[float], since: float) -> float:
    times = [since, *sorted(moment for moment in moments if moment > since)]
    return max((after - before for before, after in itertools.pairwise(times)), default=float("inf"))


def echoes(url: str) -> bool:
    """Return whether a new socket gets an echo."""
    try:
        with connect_here(url, compression=None, open_timeout=5) as socket:
            socket.send("probe")
            return socket.recv(timeout=5) == "probe"
    except (OSError, TimeoutError, InvalidStatus, ConnectionClosed):
        return False
