"""Tasks that become live by themselves, as a request or a frame has called them with Celery's own ``delay()``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest

from channelsq import conf
from channelsq.conf import DEFAULT_CHANNEL_LAYER
from channelsq.delivery.pending import held_here
from channelsq.live.headers import HEADER, LiveHeader
from channelsq.live.job_state import JobState
from channelsq.live.jobs import Job, group_of
from channelsq.live.runs import current_run
from channelsq.live.tickets import Ticket, issue
from channelsq.users import User
from channelsq.worker.running.consumer_task import ConsumerTask

logger = logging.getLogger("channelsq.live")

#: The prefix of the reply channels of WebSockets.
_SOCKETS = "websocket.send."

#: The request; None outside of requests.
_request: ContextVar[HttpRequest | None] = ContextVar("channelsq_live_request", default=None)


class LiveTasksMiddleware:
    """A middleware that makes the tasks of a view live for the request's user, if the settings say so.

    Put ``"channelsq.live.middleware.LiveTasksMiddleware"`` below Django's ``AuthenticationMiddleware``.

    Args:
        get_response: the next middleware, or the view.
    """

    sync_capable = async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        if iscoroutinefunction(self):
            return self._later(request)
        token = _request.set(request)
        try:
            return self.get_response(request)
        finally:
            _request.reset(token)

    async def _later(self, request: HttpRequest) -> Any:
        token = _request.set(request)
        try:
            return await self.get_response(request)
        finally:
            _request.reset(token)

    def process_view(self, request: HttpRequest, view: Callable[..., Any], *args: Any) -> None:
        """Load the user before a view that is a coroutine, and which a query of the database would block."""
        if iscoroutinefunction(view):
            _ = getattr(request, "user", None) and request.user.is_authenticated


def adopt(sender: Any = None, headers: dict[str, Any] | None = None, **kwargs: Any) -> None:
    """Make a task live that a request or a frame calls; a receiver of ``before_task_publish``."""
    if headers is None or HEADER in headers or current_run() is not None or str(sender).startswith("celery."):
        return
    try:
        socket, groups = _audience()
        if (socket or groups) and not isinstance(conf.celery_app().tasks.get(str(sender)), ConsumerTask):
            _begin(headers, socket, groups)
    except Exception:
        logger.exception("the task %s is not live", sender, extra={"action": "live_task_untold"})


def _audience() -> tuple[str, tuple[str, ...]]:
    """Return the reply channel of the socket, "" if there is none, and the groups to tell."""
    pending = held_here.get()
    message = None if pending is None or pending.closed else pending.message
    channel = None if message is None else message.content.get("reply_channel")
    if isinstance(channel, str) and channel.startswith(_SOCKETS):
        return channel, ()
    user = getattr(_request.get(), "user", None)
    return "", (User(user).group.name,) if user is not None and user.is_authenticated else ()


def _begin(headers: dict[str, Any], socket: str, groups: tuple[str, ...]) -> None:
    job, state = Job(str(headers["id"]), DEFAULT_CHANNEL_LAYER, groups), JobState()
    job.create(state)
    if socket:
        job.layer.group_add(group_of(job.id), socket)
    job.tell({**state.payload(job.id), "ticket": issue(Ticket(job.id, job.alias, True))})
    headers[HEADER] = LiveHeader(job, 0).dump()
