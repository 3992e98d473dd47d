"""The end of a worker in the middle of a consumer, told apart from what the consumer raises itself.

A cold shutdown, ``revoke(terminate=True)`` or a hard time limit interrupts a running consumer with an exception: in a
process of the prefork pool billiard's signal handler raises SystemExit, in a solo worker :class:`WorkerEnds` is
raised.  Such a consumer has not failed: nothing that it sent goes out, and its message is run again, unless it was
revoked.

Every other exception is the consumer's own.  Celery ends or blocks its worker for some of them: the tracer passes on
MemoryError and whatever is no :class:`Exception`.  :func:`failure_of` makes a failure of those.
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

#: Exceptions that Celery takes for news of its pool; a consumer may have them of another task whose result it reads.
_OF_THE_POOL = Terminated, TimeLimitExceeded, WorkerLostError


class WorkerEnds(WorkerTerminate):
    """Raised in a running consumer because its worker ends now."""


_worker_ends = False


def end_worker(code: int) -> NoReturn:
    """Raise :class:`WorkerEnds` in the consumer that runs in this thread, which is its worker's only one.

    Args:
        code: the worker's exit code.
    """
    global _worker_ends
    _worker_ends = True
    raise WorkerEnds(code)


def is_end(error: BaseException) -> bool:
    """Whether an exception that left a consumer is the end of its worker, and not the consumer's own.

    Once the worker ends every exception is: the consumer's own cleanup may have raised another one in the place of
    the worker's.  A consumer that is called in the main thread of a process that is no worker's, by a test say, may
    end that: there Ctrl-C is the user's.
    """
    return (
        _worker_ends
        or signal_has_ended_process()
        or (isinstance(error, (KeyboardInterrupt, WorkerShutdown, WorkerTerminate)) and not _is_in_worker())
    )


def _is_in_worker() -> bool:
    """Whether this is not the main thread, or Ctrl-C is handled by a worker."""
    return (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    )


def failure_of(error: BaseException, name: str) -> BaseException:
    """Return the exception with which a run of a consumer ends in place of what the consumer raised.

    It is the same one where Celery can handle that, and a RuntimeError for the consumer's own exceptions that would
    end or block its worker, or that cannot be shown or sent to another process.

    Args:
        error: what the consumer raised.
        name: the consumer's name.
    """
    if is_end(error):
        return WorkerEnds() if isinstance(error, Exception) else error
    if isinstance(error, MemoryError):
        traceback.clear_frames(error.__traceback__)  # what the consumer held is free from here on
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
    """Whether Celery's logs can show an exception, and its pool's pipe can carry one that it does not replace."""
    try:
        repr(error), str(error)
        return not isinstance(error, (Ignore, Reject, Retry)) or get_pickleable_exception(error) is error
    except BaseException:
        return False
