from __future__ import annotations

import functools
from typing import Any

import pytest
from celery import Celery
from celery.app.task import Context
from celery.exceptions import Retry
from celery.signals import before_task_publish

from channelsq import consumer
from channelsq.message import Message
from channelsq.options import ATTRIBUTE
from channelsq.routing import route
from channelsq.worker.running.consumer_task import ConsumerTask
from channelsq.worker.running.consumer_tasks import ConsumerTasks
from tests.support.layers import wrapped


def options_of(function: Any) -> Any:
    return getattr(function, ATTRIBUTE)


def test_a_consumer_stays_what_it_is() -> None:
    def plain(message: Any) -> str:
        return "result"

    decorated = consumer(rate_limit="10/s")(plain)
    assert decorated is plain
    assert decorated(None) == "result"
    assert options_of(decorated) == {"rate_limit": "10/s"}


def test_decorators_add_up_and_the_outer_one_wins() -> None:
    @consumer(time_limit=5, rate_limit="1/s")
    @consumer(time_limit=9, max_retries=2)
    def plain(message: Any) -> None: ...

    assert options_of(plain) == {"time_limit": 5, "rate_limit": "1/s", "max_retries": 2}


def test_a_subclass_inherits_without_changing_its_base() -> None:
    @consumer(time_limit=5)
    class Base: ...

    @consumer(max_retries=1)
    class Child(Base): ...

    assert options_of(Base) == {"time_limit": 5}
    assert options_of(Child) == {"time_limit": 5, "max_retries": 1}


@pytest.mark.parametrize(
    "option",
    [
        "acks_late", "at_most_once", "autoretry_for", "bind", "default_retry_delay", "dont_autoretry_for",
        "ignore_result",
        "max_retries", "on_failure", "on_retry", "on_success", "rate_limit", "reject_on_worker_lost",
        "retry_backoff", "retry_backoff_max", "retry_jitter", "retry_kwargs", "send_events", "soft_time_limit",
        "store_errors_even_if_ignored", "throws", "time_limit", "track_started", "expires",
    ],
)  # fmt: skip
def test_options_of_celery_are_taken(option: str) -> None:
    consumer(**{option: None})


@pytest.mark.parametrize(
    "option", ["acks_lat", "timeout", "delay", "apply_async", "retry", "run", "__call__", "_app", ""]
)
def test_what_is_no_option_is_refused(option: str) -> None:
    with pytest.raises(TypeError, match="not an option of a Celery task") as raised:
        consumer(**{option: 1})
    assert repr(option) in str(raised.value)


@pytest.mark.parametrize("option", ["queue", "name"])
def test_what_the_routing_decides_is_refused(option: str) -> None:
    with pytest.raises(TypeError, match=rf"takes no '{option}'.*routing"):
        consumer(**{option: "x"})


def test_two_words_for_one_thing_are_refused() -> None:
    with pytest.raises(TypeError, match="at_most_once or acks_late, not both"):
        consumer(at_most_once=True, acks_late=False)


@pytest.mark.parametrize("limit", ["10/x", "ten", "/s", "10/s/s"])
def test_a_rate_limit_that_celery_cannot_read_is_refused(limit: str) -> None:
    with pytest.raises(ValueError, match=rf"rate_limit='{limit}'; write .*'100/m'"):
        consumer(rate_limit=limit)


# -- on the task --------------------------------------------------------------------------------


def task_of(function: Any) -> ConsumerTask:
    app = Celery("options", set_as_current=False)
    tasks = ConsumerTasks(app, wrapped([route("a", function)]))
    task = app.tasks[tasks._names[id(function)]]
    assert isinstance(task, ConsumerTask)
    return task


def test_options_reach_the_task() -> None:
    @consumer(rate_limit="10/s", time_limit=5, max_retries=7)
    def plain(message: Any) -> None:
        """A docstring of a consumer."""

    task = task_of(plain)
    assert (task.rate_limit, task.time_limit, task.max_retries) == ("10/s", 5, 7)
    assert task.acks_late is True
    assert task.ignore_result is True
    assert task.__doc__ == "A docstring of a consumer."
    assert task.name == f"{__name__}.test_options_reach_the_task.<locals>.plain"


def test_tasks_are_of_one_app_alone() -> None:
    # Celery shares what app.task() makes with every app that is finalized later, unless told not to.
    def plain(message: Any) -> None: ...

    name = task_of(plain).name
    assert name not in Celery("another", set_as_current=False).tasks


def test_consumers_of_one_name_are_told_apart() -> None:
    def make(number: int) -> Any:
        def same(message: Any) -> int:
            return number

        return same

    one, two = make(1), make(2)
    app = Celery("names", set_as_current=False)
    tasks = ConsumerTasks(app, wrapped([route("a", one), route("b", two), route("c", one)]))
    names = [tasks._names[id(consumer)] for consumer in (one, two)]
    assert names[1] == f"{names[0]}#2"
    assert [app.tasks[name].run(None) for name in names] == [1, 2]


@pytest.mark.parametrize(
    "function", [lambda message: 7, functools.partial(lambda message, n: n, n=7)], ids=["lambda", "partial"]
)
def test_consumers_without_a_name_of_their_own(function: Any) -> None:
    assert task_of(function).run(None) == 7


@pytest.mark.parametrize(
    ("options", "late"),
    [({}, True), ({"acks_late": False}, False), ({"at_most_once": True}, False), ({"at_most_once": False}, True)],
)
def test_when_a_message_is_acknowledged(options: Any, late: bool) -> None:
    def plain(message: Any) -> None: ...

    assert task_of(consumer(**options)(plain)).acks_late is late


def test_content_is_in_no_header_of_a_message_that_is_sent_as_a_task() -> None:
    """Headers are what Celery's events and Flower show: of a retry, and of a message with a time limit."""

    @consumer(bind=True, time_limit=5)
    def plain(task: Any, message: Any) -> None:
        raise task.retry()

    app = Celery("sent", broker="memory://", set_as_current=False)
    app.conf.task_default_queue = "sent"  # as every app of the process has the broker in memory
    tasks = ConsumerTasks(app, wrapped([route("a", plain)]))
    task: Any = app.tasks[tasks._names[id(plain)]]
    sent: list[dict[str, Any]] = []

    def note(headers: dict[str, Any], **kwargs: Any) -> None:
        sent.append(headers)

    content = {"text": "secret", "headers": [[b"cookie", b"secret"]]}
    before_task_publish.connect(note, sender=task.name)
    try:
        task.hand_over(Message(content, "a", tasks.layer), {"room": "tea"})
        task.request_stack.push(Context(id="1", args=["a", content], kwargs={}, called_directly=False, retries=0))
        with pytest.raises(Retry):
            task.run(Message(content, "a", tasks.layer))
        task.apply_async(["a", content], argsrepr="(its own)")
    finally:
        before_task_publish.disconnect(note, sender=task.name)
        app.control.purge()
    shown = [(headers["argsrepr"], headers["kwargsrepr"]) for headers in sent]
    assert shown == [
        ("('a', ['text', 'headers'])", "{'room': 'tea'}"),
        ("('a', ['text', 'headers'])", "{}"),
        ("(its own)", "{}"),
    ]
