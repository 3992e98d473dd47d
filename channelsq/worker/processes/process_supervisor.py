"""The supervisor of a worker's channel processes: it starts, commands and restarts them."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from celery import Celery

from channelsq import conf
from channelsq.asgi import channel_layers
from channelsq.core.streaming import Streaming, bound
from channelsq.layers.redis import RedisChannelLayer
from channelsq.transport.streams_channel import Channel
from channelsq.worker.processes import python_internals
from channelsq.worker.processes.channel_process import CUT, DONE
from channelsq.worker.processes.pipe import PatientPipe, Pipe

logger = logging.getLogger("channelsq.worker")

#: The uptime, in seconds, after which a process is replaced at once, and the pause between two starts otherwise.
LIVED, PAUSE = 10.0, 1.0

#: The most times that the pause between the starts of processes that end before they read a channel is doubled.
MOST_DOUBLINGS = 5

#: Packages whose modules may hold the project's app without creating it.
_HOLDERS = ("celery", "channelsq")

#: The time limit, in seconds, for an answer of a process: ``celery inspect`` waits one second for the worker's whole
#: answer.
ANSWERED_WITHIN = 0.5


class Supervisor:
    """The channel processes of a worker.

    Args:
        app: the worker's Celery app.
        hostname: the worker's hostname.
        channels: the channels to read, by the alias of their layer.
        processes: the number of processes.
        threads: the number of consumers of a layer that run at once in each process.
        on_event: called with the type and the fields of each event.
        settings: ``loglevel``, ``logfile``, ``max_messages`` (after which a process is recycled; 0 for never) and
            ``max_memory`` (KB).
    """

    def __init__(
        self,
        app: Celery,
        hostname: str,
        channels: Mapping[str, Sequence[str]],
        processes: int,
        threads: int,
        on_event: Callable[..., None],
        settings: Mapping[str, Any],
    ) -> None:
        self._channels = {alias: list(names) for alias, names in channels.items()}
        self._number = processes
        self.threads = threads
        self._on_event = on_event
        self._options = {
            "app": name_of(app),
            "hostname": hostname,
            "threads": threads,
            "worker": os.getpid(),
            "own_loglevel": logging.getLogger("channelsq").level,  # see `manage.py runworker -v 2`
            **settings,
        }
        self._lock = threading.Lock()
        self._children: list[Child] = []
        self._monitors: list[threading.Thread] = []
        self._leaving: list[threading.Thread] = []
        self._stopping: str | None = None
        self._wake = threading.Event()
        #: The first messages for a new process, by kind.
        self._last_messages: dict[str, dict[str, Any]] = {}

    # -- Called by the worker

    def start(self) -> None:
        """Start the processes."""
        for _ in range(self._number):
            self._add()

    def _add(self, instead_of: Child | None = None) -> None:
        """Supervise one more process, or a replacement for another one."""
        with self._lock:
            self._monitors = [monitor for monitor in self._monitors if monitor.is_alive()]
            monitor = threading.Thread(target=self._keep_one, args=(instead_of,), name="channelsq-process", daemon=True)
            self._monitors.append(monitor)
            monitor.start()

    def stop(self, how: str = "warm") -> None:
        """Tell the processes to end, and return at once.

        Args:
            how: ``"warm"`` if running consumers may finish, ``"cold"`` if not; a cold shutdown cannot become warm.
        """
        with self._lock:
            self._stopping = how = "cold" if self._stopping == "cold" else how
        self._wake.set()
        for child in self.children():
            child.pipe.send(stop=how)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the processes have ended; return False after so many seconds."""
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            with self._lock:
                thread = next((each for each in (*self._monitors, *self._leaving) if each.is_alive()), None)
            if thread is None:
                return True
            thread.join(None if until is None else max(0.0, until - time.monotonic()))
            if until is not None and time.monotonic() >= until:
                return not thread.is_alive() and self.wait(0)

    def kill(self) -> None:
        """Kill the processes that do not obey."""
        for child in self.children():
            logger.error("the channel process %d is killed", child.process.pid, extra={"action": "process_killed"})
            child.process.kill()

    def children(self) -> list[Child]:
        """Return the running processes."""
        with self._lock:
            return list(self._children)

    def tell(self, kind: str, **message: Any) -> None:
        """Send a message to every process, now and whenever a process is started.

        Args:
            kind: the subject; a new message replaces the former one on the same subject.
            message: see :class:`channelsq.worker.processes.channel_process.ChannelProcess`.
        """
        with self._lock:
            self._last_messages[kind] = message
        for child in self.children():
            child.pipe.send(**message)

    def ask(self, what: str) -> Iterator[Any]:
        """Yield the answers of the processes to a question; skip processes that are starting or do not answer."""
        asked = [(child, child.ask(what)) for child in self.children() if child.was_ready]
        until = time.monotonic() + ANSWERED_WITHIN
        for child, number in asked:
            answer = child.answer(number, max(0.0, until - time.monotonic()))
            if answer is not None:
                yield answer

    def streaming(self, alias: str) -> Streaming:
        """Return the streaming responses to a layer's requests in all processes."""
        unknown = Streaming(0, bound(channel_layers[alias].streaming_responses, self.threads))
        return sum((child.streaming.get(alias, unknown) for child in self.children()), Streaming(0, 0))

    def read(self, alias: str, channel: str) -> None:
        """Read one more channel, also of a layer that was not read before."""
        self._channels.setdefault(alias, []).append(channel)
        for child in self.children():
            child.pipe.send(read=channel, alias=alias)

    def cease(self, alias: str, channel: str) -> None:
        """Stop reading a channel."""
        self._channels[alias].remove(channel)
        for child in self.children():
            child.pipe.send(cease=channel, alias=alias)

    # -- One process

    def _keep_one(self, instead_of: Child | None) -> None:
        """Start a process, in a thread, and again when it has ended, until the worker ends."""
        died = False
        failed = 0  # starts in a row without a process that reads channels
        while self._stopping is None:
            began = time.monotonic()
            failed += 1
            try:
                child = self._start(instead_of, after_death=died)
            except Exception:
                logger.exception("a channel process could not be started", extra={"action": "process_failed"})
            else:
                died = self._follow(child)
                if child.is_replaced:
                    return
                if child.was_ready:
                    instead_of = None
                    failed = 0
            if self._stopping is None and (failed or time.monotonic() - began < LIVED):
                pause = PAUSE * 2 ** min(max(0, failed - 1), MOST_DOUBLINGS)
                if failed > 1:
                    logger.error(
                        "%d channel processes in a row ended before they read a channel; the reason is above. The "
                        "next one is started in %d s", failed, pause, extra={"action": "processes_unready"},
                    )  # fmt: skip
                self._wake.wait(pause)

    def _start(self, instead_of: Child | None, *, after_death: bool) -> Child:
        mine, its = socket.socketpair()
        with its:
            options = {**self._options, "channels": self._channels, "after_death": after_death}
            program = [
                sys.executable,
                *python_internals.interpreter_options(),
                "-m",
                "channelsq.worker.processes.channel_process",
            ]
            its.set_inheritable(True)
            process = subprocess.Popen(  # noqa: S603  # the arguments are this program's own
                [*program, str(its.fileno()), json.dumps(options)], pass_fds=[its.fileno()]
            )
        child = Child(process, PatientPipe(mine), instead_of)
        with self._lock:
            self._children.append(child)
            messages, stopping = [*self._last_messages.values()], self._stopping
        for message in messages:
            child.pipe.send(**message)
        if stopping is not None:
            child.pipe.send(stop=stopping)
        return child

    def _follow(self, child: Child) -> bool:
        """Handle the messages of a process until it has ended; return whether a message may have caused a crash."""
        threading.Thread(target=child.close_when_ended, name="channelsq-process-end", daemon=True).start()
        for message in child.pipe.messages():
            try:
                self._heed(child, message)
            except Exception:
                logger.exception("a message of a channel process was lost", extra={"action": "process_unheard"})
        code = child.process.wait()
        with self._lock:
            self._children.remove(child)
        if child.last_word == DONE:
            return False
        is_to_blame = child.last_word != CUT and self._stopping != "cold"
        if is_to_blame:
            logger.error(
                "the channel process %d died of %s; what it had begun is counted, and %s",
                child.process.pid, f"signal {-code}" if code < 0 else f"exit code {code}",
                "another one is started" if self._stopping is None else "left to other workers",
                extra={"action": "process_died"},
            )  # fmt: skip
        self._leave_aside(child, guilty=is_to_blame)
        return is_to_blame

    def _heed(self, child: Child, message: dict[str, Any]) -> None:
        match message:
            case {"ready": _}:
                child.was_ready = True
                replaced, child.instead_of = child.instead_of, None
                if replaced is not None:
                    replaced.pipe.send(stop="recycle")
            case {"holds": alias, "consumer": consumer}:
                child.holds.append((alias, consumer))
            case {"streaming": streaming}:
                child.streaming = {alias: Streaming(*state) for alias, state in streaming.items()}
            case {"event": kind, "fields": fields}:
                self._on_event(kind, **fields)
            case {"answer": number, "value": value}:
                child.answered(number, value)
            case {"recycle": _}:  # it continues until its replacement is ready
                logger.info("process %d is recycled", child.process.pid, extra={"action": "process_recycled"})
                child.is_replaced = True
                self._add(child)
            case {"ended": word}:
                child.last_word = word

    def _leave_aside(self, child: Child, *, guilty: bool) -> None:
        """Call :meth:`_leave` in a thread: an unresponsive layer must not delay the next process."""
        leaving = threading.Thread(
            target=self._leave, args=(child,), kwargs={"guilty": guilty}, name="channelsq-leaving", daemon=True
        )
        with self._lock:
            self._leaving = [thread for thread in self._leaving if thread.is_alive()]
            self._leaving.append(leaving)
        leaving.start()

    def _leave(self, child: Child, *, guilty: bool) -> None:
        """Give the messages of an ended process to other workers before its lease expires.

        Args:
            guilty: whether a message may have caused a crash; then the crash is counted.
        """
        for alias, consumer in child.holds:
            for part in channel_layers[alias].channel_layer.parts:
                layer = cast(RedisChannelLayer, part)
                try:
                    self._release(layer, self._channels[alias], consumer, guilty=guilty)
                except Exception as error:  # any error of the connection; others then wait for the lease to expire
                    logger.warning("%s: %s", alias, error, extra={"action": "leave_failed"})

    @staticmethod
    def _release(layer: RedisChannelLayer, channels: Iterable[str], consumer: str, *, guilty: bool) -> None:
        with layer.open_connection() as connection:
            channel = cast(Channel, connection.default_channel)
            if guilty:
                channel.carry_out(channel.streams.expire_lease(consumer))
            else:
                keys = [key for name in channels for key in channel.keys_of(layer.queue(name).name)]
                channel.carry_out(channel.streams.end_consumers(keys, [consumer]))


class Child:
    """One channel process.

    Args:
        process: the process.
        pipe: the pipe to the process.
        instead_of: the process that ends when this one is ready.
    """

    def __init__(self, process: subprocess.Popen[bytes], pipe: Pipe, instead_of: Child | None = None) -> None:
        self.process = process
        self.pipe = pipe
        self.instead_of = instead_of
        #: Whether another process replaces this one.
        self.is_replaced = False
        #: Its last report; None after a crash.
        self.last_word: str | None = None
        self.was_ready = False
        #: The alias of each layer, and the consumer name that holds the layer's messages.
        self.holds: list[tuple[str, str]] = []
        #: Its streaming responses, by the alias of the layer; at most a second old.
        self.streaming: dict[str, Streaming] = {}
        self._changed = threading.Condition()
        self._asked = 0
        self._answers: dict[int, Any] = {}

    def close_when_ended(self) -> None:
        """Wait for the end of the process, in a thread, and close the pipe.

        A program that a consumer has forked may keep the other end open.
        """
        self.process.wait()
        self.pipe.close()

    def ask(self, what: str) -> int:
        """Send the process a question; return the number of the question."""
        with self._changed:
            self._asked += 1
            number = self._asked
            self._answers.clear()  # answers that came too late
        self.pipe.send(ask=what, number=number)
        return number

    def answered(self, number: int, value: Any) -> None:
        """Store an answer."""
        with self._changed:
            self._answers[number] = value
            self._changed.notify_all()

    def answer(self, number: int, seconds: float) -> Any:
        """Return an answer; None if it does not arrive within so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: number in self._answers, seconds)
            return self._answers.pop(number, None)


def name_of(app: Celery) -> str:
    """Return the name of a Celery app for ``-A``, so that another process finds it.

    Modules of the project are preferred: other packages may hold an app that they got from it.

    Raises:
        RuntimeError: no module has the app as an attribute.
    """
    ours = {name.partition(".")[0] for name in conf.project_modules()}
    found = [
        (name.partition(".")[0] not in ours, f"{name}:{attribute}")
        for name, module in tuple(sys.modules.items())
        if name != "__main__" and name.partition(".")[0] not in _HOLDERS and hasattr(module, "__dict__")
        for attribute, value in tuple(vars(module).items())
        if value is app
    ]
    if found:
        return min(found, key=lambda each: each[0])[1]
    raise RuntimeError(
        f"no module contains {app!r}, so a channel process could not find it; start the worker with -P threads or "
        "-P solo, or create the app in a module"
    )
