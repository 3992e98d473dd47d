"""A channel process: a part of a worker that only runs consumers, in threads of its own.

A thread beside a pool that forks could hold a lock at the moment of a fork, which the child would wait for.  So a
worker with such a pool starts processes like this for its consumers (``python -m
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
from channelsq.worker.running import celery_state_internals, celery_tracer_internals, database
from channelsq.worker.sources import held_messages
from channelsq.worker.sources.crew import Crew

#: What a process says last: that it holds nothing any more, or what ended with it although it was not to blame.  One
#: that ends without a word died.
DONE, CUT = "done", "cut"

#: Seconds for which a process in the place of one that died serves other messages, before it takes what that one held:
#: the guilty one is among those, and may end this one at once.
RELUCTANCE = 1.0

#: Seconds that functions registered with ``atexit`` may take.
EXIT_WITHIN = 5.0

#: Seconds between two looks at whether the worker is there, and whether the process is to be recycled.
_LOOK_EVERY = 1.0


class Eventer:
    """Sends events through the worker.

    Args:
        pipe: to the worker.
    """

    #: Of Celery's dispatcher; what is sent here has passed the worker's own.
    groups: frozenset[str] = frozenset()

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self.enabled = False

    def of(self, identity: str) -> Eventer | None:
        """Return where the events of a message go; None for nowhere."""
        return self if conf.sends_events(identity) else None

    def send(self, kind: str, **fields: Any) -> None:
        """Send an event; see Celery's."""
        self._pipe.send(event=kind, fields={"timestamp": time.time(), **fields})


class ChannelProcess:
    """What runs in a channel process.

    Args:
        app: the Celery app.
        pipe: to the worker.
        options: see :class:`channelsq.worker.processes.process_supervisor.Supervisor`.
    """

    def __init__(self, app: Celery, pipe: Pipe, options: dict[str, Any]) -> None:
        self._pipe = pipe
        self._eventer = Eventer(pipe)
        self._options = options
        self._app = app
        self._ending: threading.Thread | None = None
        #: What the worker was told of streaming responses.
        self._streaming: Mapping[str, streaming.Streaming] = {}
        #: Whether it ended in the midst of what ran.
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
        """Run consumers until the worker says that it is over, or is gone."""
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
        """Let consumers that run finish, in a thread: meanwhile the worker may say that there is no time for that."""
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
        """Have what runs end with the process; the worker leaves it to other workers."""
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
        """Tell of streaming responses; ask to be recycled after enough messages, or when the process has grown.

        End when the worker is gone.
        The end of the pipe does not tell of the latter alone: processes of the pool are forked with the worker's end.
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
    """Run what the project and its libraries have registered with ``atexit``, for so many seconds at most.

    Tools that report errors and traces send what they still hold then.
    """
    running = threading.Thread(target=python_internals.run_exit_functions, name="channelsq-exit", daemon=True)
    running.start()
    running.join(seconds)


def _leave_to_worker(number: int, frame: object) -> None:
    """Handle a signal: the worker gets it, too, and says what is to be done.

    A handler and not SIG_IGN, as programs that a consumer starts would ignore the signal as well.
    """


def main() -> None:
    """Run a channel process; its arguments are a descriptor and its options in JSON."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, _leave_to_worker)
    end = socket.socket(fileno=int(sys.argv[1]))
    end.set_inheritable(False)
    end.setblocking(True)  # of a worker with -P gevent no socket is
    pipe = Pipe(end)
    options: dict[str, Any] = json.loads(sys.argv[2])
    app: Celery = find_app(options["app"])
    app.loader.init_worker()
    app.loader.import_task_module("channelsq.tasks")  # for an app that discovers none, under `manage.py runworker`
    hostname = options["hostname"]
    # Nothing was forked that could have inherited what the project sets up for a worker.
    instance = SimpleNamespace(app=app, hostname=hostname)
    signals.celeryd_init.send(sender=hostname, instance=instance, conf=app.conf, options={})
    app.finalize()
    app.log.setup(options["loglevel"], options["logfile"], redirect_stdouts=False, hostname=hostname)
    logging.getLogger("channelsq").setLevel(options["own_loglevel"])
    celery_tracer_internals.set_up_process(app, hostname)
    database.keep_connections(SimpleNamespace(app=app))
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
    os._exit(0)  # threads that still run, after a cold shutdown, end with it
