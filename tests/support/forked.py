"""Programs that need not import Django, Celery and Kombu again, which takes most of the time until they are ready.

The tests start hundreds of workers and interface servers.  Each of them is a process of its own, with its own
environment and log; only the packages that it finds imported are those of its fork server,
:mod:`tests.support.fork_server`.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

_SCRIPT = Path(__file__).with_name("fork_server.py")

#: channelsq reads no setting when it is imported, so its modules are the same in every program.
_COMMON = (
    "asyncio", "celery", "celery.app.amqp", "celery.app.base", "celery.app.control", "celery.app.events",
    "celery.app.log", "celery.backends.base", "celery.contrib.django.task", "celery.fixups.django",
    "celery.loaders.app",
    "django.contrib.auth.hashers", "django.contrib.auth.password_validation", "django.contrib.auth.tokens",
    "django.contrib.messages", "django.contrib.sessions.middleware", "django.core.checks",
    "django.core.handlers.asgi", "django.core.handlers.wsgi", "django.core.management",
    "django.core.management.commands.makemigrations", "django.core.management.commands.migrate",
    "django.db.backends.sqlite3.base", "django.db.migrations", "django.db.migrations.executor", "django.db.models",
    "django.forms", "django.http", "django.middleware.csrf", "django.shortcuts", "django.template",
    "django.test.signals", "django.urls", "django.utils.translation.trans_real", "django.views.defaults",
    "django.views.static",
    "kombu", "kombu.asynchronous", "kombu.transport.pyamqp", "kombu.transport.redis", "msgpack", "redis",
    "redis.asyncio",
    "channelsq.apps", "channelsq.asgi", "channelsq.auth", "channelsq.binding.websockets",
    "channelsq.generic.websockets", "channelsq.layers.kombu", "channelsq.layers.redis", "channelsq.live.task_hooks",
    "channelsq.routing", "channelsq.system_checks.checks", "channelsq.system_checks.routing_checks",
    "channelsq.transport.streams_transport",
)  # fmt: skip

_WORKER = (
    *_COMMON, "celery.__main__", "celery.apps.worker", "celery.bin.celery", "celery.concurrency.prefork",
    "celery.concurrency.solo", "celery.concurrency.thread", "celery.worker.autoscale", "celery.worker.components",
    "celery.worker.consumer", "celery.worker.consumer.delayed_delivery", "celery.worker.strategy",
    "channelsq.handler", "channelsq.live.consumers", "channelsq.worker.commands.worker_options",
    "channelsq.worker.setup", "channelsq.worker.sources_step",
)  # fmt: skip

_INTERFACE = (
    *_COMMON, "channelsq.interface.process.server", "channelsq.interface.supervision.supervisor",
    "django.core.management.commands.runserver", "httptools", "uvicorn", "uvicorn.protocols.http.httptools_impl",
    "uvloop", "websockets", "websockets.extensions.permessage_deflate", "websockets.server",
)  # fmt: skip


class _Server:
    """A fork server, which ends with this process."""

    def __init__(self, packages: Sequence[str]) -> None:
        self._lock = threading.Lock()
        # What it imports must not find settings: they are each program's own.
        environ = {key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"}
        self._popen = subprocess.Popen(
            [sys.executable, str(_SCRIPT), *packages],
            env={**environ, "PYTHONUNBUFFERED": "1"},  # as every program has it
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for this process, which stops its programs then
        )
        atexit.register(self._close)

    def _close(self) -> None:
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._popen.stdin.close()
        self._popen.wait()
        self._popen.stdout.close()

    def ask(self, request: Mapping[str, Any]) -> Any:
        """Send a request and return the answer."""
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        with self._lock:
            self._popen.stdin.write(json.dumps(request).encode() + b"\n")
            self._popen.stdin.flush()
            return json.loads(self._popen.stdout.readline())


@cache
def _server(packages: tuple[str, ...]) -> _Server:
    return _Server(packages)


class Forked:
    """A running program; the part of :class:`subprocess.Popen` that the tests use."""

    def __init__(
        self,
        packages: tuple[str, ...],
        args: Sequence[str],
        log: Path,
        env: Mapping[str, str],
        cwd: Path,
    ) -> None:
        self.args = list(args)
        self.returncode: int | None = None
        self._server = _server(packages)
        self._lock = threading.Lock()
        program = self.args[1:] if args[0] == sys.executable else self.args
        module = program.pop(1) if program[0] == "-m" else None
        request = {"module": module, "argv": program, "log": str(log.absolute()), "env": dict(env), "cwd": str(cwd)}
        self.pid: int = self._server.ask(request)

    def poll(self) -> int | None:
        """Return the exit code, or None while the program runs."""
        with self._lock:  # nobody can be told twice
            if self.returncode is None:
                self.returncode = self._server.ask({"wait": self.pid})
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the program's end and return its exit code.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        deadline = time.monotonic() + timeout if timeout is not None else None
        while True:
            code = self.poll()
            if code is not None:
                return code
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            time.sleep(0.01)

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the program has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)


def start(args: Sequence[str], log: Path, env: Mapping[str, str], cwd: Path) -> Forked | None:
    """Start a program by a fork server; None if none is for programs of its kind."""
    if Path(args[0]) == Path(sys.executable).with_name("celery"):
        return Forked(_WORKER, args, log, env, cwd)
    if args[0] == sys.executable and args[1] in ("-m", "manage.py"):
        return Forked(_INTERFACE, args, log, env, cwd)
    return None
