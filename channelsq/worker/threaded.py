"""A Celery worker in a thread of this process, for ``runserver`` with a broker."""

from __future__ import annotations

import os
import socket
import threading
from typing import Any

from celery import Celery

from channelsq.worker.embedded import DEFAULT_THREADS
from channelsq.worker.running import celery_state_internals


class ThreadedCeleryWorker:
    """A worker of the app's queues and channels, like ``celery -A app worker``.

    Celery keeps the state of its worker in modules, so a process can have only one.

    Args:
        app: the Celery app.
        threads: the number of tasks that run at once.
    """

    def __init__(self, app: Celery, threads: int = DEFAULT_THREADS) -> None:
        self._app = app
        self._threads = threads
        self._thread = threading.Thread(target=self._run, name="channelsq-celery-worker", daemon=True)

    def start(self) -> None:
        """Start the worker."""
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """Begin a warm shutdown; return when running tasks are done, or after ``timeout`` seconds."""
        celery_state_internals.tell_to_end()
        self._thread.join(timeout)
        celery_state_internals.forget_end()

    def wait(self) -> None:
        """Return when the worker has ended."""
        self._thread.join()

    def _run(self) -> None:
        options: dict[str, Any] = {
            # Differs from the default name, which another worker on the machine may have.
            "hostname": f"channelsq-{os.getpid()}@{socket.gethostname()}",
            "pool_cls": "threads",
            "concurrency": self._threads,
            "without_gossip": True,
            "without_mingle": True,
            "without_heartbeat": True,
        }
        self._app.WorkController(**options).start()
