from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery.exceptions import Ignore, Reject, Retry, WorkerShutdown, WorkerTerminate

from channelsq import Channel, Group
from channelsq.asgi import ChannelLayerWrapper
from channelsq.exceptions import (
    BrokerUnavailable,
    ChannelFull,
    ChannelSocketException,
    ConsumeLater,
    DenyConnection,
    ResponseLater,
    WebsocketCloseException,
)
from channelsq.layers.wire.wire_forms import TIMED_KEY
from channelsq.message import Message, pending_message_store
from channelsq.signals import consumer_finished, consumer_started
from channelsq.worker.running.execution import ATTEMPTS_KEY, done_report, report_done, run_consumer
from tests.support.layers import drain, installed, message_on, replies, wrapped
from tests.support.logs import action_of
from tests.support.waiting import wait_until


@pytest.fixture
def layer() -> Iterator[ChannelLayerWrapper]:
    layer = wrapped(consume_later_limit=3)
    with installed(layer):
        yield layer


def run(consumer: Callable[[Message], Any], message: Message) -> None:
    run_consumer(consumer, message, "tests.consumer")


def reply(message: Message, **content: Any) -> None:
    assert message.reply_channel is not None
    message.reply_channel.send(content)


TIMED: dict[str, Any] = {TIMED_KEY: True}
TRIED_TWICE: dict[str, Any] = {ATTEMPTS_KEY: 2}


# -- done reports -------------------------------------------------------------------------------


def test_success_reports_after_the_replies_in_the_same_write(layer: ChannelLayerWrapper) -> None:
    message = message_on(layer, order=4)

    def consumer(message: Message) -> None:
        reply(message, text="a")
        Group("room").send({"text": "b"})
        reply(message, text="c")

    run(consumer, message)
    name = str(message.reply_channel)
    assert layer.writes == [[name, "room", name, name]]
    assert replies(layer, message) == [{"text": "a"}, {"text": "c"}, {"done": 4}]


def test_a_report_says_how_long_the_consumer_took_if_it_is_to(layer: ChannelLayerWrapper) -> None:
    seen: list[list[str]] = []

    def consumer(message: Message) -> None:
        seen.append(sorted(message.content))
        threading.Event().wait(0.02)
        reply(message, text="a")

    message = message_on(layer, order=4, **TIMED)
    run(consumer, message)
    name = str(message.reply_channel)
    assert layer.writes == [[name, name]]
    answer, report = replies(layer, message)
    assert answer == {"text": "a"}
    assert 0.02 <= report.pop("took") < 5
    assert report == {"done": 4}
    assert seen == [["order", "reply_channel"]]


def test_a_failure_is_timed_too(layer: ChannelLayerWrapper) -> None:
    message = message_on(layer, order=4, **TIMED)
    with pytest.raises(ZeroDivisionError):
        run(lambda message: 1 / 0, message)
    (report,) = replies(layer, message)
    assert report["done"] == 4
    assert report["took"] >= 0


@pytest.mark.parametrize("timed", [False, None, "yes", 1])
def test_nothing_else_asks_for_the_time(layer: ChannelLayerWrapper, timed: Any) -> None:
    message = message_on(layer, order=4, **{TIMED_KEY: timed})
    run(lambda message: None, message)
    assert replies(layer, message) == [{"done": 4}]


def test_a_message_that_nobody_reports_is_not_timed(layer: ChannelLayerWrapper) -> None:
    message = message_on(layer, **TIMED)
    run(lambda message: None, message)
    assert replies(layer, message) == []


def test_a_message_that_is_put_back_is_still_to_be_timed(layer: ChannelLayerWrapper) -> None:
    message = message_on(layer, order=2, **TIMED)
    run(later, message)
    assert received(layer, "websocket.receive")[TIMED_KEY] is True


def test_a_consumer_that_sends_nothing_reports_too(layer: ChannelLayerWrapper) -> None:
    message = message_on(layer, order=0)
    run(lambda message: None, message)
    assert replies(layer, message) == [{"done": 0}]


@pytest.mark.parametrize(
    "content",
    [
        {"order": None},
        {"reply_channel": None, "order": 1},
        {"reply_channel": "plain", "order": 1},
        {"reply_channel": "a?b", "order": 1},
    ],
    ids=["no order", "no reply channel", "plain reply channel", "single-reader reply channel"],
)
def test_only_messages_of_sockets_are_reported(layer: ChannelLayerWrapper, content: dict[str, Any]) -> None:
    message = message_on(layer, **content)
    assert done_report(message) is None
    report_done(message)
    run(lambda message: None, message)
    with pytest.raises(LookupError):
        run(failing, message)
    assert layer.writes == []


def failing(message: Message) -> None:
    if message.reply_channel is not None:
        reply(message, text="half")
    Channel("jobs").send({"half": True})
    raise LookupError("the consumer failed")


@pytest.mark.parametrize("error", [LookupError("no"), AssertionError(), Ignore(), RecursionError()], ids=repr)
def test_failure_reports_and_sends_nothing_else(layer: ChannelLayerWrapper, error: Exception) -> None:
    message = message_on(layer, order=2)

    def consumer(message: Message) -> None:
        reply(message, text="half")
        Channel("jobs").send({"half": True})
        Group("room").add("joined")  # acts at once, whatever comes
        raise error

    with pytest.raises(type(error)):
        run(consumer, message)
    assert replies(layer, message) == [{"done": 2}]
    assert drain(layer, "jobs") == []
    assert layer.group_channels("room") == ["joined"]
    assert not pending_message_store.active


ABORT = {"content": b"", "more_content": False, "abort": True}


@pytest.mark.parametrize(
    ("channel", "pattern", "told"),
    [("http.request", "http.response!", [ABORT]), ("http.request", "test?", []), ("jobs", "http.response!", [])],
)
def test_an_http_client_whose_consumer_failed_is_not_left_to_wait(
    layer: ChannelLayerWrapper, channel: str, pattern: str, told: list[Any]
) -> None:
    message = message_on(layer, channel, reply_channel=layer.new_channel(pattern))
    with pytest.raises(LookupError):
        run(failing, message)
    assert replies(layer, message) == told
    assert drain(layer, "jobs") == []


def test_an_http_client_is_not_told_of_what_will_run_again(layer: ChannelLayerWrapper) -> None:
    def again(message: Message) -> None:
        raise Retry

    message = message_on(layer, "http.request", reply_channel=layer.new_channel("http.response!"))
    with pytest.raises(Retry):
        run(again, message)
    run(later, message)
    assert replies(layer, message) == []
    message.content[ATTEMPTS_KEY] = layer.consume_later_limit
    run(later, message)
    assert replies(layer, message) == [ABORT]


@pytest.mark.parametrize("error", [WorkerShutdown(0), WorkerTerminate(1), KeyboardInterrupt()], ids=repr)
def test_the_end_of_the_process_is_not_the_end_of_the_message(layer: ChannelLayerWrapper, error: BaseException) -> None:
    message = message_on(layer, order=2)

    def consumer(message: Message) -> None:
        reply(message, text="half")
        raise error

    with pytest.raises(type(error)):
        run(consumer, message)
    assert replies(layer, message) == []


def test_a_consumer_that_wants_to_end_its_worker_has_failed(layer: ChannelLayerWrapper) -> None:
    message = message_on(layer, order=2)

    def consumer(message: Message) -> None:
        reply(message, text="half")
        raise SystemExit("enough")

    with pytest.raises(RuntimeError, match=r"tests\.consumer raised SystemExit\('enough'\)"):
        run(consumer, message)
    assert replies(layer, message) == [{"done": 2}]


@pytest.mark.parametrize(
    ("error", "reported"),
    [
        (Retry("again"), False),
        (Reject("again", requeue=True), False),
        (Reject("never", requeue=False), True),
        (Reject(), True),
    ],
    ids=repr,
)
def test_what_will_run_again_is_not_reported(layer: ChannelLayerWrapper, error: Exception, reported: bool) -> None:
    message = message_on(layer, order=2)

    def consumer(message: Message) -> None:
        reply(message, text="half")
        raise error

    with pytest.raises(type(error)) as raised:
        run(consumer, message)
    assert raised.value is error
    assert replies(layer, message) == ([{"done": 2}] if reported else [])


@pytest.mark.parametrize("fails", [False, True])
def test_the_report_does_not_depend_on_what_the_consumer_makes_of_the_message(
    layer: ChannelLayerWrapper, fails: bool
) -> None:
    message = message_on(layer, order=2)
    name = str(message.reply_channel)

    def consumer(message: Message) -> None:
        message.content = {"order": object()}
        message.reply_channel = None
        if fails:
            raise LookupError

    if fails:
        with pytest.raises(LookupError):
            run(consumer, message)
    else:
        run(consumer, message)
    assert drain(layer, name) == [{"done": 2}]


def test_a_full_channel_keeps_back_neither_the_other_sends_nor_the_report(layer: ChannelLayerWrapper) -> None:
    for _ in range(100):
        layer.send("full", {})
    message = message_on(layer, order=2)

    def consumer(message: Message) -> None:
        Channel("full").send({})
        reply(message, text="a")

    with pytest.raises(ChannelFull, match="'full'"):
        run(consumer, message)
    assert replies(layer, message) == [{"text": "a"}, {"done": 2}]


@pytest.mark.parametrize("error", [LookupError("no"), ConsumeLater(), Retry()], ids=repr)
def test_what_tells_of_a_commit_goes_out_even_if_the_consumer_fails(
    layer: ChannelLayerWrapper, error: Exception
) -> None:
    def consumer(message: Message) -> None:
        reply(message, text="half")
        pending_message_store.hold_certain(layer, [Group("room").prepare({"committed": True})])
        raise error

    layer.group_add("room", "member")
    with contextlib.nullcontext() if isinstance(error, ConsumeLater) else pytest.raises(type(error)):
        run(consumer, message_on(layer, order=2))
    assert drain(layer, "member") == [{"committed": True}]


def test_of_two_failures_the_consumers_own_is_raised(
    layer: ChannelLayerWrapper, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(sends: Any) -> None:
        raise BrokerUnavailable("redis://groups", "refused")

    def consumer(message: Message) -> None:
        pending_message_store.hold_certain(layer, [Group("room").prepare({"committed": True})])
        monkeypatch.setattr(layer.channel_layer, "dispatch", away)
        raise LookupError("the consumer's own")

    with pytest.raises(LookupError, match="own"):
        run(consumer, message_on(layer, channel="jobs"))
    assert [action_of(record) for record in caplog.records] == ["send_failed"]


def test_a_broker_that_refused_the_sends_may_still_take_the_report(layer: ChannelLayerWrapper) -> None:
    message = message_on(layer, order=2)
    dispatch = layer.channel_layer.dispatch

    def groups_are_away(sends: Any) -> None:
        if any(send.group for send in sends):
            raise BrokerUnavailable("redis://groups", "refused")
        dispatch(sends)

    layer.channel_layer.dispatch = groups_are_away  # type: ignore[method-assign]
    with pytest.raises(BrokerUnavailable):
        run(lambda message: Group("room").send({}), message)
    assert replies(layer, message) == [{"done": 2}]


def test_a_report_that_cannot_be_sent_is_logged(layer: ChannelLayerWrapper, caplog: pytest.LogCaptureFixture) -> None:
    message = message_on(layer, order=2)
    for _ in range(100):
        layer.send(str(message.reply_channel), {})
    with caplog.at_level(logging.ERROR, "channelsq"), pytest.raises(LookupError):
        run(failing, message)
    (record,) = caplog.records
    assert action_of(record) == "report_failed"
    assert str(message.reply_channel) in record.getMessage()


# -- ConsumeLater -------------------------------------------------------------------------------


def later(message: Message) -> None:
    reply(message, text="half")
    raise ConsumeLater


def received(layer: ChannelLayerWrapper, channel: str) -> dict[str, Any]:
    return wait_until(lambda: layer.receive([channel], block=True)[1], "the message to come back")


def test_consume_later_puts_the_message_back(layer: ChannelLayerWrapper) -> None:
    message = message_on(layer, order=2, text="hello")
    before = dict(message.content)
    run(later, message)
    assert replies(layer, message) == []
    assert drain(layer, "websocket.receive") == []  # not at once
    content = received(layer, "websocket.receive")
    assert content.pop(ATTEMPTS_KEY) == 1
    assert content == before


def test_consumers_do_not_see_how_often(layer: ChannelLayerWrapper) -> None:
    message = message_on(layer, text="hello", **TRIED_TWICE)
    seen: list[list[str]] = []
    run(lambda message: seen.append(sorted(message.content)), message)
    assert seen == [["reply_channel", "text"]]


def test_consume_later_is_bounded(layer: ChannelLayerWrapper, caplog: pytest.LogCaptureFixture) -> None:
    message = message_on(layer, order=2)
    waits: list[float] = []
    dispatch = layer.channel_layer.dispatch

    def note(sends: Any) -> None:
        waits.extend(send.delay for send in sends if send.target == "websocket.receive")
        dispatch(sends)

    layer.channel_layer.dispatch = note  # type: ignore[method-assign]
    runs = 0
    content: dict[str, Any] | None = message.content
    with caplog.at_level(logging.ERROR, "channelsq"):
        while content is not None:
            runs += 1
            assert replies(layer, message) == []
            run(later, Message(content, "websocket.receive", layer))
            content = None if runs == 4 else received(layer, "websocket.receive")
    assert runs == 4
    assert waits == sorted(waits)
    assert len(set(waits)) == 3
    assert replies(layer, message) == [{"done": 2}]
    (record,) = caplog.records
    assert action_of(record) == "consume_later_exhausted"
    assert "tests.consumer raised ConsumeLater" in record.getMessage()
    assert "4 times" in record.getMessage()
    assert "consume_later_limit" in record.getMessage()


@pytest.mark.parametrize("attempts", ["many", -5, None, 1.5, [1]], ids=repr)
def test_a_count_that_is_none_starts_again(layer: ChannelLayerWrapper, attempts: Any) -> None:
    message = message_on(layer, order=2)
    message.content[ATTEMPTS_KEY] = attempts
    run(later, message)
    assert received(layer, "websocket.receive")[ATTEMPTS_KEY] == 1


def test_a_message_that_cannot_be_put_back_fails_and_is_reported(layer: ChannelLayerWrapper) -> None:
    message = message_on(layer, order=2)

    def consumer(message: Message) -> None:
        message["user"] = object()
        raise ConsumeLater

    with pytest.raises(TypeError, match="'user'"):
        run(consumer, message)
    assert replies(layer, message) == [{"done": 2}]


# -- exceptions that act on the socket --------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "closing"),
    [(DenyConnection(), True), (WebsocketCloseException(), True), (WebsocketCloseException(4001), 4001)],
    ids=["deny", "close", "code"],
)
def test_socket_exceptions_keep_what_was_sent_before(
    layer: ChannelLayerWrapper, error: ChannelSocketException, closing: Any
) -> None:
    message = message_on(layer, "websocket.connect", order=0)

    def consumer(message: Message) -> None:
        reply(message, text="sorry")
        Channel("jobs").send({"n": 1})
        raise error

    run(consumer, message)
    assert replies(layer, message) == [{"text": "sorry"}, {"close": closing}, {"done": 0}]
    assert drain(layer, "jobs") == [{"n": 1}]
    assert len(layer.writes) == 1


def test_a_socket_exception_of_the_applications_own(layer: ChannelLayerWrapper) -> None:
    class Redirect(ChannelSocketException):
        def run(self, message: Message) -> None:
            reply(message, text="over there")

    def consumer(message: Message) -> None:
        raise Redirect

    message = message_on(layer, order=1)
    run(consumer, message)
    assert replies(layer, message) == [{"text": "over there"}, {"done": 1}]


def test_a_subclass_with_a_run_of_its_own_and_its_parents(layer: ChannelLayerWrapper) -> None:
    class Leave(WebsocketCloseException):
        def run(self, message: Message) -> None:
            reply(message, text="goodbye")
            super().run(message)

    def consumer(message: Message) -> None:
        reply(message, text="before")
        raise Leave(4005)

    message = message_on(layer, order=1)
    run(consumer, message)
    assert replies(layer, message) == [{"text": "before"}, {"text": "goodbye"}, {"close": 4005}, {"done": 1}]
    assert len(layer.writes) == 1


def test_a_socket_exception_that_fails_to_run_fails_the_consumer(layer: ChannelLayerWrapper) -> None:
    class Unfinished(ChannelSocketException):
        pass

    def consumer(message: Message) -> None:
        reply(message, text="before")
        raise Unfinished

    message = message_on(layer, order=1)
    with pytest.raises(NotImplementedError):
        run(consumer, message)
    assert replies(layer, message) == [{"done": 1}]


def answers_later(message: Message) -> None:
    Channel("jobs").send({"answer": str(message.reply_channel)})
    raise ResponseLater


@pytest.mark.parametrize(
    ("channel", "pattern"),
    [("http.request", "http.response!"), ("http.request", "client!"), ("poll", "http.response!")],
)
def test_response_later_from_a_consumer_is_no_failure_and_its_sends_go_out(
    layer: ChannelLayerWrapper, channel: str, pattern: str
) -> None:
    message = message_on(layer, channel, reply_channel=layer.new_channel(pattern))
    run(answers_later, message)
    assert replies(layer, message) == []
    assert drain(layer, "jobs") == [{"answer": str(message.reply_channel)}]


@pytest.mark.parametrize(
    ("channel", "content"),
    [("websocket.receive", {"order": 1}), ("jobs", {}), ("http.request", {"reply_channel": None})],
)
def test_response_later_without_an_http_client_is_a_failure(
    layer: ChannelLayerWrapper, channel: str, content: dict[str, Any]
) -> None:
    with pytest.raises(ResponseLater):
        run(answers_later, message_on(layer, channel, **content))
    assert drain(layer, "jobs") == []


def test_a_socket_exception_out_of_place_is_a_failure(layer: ChannelLayerWrapper) -> None:
    message = message_on(layer, order=1)

    def consumer(message: Message) -> None:
        reply(message, text="half")
        raise DenyConnection

    with pytest.raises(ValueError, match=r"websocket\.receive"):
        run(consumer, message)
    assert replies(layer, message) == [{"done": 1}]


# -- signals ------------------------------------------------------------------------------------


@pytest.fixture
def signals() -> Iterator[list[str]]:
    seen: list[str] = []

    def started(sender: Any, environ: dict[str, Any], message: Message, **kwargs: Any) -> None:
        seen.append(f"started {message.channel.name}")

    def finished(sender: Any, message: Message, **kwargs: Any) -> None:
        seen.append(f"finished {message.channel.name}")

    consumer_started.connect(started)
    consumer_finished.connect(finished)
    yield seen
    consumer_started.disconnect(started)
    consumer_finished.disconnect(finished)


@pytest.mark.parametrize(
    "error",
    [None, LookupError(), ConsumeLater(), Retry(), Reject(), WebsocketCloseException(), SystemExit()],
    ids=lambda error: type(error).__name__,
)
def test_signals_surround_every_run(
    layer: ChannelLayerWrapper, signals: list[str], error: BaseException | None
) -> None:
    def consumer(message: Message) -> None:
        signals.append("run")
        if error is not None:
            raise error

    with contextlib.suppress(BaseException):
        run(consumer, message_on(layer, order=1))
    assert signals == ["started websocket.receive", "run", "finished websocket.receive"]


@pytest.mark.parametrize("signal", [consumer_started, consumer_finished], ids=["started", "finished"])
def test_a_receiver_that_fails_fails_the_consumer_and_is_reported(layer: ChannelLayerWrapper, signal: Any) -> None:
    def receiver(sender: Any, **kwargs: Any) -> None:
        raise ArithmeticError

    message = message_on(layer, order=1)
    signal.connect(receiver)
    try:
        with pytest.raises(ArithmeticError):
            run(lambda message: reply(message, text="a"), message)
    finally:
        signal.disconnect(receiver)
    assert replies(layer, message) == [{"done": 1}]


# -- a consumer that handles its sends itself ------------------------------------------------------


def test_what_a_consumer_has_flushed_is_not_sent_again(layer: ChannelLayerWrapper) -> None:
    message = message_on(layer, order=3)

    def consumer(message: Message) -> None:
        reply(message, text="a")
        pending_message_store.send_and_flush()
        reply(message, text="b")

    run(consumer, message)
    assert replies(layer, message) == [{"text": "a"}, {"text": "b"}, {"done": 3}]


def test_what_a_consumer_has_discarded_is_not_sent(layer: ChannelLayerWrapper) -> None:
    message = message_on(layer, order=3)

    def consumer(message: Message) -> None:
        reply(message, text="must not be sent")
        pending_message_store.discard()

    run(consumer, message)
    assert replies(layer, message) == [{"done": 3}]


def test_to_prepare_in_a_consumer_changes_nothing(layer: ChannelLayerWrapper) -> None:
    message = message_on(layer, order=3)

    def consumer(message: Message) -> None:
        reply(message, text="a")
        pending_message_store.prepare()
        reply(message, text="b")

    run(consumer, message)
    assert replies(layer, message) == [{"text": "a"}, {"text": "b"}, {"done": 3}]


@pytest.mark.parametrize(
    "own", [None, ChannelFull("c", 1), BrokerUnavailable("b", "gone")], ids=["fine", "full", "away"]
)
@pytest.mark.parametrize("other", [ChannelFull("c", 1), BrokerUnavailable("b", "gone")], ids=["full", "away"])
@pytest.mark.parametrize("own_first", [True, False])
def test_with_several_layers_there_is_one_report(
    layer: ChannelLayerWrapper,
    monkeypatch: pytest.MonkeyPatch,
    own: Exception | None,
    other: Exception,
    own_first: bool,
) -> None:
    """The report goes with what is sent on the message's own layer, and again only if that was not sent at all."""
    second, reports = wrapped(), list[Any]()

    def settle(sends: Any) -> None:
        tried = not reports
        reports.append([send for send in sends if send.done is not None])
        if own is not None and tried:
            raise own

    def refuse(sends: Any) -> None:
        raise other

    monkeypatch.setattr(layer.channel_layer, "settle", settle)
    monkeypatch.setattr(second.channel_layer, "settle", refuse)
    message = message_on(layer, order=3)

    def consumer(message: Message) -> None:
        if own_first:
            reply(message, text="a")
        Channel("jobs", channel_layer=second).send({"n": 1})

    with pytest.raises((ChannelFull, BrokerUnavailable)):
        run(consumer, message)
    assert [len(each) for each in reports] == ([1, 1] if isinstance(own, BrokerUnavailable) else [1])
