"""A run of a task that is live: what it reports, and what it is told."""

from __future__ import annotations

import json
import logging
import threading
import time
from contextvars import ContextVar
from typing import Any

from celery import current_task

from channelsq import conf
from channelsq.exceptions import BrokerUnavailable, ChannelsqError, PublicError
from channelsq.live import reporter
from channelsq.live.cancelled import Cancelled
from channelsq.live.headers import HEADER, LiveHeader, followers, parts_of
from channelsq.live.job_state import REVOKED, JobState
from channelsq.live.streams import StreamBuffer

logger = logging.getLogger("channelsq.live")

#: The attribute of ``task.request`` with the run.
_ATTRIBUTE = "channelsq_live_run"

#: The run in this context, also in the thread where asgiref runs a coroutine of the task.
_here: ContextVar[LiveRun | None] = ContextVar("channelsq_live_run", default=None)

#: Seconds for which the end of a task waits for a layer that is away, and for which its report is kept then.
_PATIENCE, _KEPT = 5.0, 60.0

#: Seconds between two counts of the listeners, and between two looks whether the task was cancelled.
_COUNT_EVERY, _LOOK_EVERY = 1.0, 1.0

#: The message about exceptions that are not shown.
FAILED = "The task failed."


class LiveRun:
    """A run of a live task, or of a task that one has called.

    Args:
        task: the Celery task.
        header: the message's.
    """

    def __init__(self, task: Any, header: LiveHeader) -> None:
        self.task = task
        self.request: Any = task.request
        self.header = header
        self.job = header.job
        self.settings = conf.live_settings()
        #: Distinguishes the text of this run from that of an earlier one of the same task.
        self.id = f"{self.request.id}.{self.request.retries}.{time.time_ns():x}"
        self.is_cancelled = False
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._progress: tuple[float, float | None, str] | None = None
        self._next = 0.0
        self._streams: dict[str, StreamBuffer] = {}
        self._looked_at = time.monotonic()
        self._counted_at = float("-inf")
        self._heard_at = time.monotonic()
        self._listeners = 0
        setattr(self.request, _ATTRIBUTE, self)
        self._outer = _here.get()
        _here.set(self)

    @property
    def is_last(self) -> bool:
        """Whether this task's result is that of the whole."""
        return bool(self.request.id == self.job.id)

    def called(self) -> dict[str, Any]:
        """Return the header for a task that this one calls."""
        caller = self.header.caller if self.header.part is None else (str(self.request.id), self.header.part)
        return LiveHeader(self.job, None, caller).dump()

    # -- called by the task

    def check(self) -> None:
        """Raise Cancelled if the live task was cancelled."""
        if self.is_cancelled:
            self.task.backend.mark_as_revoked(self.request.id, "cancelled", request=self.request)
            raise Cancelled(self.job.id)
        now = time.monotonic()
        if now - self._looked_at >= _LOOK_EVERY:  # a task without progress hears of it in no other way
            self._looked_at = now
            reporter.wake(_Look(self), now)

    def progress(self, done: float, total: float | None, text: str) -> None:
        """Report how far the task is; see :func:`channelsq.live.progress`."""
        self.check()
        with self._lock:
            self._progress = done, total, text
            due = self._next
        reporter.wake(self, due)

    def stream(self, name: str) -> StreamBuffer:
        """Return the buffer of a stream."""
        with self._lock:
            found = self._streams.get(name)
            if found is None:
                found = self._streams[name] = StreamBuffer(self.job, name, self.id, self.settings)
            return found

    def listeners(self, grace: float) -> int:
        """Return the number of sockets in the audience; see :func:`channelsq.live.listeners`."""
        self.check()
        now = time.monotonic()
        if now - self._counted_at >= _COUNT_EVERY:
            layer = self.job.layer.channel_layer
            self._listeners = sum(layer.some_members(group, 1)[1] for group in self.job.audience)
            self._counted_at = now
            if self._listeners:
                self._heard_at = now
        return self._listeners or int(now - self._heard_at < grace)

    # -- called by the reporter, and at the end

    def flush(self) -> float | None:
        """Send the progress that waits; see :class:`channelsq.live.reporter.Source`."""
        with self._sending:
            with self._lock:
                waiting, self._progress = self._progress, None
            if waiting is None:
                return None
            part, (done, total, text) = self.header.part, waiting
            try:
                state = self.job.update(lambda state: state.progress(part, done, total, text), is_droppable=True)
            except BaseException:
                with self._lock:
                    self._progress = self._progress or waiting
                raise
            self._look(state)
            with self._lock:
                self._next = time.monotonic() + self.settings.progress_every
                return self.settings.progress_every if self._progress is not None else None

    def look(self) -> None:
        """Find out whether the task was cancelled; errors as those of the layer."""
        self._look(self.job.change(lambda state: False)[0])

    def _look(self, state: JobState | None) -> None:
        self._looked_at = time.monotonic()
        self.is_cancelled = self.is_cancelled or (state is not None and state.state == REVOKED)

    # -- called before and after the task

    def begin(self) -> None:
        """Tell the audience that the task has begun."""
        part = self.header.part
        if part is not None:
            self._look(self.job.try_update(lambda state: state.begin(part)))

    def finish(self, state: str, outcome: Any) -> None:
        """Send all that waits, and the end.

        Args:
            state: Celery's name of the outcome.
            outcome: the result, or the exception.
        """
        deadline = time.monotonic() + _PATIENCE
        try:
            for stream in list(self._streams.values()):
                if state == "SUCCESS":
                    stream.complete()
                _insist(stream.flush, deadline)
            _insist(self.flush, deadline)
            end = _End(self, state, outcome)
            if not _insist(end.send, deadline):
                reporter.wake(end, time.monotonic() + 1.0)
        finally:
            delattr(self.request, _ATTRIBUTE)
            _here.set(self._outer)


class _Look:
    """A look of the reporter whether a task was cancelled.

    Args:
        run: the run.
    """

    def __init__(self, run: LiveRun) -> None:
        self._run = run

    def flush(self) -> float | None:
        """See :class:`channelsq.live.reporter.Source`."""
        self._run.look()
        return None


class _End:
    """The report of a task's outcome.

    Args:
        run: the run.
        state, outcome: see :meth:`LiveRun.finish`.
    """

    def __init__(self, run: LiveRun, state: str, outcome: Any) -> None:
        self._job, self._part, self._is_last = run.job, run.header.part, run.is_last
        self._state = state
        self._result, self._is_omitted, self._error = None, False, ""
        self._dependents: list[int] = []
        self._until = time.monotonic() + _KEPT
        if state == "SUCCESS":
            self._result, self._is_omitted = shown_result(outcome, run.settings.result_size)
        elif state == "FAILURE":
            self._error = shown_error(outcome)
            self._dependents, is_last = dependents_of(run.request, run.job.id)
            self._is_last = self._is_last or is_last

    def send(self) -> None:
        """Send the report; errors as those of the layer."""
        part = self._part
        match self._state:
            case "SUCCESS":
                self._job.update(
                    lambda state: state.succeed(
                        part, is_last=self._is_last, result=self._result, is_omitted=self._is_omitted
                    )
                )
            case "FAILURE":
                self._job.update(
                    lambda state: state.fail(part, self._dependents, is_last=self._is_last, error=self._error)
                )
            case "RETRY":
                self._job.update(lambda state: state.retry(part))
            case "REVOKED":
                self._job.update(lambda state: state.revoke())

    def flush(self) -> float | None:
        """See :class:`channelsq.live.reporter.Source`."""
        if time.monotonic() < self._until:
            self.send()
        else:
            logger.warning("live task %s: its end is lost", self._job.id, extra={"action": "live_reports_lost"})
        return None


def _insist(send: Any, deadline: float) -> bool:
    """Call ``send`` until the layer answers or the time is over; return whether it did."""
    while True:
        try:
            send()
        except BrokerUnavailable as error:
            left = deadline - time.monotonic()
            if left <= 0:
                logger.warning("a live task's last report waits: %s", error, extra={"action": "live_waits"})
                return False
            threading.Event().wait(min(0.2, left))
        except ChannelsqError as error:
            logger.warning("a report of a live task is lost: %s", error, extra={"action": "live_reports_lost"})
            return True
        else:
            return True


def shown_result(result: Any, most: int) -> tuple[Any, bool]:
    """Return a result for pages, and whether it is left out: it is not for JSON, or over ``most`` bytes."""
    try:
        text = json.dumps(result, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return None, True
    return (None, True) if len(text) > most else (result, False)


def shown_error(error: object) -> str:
    """Return the message for pages about an exception."""
    return str(error) or FAILED if isinstance(error, PublicError) else FAILED


def dependents_of(request: Any, job: str) -> tuple[list[int], bool]:
    """Return the parts that follow a task and will not run, and whether the result of the whole is among them.

    Args:
        request: the task's.
        job: the id of the live task.
    """
    after = [*(request.chain or ()), *([] if request.chord is None else [request.chord])]
    return list(parts_of(after, job)), any(each.get("options", {}).get("task_id") == job for each in followers(after))


def current_run() -> LiveRun | None:
    """Return the run of the live task that this thread or coroutine executes; None if there is none."""
    task: Any = current_task  # a proxy, which is false outside of tasks
    if task and not task.request.called_directly:
        return getattr(task.request, _ATTRIBUTE, None)
    # In a coroutine, or in a task that the running one calls as a function.
    run = _here.get()
    return run if run is not None and hasattr(run.request, _ATTRIBUTE) else None


def inherit(headers: dict[str, Any] | None = None, **kwargs: Any) -> None:
    """Let a task that a live task calls report to the same audience; a receiver of ``before_task_publish``."""
    if headers is not None and HEADER not in headers:
        run = current_run()
        if run is not None:
            headers[HEADER] = run.called()
