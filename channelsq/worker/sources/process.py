"""A channel process: a part of a worker that only runs consumers, in threads of its own.

A thread beside a pool that forks could hold a lock at the moment of a fork, which the child would wait for.  So a
worker with such a pool starts processes like this (``python -m channelsq.worker.sources.process``) for its consumers;
see :mod:`channelsq.worker.sources.supervisor`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any

from celery import Celery, signals
from celery.app import trace
from celery.app.utils import find_app
from celery.worker import state

from channelsq import conf, shutdown
from channelsq.worker import database
from channelsq.worker.sources import books
from channelsq.worker.sources.crew import Crew
from channelsq.worker.sources.pipe import Pipe

#: Exit codes: told to end, told to end at once, and recycled.
ENDED, CUT, RECYCLED = 0, 3, 4

#: Seconds between two looks at whether the process is to be recycled.
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

    def send(self, kind: str, **fields: Any) -> None:
        """Send an event; see Celery's."""
        self._pipe.send(event=kind, fields={"timestamp": time.time(), **fields})


class ChannelProcess:
    """What runs in a channel process.

    Args:
        app: the Celery app.
        pipe: to the worker.
        options: see :class:`channelsq.worker.sources.supervisor.Supervisor`.
    """

    def __init__(self, app: Celery, pipe: Pipe, options: dict[str, Any]) -> None:
        self._pipe = pipe
        self._eventer = Eventer(pipe)
        self._options = options
        self._code = ENDED
        self._app = app
        self.crew = Crew(
            app,
            options["hostname"],
            options["channels"],
            options["threads"],
            self._eventer_of,
            self,
            self._opened,
            pool_keeps_limits=options["pool_keeps_limits"],
        )

    def _opened(self, alias: str, consumer: str) -> None:
        self._pipe.send(holds=alias, consumer=consumer)

    def _eventer_of(self, identity: str) -> Any:
        return self._eventer if self._eventer.enabled and conf.sends_events(identity) else None

    def run(self) -> int:
        """Run consumers until the worker says that it is over, or is gone; returns the exit code."""
        self.crew.start()
        if self._options["max_messages"] or self._options["max_memory"]:
            threading.Thread(target=self._watch, name="channelsq-recycling", daemon=True).start()
        for message in self._pipe.messages():
            if not self._obey(message):
                break
        self._end()
        return self._code

    def _obey(self, message: dict[str, Any]) -> bool:
        match message:
            case {"stop": "warm"}:
                return False
            case {"stop": "cold"}:
                self._code = CUT
                return False
            case {"stop": "recycle"}:
                self._code = RECYCLED
                return False
            case {"revoke": ids}:
                state.revoked.update(ids)
            case {"events": on}:
                self._eventer.enabled = on
            case {"rate_limit": limit, "task": name} if name in self._app.tasks:
                self._app.tasks[name].rate_limit = limit
            case {"read": channel, "alias": alias}:
                self.crew.read(alias, channel)
            case {"cease": channel, "alias": alias}:
                self.crew.cease(alias, channel)
            case {"ask": what, "number": number}:
                self._pipe.send(answer=number, value=books.answer(what))
        return True

    def _end(self) -> None:
        shutdown.begin()
        self.crew.stop()
        if self._code == CUT:  # what runs ends with the process; then the worker leaves it to other workers
            self.crew.settle()
            return
        self.crew.wait()
        self.crew.close()

    def _watch(self) -> None:
        """Have the process recycled when it has run enough messages, or has grown."""
        most, memory = self._options["max_messages"], self._options["max_memory"]
        pause = threading.Event()
        while not pause.wait(_LOOK_EVERY):
            if (most and state.all_total_count[0] >= most) or (memory and _resident_kb() > memory):
                self._pipe.send(recycle=True)
                return


def _resident_kb() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def main() -> int:
    """Run a channel process; its arguments are a descriptor and its options in JSON."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the worker is told, and says what is to be done
    pipe = Pipe(socket.socket(fileno=int(sys.argv[1])))
    options: dict[str, Any] = json.loads(sys.argv[2])
    app: Celery = find_app(options["app"])
    app.loader.init_worker()
    app.finalize()
    app.log.setup(options["loglevel"], options["logfile"], redirect_stdouts=False, hostname=options["hostname"])
    trace.setup_worker_optimizations(app, options["hostname"])
    database.keep_connections(SimpleNamespace(app=app))
    shutdown.reset()
    process = ChannelProcess(app, pipe, options)
    signals.worker_process_init.send(sender=process)
    code = process.run()
    signals.worker_process_shutdown.send(sender=process, pid=os.getpid(), exitcode=code)
    return code


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads that still run, after a cold shutdown, end with it
