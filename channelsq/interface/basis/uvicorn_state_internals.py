"""The connections and tasks that uvicorn's server keeps.

This is a private part of uvicorn; ``tests/unit/interface/http/test_uvicorn_http_internals.py`` pins it.
"""

from __future__ import annotations

from typing import Any, cast

from uvicorn.server import ServerState

__all__ = ["ServerState", "connections_of", "tasks_of"]


def connections_of(state: ServerState) -> set[Any]:
    """Return the protocols of the open connections; uvicorn waits for them at shutdown."""
    return cast("set[Any]", state.connections)


def tasks_of(state: ServerState) -> set[Any]:
    """Return the tasks that answer requests."""
    return cast("set[Any]", state.tasks)
