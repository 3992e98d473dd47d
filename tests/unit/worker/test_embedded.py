from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import celery
import pytest
from celery import signals as celery_signals
from celery.exceptions import Reject
from django.conf import settings
from django.db import connection, connections

from channelsq import Channel, conf, consumer
from channelsq.asgi import ChannelLayerWrapper
from channelsq.exceptions import ConsumeLater, DenyConnection, WebsocketCloseException
from channelsq.message import Message
from channelsq.routing import route
from channelsq.signals import worker_process_ready, worker_ready
from channelsq.worker.embedded import DEFAULT_THREADS, EmbeddedWorker
from channelsq.worker.sources.runner import Runner
from tests.support.fakes.layers import RecordingLayer
from tests.support.layers import installed
from tests.support.logs import action_of
from tests.support.waiting import wait_until

Start = Callable[..., tuple[EmbeddedWorker, ChannelLayerWrapper]]

#: A reader that waits by looking again would first do so after all tests are over.
FOREVER = 3600


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> celery.Celery:
    """The project's Celery app, for one test."""
    app = celery.Celery("embedded", set_as_current=False)
    monkeypatch.setattr(conf, "_celery_app", app)
    return app


@pytest.fixture
def start(app: celery.Celery) -> Iterator[Start]:
    """Starts embedded workers on layers whose readers never look again by themselves; stops them."""
    workers: list[EmbeddedWorker] = []
    layers = []

    def start(routing: Any, threads: int = 2, **more: Any) -> tuple[EmbeddedWorker, ChannelLayerWrapper]:
        inner = RecordingLayer()
        inner.block_timeout = FOREVER  # type: ignore[misc]
        layer = ChannelLayerWrapper(inner, "default", routing)
        context = installed(layer)
        context.__enter__()
        layers.append(context)
        worker = EmbeddedWorker(layer, threads, **more)
        workers.append(worker)
        worker.start()
        return worker, layer

    yield start
    for worker in workers:
        if not worker._stopping.is_set():
            all_wait(worker)
            worker.stop()
        assert worker._crew is None  # as its threads have ended
    for context in reversed(layers):
        context.__exit__(None, None, None)


def all_wait(worker: EmbeddedWorker, but: int = 0) -> None:
    """Until no thread of the worker, but some, runs a consumer, and one waits for a message, asleep."""
    waiters = worker.layer.channel_layer.queues.changed._waiters  # type: ignore[attr-defined]
    runner = runner_of(worker)
    wait_until(
        lambda: runner._running == but and not runner._backlog and len(waiters) == 1, "the worker's threads to wait"
    )


def runner_of(worker: EmbeddedWorker) -> Runner:
    assert worker._crew is not None
    (runner,) = worker._crew._runners
    return runner


def threads_of(worker: EmbeddedWorker) -> list[threading.Thread]:
    return list(runner_of(worker)._threads)


class Replies:
    """The messages to a client."""

    def __init__(self, layer: ChannelLayerWrapper) -> None:
        self.name = layer.new_channel("websocket.send!")
        self.messages: list[dict[str, Any]] = []
        prefix = self.name[: self.name.index("!") + 1]
        self.listener = layer.listen(prefix, lambda channels, message, group: self.messages.append(message))

    def wait_for(self, *messages: dict[str, Any]) -> None:
        wait_until(lambda: len(self.messages) >= len(messages), f"{messages}")
        assert self.messages == list(messages)


def echo(message: Message, **kwargs: Any) -> None:
    message.reply_channel.send({"text": message["text"], **kwargs})


# -- taking messages ----------------------------------------------------------------------------


def test_a_message_is_answered_with_the_routes_arguments(start: Start) -> None:
    _, layer = start([route("websocket.receive", echo, path="^/(?P<room>.+)")])
    client = Replies(layer)
    layer.send("websocket.receive", {"reply_channel": client.name, "text": "hi", "path": "/tea", "order": 1})
    client.wait_for({"text": "hi", "room": "tea"}, {"done": 1})


def test_every_message_has_an_id(start: Start) -> None:
    seen: list[str] = []

    def note(message: Message) -> None:
        seen.append(message.id)

    _, layer = start([route("jobs", note)])
    for _ in range(3):
        layer.send("jobs", {})
    wait_until(lambda: len(seen) == 3, "the messages")
    assert len(set(seen)) == 3


def test_a_waiting_thread_is_woken_it_does_not_look_again(start: Start) -> None:
    # Its next look, were there no waking, would be an hour away.
    worker, layer = start([route("jobs", echo)], threads=1)
    client = Replies(layer)
    for number in range(3):
        all_wait(worker)
        layer.send("jobs", {"reply_channel": client.name, "text": str(number)})
        client.wait_for(*({"text": str(each)} for each in range(number + 1)))


def test_a_delayed_message_wakes_a_thread_when_it_is_due(start: Start) -> None:
    worker, layer = start([route("jobs", echo)], threads=1)
    client = Replies(layer)
    all_wait(worker)
    layer.send("jobs", {"reply_channel": client.name, "text": "late"}, delay=0.05)
    client.wait_for({"text": "late"})


def test_consumers_run_side_by_side_in_threads_of_the_worker(start: Start) -> None:
    together = threading.Barrier(3)
    names: set[str] = set()

    def meet(message: Message) -> None:
        names.add(threading.current_thread().name)
        together.wait(10)

    worker, layer = start([route("jobs", meet)], threads=3)
    for _ in range(3):
        layer.send("jobs", {})
    wait_until(lambda: len(names) == 3, "three threads")
    assert names == {f"channelsq-default-{number}" for number in (1, 2, 3)}
    assert all(thread.daemon for thread in threads_of(worker))
    all_wait(worker)


def test_messages_of_one_thread_keep_their_order(start: Start) -> None:
    _, layer = start([route("jobs", echo)], threads=1)
    client = Replies(layer)
    for number in range(20):
        layer.send("jobs", {"reply_channel": client.name, "text": str(number)})
    client.wait_for(*({"text": str(number)} for number in range(20)))


def test_what_a_consumer_sends_is_consumed_in_turn(start: Start) -> None:
    def first(message: Message) -> None:
        Channel("second").send(dict(message))

    _, layer = start([route("first", first), route("second", echo)])
    client = Replies(layer)
    layer.send("first", {"reply_channel": client.name, "text": "on"})
    client.wait_for({"text": "on"})


def test_http_requests_go_to_the_http_consumer(start: Start) -> None:
    _, layer = start([], http_consumer=echo)
    client = Replies(layer)
    layer.send("http.request", {"reply_channel": client.name, "text": "view"})
    client.wait_for({"text": "view"})


def test_unrouted_sockets_are_accepted_by_default(start: Start) -> None:
    _, layer = start([])
    client = Replies(layer)
    layer.send("websocket.connect", {"reply_channel": client.name, "path": "/", "order": 0})
    client.wait_for({"accept": True}, {"done": 0})


def test_consumers_are_tasks_of_the_projects_app(start: Start, app: celery.Celery) -> None:
    names: list[str] = []

    def prerun(task: Any, **kwargs: Any) -> None:
        names.append(task.name)

    celery_signals.task_prerun.connect(prerun)
    try:
        _, layer = start([route("jobs", f"{__name__}.echo")])
        assert f"{__name__}.echo" in app.tasks
        client = Replies(layer)
        layer.send("jobs", {"reply_channel": client.name, "text": "x"})
        client.wait_for({"text": "x"})
    finally:
        celery_signals.task_prerun.disconnect(prerun)
    assert names == [f"{__name__}.echo"]


def test_unordered_messages_are_reported_before_they_are_handled(start: Start) -> None:
    may_end = threading.Event()

    def slow(message: Message) -> None:
        assert may_end.wait(10)

    _, layer = start([route("websocket.receive", slow, ordered=False)])
    client = Replies(layer)
    layer.send("websocket.receive", {"reply_channel": client.name, "order": 5})
    wait_until(lambda: client.messages, "the early report")
    assert client.messages == [{"done": 5}]
    may_end.set()


def test_signals(start: Start) -> None:
    seen: list[Any] = []

    def ready(sender: Any, signal: Any, **kwargs: Any) -> None:
        seen.append((signal, sender))

    for signal in (worker_ready, worker_process_ready):
        signal.connect(ready)
    try:
        worker, _ = start([])
    finally:
        for signal in (worker_ready, worker_process_ready):
            signal.disconnect(ready)
    assert seen == [(worker_ready, worker), (worker_process_ready, worker)]


# -- what goes wrong ------------------------------------------------------------------------------


def raise_error(message: Message) -> None:
    raise LookupError("the consumer failed")


def leave(message: Message) -> None:
    raise SystemExit(3)


def interrupt(message: Message) -> None:
    raise KeyboardInterrupt


def run_out_of_memory(message: Message) -> None:
    raise MemoryError


@pytest.mark.parametrize("bad", [raise_error, leave, interrupt, run_out_of_memory])
def test_a_consumer_that_fails_takes_no_thread_with_it(
    start: Start, bad: Any, caplog: pytest.LogCaptureFixture
) -> None:
    worker, layer = start([route("bad", bad), route("jobs", echo)], threads=1)
    client = Replies(layer)
    with caplog.at_level(logging.ERROR):
        for order in range(3):
            layer.send("bad", {"reply_channel": client.name, "order": order})
        layer.send("jobs", {"reply_channel": client.name, "text": "still here"})
        client.wait_for({"done": 0}, {"done": 1}, {"done": 2}, {"text": "still here"})
    assert threads_of(worker)
    assert len([record for record in caplog.records if record.exc_info]) == 3


@pytest.mark.parametrize("reply_channel", [5, "not a channel", ["a"], b"a!b"], ids=repr)
def test_a_message_that_cannot_be_understood_is_logged_and_dropped(
    start: Start, reply_channel: Any, caplog: pytest.LogCaptureFixture
) -> None:
    _, layer = start([route("jobs", echo)], threads=1)
    client = Replies(layer)
    with caplog.at_level(logging.ERROR, "channelsq"):
        layer.send("jobs", {"reply_channel": reply_channel, "order": 1})
        layer.send("jobs", {"reply_channel": client.name, "text": "next"})
        client.wait_for({"text": "next"})
    (record,) = caplog.records
    assert action_of(record) == "foreign_message_refused"
    assert "jobs" in record.getMessage()


def test_an_unrouted_message_is_logged_and_reported(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    _, layer = start([route("some.channel", echo, path="^/chat")])
    client = Replies(layer)
    with caplog.at_level(logging.ERROR, "channelsq"):
        layer.send("some.channel", {"reply_channel": client.name, "path": "/else", "secret": "x", "order": 3})
        client.wait_for({"done": 3})
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert action_of(record) == "unrouted"
    for part in ("some.channel", "'/else'", "'secret'", "dropped"):
        assert part in record.getMessage()


def test_consume_later_comes_back(start: Start) -> None:
    runs: list[int] = []

    def patient(message: Message) -> None:
        runs.append(1)
        if len(runs) < 3:
            raise ConsumeLater
        echo(message)

    _, layer = start([route("jobs", patient)], threads=1)
    client = Replies(layer)
    layer.send("jobs", {"reply_channel": client.name, "text": "at last", "order": 1})
    client.wait_for({"text": "at last"}, {"done": 1})
    assert len(runs) == 3


# -- retries --------------------------------------------------------------------------------------


def test_autoretry(start: Start) -> None:
    runs: list[dict[str, Any]] = []

    @consumer(autoretry_for=(LookupError,), retry_kwargs={"max_retries": 3, "countdown": 0.05})
    def flaky(message: Message, **kwargs: Any) -> None:
        message.reply_channel.send({"half": len(runs)})
        runs.append(kwargs)
        if len(runs) < 3:
            raise LookupError

    _, layer = start([route("websocket.receive", flaky, path="^/(?P<room>.+)")])
    client = Replies(layer)
    layer.send("websocket.receive", {"reply_channel": client.name, "path": "/tea", "order": 1})
    client.wait_for({"half": 2}, {"done": 1})
    assert runs == [{"room": "tea"}] * 3


@pytest.mark.parametrize(
    ("channel", "effect", "closing"),
    [
        ("websocket.receive", WebsocketCloseException(4001), {"close": 4001}),
        ("websocket.connect", DenyConnection(), {"close": True}),
    ],
    ids=["close", "deny"],
)
def test_an_exception_with_an_effect_is_nothing_to_retry(
    start: Start, channel: str, effect: Exception, closing: dict[str, Any]
) -> None:
    runs: list[int] = []

    @consumer(autoretry_for=(Exception,), dont_autoretry_for=[LookupError], retry_kwargs={"countdown": 0})
    def raises(message: Message) -> None:
        runs.append(1)
        raise effect

    _, layer = start([route(channel, raises)])
    client = Replies(layer)
    layer.send(channel, {"reply_channel": client.name, "order": 1})
    client.wait_for(closing, {"done": 1})
    assert runs == [1]


def test_a_consumer_that_fails_to_the_end_is_reported_once(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    runs: list[int] = []

    @consumer(autoretry_for=(LookupError,), max_retries=2, retry_kwargs={"countdown": 0.05})
    def hopeless(message: Message) -> None:
        runs.append(1)
        raise LookupError

    worker, layer = start([route("websocket.receive", hopeless)])
    client = Replies(layer)
    with caplog.at_level(logging.ERROR):
        layer.send("websocket.receive", {"reply_channel": client.name, "order": 1})
        client.wait_for({"done": 1})
        all_wait(worker)
    assert client.messages == [{"done": 1}]
    assert len(runs) == 3


def test_retry_by_hand(start: Start) -> None:
    assert settings.CELERY_TASK_ALWAYS_EAGER  # as in projects without a broker
    runs: list[int] = []
    ended: list[int] = []

    @consumer(bind=True, max_retries=5)
    def again(task: Any, message: Message) -> None:
        assert len(ended) == len(runs)  # no run is inside of another
        runs.append(task.request.retries)
        try:
            if len(runs) < 3:
                raise task.retry(countdown=0.05)
        finally:
            ended.append(task.request.retries)
        echo(message)

    _, layer = start([route("jobs", again)])
    client = Replies(layer)
    layer.send("jobs", {"reply_channel": client.name, "text": "third", "order": 1})
    client.wait_for({"text": "third"}, {"done": 1})
    assert runs == [0, 1, 2]


def test_reject_drops_the_message(start: Start) -> None:
    def refuse(message: Message) -> None:
        raise Reject("no", requeue=False)

    _, layer = start([route("jobs", refuse), route("next", echo)], threads=1)
    client = Replies(layer)
    layer.send("jobs", {"reply_channel": client.name, "order": 1})
    layer.send("next", {"reply_channel": client.name, "text": "next"})
    client.wait_for({"done": 1}, {"text": "next"})


# -- stopping ---------------------------------------------------------------------------------------


def test_stop_wakes_threads_that_wait(start: Start) -> None:
    worker, layer = start([route("jobs", echo)], threads=DEFAULT_THREADS)
    all_wait(worker)
    worker.stop(timeout=30)
    assert worker._crew is None
    layer.send("jobs", {"text": "for somebody else"})
    assert layer.receive(["jobs"]) == ("jobs", {"text": "for somebody else"})


def test_stop_waits_for_a_running_consumer_for_as_long_as_it_may(start: Start) -> None:
    running, may_end = threading.Event(), threading.Event()
    stopped: list[bool] = []

    def slow(message: Message) -> None:
        running.set()
        assert may_end.wait(10)
        echo(message)

    worker, layer = start([route("jobs", slow)], threads=4)
    client = Replies(layer)
    layer.send("jobs", {"reply_channel": client.name, "text": "done"})
    assert running.wait(10)
    all_wait(worker, but=1)
    # Too short a time: it gives up, and leaves the consumer to itself.
    worker.stop(timeout=0.05)
    wait_until(lambda: len(threads_of(worker)) == 1, "the others to end")

    def stop() -> None:
        worker.stop(timeout=20)
        stopped.append(True)

    stopper = threading.Thread(target=stop)
    stopper.start()
    may_end.set()
    stopper.join(10)
    assert stopped == [True]
    client.wait_for({"text": "done"})
    assert worker._crew is None


def test_stop_gives_all_of_its_time_to_the_one_that_needs_it(start: Start) -> None:
    running, may_end = threading.Event(), threading.Event()

    def slow(message: Message) -> None:
        running.set()
        assert may_end.wait(10)

    worker, layer = start([route("jobs", slow)], threads=8)
    layer.send("jobs", {})
    assert running.wait(10)
    all_wait(worker, but=1)
    # An eighth of the time a thread would be over before the consumer is.
    ender = threading.Timer(0.5, may_end.set)
    ender.start()
    worker.stop(timeout=2)
    assert worker._crew is None
    ender.join()


def test_a_worker_that_was_never_started_can_be_stopped(app: celery.Celery) -> None:
    layer = ChannelLayerWrapper(RecordingLayer(), "default", [])
    EmbeddedWorker(layer, 2).stop(timeout=1)


def test_reject_with_requeue_comes_again(start: Start) -> None:
    seen: list[int] = []

    def picky(message: Message) -> None:
        seen.append(1)
        if len(seen) < 3:
            raise Reject("not yet", requeue=True)
        echo(message)

    _, layer = start([route("jobs", picky)])
    client = Replies(layer)
    layer.send("jobs", {"reply_channel": client.name, "text": "at last", "order": 1})
    client.wait_for({"text": "at last"}, {"done": 1})
    assert len(seen) == 3


def test_a_second_worker_on_the_same_layer_uses_the_same_tasks(start: Start, app: celery.Celery) -> None:
    _, layer = start([route("jobs", echo)])
    before = set(app.tasks)
    EmbeddedWorker(layer)
    assert set(app.tasks) == before


@pytest.mark.django_db(transaction=True)
def test_its_threads_close_their_connections_to_the_database(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """With CONN_MAX_AGE they are kept from message to message; a test's database could not be dropped afterwards."""
    monkeypatch.setitem(connections.databases["default"], "CONN_MAX_AGE", None)
    # Celery's Django fixup, which a worker of another test has left in this process, closes connections around tasks.
    for signal in (celery_signals.task_prerun, celery_signals.task_postrun):
        monkeypatch.setattr(signal, "receivers", [])
    used: list[Any] = []

    def ask(message: Message) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        used.append(connections["default"])

    def wait_until_used(times: int) -> None:
        wait_until(lambda: len(used) == times, "the consumer")

    worker, layer = start([route("jobs", ask)], threads=1)
    for expected in (1, 2):
        layer.send("jobs", {"text": "x"})
        wait_until_used(expected)
        all_wait(worker)
    assert used[0] is used[1]
    assert used[0].connection is not None
    worker.stop()
    assert used[0].connection is None
