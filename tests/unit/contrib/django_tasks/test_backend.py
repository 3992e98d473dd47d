"""Tasks of django.tasks as Celery's messages, and their runs in place with a result backend in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery
from django.core import checks as django_checks
from django.dispatch import Signal
from django.tasks import TaskContext, TaskResult, TaskResultStatus, default_task_backend, task, task_backends
from django.tasks.checks import check_tasks
from django.tasks.exceptions import InvalidTask, TaskResultDoesNotExist, TaskResultMismatch
from django.tasks.signals import task_enqueued, task_finished, task_started
from django.test import override_settings
from django.utils import timezone
from kombu.exceptions import OperationalError

from channelsq import conf
from channelsq.asgi import ChannelLayerWrapper
from channelsq.contrib.django_tasks.backend import celery_priority
from channelsq.contrib.django_tasks.stamps import STAMP, TaskStamp, read_stamp
from channelsq.layers import InMemoryChannelLayer
from channelsq.live import PublicError, progress, start, task_hooks
from tests.support.layers import installed

TASKS = {
    "default": {"BACKEND": "channelsq.contrib.django_tasks.CeleryBackend", "QUEUES": ["default", "reports"]},
    "second": {"BACKEND": "channelsq.contrib.django_tasks.CeleryBackend", "QUEUES": []},
    "dummy": {"BACKEND": "django.tasks.backends.dummy.DummyBackend"},
}
LATER = datetime(2100, 1, 1, 12, tzinfo=UTC)

with override_settings(TASKS=TASKS):

    @task
    def add(one: int, two: int = 0) -> int:
        """Return a sum."""
        progress(1, 2, "half")
        return one + two

    @task
    async def add_later(one: int, two: int) -> int:
        await asyncio.sleep(0)
        progress(1, 2, "half")
        return one + two

    @task(takes_context=True)
    def show(context: TaskContext[Any, Any]) -> list[Any]:
        result = context.task_result
        return [result.id, context.attempt, result.task.priority, result.task.queue_name, result.backend]

    @task
    def fail(text: str) -> None:
        raise PublicError(text)

    @task
    def not_json() -> object:
        return {1, 2}

    @task(backend="dummy")
    def elsewhere() -> None:
        """Do nothing."""


def make_app(**settings: Any) -> Celery:
    app = Celery("tasks", set_as_current=False)
    app.conf.update(
        broker_url="memory://", result_backend="cache+memory://", result_extended=True, task_always_eager=True,
        task_store_eager_result=True,
    )  # fmt: skip
    app.conf.update(settings)
    return app


@pytest.fixture(autouse=True)
def app(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """A Celery app in memory that runs tasks in place, or with the settings of the test."""
    app = make_app(**getattr(request, "param", {}))
    monkeypatch.setattr(conf, "_celery_app", app)
    with override_settings(TASKS=TASKS):
        yield app


sends = pytest.mark.parametrize("app", [{"task_always_eager": False}], indirect=True)


def sent(app: Celery, queue: str = "celery") -> Any:
    """Take a message from a queue."""
    with app.connection_for_read() as connection:
        message = connection.SimpleQueue(queue).get(block=False)
        message.ack()
    return message


@pytest.fixture
def signals() -> Iterator[list[tuple[str, TaskResult[Any, Any]]]]:
    """The signals of the framework in their order."""
    seen: list[tuple[str, TaskResult[Any, Any]]] = []
    signals: dict[str, Signal] = {"enqueued": task_enqueued, "started": task_started, "finished": task_finished}
    receivers = []
    for name, signal in signals.items():

        def receive(task_result: TaskResult[Any, Any], name: str = name, **kwargs: Any) -> None:
            seen.append((name, task_result))

        signal.connect(receive)
        receivers.append((signal, receive))
    yield seen
    for signal, receiver in receivers:
        signal.disconnect(receiver)


# -- what is sent


@sends
def test_a_task_is_a_celery_message(app: Celery) -> None:
    before = timezone.now()
    result = add.enqueue(1, two=2)
    assert (result.status, result.args, result.kwargs, result.backend) == ("READY", [1], {"two": 2}, "default")
    message = sent(app)
    headers = message.headers
    assert (headers["id"], headers["task"], headers["eta"]) == (result.id, f"{__name__}.add", None)
    assert json.loads(message.body)[:2] == [[1], {"two": 2}]
    assert message.properties["priority"] == 0
    stamp = read_stamp(headers["stamps"][STAMP])
    assert stamp is not None
    assert result.enqueued_at is not None
    assert before <= result.enqueued_at <= timezone.now()
    assert stamp == TaskStamp("default", "default", 0, None, result.enqueued_at.isoformat())


@sends
def test_the_options_of_a_task_are_those_of_its_message(app: Celery) -> None:
    result = add.using(queue_name="reports", priority=-100, run_after=LATER, backend="second").enqueue(1)
    message = sent(app, "reports")
    assert datetime.fromisoformat(message.headers["eta"]) == LATER
    assert message.properties["priority"] == 0  # of a broker that is no Redis, where that is the last
    stamp = read_stamp(message.headers["stamps"][STAMP])
    assert stamp is not None
    assert stamp.task(add) == result.task


@sends
def test_a_coroutine_enqueues(app: Celery) -> None:
    result = asyncio.run(add.aenqueue(1, 2))
    assert sent(app).headers["id"] == result.id


@pytest.mark.parametrize(
    ("url", "settings", "priorities"),
    [
        ("redis://server/0", {}, {100: 0, 1: 0, -50: 4, -100: 9}),
        ("rediss-streams://server/0", {}, {100: 0, -100: 9}),
        ("sentinel://one;sentinel://two", {"task_default_priority": 4}, {100: 0, 50: 2, -100: 9}),
        ("amqp://server", {}, {100: 9, 50: 4, 1: 0, -100: 0}),
        ("amqp://server", {"task_queue_max_priority": 20, "task_default_priority": 10}, {100: 20, 50: 15, -100: 0}),
    ],
)
def test_more_urgent_for_django_is_more_urgent_for_the_broker(
    url: str, settings: dict[str, Any], priorities: dict[int, int]
) -> None:
    app = make_app(broker_url=url, **settings)
    assert {each: celery_priority(each, app) for each in priorities} == priorities


@sends
def test_what_django_refuses_is_not_sent(app: Celery) -> None:
    with pytest.raises(InvalidTask, match="Queue 'other' is not valid"):
        add.using(queue_name="other")
    with pytest.raises(TypeError, match="Unsupported type"):
        add.enqueue(object())  # type: ignore[arg-type]
    with pytest.raises(InvalidTask, match="module level"):

        @task
        def local() -> None:
            """Do nothing."""


@pytest.mark.parametrize(
    "app", [{"task_always_eager": False, "broker_url": "redis://127.0.0.1:1", "task_publish_retry": False}],
    indirect=True,
)  # fmt: skip
def test_a_task_that_cannot_be_sent_leaves_no_result(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    backend: Any = default_task_backend
    signature = backend.signature(add, (1,), {})
    with pytest.raises(OperationalError):
        signature.apply_async(task_id="unsent")
    with pytest.raises(TaskResultDoesNotExist):
        add.get_result("unsent")


# -- what runs


def test_a_task_runs_and_its_result_is_kept(signals: list[tuple[str, TaskResult[Any, Any]]]) -> None:
    task_id = add.enqueue(1, two=2).id
    result = add.get_result(task_id)
    assert (result.status, result.return_value) == (TaskResultStatus.SUCCESSFUL, 3)
    assert (result.args, result.kwargs, result.errors, result.attempts) == ([1], {"two": 2}, [], 1)
    times = [result.enqueued_at, result.started_at, result.last_attempted_at, result.finished_at]
    assert None not in times
    assert [each for each in times if each] == sorted(each for each in times if each)
    seen = dict(signals)
    assert {name: str(result.status) for name, result in seen.items()} == {
        "started": "RUNNING", "finished": "SUCCESSFUL", "enqueued": "READY",
    }  # fmt: skip
    assert {result.id for result in seen.values()} == {task_id}
    assert seen["finished"].return_value == 3


def test_a_coroutine_function_runs() -> None:
    result: TaskResult[Any, Any] = add_later.get_result(add_later.enqueue(1, 2).id)
    assert result.return_value == 3


def test_a_task_knows_how_it_was_enqueued() -> None:
    task_id = show.using(queue_name="reports", priority=7, backend="second").enqueue().id
    result = task_backends["second"].get_result(task_id)
    assert result.return_value == [task_id, 1, 7, "reports", "second"]
    assert (result.task.priority, result.task.queue_name, result.task.backend) == (7, "reports", "second")


def test_a_task_that_celery_sends_by_itself_runs(app: Celery) -> None:
    """As beat does."""
    result = app.tasks[f"{__name__}.show"].delay()
    assert result.get() == [result.id, 1, 0, "default", "default"]
    assert default_task_backend.get_result(result.id).return_value == result.get()


def test_a_failure_is_kept(signals: list[tuple[str, TaskResult[Any, Any]]]) -> None:
    result = fail.get_result(fail.enqueue("it cannot").id)
    assert result.status == TaskResultStatus.FAILED
    [error] = result.errors
    assert error.exception_class is PublicError
    assert "it cannot" in error.traceback
    assert "in fail" in error.traceback
    [told] = [result.errors for name, result in signals if name == "finished"]
    assert told[0].exception_class is PublicError
    assert "in fail" in told[0].traceback


def test_a_value_that_is_not_json_is_a_failure() -> None:
    [error] = not_json.get_result(not_json.enqueue().id).errors
    assert error.exception_class is TypeError


# -- results


@sends
def test_a_result_is_there_when_its_task_waits(app: Celery) -> None:
    result = add.enqueue(1, 2)
    found = add.get_result(result.id)
    assert (found.status, found.args, found.attempts) == (TaskResultStatus.READY, [1, 2], 0)
    assert found.enqueued_at == result.enqueued_at
    result.refresh()
    assert result.status == TaskResultStatus.READY


def test_a_result_is_of_its_task() -> None:
    task_id = add.enqueue(1, 2).id
    with pytest.raises(TaskResultMismatch):
        fail.get_result(task_id)
    with pytest.raises(TaskResultDoesNotExist):
        add.get_result("unknown")


@pytest.mark.parametrize(
    ("app", "is_warned"),
    [
        ({"result_backend": None}, False),
        ({"result_backend": "rpc://"}, True),
        ({"result_extended": False}, True),
        ({"task_ignore_result": True}, True),
    ],
    indirect=["app"],
)
def test_without_kept_results_there_is_none_to_read(app: Celery, is_warned: bool) -> None:
    assert not default_task_backend.supports_get_result
    task_id = add.enqueue(1, 2).id
    with pytest.raises(NotImplementedError, match="CELERY_RESULT_EXTENDED"):
        add.get_result(task_id)
    found = [each.id for each in check_tasks()]
    assert set(found) == ({"channelsq.W012"} if is_warned else set())


def test_a_backend_that_reads_results_has_no_warning() -> None:
    assert default_task_backend.supports_get_result
    found: list[django_checks.CheckMessage] = list(check_tasks())
    assert found == []


# -- stamps


@pytest.mark.parametrize("value", [None, "text", {"backend": "x"}, {"unknown": 1}, [1, 2], [{}]])
def test_foreign_stamps_are_none(value: object) -> None:
    assert read_stamp(value) is None


@pytest.mark.parametrize("is_aware", [True, False])
def test_times_are_those_of_the_settings(is_aware: bool) -> None:
    with override_settings(USE_TZ=is_aware):
        after = LATER if is_aware else timezone.make_naive(LATER)
        result = add.get_result(add.using(run_after=after).enqueue(1).id)
        assert result.task.run_after == after
        assert result.finished_at is not None
        assert timezone.is_aware(result.finished_at) is is_aware
        assert abs(result.finished_at - timezone.now()) < timedelta(minutes=1)


# -- live


@pytest.fixture
def layer() -> Iterator[InMemoryChannelLayer]:
    task_hooks.install()
    layer = InMemoryChannelLayer()
    with installed(ChannelLayerWrapper(layer, "default", [])):
        yield layer


@pytest.mark.parametrize("name", ["add", "add_later"])
def test_a_task_is_started_live(
    layer: InMemoryChannelLayer, name: str, signals: list[tuple[str, TaskResult[Any, Any]]]
) -> None:
    live = start(globals()[name].using(priority=5), args=(1,), kwargs={"two": 2})
    status = live.status()
    assert status is not None
    assert (status["state"], status["result"], status["text"]) == ("success", 3, "half")
    result = default_task_backend.get_result(live.id)
    assert (result.return_value, result.task.priority) == (3, 5)
    assert {name for name, result in signals if result.id == live.id} == {"enqueued", "started", "finished"}


def test_a_live_failure(layer: InMemoryChannelLayer) -> None:
    status = start(fail, args=["it cannot"]).status()
    assert status is not None
    assert (status["state"], status["error"]) == ("failure", "it cannot")


@sends
def test_start_passes_options_to_celery(layer: InMemoryChannelLayer, app: Celery) -> None:
    live = start(add.using(queue_name="reports"), args=(1,), queue="other", expires=60)
    message = sent(app, "other")
    assert message.headers["id"] == live.id
    assert message.headers["expires"]


def test_start_refuses_a_task_that_does_not_run_in_celery(layer: InMemoryChannelLayer) -> None:
    with pytest.raises(TypeError, match=r"elsewhere has a DummyBackend"):
        start(elsewhere)
