"""Celery's current app, which is this thread's and what ``shared_task`` functions belong to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from celery import Celery, _state

_tls = _state._tls  # type: ignore[attr-defined]  # celery-types leaves it out


def current_app() -> Celery | None:
    """The app that was made current in this thread; None for the default one."""
    found: Celery | None = _tls.current_app
    return found


@contextmanager
def as_before() -> Iterator[None]:
    """Have the app current behind a ``with`` block that was current before it."""
    before = current_app()
    try:
        yield
    finally:
        _tls.current_app = before


@contextmanager
def current(app: Celery) -> Iterator[Celery]:
    """Have ``app`` current in a ``with`` block, and what was current before it behind it."""
    with as_before():
        app.set_current()
        yield app
