"""Exceptions that are raised around a consumer cost neither a thread nor a prefetch slot."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from celery import states
from celery.exceptions import Reject

from channelsq.delivery import ending
from channelsq.worker.running.guard import GuardedTracer


def guarded(error: BaseException | None) -> Any:
    def tracer(*args: Any) -> str:
        if error is not None:
            raise error
        return "result"

    return GuardedTracer(SimpleNamespace(name="tests.consumer"), tracer)


def test_a_tracers_result_is_handed_on() -> None:
    tracer = guarded(None)
    assert tracer("id", ["channel", {}], {}) == "result"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(0), GeneratorExit(), MemoryError()], ids=repr)
def test_it_raises_nothing(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "_is_in_worker", lambda: True)
    result, info, _, _ = guarded(error)("id", ["channel", {}], {})
    assert isinstance(result.exception.exc, RuntimeError)
    assert type(error).__name__ in str(result.exception.exc)
    assert info.state == states.FAILURE


def test_reject_is_what_it_is() -> None:
    result, info, _, _ = guarded(Reject("no", requeue=True))("id", ["channel", {}], {})
    assert info.state == states.REJECTED
    assert result.exception.exc.requeue


def test_the_end_of_the_worker_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "_worker_ends", True)
    with pytest.raises(SystemExit):
        guarded(SystemExit(1))("id", ["channel", {}], {})
