"""A live task in a page: ``{% task_progress %}`` and the fragments of its htmx form."""

from __future__ import annotations

from typing import Any, NamedTuple

from django.template.loader import render_to_string
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _

from channelsq.live.job_state import FAILURE, RETRY, REVOKED, STARTED, SUCCESS, WAITING

#: The template of the bar; a project may have its own.
TEMPLATE = "channelsq/task.html"


class ShownTask(NamedTuple):
    """A task as the template gets it."""

    #: Its id in the page.
    dom_id: str
    state: str
    #: The part that is done, from 0 to 1; None if that is unknown.
    share: float | None
    #: The state in words.
    words: str


def words_of(payload: dict[str, Any]) -> str:
    """Return a state in words.

    Args:
        payload: see :meth:`channelsq.live.job_state.JobState.payload`.
    """
    state = payload["state"]
    if state == FAILURE:
        return str(payload.get("error") or _("The task failed."))
    if state == STARTED and payload["total"]:
        counted = f"{payload['done']:g} / {payload['total']:g}"
        return f"{counted} {payload.get('text', '')}".rstrip()
    return str((state == STARTED and payload.get("text")) or state_words().get(state, _("Unknown")))


def state_words() -> dict[str, str]:
    """Return the words for states, in the language of the request."""
    return {
        WAITING: _("Waiting"),
        STARTED: _("Running"),
        RETRY: _("Trying again"),
        SUCCESS: _("Done"),
        FAILURE: _("The task failed."),
        REVOKED: _("Cancelled"),
        "unknown": _("Unknown"),
        "refused": _("Not available"),
    }


def shown(payload: dict[str, Any]) -> ShownTask:
    """Return what the template needs of a payload."""
    total = payload.get("total")
    share = max(0.0, min(1.0, payload["done"] / total)) if total else None
    if payload["state"] not in (STARTED, SUCCESS):
        share = 0.0
    return ShownTask(f"channelsq-task-{payload['id']}", payload["state"], share, words_of(payload))


def fragment(payload: dict[str, Any], *, is_swap: bool = True) -> str:
    """Return the HTML of a task's bar.

    Args:
        payload: see :meth:`channelsq.live.job_state.JobState.payload`.
        is_swap: whether htmx is to put it in place of the bar that is there.
    """
    return render_to_string(TEMPLATE, {"task": shown(payload), "is_swap": is_swap}).strip()


def labelled(payload: dict[str, Any], label: str) -> SafeString:
    """Return the HTML of a task's bar below its label, which stays when the bar is replaced.

    Args:
        payload: see :meth:`channelsq.live.job_state.JobState.payload`.
        label: the visible and accessible name of the bar.
    """
    return format_html(
        '<span id="{}-label" class="channelsq-task-label">{}</span>{}',
        shown(payload).dom_id,
        label or _("Progress"),
        mark_safe(fragment(payload, is_swap=False)),  # noqa: S308 - of a template
    )
