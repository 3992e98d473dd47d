"""The bar of a live task in a page."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import unescape
from typing import Any

import pytest
from django.template import Context, Template
from django.test import override_settings
from django.urls import set_script_prefix
from django.utils import translation

from channelsq.asgi import ChannelLayerWrapper
from channelsq.exceptions import InvalidTicket
from channelsq.layers import InMemoryChannelLayer
from channelsq.live.job_state import JobState
from channelsq.live.jobs import Job
from channelsq.live.starting import LiveTask
from channelsq.live.task_page import fragment, shown, words_of
from tests.support.layers import installed

JOB = Job("0c6b5a52-9d7e-4cb7-8f43-3f6f0a1f9f10", "default")


@pytest.fixture
def task() -> Iterator[LiveTask]:
    with installed(ChannelLayerWrapper(InMemoryChannelLayer(), "default", [])):
        state = JobState()
        state.begin(0)
        state.progress(0, 40, 100, "rows")
        JOB.create(state)
        yield LiveTask(JOB, may_cancel=True)


def render(source: str, **context: Any) -> str:
    return Template("{% load channelsq %}" + source).render(Context(context))


@pytest.mark.parametrize(
    ("payload", "share", "words"),
    [
        ({"state": "waiting", "done": 0, "total": None}, 0.0, "Waiting"),
        ({"state": "started", "done": 0, "total": None}, None, "Running"),
        ({"state": "started", "done": 3, "total": None, "text": "rows"}, None, "rows"),
        ({"state": "started", "done": 40, "total": 100, "text": "rows"}, 0.4, "40 / 100 rows"),
        ({"state": "started", "done": 140, "total": 100}, 1.0, "140 / 100"),
        ({"state": "started", "done": 2.5, "total": 3}, 2.5 / 3, "2.5 / 3"),
        ({"state": "retry", "done": 0, "total": None}, 0.0, "Trying again"),
        ({"state": "success", "done": 1, "total": 1}, 1.0, "Done"),
        ({"state": "failure", "done": 0, "total": None, "error": "Row 7 has no date."}, 0.0, "Row 7 has no date."),
        ({"state": "failure", "done": 0, "total": None}, 0.0, "The task failed."),
        ({"state": "revoked", "done": 0, "total": None}, 0.0, "Cancelled"),
        ({"state": "unknown", "done": 0, "total": None}, 0.0, "Unknown"),
    ],
)
def test_a_state_in_words(payload: dict[str, Any], share: float | None, words: str) -> None:
    assert words_of(payload) == words
    assert shown({"id": "a", **payload}).share == share


def test_a_fragment_escapes_what_a_task_says() -> None:
    html = fragment({"id": "a", "state": "started", "done": 1, "total": None, "text": "<script>alert(1)</script>"})
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert 'hx-swap-oob="true"' in html


def test_the_bar_with_its_script(task: LiveTask) -> None:
    html = render("{% task_progress task 'Import' %}", task=task)
    name = f"channelsq-task-{JOB.id}-label"
    assert f'<span id="{name}" class="channelsq-task-label">Import</span>' in html
    assert "<div" not in html  # which would end a paragraph around it
    assert f'<progress aria-labelledby="{name}" value="0.4" max="1">' in html
    assert '<span role="status" aria-live="off">40 / 100 rows</span>' in html
    assert f'ticket="{task.ticket}" path="/channelsq/live/"' in html
    assert "hx-" not in html
    assert '<script type="module" src="/static/channelsq/js/live.js"></script>' in html
    words = re.search(r'words="([^"]*)"', html)
    assert words is not None
    assert json.loads(unescape(words[1]))["retry"] == "Trying again"
    assert render("{% task_progress ticket 'Import' %}", ticket=task.ticket) == html


def test_the_bar_of_htmx(task: LiveTask) -> None:
    html = render("{% task_progress task htmx=True %}", task=task)
    assert re.search(r'<span hx-ext="ws" ws-connect="/channelsq/live/\?ticket=0c6b5a52[^"]*">', html)
    assert "<script" not in html
    assert "hx-swap-oob" not in html  # it is in its place


def test_the_bar_below_a_path_with_a_nonce(task: LiveTask) -> None:
    set_script_prefix("/shop/")
    try:
        html = render("{% task_progress task %}", task=task, csp_nonce="abc")
    finally:
        set_script_prefix("/")
    assert 'path="/shop/channelsq/live/"' in html
    assert 'nonce="abc"></script>' in html


def test_the_bar_of_a_task_that_is_not_known_any_more(task: LiveTask) -> None:
    JOB.records.delete(JOB.record)
    assert 'data-state="waiting"' in render("{% task_progress task %}", task=task)


def test_the_bar_of_anything_else(task: LiveTask) -> None:
    with pytest.raises(TypeError, match="takes what start"):
        render("{% task_progress 7 %}")
    with pytest.raises(InvalidTicket):
        render("{% task_progress 'no ticket' %}")


def test_words_in_another_language(task: LiveTask) -> None:
    with translation.override("de"), override_settings(LANGUAGE_CODE="de"):
        assert render("{% task_progress task %}", task=task)
