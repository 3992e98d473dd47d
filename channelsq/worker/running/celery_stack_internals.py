"""Fast access to Celery's stacks of running tasks (``current_task``, ``task.request``) of a thread.

Celery's push and pop look up the thread's stack in each of three layers of Python, and take an eighth of the time of a
short consumer.  Nearly always the thread runs no other task, so its entry can be set and removed in one step.

Private parts of Celery; ``tests/unit/worker/running/test_untraced_run.py`` pins them.
"""

from __future__ import annotations

from typing import Any

from celery._state import _task_stack  # type: ignore[attr-defined]  # not in its stubs


def _push(task: Any, request: Any) -> None:
    """Record that ``task`` runs for ``request`` in this thread."""
    _task_stack.push(task)
    task.request_stack.push(request)


def _pop(task: Any) -> None:
    """Remove the record of :func:`_push`."""
    _task_stack.pop()
    task.request_stack.pop()


def _enter(task: Any, request: Any) -> None:
    thread = _identity()
    requests = task.request_stack._local.__storage__
    if thread in _tasks or thread in requests:  # a consumer runs another task in place
        _push(task, request)
    else:
        _tasks[thread] = {"stack": [task]}
        requests[thread] = {"stack": [request]}


def _leave(task: Any) -> None:
    thread = _identity()
    requests = task.request_stack._local.__storage__
    try:
        if len(_tasks[thread]["stack"]) == len(requests[thread]["stack"]) == 1:
            del _tasks[thread], requests[thread]
            return
    except KeyError:  # a consumer has emptied a stack
        pass
    _pop(task)


_local = getattr(_task_stack, "_local", None)
if _local is None:  # Celery was told to USE_FAST_LOCALS
    enter, leave = _push, _pop
else:
    _tasks, _identity = _local.__storage__, _local.__ident_func__
    enter, leave = _enter, _leave
