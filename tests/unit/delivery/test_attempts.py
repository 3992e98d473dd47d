"""Runs of a message: their ids, and those that are not begun again."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.test import override_settings

from channelsq import Channel, Group, conf, consumer, handler
from channelsq.asgi import ChannelLayerWrapper
from channelsq.delivery import ending
from channelsq.delivery.attempts import ATTEMPT, HANDED_KEY, WIRE_KEY
from channelsq.exceptions import BrokerUnavailable, ConsumeLater, ResponseLater
from channelsq.handler import AsgiHandler, ViewConsumer
from channelsq.message import Message
from channelsq.worker.running.execution import ATTEMPTS_KEY, run_consumer
from tests.support.http_channel import django_settings
from tests.support.layers import drain, installed, message_on, replies, wrapped


class SystemDied(BaseException):
    """A worker's death, as far as the code after it can tell: nothing of it runs."""


@pytest.fixture(autouse=True)
def _death(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "_worker_ends", False)
    real = ending.is_end
    for module in (ending, handler):
        monkeypatch.setattr(module, "is_end", lambda error: isinstance(error, SystemDied) or real(error))


RUN = {"status": 200, "content": b"hello"}


@pytest.fixture
def layer() -> Iterator[ChannelLayerWrapper]:
    layer = wrapped()
    with installed(layer):
        yield layer


def request_on(layer: ChannelLayerWrapper, method: str = "POST", **content: Any) -> Message:
    content.setdefault(WIRE_KEY, 1)
    return message_on(
        layer, "http.request", reply_channel=layer.new_channel("http.response!"), method=method, path="/", **content
    )


def again(message: Message, layer: ChannelLayerWrapper, **content: Any) -> Message:
    """The same message, as the broker delivers it once more."""
    same = Message({**message.content, WIRE_KEY: 1, **content}, message.channel_name, layer)
    same.id = message.id
    same.is_redelivered = True
    return same


def run(consumer: Any, message: Message, rerun: bool | None = None) -> None:
    run_consumer(consumer, message, "tests.consumer", consumer, {}, rerun)


def grant(layer: ChannelLayerWrapper, message: Message, answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Answer as an interface server the question whether ``message`` may run again; gives what it was sent."""
    asked: list[dict[str, Any]] = []

    def deliver(channels: Any, sent: dict[str, Any], group: str | None) -> None:
        asked.append(sent)
        if "again" in sent:
            layer.channel_layer.send(sent["credit_channel"], answer)

    assert message.reply_channel is not None
    layer.channel_layer.listen(message.reply_channel.name.partition("!")[0] + "!", deliver)
    return asked


def hello(message: Message) -> None:
    assert message.reply_channel is not None
    message.reply_channel.send(RUN)


# -- ids ----------------------------------------------------------------------------------------


def test_each_run_of_a_request_has_an_id_and_both_know_the_message(layer: ChannelLayerWrapper) -> None:
    message = request_on(layer, "GET")
    run(hello, message)
    (first,) = replies(layer, message)
    second = Message({**message.content, WIRE_KEY: 1}, "http.request", layer)
    second.id = message.id
    run(hello, second)
    (then,) = replies(layer, message)
    assert list(first[ATTEMPT]) == list(then[ATTEMPT]) == [message.id]
    assert first[ATTEMPT] != then[ATTEMPT]


@pytest.mark.parametrize("version", [None, 0, "1", True, b"1"])
def test_an_older_interface_server_gets_answers_as_before(layer: ChannelLayerWrapper, version: object) -> None:
    message = request_on(layer, "GET", **{WIRE_KEY: version})
    run(hello, message)
    assert replies(layer, message) == [RUN]


def test_consumers_see_nothing_of_it(layer: ChannelLayerWrapper) -> None:
    seen: list[dict[str, Any]] = []
    run(lambda message: seen.append(dict(message.content)), request_on(layer, "GET", **{HANDED_KEY: {"a": "b"}}))
    assert WIRE_KEY not in seen[0]
    assert HANDED_KEY not in seen[0]


@pytest.mark.parametrize("target", ["channel", "group"])
def test_whoever_answers_later_is_handed_the_id(layer: ChannelLayerWrapper, target: str) -> None:
    def hand_on(message: Message) -> None:
        content = {"reply_channel": str(message.reply_channel)}
        if target == "group":
            Group("jobs").add("later")
            Group("jobs").send(content)
        else:
            Channel("later").send(content)
        raise ResponseLater

    message = request_on(layer, "GET")
    run(hand_on, message)
    (handed,) = drain(layer, "later")
    later = Message(handed, "later", layer)
    run(hello, later)
    (answer,) = replies(layer, message)
    assert list(answer[ATTEMPT]) == [message.id, later.id]
    assert answer[ATTEMPT][message.id] == handed.get(HANDED_KEY, answer[ATTEMPT])[message.id]


def test_what_another_client_waits_for_is_not_handed_on(layer: ChannelLayerWrapper) -> None:
    run(lambda message: Channel("later").send({"reply_channel": "http.response.x!y"}), request_on(layer, "GET"))
    assert drain(layer, "later") == [{"reply_channel": "http.response.x!y"}]


@pytest.mark.parametrize("handed", [7, "x", ["a"], {f"n{n}": "r" for n in range(100)}])
def test_ids_from_nowhere_are_bounded(layer: ChannelLayerWrapper, handed: Any) -> None:
    message = request_on(layer, "GET", **{HANDED_KEY: handed})
    run(hello, message)
    (answer,) = replies(layer, message)
    assert len(answer[ATTEMPT]) <= 32
    assert message.id in answer[ATTEMPT]


def test_a_message_that_is_put_back_is_another_run(layer: ChannelLayerWrapper) -> None:
    def later(message: Message) -> None:
        assert message.reply_channel is not None
        message.reply_channel.send({**RUN, "more_content": True}, immediately=True)
        raise ConsumeLater

    message = request_on(layer, "GET")
    run(later, message)
    (first,) = replies(layer, message)
    ((_, content),) = [layer.receive(["http.request"], block=True)]
    assert content is not None
    assert content[ATTEMPTS_KEY] == 1
    assert content[HANDED_KEY][message.id] != first[ATTEMPT][message.id]


# -- marks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "post", "BREW"])
def test_an_unsafe_request_is_not_begun_again(
    layer: ChannelLayerWrapper, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    runs: list[str] = []

    def dies(message: Message) -> None:
        runs.append("begun")
        raise SystemDied

    message = request_on(layer, method)
    with pytest.raises(SystemDied):
        run(dies, message)
    second = again(message, layer)
    asked = grant(layer, second, {"credit": True})
    with caplog.at_level(logging.WARNING, "channelsq.worker"):
        run(dies, second)
    assert runs == ["begun"]
    assert asked[-1]["abort"] is True
    assert asked[-1]["status"] == 502
    assert "is not run again: an earlier run of it had begun" in caplog.text


@pytest.mark.parametrize(
    ("method", "rerun", "methods"),
    [
        ("GET", None, None),
        ("HEAD", None, None),
        ("OPTIONS", None, None),
        ("POST", True, None),
        ("POST", None, ["post"]),
        ("POST", None, ["*"]),
    ],
)
def test_a_request_that_may_run_again(
    layer: ChannelLayerWrapper, method: str, rerun: bool | None, methods: list[str] | None
) -> None:
    runs: list[str] = []

    def dies(message: Message) -> None:
        runs.append("begun")
        raise SystemDied

    settings = {} if methods is None else {"CHANNEL_RERUN_METHODS": methods}
    message = request_on(layer, method)
    with override_settings(**settings):
        with pytest.raises(SystemDied):
            run(dies, message, rerun)
        second = again(message, layer)
        grant(layer, second, {"credit": True})
        with pytest.raises(SystemDied):
            run(dies, second, rerun)
    assert len(runs) == 2


@pytest.mark.parametrize(("channel", "rerun", "times"), [("jobs", None, 2), ("jobs", False, 1), ("jobs", True, 2)])
def test_any_message_with_the_option(layer: ChannelLayerWrapper, channel: str, rerun: bool | None, times: int) -> None:
    runs: list[str] = []

    def dies(message: Message) -> None:
        runs.append("begun")
        raise SystemDied

    message = message_on(layer, channel)
    with pytest.raises(SystemDied):
        run(dies, message, rerun)
    second = again(message, layer)
    if times == 1:
        run(dies, second, rerun)
    else:
        with pytest.raises(SystemDied):
            run(dies, second, rerun)
    assert len(runs) == times


def test_a_frame_that_is_not_handled_again_is_reported_done(layer: ChannelLayerWrapper) -> None:
    def dies(message: Message) -> None:
        raise SystemDied

    message = message_on(layer, order=3)
    with pytest.raises(SystemDied):
        run(dies, message, False)
    run(dies, again(message, layer), False)
    assert replies(layer, message) == [{"done": 3}]


def test_a_copy_that_was_not_delivered_before_says_nothing_to_the_client(layer: ChannelLayerWrapper) -> None:
    # Published twice, say, as the answer to the first publish was lost: the first one's run answers.
    message = request_on(layer)

    def meanwhile(message: Message) -> None:
        copy = again(message, layer)
        copy.is_redelivered = False
        run(hello, copy)

    run(meanwhile, message)
    assert replies(layer, message) == []


def test_a_run_that_ended_leaves_no_mark(layer: ChannelLayerWrapper) -> None:
    message = request_on(layer)
    run(hello, message)
    second = again(message, layer)
    second.is_redelivered = False
    run(hello, second)
    assert len(replies(layer, message)) == 2  # in a layer inside one process, where nothing is acknowledged later


def test_another_try_of_celerys_is_begun(layer: ChannelLayerWrapper) -> None:
    message = message_on(layer, "jobs")

    def dies(message: Message) -> None:
        raise SystemDied

    with pytest.raises(SystemDied):
        run(dies, message, False)
    second = again(message, layer)
    second.is_redelivered, second._run.retries = False, 1
    with pytest.raises(SystemDied):
        run(dies, second, False)


def test_without_a_place_for_marks_what_was_delivered_before_counts_as_begun(
    layer: ChannelLayerWrapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(layer.channel_layer), "_begun", None)
    message = message_on(layer, "jobs")
    runs: list[str] = []
    run(lambda message: runs.append("first"), message, False)
    run(lambda message: runs.append("second"), again(message, layer), False)
    assert runs == ["first"]


def test_a_mark_that_cannot_be_written_fails_the_request(
    layer: ChannelLayerWrapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(mark: str) -> bool:
        raise BrokerUnavailable("redis://example", "away")

    monkeypatch.setattr(layer.channel_layer, "begin", away)
    message = request_on(layer)
    runs: list[Message] = []
    with pytest.raises(BrokerUnavailable):
        run(runs.append, message)
    assert runs == []
    assert replies(layer, message)[-1]["abort"] is True


# -- asking -------------------------------------------------------------------------------------


def test_a_request_whose_client_is_gone_is_not_run_again(layer: ChannelLayerWrapper) -> None:
    message = again(request_on(layer, "GET"), layer)
    asked = grant(layer, message, {"gone": True})
    runs: list[Message] = []
    run(runs.append, message)
    assert runs == []
    assert [set(each) for each in asked] == [{"again", "credit_channel", ATTEMPT}]


@pytest.mark.parametrize("repetition", ["is_redelivered", "retries", "put back"])
def test_each_repetition_asks(layer: ChannelLayerWrapper, repetition: str) -> None:
    more = {ATTEMPTS_KEY: 1} if repetition == "put back" else {}
    message = request_on(layer, "GET", **more)
    if repetition == "is_redelivered":
        message.is_redelivered = True
    elif repetition == "retries":
        message._run.retries = 1
    grant(layer, message, {"credit": True, "body_channel": "http.request.body?new"})
    seen: list[Any] = []
    run(lambda message: seen.append(message.get("body_channel")), message)
    assert seen == ["http.request.body?new"]


# -- views --------------------------------------------------------------------------------------


class Views(AsgiHandler):
    runs: list[str] = []

    def get_response(self, request: HttpRequest) -> HttpResponse:
        self.runs.append(str(request.method))
        raise SystemDied


class Consumer(ViewConsumer):
    handler_class = Views


def test_a_view_begins_behind_its_body(layer: ChannelLayerWrapper) -> None:
    # The worker dies while it reads the body: nothing has begun, so the view runs on another one.
    Views.runs.clear()
    message = request_on(layer, headers=[], body=b"", body_channel="http.request.body?a")

    def dies(channels: Any, block: bool = False) -> Any:
        raise SystemDied

    received, layer.channel_layer.receive = layer.channel_layer.receive, dies  # type: ignore[method-assign]
    with django_settings(), pytest.raises(SystemDied):
        run(Consumer(), message)
    layer.channel_layer.receive = received  # type: ignore[method-assign]
    second = again(message, layer)
    asked = grant(layer, second, {"credit": True, "body_channel": "http.request.body?b"})
    layer.send("http.request.body?b", {"content": b"all", "more_content": False, "part": 0})
    with django_settings(), pytest.raises(SystemDied):
        run(Consumer(), second)
    assert Views.runs == ["POST"]
    third = again(second, layer)
    layer.send("http.request.body?b", {"content": b"all", "more_content": False, "part": 0})
    with django_settings():
        run(Consumer(), third)
    assert Views.runs == ["POST"]
    assert asked[-1]["status"] == 502


# -- options and settings -----------------------------------------------------------------------


@pytest.mark.parametrize("value", [1, 0, "no", ()])
def test_rerun_is_true_or_false(value: object) -> None:
    with pytest.raises(TypeError, match="rerun"):
        consumer(rerun=value)


@pytest.mark.parametrize("methods", ["GET", 7, [1], [""], None])
def test_methods_that_cannot_be(methods: object) -> None:
    with override_settings(CHANNEL_RERUN_METHODS=methods), pytest.raises(ImproperlyConfigured, match="RERUN"):
        conf.rerun_methods()


@pytest.mark.parametrize("seconds", ["20", -1, True, float("inf"), None])
def test_a_shutdown_that_cannot_be(seconds: object) -> None:
    with override_settings(CHANNEL_SHUTDOWN_TIMEOUT=seconds), pytest.raises(ImproperlyConfigured, match="SHUTDOWN"):
        conf.shutdown_timeout()
