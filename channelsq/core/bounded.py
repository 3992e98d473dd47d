"""Calls with a time limit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

_Result = TypeVar("_Result")


def within(seconds: float, ask: Callable[[], _Result]) -> _Result:
    """Call ``ask`` with a time limit, and return or raise its result.

    ``ask`` runs in a separate thread.  A name that does not resolve, or a server that accepts connections and sends
    nothing, therefore delays the caller no longer than that.  The thread does not keep the process from exiting.

    Raises:
        TimeoutError: it takes longer.
    """
    results: list[_Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(ask())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="channelsq-bounded", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return results[0]
