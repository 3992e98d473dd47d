"""The start of live tasks, and what the process that has started one can do."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from celery import Task
from celery.canvas import Signature
from celery.result import AsyncResult
from django.db import transaction

from channelsq import conf
from channelsq.asgi import ChannelLayerWrapper, channel_layers
from channelsq.channel import Channel, Group
from channelsq.conf import DEFAULT_CHANNEL_LAYER
from channelsq.delivery import commits
from channelsq.live.headers import HEADER, LiveHeader, leaves
from channelsq.live.job_state import JobState
from channelsq.live.jobs import GROUPS, Job, group_of
from channelsq.live.runs import FAILED
from channelsq.live.tickets import Ticket, issue
from channelsq.users import User, is_user
from channelsq.worker.running import in_place, task_receivers

#: The most ids of tasks that are kept, to revoke them.
_MOST_IDS = 2000

#: The field of a record with the ids of the tasks.
IDS = "ids"


class LiveTask:
    """A live task.

    Args:
        job: the task in its layer.
        may_cancel: whether pages may cancel it.
    """

    def __init__(self, job: Job, may_cancel: bool) -> None:
        self.job = job
        #: The permission for pages to watch the task, see :mod:`channelsq.live.tickets`.
        self.ticket = issue(Ticket(job.id, job.alias, may_cancel))

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        return f"LiveTask({self.id!r})"

    @property
    def id(self) -> str:
        """The id of the Celery task; of a canvas, that of its result."""
        return self.job.id

    @property
    def result(self) -> AsyncResult[Any]:
        """Celery's result; a live task needs no result backend, but this does."""
        return conf.celery_app().AsyncResult(self.id)

    def status(self) -> dict[str, Any] | None:
        """Return the state as pages get it; None if it is not kept any more.

        Raises:
            BrokerUnavailable: the layer does not answer.
        """
        state, _ = self.job.read()
        return None if state is None else state.payload(self.id)

    def cancel(self) -> bool:
        """Cancel the task; return False if it has ended.

        Celery revokes its tasks that wait.  In a running one ``progress()``, ``listeners()`` and a stream's ``write()``
        raise :class:`~channelsq.live.Cancelled`; with ``CHANNEL_LIVE["terminate"]`` its process is ended.

        Raises:
            BrokerUnavailable: the layer does not answer.
        """
        return cancel(self.job)


class FrameworkTask(Protocol):
    """A task of Django's own framework, ``django.tasks``."""

    @property
    def module_path(self) -> str:
        """The path of its function."""

    def get_backend(self) -> Any:
        """Return the backend that runs it."""


def start(
    signature: Signature[Any] | FrameworkTask,
    to: Any = None,
    *,
    may_cancel: bool | None = None,
    layer: str | None = None,
    **options: Any,
) -> LiveTask:
    """Start a Celery task, or a canvas, whose audience follows it.

    In a database transaction the task is sent after the commit.  With ``CELERY_TASK_ALWAYS_EAGER`` it runs in place; in
    a process with an embedded worker, such as ``runserver``, in a thread beside it.

    Args:
        signature: what to run, such as ``import_csv.s(path)`` or a chain, group or chord; or a task of ``django.tasks``
            whose backend is :class:`channelsq.contrib.django_tasks.CeleryBackend`.
        to: the audience: ``message.reply_channel``, a :class:`~channelsq.User`, a :class:`~channelsq.Group`, or a list
            of these.  Without it, pages follow the task by its ticket.
        may_cancel: whether pages of the audience may cancel it; by default if it consists of sockets and users.
        layer: the alias of the layer, if there is no ``to``.
        options: for Celery's ``apply_async``.  For a task of ``django.tasks`` its arguments are here, as ``args`` and
            ``kwargs``.

    Raises:
        TypeError: ``signature`` or ``to`` is something else.
        InvalidChannelLayerError: the layer has no place for the task's state.
        BrokerUnavailable: the layer, or Celery's broker, does not answer.
    """
    if not isinstance(signature, Signature) and hasattr(signature, "get_backend"):
        signature = _signature_of(signature, options.pop("args", ()), options.pop("kwargs", {}))
    if isinstance(signature, Task) or not isinstance(signature, Signature):
        name = getattr(signature, "name", "task")
        raise TypeError(f"start() takes a signature such as {name}.s(…), not {signature!r}")
    if "task_id" in options:
        raise TypeError("start() chooses the task's id; read it from what start() returns")
    channels, groups, users = _audience(to)
    told = [*groups, *(user.group for user in users)]
    alias = _layer_of([*channels, *told], layer)
    job = Job(str(uuid.uuid4()), alias, tuple(group.name for group in told))
    job.records  # noqa: B018 - raises for a layer without a place for them
    live = LiveTask(job, not groups if may_cancel is None else may_cancel)
    tasks = list(leaves(signature))
    state = JobState(parts=max(1, len(tasks)), is_group=signature.get("task") == "celery.group")

    def begin() -> None:
        task_receivers.connect()  # for a task that runs in place
        job.create(state)
        for channel in channels:
            job.layer.group_add(group_of(job.id), channel.name)
        job.tell({**state.payload(job.id), "ticket": live.ticket})
        is_eager = conf.celery_app().conf.task_always_eager
        if not (is_eager and in_place.submit(job.layer.channel_layer, send)):
            send()

    def send() -> None:
        try:
            result = _apply(signature, tasks, job, options)
        except Exception:
            job.try_update(lambda state: state.fail(0, (), is_last=True, error=FAILED))  # else pages wait for ever
            raise
        if len(tasks) > 1:
            job.write({IDS: "\n".join(list(_ids(result))[:_MOST_IDS]).encode()})

    _after_commit(begin)
    return live


def _signature_of(task: FrameworkTask, args: Any, kwargs: Any) -> Signature[Any]:
    """Return the Celery signature of a task of ``django.tasks``."""
    backend = task.get_backend()
    make = getattr(backend, "signature", None)
    if make is None:
        raise TypeError(
            f"start() takes tasks of django.tasks whose backend is channelsq.contrib.django_tasks.CeleryBackend; "
            f"{task.module_path} has a {type(backend).__name__}"
        )
    signature: Signature[Any] = make(task, args, kwargs)
    return signature


def _after_commit(work: Callable[[], None]) -> None:
    """Do the work after the commit of the transaction that was begun last; at once if there is none."""
    open_here = commits.transactions()
    if open_here:
        transaction.on_commit(work, using=open_here[-1].alias)
    else:
        work()


def _apply(signature: Any, tasks: Iterable[Any], job: Job, options: dict[str, Any]) -> Any:
    """Send a canvas with the header on each of its tasks; the signatures are the same afterwards."""
    before = []
    try:
        for number, task in enumerate(tasks):
            own = task["options"]
            before.append((own, own.get("headers")))
            own["headers"] = {**(own.get("headers") or {}), HEADER: LiveHeader(job, number).dump()}
        return signature.apply_async(task_id=job.id, **options)
    finally:
        for own, headers in before:
            if headers is None:
                del own["headers"]
            else:
                own["headers"] = headers


def _ids(result: Any) -> Iterable[str]:
    """Yield the ids of the tasks behind a result."""
    while result is not None:
        children = getattr(result, "results", None)
        if children is None:
            yield result.id
        for child in children or ():
            yield from _ids(child)
        result = result.parent


def _audience(to: Any) -> tuple[list[Channel], list[Group], list[User]]:
    channels: list[Channel] = []
    groups: list[Group] = []
    users: list[User] = []
    for each in to if isinstance(to, (list, tuple, set)) else [] if to is None else [to]:
        if isinstance(each, Channel):
            channels.append(each)
        elif isinstance(each, Group):
            groups.append(each)
        elif isinstance(each, User):
            users.append(each)
        else:
            hint = "; write message.reply_channel" if hasattr(each, "reply_channel") else ""
            hint = "; write User(user), the User of channelsq" if is_user(each) else hint
            raise TypeError(
                f"start(to=…) takes a reply channel, a User, a Group, or a list of these, not {each!r}{hint}"
            )
    return channels, groups, users


def _layer_of(targets: Iterable[Channel | Group], layer: str | None) -> str:
    layers: dict[str, ChannelLayerWrapper] = {each.channel_layer.alias: each.channel_layer for each in targets}
    if layer is not None:
        layers[layer] = channel_layers[layer]
    if len(layers) > 1:
        raise TypeError(f"start() tells one layer about a task, not {sorted(layers)}")
    return next(iter(layers), DEFAULT_CHANNEL_LAYER)


def cancel(job: Job) -> bool:
    """See :meth:`LiveTask.cancel`."""
    state, changed = job.change(JobState.revoke)
    if state is None or not changed:
        return False
    _, fields = job.read()
    app = conf.celery_app()
    if not app.conf.task_always_eager:  # no task waits then, and there may be no broker
        ids = fields.get(IDS, b"").decode().split("\n") if IDS in fields else [job.id]
        app.control.revoke(ids, terminate=conf.live_settings().terminate)
    if not job.groups:  # of a ticket
        job = job._replace(groups=tuple(fields.get(GROUPS, b"").decode().split()))
    job.tell_state(state)
    return True
