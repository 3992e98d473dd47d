"""``{% load channelsq %}``."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from django import template
from django.template import Context
from django.templatetags.static import static
from django.urls import get_script_prefix
from django.utils.html import format_html
from django.utils.safestring import SafeString

from channelsq import conf

register = template.Library()


@register.simple_tag(takes_context=True)
def task_progress(context: Context, task: Any, label: str = "", *, htmx: bool = False) -> SafeString:
    """Return the bar of a live task: ``{% task_progress task %}``.

    With ``htmx=True`` htmx 2 and its extension ``ws``, which the page must load, keep the bar up to date; otherwise a
    script of channelsq does.

    Args:
        context: the template's.
        task: what :func:`channelsq.live.start` returned, or its ticket.
        label: the visible and accessible name of the bar.
        htmx: whether the page has htmx.

    Raises:
        TypeError: ``task`` is something else.
    """
    from channelsq.live.jobs import Job
    from channelsq.live.starting import LiveTask
    from channelsq.live.task_page import labelled, state_words
    from channelsq.live.tickets import read

    ticket = task.ticket if isinstance(task, LiveTask) else task
    if not isinstance(ticket, str):
        raise TypeError(f"{{% task_progress %}} takes what start() returned, or its ticket, not {task!r}")
    about = read(ticket)
    state, _ = Job(about.job, about.layer).read()
    payload = (
        {"id": about.job, "state": "waiting", "done": 0, "total": None} if state is None else state.payload(about.job)
    )
    bar = labelled(payload, label)
    path = get_script_prefix().rstrip("/") + conf.live_settings().path
    if htmx:
        return format_html('<span hx-ext="ws" ws-connect="{}?ticket={}">{}</span>', path, quote(ticket), bar)
    return format_html(
        '<channelsq-task ticket="{}" path="{}" words="{}">{}</channelsq-task>{}',
        ticket,
        path,
        json.dumps(state_words()),
        bar,
        _script(context, "channelsq/js/live.js"),
    )


def _script(context: Context, name: str) -> SafeString:
    """Return the element that loads a module of channelsq, with the nonce of the page if it has one."""
    nonce = context.get("csp_nonce")
    return format_html(
        '<script type="module" src="{}"{}></script>', static(name), format_html(' nonce="{}"', nonce) if nonce else ""
    )


@register.simple_tag(takes_context=True)
def live(context: Context, *groups: Any, refresh: str = "", htmx: bool = False, turbo: bool = False) -> SafeString:
    """Keep a page up to date with the fragments of groups: ``{% live "room" %}``; see docs/how-to/build/live-pages.md.

    Put it above the content that the fragments change.

    Args:
        context: the template's.
        groups: their names, :class:`~channelsq.Group` or :class:`~channelsq.users.User` objects, or users of Django.
        refresh: the ids of elements, separated by spaces, that are loaded again after fragments were missed.
        htmx: whether htmx 2 and its extension ``ws``, which the page must load, change the page.
        turbo: whether Turbo's ``<turbo-stream-source>`` does.

    Raises:
        TypeError: a group is something else, or they are on several layers.
        ValueError: there are no groups or too many, or both libraries are named.
    """
    from channelsq.live.page_tag import live_element

    element = live_element(groups, refresh, htmx=htmx, turbo=turbo).html(context.get("request"))
    return format_html("{}{}", element, _script(context, "channelsq/js/livepage.js"))


@register.simple_tag(takes_context=True)
def channel_token(context: Context, path: str | None = None) -> str:
    """Return a token for the user of the request: ``{% channel_token %}``, see :mod:`channelsq.security.tokens`.

    ``{% channel_token path="/chat/tea/" %}`` opens that path alone.  The result is empty without a login.

    Raises:
        ValueError: the template has no ``request``.
    """
    from channelsq.security.tokens import make_token

    request: Any = context.get("request")
    if request is None:
        raise ValueError(
            "{% channel_token %} needs the request: render the template with it, and put "
            "'django.template.context_processors.request' among the context processors"
        )
    if not getattr(getattr(request, "user", None), "is_authenticated", False):
        return ""
    return make_token(request, path=path)
