"""The key of a session in Django's session engines, which they choose themselves.

A private part of Django; ``tests/unit/session_support/test_django_session_internals.py`` pins it.
"""

from __future__ import annotations

from django.contrib.sessions.backends.base import SessionBase


def set_key(session: SessionBase, key: str) -> None:
    """Have a session read and write under ``key`` from now on."""
    session._session_key = key
