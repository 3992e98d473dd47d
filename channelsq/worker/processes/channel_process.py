"""A channel process: a process of a worker that only runs consumers, in threads.

A thread beside a pool that forks could hold a lock at the moment of a fork, and the child would wait for that lock.  So
a worker with such a pool starts channel processes for its consumers (``python -m
channelsq.worker.processes.channel_process``); see :mod:`channelsq.worker.processes.process_supervisor`.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from celery import Celery, signals
from celery.app.utils import find_app

from channelsq import conf
from channelsq.core import streaming
from channelsq.delivery import shutdown
from channelsq.worker.processes import python_internals
from channelsq.worker.processes.pipe import Pipe
from channelsq.worker.running import celery_state_internals, celery_tracer_internals, database_connections
from channelsq.worker.sources import held_messages
from channelsq.worker.sources.crew import Crew

#: The last report of a process: it holds no messages, or it was ended while consumers ran.  A process without such a
#: report crashed.
DONE, CUT = "done", "cut"

#: Seconds before a process takes over the messages of a crashed one.  Meanwhile it serves other messages: the message
#: that caused the crash may end the new process at once.
RELUCTANCE = 1.0

#: The time limit, in seconds, of functions registered with ``atexit``.
EXIT_WITHIN = 5.0

#: Seconds between two checks that the worker runs, and whether the process must be recycled.
_LOOK_EVERY = 1.0


class Eventer:
    """Sends events through the worker.

    Args:
        pipe: the pipe to the worker.
    """

    #: An attribute of Celery's dispatcher; the worker's own dispatcher filters the events.
    groups: frozenset[str] = frozenset()

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self.enabled = False

    def of(self, identity: str) -> Eventer | None:
        """Return the sender for the events of a message; None if they are not sent."""
        return self if conf.sends_events(identity) else None

    def send(self, kind: str, **fields: Any) -> None:
        """Send an event, as Celery's dispatcher does."""
        self._pipe.send(event=kind, fields={"timestamp": time.time(), **fields})


class ChannelProcess:
    """The consumers of a channel process and its pipe to the worker.

    Args:
        app: the Celery app.
        pipe: the pipe to the worker.
        options: see :class:`channelsq.worker.processes.process_supervisor.Supervisor`.
    """

    def __init__(self, app: Celery, pipe: Pipe, options: dict[str, Any]) -> None:
        self._pipe = pipe
        self._eventer = Eventer(pipe)
        self._options = options
        self._app = app
        self._ending: threading.Thread | None = None
        #: The streaming responses that were reported to the worker last.
        self._streaming: Mapping[str, streaming.Streaming] = {}
        #: Whether the process was ended while consumers ran.
        self.is_cut = False
        self.crew = Crew(
            app,
            options["hostname"],
            options["channels"],
            options["threads"],
            self._eventer,
            self,
            self._opened,
            pool_keeps_limits=options["pool_keeps_limits"],
            reluctance=RELUCTANCE if options["after_death"] else 0.0,
        )

    def _opened(self, alias: str, consumer: str) -> None:
        self._pipe.send(holds=alias, consumer=consumer)

    def run(self) -> None:
        """Run consumers until the worker stops the process, or has ended."""
        held_messages.clear()
        self.crew.start()
        self._tell_of_streaming()
        self._pipe.send(ready=os.getpid())
        threading.Thread(target=self._watch, name="channelsq-watch", daemon=True).start()
        for message in self._pipe.messages():
            if message.get("stop") == "cold":
                self._cut()
                return
            self._obey(message)
        self._begin_to_end().join()

    def _obey(self, message: dict[str, Any]) -> None:
        match message:
            case {"stop": _}:
                self._begin_to_end()
            case {"revoke": ids}:
                celery_state_internals.add_revoked(ids)
            case {"events": on}:
                self._eventer.enabled = on
            case {"rate_limit": limit, "task": name} if name in self._app.tasks:
                self._app.tasks[name].rate_limit = limit
            case {"time_limit": [hard, soft], "task": name} if name in self._app.tasks:
                self._app.tasks[name].time_limit, self._app.tasks[name].soft_time_limit = hard, soft
            case {"read": channel, "alias": alias}:
                self.crew.read(alias, channel)
            case {"cease": channel, "alias": alias}:
                self.crew.cease(alias, channel)
            case {"ask": what, "number": number}:
                self._pipe.send(answer=number, value=held_messages.answer(what))

    def _begin_to_end(self) -> threading.Thread:
        """Let running consumers finish, in a thread: meanwhile the worker may begin a cold shutdown."""
        if self._ending is None:
            self._ending = threading.Thread(target=self._end, name="channelsq-ending", daemon=True)
            self._ending.start()
        return self._ending

    def _end(self) -> None:
        shutdown.begin()
        self.crew.stop()
        self.crew.wait()
        self.crew.close()
        self._pipe.send(ended=DONE)
        self._pipe.close()

    def _cut(self) -> None:
        """End running consumers with the process; the worker gives their messages to other workers."""
        self.is_cut = True
        shutdown.begin()
        self.crew.stop()
        self.crew.cut()
        self._pipe.send(ended=CUT)

    def _tell_of_streaming(self) -> None:
        now = streaming.state_here()
        if now != self._streaming:
            self._streaming = now
            self._pipe.send(streaming=now)

    def _watch(self) -> None:
        """Report streaming responses; request a replacement after the limit of messages or memory.

        End when the worker has ended.  The pipe alone does not show that: processes of the pool inherit the worker's
        end of it.
        """
        most, memory = self._options["max_messages"], self._options["max_memory"]
        asked = False
        pause = threading.Event()
        while not pause.wait(_LOOK_EVERY):
            if os.getppid() != self._options["worker"]:
                self._pipe.close()
                return
            self._tell_of_streaming()
            if not asked and (
                (most and celery_state_internals.tasks_begun() >= most) or (memory and _resident_kb() > memory)
            ):
                asked = True
                self._pipe.send(recycle=True)


def _resident_kb() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def run_exit_functions(seconds: float) -> None:
    """Run the functions that are registered with ``atexit``, for at most so many seconds.

    Tools that report errors and traces send their last reports there.
    """
    running = threading.Thread(target=python_internals.run_exit_functions, name="channelsq-exit", daemon=True)
    running.start()
    running.join(seconds)


def _leave_to_worker(number: int, frame: object) -> None:
    """Ignore a signal: the worker gets it, too, and tells this process to end.

    This is a handler and not SIG_IGN, which programs that a consumer starts would inherit.
    """


def main() -> None:
    """Run a channel process; the arguments are a file descriptor and the options in JSON."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, _leave_to_worker)
    end = socket.socket(fileno=int(sys.argv[1]))
    end.set_inheritable(False)
    end.setblocking(True)  # sockets of a worker with -P gevent do not block
    pipe = Pipe(end)
    options: dict[str, Any] = json.loads(sys.argv[2])
    app: Celery = find_app(options["app"])
    app.loader.init_worker()
    app.loader.import_task_module("channelsq.tasks")  # for an app without autodiscovery, under `manage.py runworker`
    hostname = options["hostname"]
    # The process was not forked, so it has not inherited the project's set-up of the worker.
    instance = SimpleNamespace(app=app, hostname=hostname)
    signals.celeryd_init.send(sender=hostname, instance=instance, conf=app.conf, options={})
    app.finalize()
    app.log.setup(options["loglevel"], options["logfile"], redirect_stdouts=False, hostname=hostname)
    logging.getLogger("channelsq").setLevel(options["own_loglevel"])
    celery_tracer_internals.set_up_process(app, hostname)
    database_connections.keep_connections(SimpleNamespace(app=app))
    shutdown.reset()
    signals.worker_process_init.send(sender=hostname)  # before tasks get their tracers
    process = ChannelProcess(app, pipe, options)
    process.run()
    signals.worker_process_shutdown.send(sender=process, pid=os.getpid(), exitcode=0)
    if not process.is_cut:
        run_exit_functions(EXIT_WITHIN)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # ends threads that still run after a cold shutdown
