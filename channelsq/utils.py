"""Names of objects."""

from __future__ import annotations

import functools
import inspect
import types
from typing import Any

__all__ = ["name_that_thing"]


def name_that_thing(thing: Any) -> str:
    """Return a readable dotted name of a function, class, method or instance: ``app.consumers.ws_receive``."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    if isinstance(thing, types.MethodType):
        owner = thing.__self__ if inspect.isclass(thing.__self__) else type(thing.__self__)
        return f"{owner.__module__}.{owner.__qualname__}.{thing.__func__.__name__}"
    if not (inspect.isclass(thing) or inspect.isroutine(thing) or _has_name_of_its_own(thing)):
        thing = type(thing)
    module = getattr(thing, "__module__", None) or "builtins"
    return f"{module}.{thing.__qualname__}"


def _has_name_of_its_own(thing: Any) -> bool:
    """Return whether an instance has the name of a function that it wraps, as decorators that are classes do."""
    return {"__wrapped__", "__module__", "__qualname__"} <= getattr(thing, "__dict__", {}).keys()
