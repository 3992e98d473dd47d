"""The end of a worker in the middle of a consumer, distinguished from the consumer's own exceptions.

A cold shutdown, ``revoke(terminate=True)`` or a hard time limit interrupts a running consumer with an exception.  In a
process of the prefork pool billiard's signal handler raises SystemExit; in a solo worker :class:`WorkerEnds` is raised.
Such a consumer has not failed: its sends are dropped, and its message runs again, unless it was revoked.

Every other exception is the consumer's own.  Some of them would end or block Celery's worker: the tracer passes on
MemoryError and every exception that is not an :class:`Exception`.  :func:`failure_of` replaces these.
"""

from __future__ import annotations

import signal
import threading
import traceback
from typing import NoReturn

from billiard.exceptions import Terminated, TimeLimitExceeded, WorkerLostError
from celery.exceptions import Ignore, Reject, Retry, WorkerShutdown, WorkerTerminate
from celery.utils.serialization import get_pickleable_exception

from channelsq.delivery.billiard_internals import signal_has_ended_process

#: Exceptions that Celery takes for messages of its pool; a consumer may get them from another task's result.
_OF_THE_POOL = Terminated, TimeLimitExceeded, WorkerLostError


class WorkerEnds(WorkerTerminate):
    """Raised in a running consumer when its worker ends."""


_worker_ends = False


def end_worker(code: int) -> NoReturn:
    """Raise :class:`WorkerEnds` in the consumer of this thread, the only one of its worker.

    Args:
        code: the worker's exit code.
    """
    global _worker_ends
    _worker_ends = True
    raise WorkerEnds(code)


def is_end(error: BaseException) -> bool:
    """Return whether an exception from a consumer is the end of its worker, and not the consumer's own.

    Once the worker ends every exception is: the consumer's cleanup may have replaced the worker's exception by another.
    A consumer that runs in the main thread of another process, such as a test's, may end that process: there Ctrl-C
    belongs to the user.
    """
    return (
        _worker_ends
        or signal_has_ended_process()
        or (isinstance(error, (KeyboardInterrupt, WorkerShutdown, WorkerTerminate)) and not _is_in_worker())
    )


def _is_in_worker() -> bool:
    """Return whether this is not the main thread, or a worker handles Ctrl-C."""
    return (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    )


def failure_of(error: BaseException, name: str) -> BaseException:
    """Return the exception that ends a consumer's run in place of ``error``.

    This is ``error`` itself if Celery can handle it.  It is a RuntimeError for exceptions that would end or block the
    worker, or that cannot be shown or sent to another process.

    Args:
        error: the consumer's exception.
        name: the consumer's name.
    """
    if is_end(error):
        return WorkerEnds() if isinstance(error, Exception) else error
    if isinstance(error, MemoryError):
        traceback.clear_frames(error.__traceback__)  # frees the consumer's memory
    elif isinstance(error, Exception) and not isinstance(error, _OF_THE_POOL) and _can_be_shown(error):
        return error
    failure = RuntimeError(f"{name} raised {shown(error)}; a consumer cannot end its worker")
    failure.__cause__ = error
    return failure


def shown(error: BaseException) -> str:
    """Return ``repr(error)``, or the name of its class if that fails."""
    try:
        return repr(error)
    except BaseException:
        return f"{type(error).__name__}(…)"


def _can_be_shown(error: Exception) -> bool:
    """Return whether Celery's logs can show an exception, and its pool's pipe can carry it if it is not replaced."""
    try:
        repr(error), str(error)
        return not isinstance(error, (Ignore, Reject, Retry)) or get_pickleable_exception(error) is error
    except BaseException:
        return False
