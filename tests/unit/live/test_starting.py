"""The start of live tasks that run in place (CELERY_TASK_ALWAYS_EAGER), on the layer in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from celery import Celery
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.test import override_settings
from kombu.exceptions import OperationalError

from channelsq import Channel, Group, conf
from channelsq.asgi import ChannelLayerWrapper, channel_layers
from channelsq.exceptions import InvalidChannelLayerError, PublicError
from channelsq.layers import InMemoryChannelLayer, KombuChannelLayer
from channelsq.live import LiveTask, listeners, progress, start, stream, task_hooks
from channelsq.live.consumers import receive
from channelsq.live.job_state import JobState
from channelsq.live.jobs import Job, group_of
from channelsq.live.runs import current_run
from channelsq.live.tickets import Ticket, issue, read
from tests.support.layers import installed, message_on
from tests.support.waiting import wait_until

app = Celery("starting", set_as_current=False)
app.conf.task_always_eager = True


@app.task
def add(*numbers: int) -> int:
    progress(1, 2, "half")
    with stream() as out:
        print("text", file=out)
    assert listeners() == 1
    return sum(numbers)


@app.task
def add_in_coroutine(*numbers: int) -> int:
    async def report() -> int:
        progress(1, 2, "half")
        with stream() as out:
            print("text", file=out)
        add.delay(7)
        return sum(numbers)

    return async_to_sync(report)()


@app.task
def fail() -> None:
    raise PublicError("it cannot")


@pytest.fixture(autouse=True)
def layer(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemoryChannelLayer]:
    monkeypatch.setattr(conf, "_celery_app", app)
    task_hooks.install()
    layer = InMemoryChannelLayer()
    with installed(ChannelLayerWrapper(layer, "default", [])):
        yield layer


def test_a_task_that_runs_in_place_is_live() -> None:
    live = start(add.s(1, 2))
    assert live.status() == {
        "id": live.id, "n": 5, "state": "success", "done": 1.0, "total": 1.0, "text": "half", "result": 3,
    }  # fmt: skip
    assert str(live) == live.id
    assert read(live.ticket).may_cancel
    assert not live.cancel()  # it has ended


def test_a_coroutine_of_a_task_reports() -> None:
    """It runs in another thread."""
    status = start(add_in_coroutine.s(1, 2)).status()
    assert status is not None
    assert (status["state"], status["text"], status["result"]) == ("success", "half", 3)
    progress(1)  # of no task; nothing is left of the run
    assert current_run() is None


@app.task
def cancel_itself() -> None:
    live = started[-1]
    assert live.cancel()
    progress(1, 2)
    run = current_run()
    assert run is not None
    wait_until(lambda: run.is_cancelled, "the run to hear of it")
    progress(2, 2)


started: list[LiveTask] = []


@pytest.mark.django_db(transaction=True)
def test_a_task_in_place_is_cancelled_without_a_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise AssertionError("a worker was asked, and there is none")

    monkeypatch.setattr(app.control, "revoke", refuse)
    with transaction.atomic():  # the task runs after the block, when the test has its handle
        live = start(cancel_itself.s())
        started.append(live)
    status = live.status()
    assert status is not None
    assert status["state"] == "revoked"


def test_a_page_that_cancels_tells_the_whole_audience(layer: InMemoryChannelLayer) -> None:
    layer.group_add("room", "page")
    job = Job("waits", "default", ("room",))
    job.create(JobState())
    text = json.dumps({"stream": "channelsq.task", "payload": {"cancel": [issue(Ticket("waits", "default", True))]}})
    receive(message_on(channel_layers["default"], text=text, reply_channel="other-page"))
    content = layer.receive(["page"])[1]
    assert content is not None
    assert json.loads(content["text"])["payload"]["state"] == "revoked"


def test_a_failure_in_place() -> None:
    live = start(fail.s())
    status = live.status()
    assert status is not None
    assert (status["state"], status["error"]) == ("failure", "it cannot")


def test_who_is_told_and_who_may_cancel(layer: InMemoryChannelLayer) -> None:
    live = start(add.s(), to=[Channel("page-one"), Channel("page-two")])
    assert sorted(layer.group_channels(group_of(live.id))) == ["page-one", "page-two"]
    assert read(live.ticket).may_cancel
    group = start(add.s(), to=Group("room"))
    assert not read(group.ticket).may_cancel
    assert read(start(add.s(), to=Group("room"), may_cancel=True).ticket).may_cancel
    assert not read(start(add.s(), may_cancel=False).ticket).may_cancel


@pytest.mark.django_db(transaction=True)
def test_in_a_transaction_a_task_is_sent_after_the_commit() -> None:
    with transaction.atomic():
        live = start(add.s(1))
        assert live.status() is None
    assert live.status() is not None
    with transaction.atomic():
        live = start(add.s(1))
        transaction.set_rollback(True)
    assert live.status() is None


@pytest.mark.parametrize(
    ("signature", "options", "text"),
    [
        (add, {}, r"takes a signature such as .*add\.s\(…\), not"),
        ("add", {}, "takes a signature"),
        (add.s(), {"to": "room"}, "takes a reply channel, a User, a Group"),
        (add.s(), {"to": [7]}, "takes a reply channel, a User, a Group"),
        (add.s(), {"task_id": "mine"}, "chooses the task's id"),
    ],
)
def test_mistakes(signature: Any, options: dict[str, Any], text: str) -> None:
    with pytest.raises(TypeError, match=text):
        start(signature, **options)


def test_a_layer_without_a_place_for_the_state() -> None:
    layer = ChannelLayerWrapper(KombuChannelLayer(url="amqp://localhost"), "default", [])
    with installed(layer), pytest.raises(InvalidChannelLayerError, match="groups_url"):
        start(add.s())


def test_the_signature_is_as_before() -> None:
    signature = add.s(1)
    start(signature)
    assert "headers" not in signature.options
    signature.set(headers={"mine": "1"})
    start(signature)
    assert signature.options["headers"] == {"mine": "1"}


def test_nothing_happens_outside_of_live_tasks() -> None:
    progress(1, 2, "rows")
    with stream("answer") as out:
        assert out.write("abc") == 3
    assert listeners() == 1
    assert add.delay(1, 2).get() == 3


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("1",), TypeError),
        ((True,), TypeError),
        ((1, "2"), TypeError),
        ((1, 2, 3), TypeError),
        ((float("nan"),), ValueError),
    ],
)
def test_progress_takes_numbers_and_a_text(arguments: tuple[Any, ...], error: type[Exception]) -> None:
    with pytest.raises(error, match="progress"):
        progress(*arguments)


@pytest.mark.parametrize("name", ["", "a b", "ü", "x" * 51, 7])
def test_names_of_streams(name: Any) -> None:
    with pytest.raises(TypeError, match="a stream's name"):
        stream(name)


def test_a_stream_takes_text() -> None:
    data: Any = b"bytes"
    with stream() as out, pytest.raises(TypeError, match="takes a str"):
        out.write(data)


def test_a_task_that_cannot_be_sent_has_failed_for_its_pages(layer: InMemoryChannelLayer) -> None:
    away = Celery("away", broker="redis://127.0.0.1:1/0", set_as_current=False)
    with pytest.raises(OperationalError):
        start(away.signature("anything"), to=Channel("page"), retry=False)
    states = [json.loads(layer.receive(["page"])[1]["text"])["payload"]["state"] for _ in range(2)]  # type: ignore[index]
    assert states == ["waiting", "failure"]


def test_a_state_is_kept_for_less_time_after_the_end(layer: InMemoryChannelLayer) -> None:
    with override_settings(CHANNEL_LIVE={"keep": 0.2}):
        live = start(add.s(1))
        wait_until(lambda: live.status() is None, "the state to end")
        job = Job("without-end", "default")
        job.create(JobState())
        job.update(lambda state: state.begin(0))
        assert job.read()[0] is not None
        other = start(add.s(1))
        wait_until(lambda: other.status() is None, "another one to end")
        assert job.read()[0] is not None


def test_settings_that_cannot_be() -> None:
    for wrong in ({"keeep": 1}, {"keep": 0}, {"terminate": 1}, {"path": "live"}, [1]):
        with override_settings(CHANNEL_LIVE=wrong), pytest.raises(ImproperlyConfigured, match="CHANNEL_LIVE"):
            conf.live_settings()
    with override_settings(CHANNEL_LIVE={"keep": 7}):
        assert conf.live_settings().keep == 7
    assert conf.live_settings().keep == 3600
