"""The channels and queues that ``-Q`` and ``-X`` choose."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from channelsq import route
from channelsq.worker.commands.selection import divide, selection_of
from tests.support.fakes.workers import FakeBareWorker
from tests.support.sources import app_with_source


def consumer(message: Any) -> None: ...


DELAYED = "channelsq.delayed"
DEFAULT = {"http.request", "websocket.connect", "websocket.receive", "websocket.disconnect", "http.disconnect", DELAYED}


@pytest.fixture
def worker() -> Iterator[Any]:
    with app_with_source([route("jobs", consumer), route("mail", consumer)], prefix="site") as (app, _):
        app.conf.task_queues = None
        worker = FakeBareWorker(app)
        divide(instance=worker)
        yield worker


@pytest.mark.parametrize(
    ("include", "exclude", "channels", "queues"),
    [
        (None, None, {"jobs", "mail", *DEFAULT}, {"celery"}),
        ("site:jobs", None, {"jobs", DELAYED}, set()),
        (["site:jobs", "celery"], None, {"jobs", DELAYED}, {"celery"}),
        ("celery", None, set(), {"celery"}),
        ("celery,reports", None, set(), {"celery", "reports"}),
        (None, "site:jobs", {"mail", *DEFAULT}, {"celery"}),
        (None, "celery", {"jobs", "mail", *DEFAULT}, set()),
        ("site:jobs,site:mail", "site:mail", {"jobs", DELAYED}, set()),
        ("site:jobs", f"site:{DELAYED}", {"jobs"}, set()),
        (f"site:{DELAYED}", None, {DELAYED}, set()),
        ("jobs", None, set(), {"jobs"}),  # without the layer's prefix it is a queue of Celery's
    ],
)
def test_what_is_read(worker: Any, include: Any, exclude: Any, channels: set[str], queues: set[str]) -> None:
    worker.setup_queues(include, exclude)
    assert set(selection_of(worker).of("default")) == channels
    assert set(worker.app.amqp.queues.consume_from) == queues


def test_a_worker_without_a_command_line_reads_all() -> None:
    with app_with_source([route("jobs", consumer)]) as (app, _):
        assert set(selection_of(SimpleNamespace(app=app)).of("default")) == {"jobs", *DEFAULT}


def test_the_banner(worker: Any) -> None:
    lines = worker.startup_info().splitlines()
    assert lines[0] == "banner"
    assert "                .> consumers run in 2 threads" in lines
    assert lines[-1].endswith(": jobs")
