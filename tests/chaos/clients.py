"""Sockets as pages have them: they connect again when they are closed, and send again what has no answer."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections import deque
from dataclasses import dataclass, field

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from tests.chaos import room_of

#: Frames of one socket that may be without an answer.
WINDOW = 3

#: Seconds: what a page waits for a handshake, and between two attempts.
HANDSHAKE = 12.0
AGAIN = 0.1, 1.0


@dataclass
class Turn:
    """One connection of a client.  Times by the monotonic clock."""

    number: int
    turn: int
    interface: int
    began: float
    #: When the application's welcome came, and the name that it told.
    opened: float | None = None
    name: str = ""
    #: What was sent, in order, with times; and answers.
    sent: list[tuple[str, float]] = field(default_factory=list)
    answers: list[tuple[str, float]] = field(default_factory=list)
    #: Numbers of the group's messages, as they came, and when.
    group: list[int] = field(default_factory=list)
    group_times: list[float] = field(default_factory=list)
    #: Texts of the driver's last message to the group.
    last: int = 0
    #: What came that was for somebody else, or is nothing that was sent.
    strange: list[str] = field(default_factory=list)
    closed: float | None = None
    code: int | None = None
    #: Whether the client closed it itself.
    own_end: bool = False


class Clients:
    """So many clients in one event loop.

    Args:
        ports: of the interface servers.
        count: how many clients.
        rate: messages a second of all together.
        seed: of when they send and leave.
        patience: seconds after which what has no answer is sent once more on the same socket.
        leave: the share of messages after which a client closes its socket by itself and comes back.
    """

    def __init__(
        self, ports: list[int], count: int, rate: float, seed: int, patience: float, leave: float = 0.004
    ) -> None:
        self.ports = ports
        self.count = count
        self.pause = count / rate
        self.patience = patience
        self.leave = leave
        self.turns: list[Turn] = []
        #: Every message that was begun, and those that were answered.
        self.begun: set[str] = set()
        self.answered: set[str] = set()
        #: Messages that were sent once more although their socket was open.
        self.repeated: list[tuple[str, float]] = []
        self.failures: dict[str, int] = {}
        self.sending = True
        self.ending = False
        self.current: dict[int, Turn] = {}
        self._random = random.Random(seed)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to connect."""
        self._tasks = [asyncio.create_task(self._live(number)) for number in range(self.count)]

    @property
    def open(self) -> int:
        """The number of open sockets."""
        return len(self.current)

    @property
    def unanswered(self) -> int:
        """The number of messages that wait for an answer."""
        return len(self.begun) - len(self.answered)

    async def finish(self) -> None:
        """Close all sockets."""
        self.ending = True
        await asyncio.wait(self._tasks, timeout=30)
        for task in self._tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome

    async def _live(self, number: int) -> None:
        """One client: a connection after the other, with what has no answer carried over."""
        owed: deque[str] = deque()
        numbers = itertools.count()
        await asyncio.sleep(self._random.uniform(0, min(3.0, self.count / 150)))
        for turn in itertools.count():
            interface = self._random.randrange(len(self.ports))
            record = Turn(number, turn, interface, time.monotonic())
            self.turns.append(record)
            url = f"ws://127.0.0.1:{self.ports[interface]}/chaos/{number}/{turn}/"
            try:
                async with connect(
                    url, compression=None, open_timeout=HANDSHAKE, ping_interval=None, close_timeout=5, max_queue=None
                ) as socket:
                    await self._talk(record, socket, owed, numbers)
            except (OSError, TimeoutError, InvalidHandshake, InvalidMessage, ConnectionClosed) as error:
                kind = type(error).__name__
                self.failures[kind] = self.failures.get(kind, 0) + 1
            finally:
                self.current.pop(number, None)
                record.closed = time.monotonic()
            if self.ending:
                return
            await asyncio.sleep(self._random.uniform(*AGAIN))

    async def _talk(
        self, turn: Turn, socket: ClientConnection, owed: deque[str], numbers: itertools.count[int]
    ) -> None:
        credit = asyncio.Semaphore(WINDOW)
        reader = asyncio.create_task(self._read(turn, socket, owed, credit))
        try:
            await self._write(turn, socket, owed, numbers, credit, reader)
            if self.ending or not reader.done():
                turn.own_end = True
                await socket.close()
        finally:
            await asyncio.wait([reader], timeout=1)
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionClosed):
                await reader
            turn.code = socket.close_code

    async def _read(self, turn: Turn, socket: ClientConnection, owed: deque[str], credit: asyncio.Semaphore) -> None:
        async for text in socket:
            now = time.monotonic()
            match str(text).split(" "):
                case ["welcome", name, number, times] if (int(number), int(times)) == (turn.number, turn.turn):
                    if turn.opened is None:
                        turn.opened, turn.name = now, name
                        self.current[turn.number] = turn
                    elif turn.name != name:
                        turn.strange.append(str(text))
                case ["answer", number, times, what] if (int(number), int(times)) == (turn.number, turn.turn):
                    turn.answers.append((what, now))
                    self.answered.add(what)
                    if what in owed:
                        owed.remove(what)
                        credit.release()
                case ["group", room, what] if room == room_of(turn.number):
                    turn.group.append(int(what))
                    turn.group_times.append(now)
                case ["last", room] if room == room_of(turn.number):
                    turn.last += 1
                case _:
                    turn.strange.append(str(text))

    async def _write(
        self,
        turn: Turn,
        socket: ClientConnection,
        owed: deque[str],
        numbers: itertools.count[int],
        credit: asyncio.Semaphore,
        reader: asyncio.Task[None],
    ) -> None:
        again = list(owed)
        due: dict[str, float] = {}
        next_at = time.monotonic() + self._random.uniform(0, self.pause)
        while not reader.done() and not self.ending:
            now = time.monotonic()
            if turn.opened is None and now - turn.began > self.patience:
                return  # its consumer failed, as its groups could not be reached; a page would try again
            for what in again:
                await credit.acquire()
                await self._send(turn, socket, what, due)
            again.clear()
            for what in list(owed):
                if due.get(what, now) + self.patience < now:
                    self.repeated.append((what, now))
                    await self._send(turn, socket, what, due)
            if self.sending and now >= next_at and not credit.locked():
                await credit.acquire()
                what = f"{turn.number}-{next(numbers)}"
                owed.append(what)
                self.begun.add(what)
                await self._send(turn, socket, what, due)
                next_at = now + self._random.uniform(0.5, 1.5) * self.pause
                if self._random.random() < self.leave:
                    return
            await asyncio.wait([reader], timeout=min(0.5, max(0.01, next_at - time.monotonic())))

    async def _send(self, turn: Turn, socket: ClientConnection, what: str, due: dict[str, float]) -> None:
        now = due[what] = time.monotonic()
        turn.sent.append((what, now))
        await socket.send(what)
