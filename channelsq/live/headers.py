"""The header of Celery's messages that makes a task live, and what it says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from channelsq.live.jobs import Job

#: The header's name.  Celery makes it an attribute of ``task.request``.
HEADER = "channelsq_live"


class LiveHeader(NamedTuple):
    """The contents of the header."""

    job: Job
    #: The number of the part; None for a task that another live task has called.
    part: int | None
    #: The id of the task and the number of the part that called this one, and may be replaced by it.
    caller: tuple[str, int] | None = None

    def dump(self) -> dict[str, Any]:
        """Return the value of the header."""
        value: dict[str, Any] = {"job": self.job.id, "layer": self.job.alias, "groups": list(self.job.groups)}
        if self.part is not None:
            value["part"] = self.part
        if self.caller is not None:
            value["caller"] = list(self.caller)
        return value


def read_header(value: object, task_id: str | None = None) -> LiveHeader | None:
    """Return the contents of a header; None if it is not one of a live task.

    Args:
        value: the value.
        task_id: the id of the task with the header: it may stand in for its caller, which Celery's ``replace`` ended.
    """
    if not isinstance(value, dict):
        return None
    try:
        job = Job(str(value["job"]), str(value["layer"]), tuple(map(str, value.get("groups", ()))))
        part = value.get("part")
        caller = value.get("caller")
        if part is None and caller is not None and caller[0] == task_id:
            part, caller = caller[1], None
        return LiveHeader(job, None if part is None else int(part), None if caller is None else tuple(caller))
    except (KeyError, TypeError, ValueError, IndexError):
        return None


def header_of(request: Any) -> LiveHeader | None:
    """Return the header of a running task; None if the task is not live.

    Args:
        request: ``task.request``, or the request of Celery's worker.
    """
    value = getattr(request, HEADER, None)
    if value is None:
        headers = getattr(request, "headers", None)  # of a task that runs in place (apply(), CELERY_TASK_ALWAYS_EAGER)
        value = headers.get(HEADER) if isinstance(headers, dict) else None
    return None if value is None else read_header(value, getattr(request, "id", None))


def leaves(signature: Any) -> Iterator[Any]:
    """Yield the signatures of the tasks of a canvas."""
    kind = signature.get("task")
    if kind in ("celery.chain", "celery.group"):
        for each in signature["kwargs"]["tasks"]:
            yield from leaves(each)
    elif kind == "celery.chord":
        header = signature["kwargs"]["header"]
        for each in [header] if isinstance(header, dict) else header:
            yield from leaves(each)
        body = signature["kwargs"].get("body")
        if body is not None:
            yield from leaves(body)
    else:
        yield signature


def followers(signatures: Iterable[Any]) -> Iterator[Any]:
    """Yield signatures, and those that run after them in a chain or as the body of a chord."""
    for signature in signatures:
        yield signature
        options = signature.get("options", {})
        body = options.get("chord")
        yield from followers([*(options.get("chain") or ()), *([] if body is None else [body])])


def parts_of(signatures: Iterable[Any], job: str) -> Iterator[int]:
    """Yield the numbers of the parts of a live task among signatures, with all that follows them."""
    for signature in followers(signatures):
        for leaf in leaves(signature):
            header = read_header((leaf.get("options", {}).get("headers") or {}).get(HEADER))
            if header is not None and header.job.id == job and header.part is not None:
                yield header.part
