"""The worker's app in a channel process, and the process's answers."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import types

import pytest
from celery import Celery
from celery.app.utils import find_app

from channelsq import conf
from channelsq.worker.processes.pipe import Pipe
from channelsq.worker.processes.process_supervisor import Child, name_of


def test_an_app_is_found_by_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    with Celery("named", broker="memory://", set_as_current=False) as app:
        module = types.ModuleType("a_project_of_mine")
        module.queue = app  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        name = name_of(app)
        assert name == "a_project_of_mine:queue"
        assert find_app(name) is app


def test_modules_of_the_project_are_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that got the app from the project cannot create it in another process."""
    with Celery("held", broker="memory://", set_as_current=False) as app:
        roots = {name.partition(".")[0] for name in conf.project_modules()}
        for name in ("a_library_that_was_imported_first", f"{min(roots)}.queue_of_this_test"):
            module = types.ModuleType(name)
            module.held = app  # type: ignore[attr-defined]
            monkeypatch.setitem(sys.modules, name, module)
        assert name_of(app) == f"{min(roots)}.queue_of_this_test:held"


def test_channelsqs_own_modules_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """They remember the app, and are often imported before the project's."""
    with Celery("remembered", broker="memory://", set_as_current=False) as app:
        monkeypatch.setattr(conf, "_celery_app", app)
        with pytest.raises(RuntimeError):
            name_of(app)


def test_an_app_that_no_module_has() -> None:
    with (
        Celery("hidden", broker="memory://", set_as_current=False) as app,
        pytest.raises(RuntimeError, match="no module contains"),
    ):
        name_of(app)


def test_the_module_that_was_started_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process has another ``__main__``."""
    with Celery("main", broker="memory://", set_as_current=False) as app:
        started = types.ModuleType("__main__")
        started.app = app  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "__main__", started)
        with pytest.raises(RuntimeError):
            name_of(app)


def test_answers_find_their_questions() -> None:
    mine, its = socket.socketpair()
    with mine, its, subprocess.Popen(["true"]) as process:
        child, other = Child(process, Pipe(mine)), Pipe(its).messages()
        first = child.ask("active")
        assert child.answer(first, 0.01) is None  # it does not answer in time
        second = child.ask("active")
        assert [next(other)["number"] for _ in range(2)] == [first, second]

        def answer() -> None:
            child.answered(first, "late")
            child.answered(second, ["found"])

        threading.Timer(0.05, answer).start()
        assert child.answer(second, 10) == ["found"]
