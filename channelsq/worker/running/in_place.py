"""Threads for live tasks that run in place (``CELERY_TASK_ALWAYS_EAGER``), beside an embedded worker.

Without them a view that starts a task would answer when the task has ended, and its page could not follow the task.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.db import connections

logger = logging.getLogger("channelsq.worker")

#: The tasks that run at once.
THREADS = 4

#: The tasks that wait for a thread; further ones run in place.
MOST_WAITING = 100


class InPlaceTasks:
    """The threads of one embedded worker."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "channelsq-in-place")
        self._room = threading.BoundedSemaphore(THREADS + MOST_WAITING)

    def submit(self, work: Callable[[], Any]) -> bool:
        """Call ``work`` in a thread; return False if too many wait, or the worker has stopped."""
        if not self._room.acquire(blocking=False):
            return False
        try:
            # A context of its own: sends of the task leave at once, as those of a task in a Celery worker do.
            self._threads.submit(contextvars.Context().run, self._run, work)
        except RuntimeError:  # it is shut down
            self._room.release()
            return False
        return True

    def _run(self, work: Callable[[], Any]) -> None:
        try:
            work()
        except Exception:
            logger.exception("a task in place has failed", extra={"action": "task_in_place_failed"})
        finally:
            self._room.release()
            connections.close_all()

    def stop(self) -> None:
        """Drop the tasks that wait; those that run go on."""
        self._threads.shutdown(wait=False, cancel_futures=True)


#: The threads of the embedded workers of this process, by the layer that they consume.
_running: weakref.WeakKeyDictionary[Any, InPlaceTasks] = weakref.WeakKeyDictionary()


def begin(layer: Any) -> None:
    """Let tasks in place run in threads while an embedded worker consumes a layer."""
    _running[layer] = InPlaceTasks()


def end(layer: Any) -> None:
    """Stop the threads of a layer, if it has any."""
    tasks = _running.pop(layer, None)
    if tasks is not None:
        tasks.stop()


def submit(layer: Any, work: Callable[[], Any]) -> bool:
    """Call ``work`` in a thread; return False if no embedded worker consumes the layer, or too many tasks wait."""
    tasks = _running.get(layer)
    return tasks is not None and tasks.submit(work)
