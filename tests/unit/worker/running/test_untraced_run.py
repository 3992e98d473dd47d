"""Running a consumer without Celery's tracer: what is as ever, and when the tracer is asked after all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, current_task, signals
from celery.app.task import Context
from celery.app.trace import build_tracer

from channelsq import consumer as with_options
from channelsq.asgi import ChannelLayerWrapper
from channelsq.message import Message
from channelsq.worker.running import celery_stack_internals, database_connections, untraced_run
from channelsq.worker.running.consumer_task import make_consumer_task
from channelsq.worker.running.task_profile import TaskProfile
from tests.support.apps import current
from tests.support.layers import installed, message_on, replies, wrapped


@pytest.fixture
def layer() -> Iterator[ChannelLayerWrapper]:
    layer = wrapped()
    with installed(layer):
        yield layer


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """An app in whose worker nobody listens to signals but channelsq."""
    for signal in (signals.task_prerun, signals.task_postrun):
        monkeypatch.setattr(signal, "receivers", [])
    with Celery("quick", broker="memory://", set_as_current=False) as app, current(app):
        database_connections.keep_connections(type("Worker", (), {"app": app}))
        yield app


def profile_of(app: Celery, layer: ChannelLayerWrapper, consumer: Any, name: str = "tests.consumer") -> TaskProfile:
    task = make_consumer_task(app, layer, consumer, name)
    app.finalize()
    task.__trace__ = build_tracer(name, task, app=app)
    profile = TaskProfile(task)
    profile.look()
    return profile


def runs_a_task() -> bool:
    task: Any = current_task  # a proxy: false where there is none
    return bool(task)


def run(profile: TaskProfile, message: Message, said: dict[str, Any] | None = None, **kwargs: Any) -> Any:
    message.id = "the id"
    described = {"id": "the id", "hostname": "here", "is_eager": False, "headers": {}, "ignore_result": True}
    return untraced_run.run(profile, message, kwargs, lambda: {**described, **(said or {})})


def test_a_success_asks_for_no_description(app: Celery, layer: ChannelLayerWrapper) -> None:
    def consumer(message: Message, room: str) -> None:
        message.reply_channel.send({"text": room})

    profile, message = profile_of(app, layer, consumer), message_on(layer, order=1)
    assert profile.untraced
    assert profile.call is consumer

    def describe() -> dict[str, Any]:
        raise AssertionError("nobody has asked")

    assert untraced_run.run(profile, message, {"room": "tea"}, describe) is None
    assert replies(layer, message) == [{"text": "tea"}, {"done": 1}]


def test_the_task_and_its_request_are_there(app: Celery, layer: ChannelLayerWrapper) -> None:
    seen: list[Any] = []

    @with_options(bind=True)
    def consumer(task: Any, message: Message, room: str) -> None:
        request = task.request
        assert isinstance(request, Context)
        assert request.args is not None
        seen.extend([request.id, request.hostname, request.called_directly, request.kwargs, request.args[0]])
        seen.extend([current_task.name, current_task.request.id, vars(request)["id"], request.get("nothing")])

    profile, message = profile_of(app, layer, consumer), message_on(layer, order=1)
    assert run(profile, message, room="tea") is None
    assert seen == [
        "the id",
        "here",
        False,
        {"room": "tea"},
        message.channel_name,
        "tests.consumer",
        "the id",
        "the id",
        None,
    ]
    assert not runs_a_task()
    assert profile.task.request_stack.top is None


def test_what_is_set_on_the_request_before_anything_is_read_stays(app: Celery, layer: ChannelLayerWrapper) -> None:
    seen: list[Any] = []

    @with_options(bind=True)
    def consumer(task: Any, message: Message) -> None:
        task.request.mine = 1
        task.request.hostname = "elsewhere"
        seen.extend([task.request.mine, task.request.hostname, task.request.id])

    assert run(profile_of(app, layer, consumer), message_on(layer, order=1)) is None
    assert seen == [1, "elsewhere", "the id"]


def test_a_failure_is_celerys_with_the_request_as_it_was_left(app: Celery, layer: ChannelLayerWrapper) -> None:
    failures: list[Any] = []

    @with_options(bind=True)
    def consumer(task: Any, message: Message) -> None:
        task.request.mine = 1
        raise LookupError("no such room")

    def hear(sender: Any = None, exception: Any = None, **kwargs: Any) -> None:
        failures.append((exception, sender.request.mine, sender.request.id))

    signals.task_failure.connect(hear)
    try:
        failure = run(profile_of(app, layer, consumer), message_on(layer, order=1))
    finally:
        signals.task_failure.disconnect(hear)
    assert failure is not None
    assert failure[0] == 1
    ((error, mine, identity),) = failures
    assert (str(error), mine, identity) == ("no such room", 1, "the id")
    assert not runs_a_task()


def test_a_task_that_is_run_in_place(app: Celery, layer: ChannelLayerWrapper) -> None:
    seen: list[Any] = []

    @app.task(shared=False, name="inner")
    def inner() -> None:
        seen.append(current_task.name)

    def consumer(message: Message) -> None:
        inner()
        inner.apply()
        seen.append(current_task.name)

    assert run(profile_of(app, layer, consumer), message_on(layer, order=1)) is None
    assert seen == ["inner", "inner", "tests.consumer"]
    assert not runs_a_task()


def test_stacks_that_a_consumer_has_emptied(app: Celery, layer: ChannelLayerWrapper) -> None:
    def consumer(message: Message) -> None:
        from celery._state import _task_stack  # type: ignore[attr-defined]

        _task_stack.pop()

    profile = profile_of(app, layer, consumer)
    for _ in range(2):
        assert run(profile, message_on(layer, order=1)) is None
    assert not runs_a_task()
    assert profile.task.request_stack.top is None
    celery_stack_internals.enter(profile.task, Context())
    celery_stack_internals.leave(profile.task)


@pytest.mark.parametrize(
    "signal", [signals.task_success, signals.task_prerun, signals.task_postrun], ids=lambda s: s.name
)
def test_a_receiver_is_heard_from_the_next_look_on(app: Celery, layer: ChannelLayerWrapper, signal: Any) -> None:
    heard: list[str] = []

    def hear(sender: Any = None, **kwargs: Any) -> None:
        heard.append(sender.name)

    profile = profile_of(app, layer, lambda message: None)
    signal.connect(hear)
    try:
        profile.look()
        assert not profile.untraced
        assert run(profile, message_on(layer, order=1)) is None
        assert heard == ["tests.consumer"]
    finally:
        signal.disconnect(hear)
    profile.look()
    assert profile.untraced


@pytest.mark.parametrize(
    "options",
    [
        {"track_started": True},
        {"ignore_result": False},
        {"on_success": lambda self, *args: None},
        {"before_start": lambda self, *args: None},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_celery_does_more_for_is_celerys(app: Celery, layer: ChannelLayerWrapper, options: dict[str, Any]) -> None:
    def consumer(message: Message) -> None:
        pass

    assert not profile_of(app, layer, with_options(**options)(consumer)).untraced


def test_what_retries_by_itself_is_called_through_celery(app: Celery, layer: ChannelLayerWrapper) -> None:
    @with_options(autoretry_for=(ValueError,))
    def consumer(message: Message) -> None:
        pass

    profile = profile_of(app, layer, consumer)
    assert profile.untraced
    assert profile.call is not consumer


def test_a_connection_that_cannot_be_closed_is_told_and_nothing_else(
    app: Celery, layer: ChannelLayerWrapper, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise OSError("half open")

    monkeypatch.setattr(database_connections, "close_old_connections", fail)
    monkeypatch.setattr(database_connections.here, "may_be_open", True)
    profile, message = profile_of(app, layer, lambda message: None), message_on(layer, order=1)
    assert run(profile, message) is None
    assert replies(layer, message) == [{"done": 1}]
    assert [record.__dict__["action"] for record in caplog.records][:1] == ["connection_not_closed"]
    assert not runs_a_task()
