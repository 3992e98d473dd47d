"""The consumers of the frames of pages about live tasks."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

from channelsq import conf
from channelsq.core import names
from channelsq.exceptions import BadFrame, DenyConnection, InvalidTicket
from channelsq.fragments.joining import PageSocket, answer_connect, answer_frame, is_of_page
from channelsq.live.job_state import JobState
from channelsq.live.jobs import Job, frame, group_of, html_group_of
from channelsq.live.runs import shown_error, shown_result
from channelsq.live.starting import cancel
from channelsq.live.streams import PIECE, kept_text, units
from channelsq.live.task_page import fragment
from channelsq.live.tickets import Ticket, read
from channelsq.message import Message

logger = logging.getLogger("channelsq.live")

#: The most tickets in one frame.
MOST = 50


def receive(message: Message) -> None:
    """Answer a frame ``{"stream": "channelsq.task", "payload": {"watch" | "unwatch" | "cancel": [ticket, …]}}``.

    A frame about live pages comes here only if the interface server leaves it to the workers.

    Raises:
        BadFrame: the frame has another form.
    """
    if message["text"].startswith(names.PAGE_FRAME):
        for answer in answer_frame(message["text"], _page_socket(message)):
            message.reply_channel.send(answer)
        return
    try:
        payload = json.loads(message["text"])["payload"]
        ((asked, tickets),) = payload.items()
        respond = _ANSWERS[asked]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadFrame('a frame about live tasks has a payload such as {"watch": ["ticket"]}') from None
    if not isinstance(tickets, list) or len(tickets) > MOST:
        raise BadFrame(f"a frame about live tasks has a list of at most {MOST} tickets")
    for text in tickets:
        try:
            ticket = read(text)
        except InvalidTicket as error:
            _reply(message, {"ticket": str(text)[:400], "state": "refused", "error": str(error)})
        else:
            respond(message, text, ticket)


def _page_socket(message: Message) -> PageSocket:
    return PageSocket(message.reply_channel.name, message.reply_channel.channel_layer.alias)


def _reply(message: Message, payload: dict[str, Any]) -> None:
    message.reply_channel.send({"text": frame(payload)})


def _watch(message: Message, text: str, ticket: Ticket) -> None:
    """Let the socket watch a task, and send it all that is known so far."""
    job = Job(ticket.job, ticket.layer)
    # First, so that nothing is missed; pages recognise a message that comes twice.
    job.layer.group_add(group_of(job.id), message.reply_channel.name)
    state, fields = job.read()
    if state is not None and not state.has_ended:
        state = _as_celery_knows(job) or state
    if state is None:
        _reply(message, {"id": job.id, "ticket": text, "state": "unknown"})
        return
    for payload in _streams(job, state, fields):
        _reply(message, payload)
    _reply(message, {**state.payload(job.id), "ticket": text})


def _as_celery_knows(job: Job) -> JobState | None:
    """End a task that has ended for Celery: its worker may have died before it could report that.

    Return the state then; None if the task goes on, or if Celery keeps no results.
    """
    try:
        found = conf.celery_app().AsyncResult(job.id)
        state, outcome = str(found.state), found.result
    except Exception as error:  # no backend, or one that is away
        logger.debug("live task %s: Celery's result is not known: %s", job.id, error)
        return None
    if state == "SUCCESS":
        result, is_omitted = shown_result(outcome, conf.live_settings().result_size)
        return job.update(lambda each: each.succeed(0, is_last=True, result=result, is_omitted=is_omitted))
    if state == "FAILURE":
        return job.update(lambda each: each.fail(0, (), is_last=True, error=shown_error(outcome)))
    return job.update(JobState.revoke) if state == "REVOKED" else None


def _streams(job: Job, state: JobState, fields: dict[str, bytes]) -> Iterable[dict[str, Any]]:
    """Yield payloads with the text of each stream so far; the first of a stream replaces what the page has."""
    for name, (run, length) in state.streams.items():
        at, text = kept_text(fields, name, run)
        about = {"id": job.id, "stream": name, "run": run}
        for start in range(0, max(1, len(text)), PIECE):
            piece = text[start : start + PIECE]
            yield {**about, "at": at, "piece": piece, **({} if start else {"begin": True})}
            at += units(piece)
        if length is not None:
            yield {**about, "at": length, "end": True}


def _unwatch(message: Message, text: str, ticket: Ticket) -> None:
    job = Job(ticket.job, ticket.layer)
    job.layer.group_discard(group_of(job.id), message.reply_channel.name)


def _cancel(message: Message, text: str, ticket: Ticket) -> None:
    """Cancel a task, if the ticket and the project allow it."""
    path = conf.live_settings().may_cancel
    if not ticket.may_cancel or (path and not conf.import_dotted(path)(message, ticket.job)):
        _reply(message, {"id": ticket.job, "ticket": text, "cancel": "refused"})
    elif not cancel(Job(ticket.job, ticket.layer)):
        _watch(message, text, ticket)  # it has ended before


def connect(message: Message) -> None:
    """Accept the socket of a page without one of its own; with a ticket it is one of htmx, and gets HTML.

    Raises:
        DenyConnection: the ticket is invalid.
    """
    if is_of_page(message["query_string"]):
        answer = answer_connect(message["query_string"], _page_socket(message))
        message.reply_channel.send(answer)
        return
    query = parse_qs(message["query_string"].decode("ascii", "replace"))
    if "ticket" not in query:
        message.reply_channel.send({"accept": True})
        return
    try:
        ticket = read(query["ticket"][0])
    except InvalidTicket as error:
        raise DenyConnection(f"the ticket is refused: {error}") from error
    job = Job(ticket.job, ticket.layer)
    job.layer.group_add(html_group_of(job.id), message.reply_channel.name)
    state, _ = job.change(JobState.follow_in_html)
    if state is not None and not state.has_ended:
        state = _as_celery_knows(job) or state
    payload = {"id": job.id, "state": "unknown", "done": 0, "total": None} if state is None else state.payload(job.id)
    message.reply_channel.send({"accept": True, "text": fragment(payload)})


_ANSWERS: dict[str, Callable[[Message, str, Ticket], None]] = {
    "watch": _watch,
    "unwatch": _unwatch,
    "cancel": _cancel,
}
