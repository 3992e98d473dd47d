"""Asking what may not answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

_Result = TypeVar("_Result")


def within(seconds: float, ask: Callable[[], _Result]) -> _Result:
    """Return what ``ask`` returns, or raise what it raises.

    It runs in a thread of its own.  A name that is not resolved, or a server that accepts connections and says
    nothing, so holds up nobody for longer; the thread does not keep the process from ending.

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
