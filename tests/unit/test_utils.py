from __future__ import annotations

import functools
from typing import Any

import pytest

from channelsq.utils import name_that_thing


def function(message: Any) -> None: ...


def decorated(message: Any) -> None: ...


@functools.wraps(decorated)
def wrapper(message: Any) -> None: ...


class Thing:
    class Inner:
        def method(self) -> None: ...

    def method(self) -> None: ...

    @classmethod
    def of_class(cls) -> None: ...

    @staticmethod
    def static() -> None: ...

    def __call__(self) -> None: ...


class Child(Thing): ...


def outer() -> Any:
    def inner() -> None: ...

    return inner


@pytest.mark.parametrize(
    ("thing", "name"),
    [
        (function, "function"),
        (wrapper, "decorated"),
        (lambda: None, "<lambda>"),
        (outer(), "outer.<locals>.inner"),
        (functools.partial(function, 1), "function"),
        (functools.partial(functools.partial(Thing().method)), "Thing.method"),
        (Thing, "Thing"),
        (Thing.Inner, "Thing.Inner"),
        (Thing(), "Thing"),
        (Thing().method, "Thing.method"),
        (Thing.method, "Thing.method"),
        (Thing.of_class, "Thing.of_class"),
        (Thing.static, "Thing.static"),
        (Thing.Inner().method, "Thing.Inner.method"),
        (Child().method, "Child.method"),
        (Child.of_class, "Child.of_class"),
        (Child(), "Child"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_things_of_this_module(thing: Any, name: str) -> None:
    assert name_that_thing(thing) == f"{__name__}.{name}"


@pytest.mark.parametrize(
    ("thing", "name"),
    [
        (print, "builtins.print"),
        (dict, "builtins.dict"),
        (5, "builtins.int"),
        (None, "builtins.NoneType"),
        ([].append, "builtins.list.append"),
    ],
)
def test_builtins(thing: Any, name: str) -> None:
    assert name_that_thing(thing) == name
