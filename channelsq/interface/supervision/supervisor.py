"""``--workers N``: several processes of an interface server on the same ports, and a process that supervises them.

The supervisor binds sockets for each process (``SO_REUSEPORT``, so that the kernel distributes connections) and keeps
it open.  A process inherits its socket and is a new Python, which loads the current code and settings.  Its successor
inherits the same socket: connections that no process has accepted yet wait in it and are not lost.  They would be lost
if each process closed a socket of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from channelsq.interface.basis.command_line import ConfigError
from channelsq.interface.basis.log_fields import extra
from channelsq.interface.basis.sockets import bind, check_unix_socket, url_of
from channelsq.interface.supervision.supervised import VARIABLE, Supervised

logger = logging.getLogger("channelsq.interface.supervisor")

#: The exit code of a process with unusable settings; it has logged the reason.
UNUSABLE = 2

#: Seconds that a new process may take until clients can connect to it.
START_TIMEOUT = 120.0

#: Seconds before a process that ended by itself is restarted: the first wait, and the longest; and the lifetime after
#: which the next wait is the first again.
WAITS, LIVED = (0.1, 5.0), 30.0

#: Seconds after the drain at which a process that does not end is killed.
PATIENCE = 25.0


@dataclass(frozen=True, slots=True)
class Address:
    """An address on which the processes listen."""

    host: str
    port: int
    #: The option that sets the port, for error texts.
    option: str = "--port"


@dataclass(frozen=True, slots=True)
class Together:
    """The values that the processes have in common.

    Attributes:
        command: the arguments after the interpreter that start one of them.
        workers: their number.
        addresses: the addresses on which they listen, the one that the log names first.
        drain: the seconds that a process may take for its shutdown.
        unix_socket: the path of the socket on which they listen instead of any address.
    """

    command: Sequence[str]
    workers: int
    addresses: Sequence[Address]
    drain: float
    unix_socket: str | None = None


class Worker:
    """One process.

    Args:
        number: its number, from 1.
        process: the process of asyncio.
        ready: resolved with True when clients can connect, with False if the process ended before.
    """

    def __init__(self, number: int, process: asyncio.subprocess.Process, ready: asyncio.Future[bool]) -> None:
        self.number = number
        self.process = process
        self.ready = ready
        self.begun = time.monotonic()

    def signal(self, number: int) -> None:
        """Send a signal, if the process still runs."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)


class _Failed(Exception):
    """A process did not become ready."""

    def __init__(self, code: int | None) -> None:
        self.code = code


class Supervisor:
    """A supervisor that serves with several processes until it is told to stop.

    Args:
        together: the values that the processes have in common.
        sockets: bound sockets to listen on, instead of the addresses; closed at the end.

    Raises:
        ConfigError: the system does not support several processes.
    """

    def __init__(self, together: Together, sockets: Sequence[socket.socket] = ()) -> None:
        if os.name != "posix":
            raise ConfigError(
                "--workers needs a POSIX system; leave it out, and start several processes on other ports"
            )
        self._together = together
        self._sockets = list(sockets)
        #: The sockets of each process, by address.
        self._slots: list[list[list[socket.socket]]] = [[] for _ in range(together.workers)]
        #: The current processes, by number.
        self._workers: dict[int, Worker] = {}
        #: All processes that were started and have not ended, also those that were replaced.
        self._alive: set[Worker] = set()
        #: Seconds until each number's next restart.
        self._waits: dict[int, float] = {}
        self._tasks: set[asyncio.Future[None]] = set()
        self._stop = asyncio.Event()
        self._renew = asyncio.Event()
        self._signal: signal.Signals = signal.SIGTERM
        self._life_read, self._life_write = os.pipe()
        self._folder: Path

    def run(self) -> int:
        """Serve; return the exit code.

        Raises:
            ConfigError: the server cannot listen on its address.
        """
        with tempfile.TemporaryDirectory(prefix="channelsq-") as folder:
            self._folder = Path(folder)
            try:
                self._bind()
                return asyncio.run(self._serve())
            finally:
                for each in itertools.chain(*itertools.chain(*self._slots)):
                    each.close()
                if self._together.unix_socket is not None and self._slots[0]:
                    with contextlib.suppress(OSError):
                        os.unlink(self._together.unix_socket)
                os.close(self._life_write)
                os.close(self._life_read)

    def _bind(self) -> None:
        if self._sockets:
            self._share(self._sockets)
            return
        path = self._together.unix_socket
        if path is not None:
            check_unix_socket(path)
            self._share([_bind_unix(path)])
            return
        for address in self._together.addresses:
            probe = bind(address.host, address.port, option=address.option)
            port = probe[0].getsockname()[1]
            if not hasattr(socket, "SO_REUSEPORT"):
                self._share(probe)
                continue
            # Sharing a port raises no error, so the check whether another process uses it must not share it.
            for each in probe:
                each.close()
            for slot in self._slots:
                slot.append(bind(address.host, port, shared=True, option=address.option))

    def _share(self, sockets: list[socket.socket]) -> None:
        """Give the same sockets to every process."""
        for slot in self._slots:
            slot.append(sockets)

    # -- one process ------------------------------------------------------------------------

    async def _start(self, number: int) -> Worker:
        loop = asyncio.get_running_loop()
        read, write = os.pipe()
        fds = tuple(tuple(each.fileno() for each in address) for address in self._slots[number - 1])
        given = Supervised(number, fds, write, self._life_read, self._folder)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, *self._together.command,
                env={**os.environ, VARIABLE: given.to_text()},
                pass_fds=(*itertools.chain(*fds), write, self._life_read),
                process_group=0,  # the supervisor passes a terminal's Ctrl-C on
            )  # fmt: skip
        finally:
            os.close(write)
        ready: asyncio.Future[bool] = loop.create_future()

        def heard() -> None:
            loop.remove_reader(read)
            said = os.read(read, 1)
            os.close(read)
            if not ready.done():
                ready.set_result(bool(said))

        loop.add_reader(read, heard)
        return Worker(number, process, ready)

    async def _begin(self, number: int) -> Worker:
        """Start a process and wait until clients can connect to it, or until the shutdown.

        Raises:
            _Failed: it ended, or took too long; the log has the reason.
        """
        worker = await self._start(number)
        self._alive.add(worker)
        await self._first(worker.ready, START_TIMEOUT)
        if self._stop.is_set() or (worker.ready.done() and worker.ready.result()):
            return worker
        if worker.ready.done():
            code = await worker.process.wait()
            self._alive.discard(worker)
            logger.error("process %d ended before it was ready, %s", number, _how(code), extra=extra("worker_failed"))
            raise _Failed(code)
        logger.error("process %d is not ready after %g s", number, START_TIMEOUT, extra=extra("worker_late"))
        await self._end(worker)
        raise _Failed(None)

    async def _end(self, worker: Worker) -> None:
        """Shut a process down."""
        worker.signal(self._signal)
        try:
            async with asyncio.timeout(self._together.drain + PATIENCE):
                await worker.process.wait()
        except TimeoutError:
            logger.error("process %d does not end; killing it", worker.number, extra=extra("worker_killed"))
            worker.signal(signal.SIGKILL)
            await worker.process.wait()
        self._alive.discard(worker)

    async def _first(self, awaited: asyncio.Future[Any], timeout: float | None = None) -> None:
        """Wait for a future, but not beyond the shutdown."""
        stopped = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({awaited, stopped}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()

    # -- all of them ------------------------------------------------------------------------

    async def _serve(self) -> int:
        loop = asyncio.get_running_loop()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, self._on_stop, each)
        loop.add_signal_handler(signal.SIGHUP, self._renew.set)
        try:
            first = await self._begin(1)  # alone, so that unusable settings are reported once
        except _Failed as failed:
            return UNUSABLE if failed.code == UNUSABLE else 1
        self._put(first)
        self._go_on(self._have_the_others())
        self._go_on(self._renew_when_told())
        await self._stop.wait()
        await asyncio.gather(*(self._end(worker) for worker in self._workers.values()))
        while self._tasks:
            await asyncio.gather(*self._tasks)
        return 0

    @property
    def _url(self) -> str:
        if self._together.unix_socket is not None:
            return f"unix:{self._together.unix_socket}"
        return url_of(self._together.addresses[0].host, self._slots[0][0][0])

    def _on_stop(self, number: signal.Signals) -> None:
        again = self._stop.is_set()
        self._signal = number
        self._stop.set()
        if again:
            for worker in self._alive:
                worker.signal(number)

    def _go_on(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _put(self, worker: Worker) -> None:
        """Make this process the current one of its number."""
        self._workers[worker.number] = worker
        self._go_on(self._watch(worker))

    async def _watch(self, worker: Worker) -> None:
        """Restart a process that ends by itself."""
        code = await worker.process.wait()
        self._alive.discard(worker)
        if self._workers.get(worker.number) is not worker or self._stop.is_set():
            return
        del self._workers[worker.number]
        logger.error("process %d ended, %s; restarting it", worker.number, _how(code), extra=extra("worker_ended"))
        if time.monotonic() - worker.begun > LIVED:
            self._waits.pop(worker.number, None)
        await self._have(worker.number)

    async def _have(self, number: int) -> None:
        """Start a process, and retry until it succeeds."""
        while not self._stop.is_set() and number not in self._workers:
            wait = self._waits.get(number, 0.0)
            self._waits[number] = min(max(2 * wait, WAITS[0]), WAITS[1])
            await self._first(asyncio.ensure_future(asyncio.sleep(wait)))
            if self._stop.is_set() or number in self._workers:
                return
            with contextlib.suppress(_Failed):
                await self._take(await self._begin(number))

    async def _have_the_others(self) -> None:
        await asyncio.gather(*(self._have(number) for number in range(2, self._together.workers + 1)))
        if not self._stop.is_set():
            logger.info("%d processes serve %s", self._together.workers, self._url, extra=extra("supervising"))

    async def _take(self, worker: Worker) -> None:
        if self._stop.is_set() or worker.number in self._workers:
            await self._end(worker)
        else:
            self._put(worker)

    async def _renew_when_told(self) -> None:
        while True:
            await self._first(asyncio.ensure_future(self._renew.wait()))
            if self._stop.is_set():
                return
            self._renew.clear()
            logger.info("replacing %d processes", self._together.workers, extra=extra("replacing"))
            try:
                for number in range(1, self._together.workers + 1):
                    await self._replace(number)
            except _Failed:
                logger.error(
                    "the old processes continue; fix the error and send SIGHUP again",
                    extra=extra("replacing_failed"),
                )
            else:
                logger.info("replaced %d processes", self._together.workers, extra=extra("replaced"))

    async def _replace(self, number: int) -> None:
        """Start a new process, then end the old one: clients can connect all the time."""
        if self._stop.is_set():
            return
        new = await self._begin(number)
        old = self._workers.pop(number, None)
        await self._take(new)
        if old is not None:
            await self._end(old)  # one after the other, so that the reconnecting sockets spread over the others


def this_program() -> list[str]:
    """Return the arguments after the interpreter that start the program of this process again, without its own."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None:
        return [sys.argv[0]]
    return ["-m", spec.name.removesuffix(".__main__")]


def _how(code: int | None) -> str:
    if code is None:
        return "for an unknown reason"
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"


def _bind_unix(path: str) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # of a server that has ended
    bound = socket.socket(socket.AF_UNIX)
    try:
        bound.bind(path)
    except OSError as error:
        bound.close()
        raise ConfigError(f"cannot listen on {path}: {error.strerror}; choose another with --unix-socket") from None
    os.chmod(path, 0o666)  # noqa: S103 - as uvicorn makes it
    bound.setblocking(False)
    return bound
