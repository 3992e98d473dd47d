from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from channelsq.exceptions import ChannelFull
from channelsq.handler import AsgiHandler, ViewConsumer
from channelsq.message import Message, pending_message_store
from tests.support import handler_urls, http_channel
from tests.support.fakes.interface import FakeInterface
from tests.support.fakes.layers import FakeFullLayer, RecordingSettlementsLayer
from tests.support.logs import action_of


@pytest.fixture
def interface() -> Iterator[FakeInterface]:
    handler_urls.events.clear()
    with http_channel.interface() as interface:
        yield interface


def _credits(interface: FakeInterface) -> list[int]:
    """After how many messages of the one response credit was asked."""
    (response,) = interface.responses.values()
    return [n for n, message in enumerate(response.messages, 1) if "credit_channel" in message]


@pytest.mark.parametrize(
    ("chunks", "asked"),
    [(0, []), (1, []), (2, []), (8, []), (9, [8]), (16, [8]), (17, [8, 16]), (25, [8, 16, 24])],
)
def test_long_responses_ask_for_credit(interface: FakeInterface, chunks: int, asked: list[int]) -> None:
    size = chunks * AsgiHandler.chunk_size
    response = interface.run(interface.message("/big/", query=f"n={size}".encode()))
    assert len(response.body) == size
    assert response.complete
    assert _credits(interface) == asked


def test_small_parts_ask_for_credit_now_and_then(interface: FakeInterface) -> None:
    response = interface.run(interface.message("/long-stream/", query=b"n=200"))
    assert len(response.body) == 2000
    assert response.complete
    assert _credits(interface) == [64, 128, 192]


def test_a_trickle_asks_for_credit_by_time(interface: FakeInterface) -> None:
    class Consumer(ViewConsumer):
        credit_seconds = 0

    interface.run(interface.message("/long-stream/", query=b"n=6"), Consumer())
    assert _credits(interface) == [3, 4, 5, 6]


def test_nothing_is_made_before_the_credit_is_there(interface: FakeInterface) -> None:
    asked: list[dict[str, Any]] = []
    ready = threading.Event()

    def hold(message: dict[str, Any]) -> None:
        asked.append(message)
        ready.set()

    interface.on_credit = hold
    message = interface.message("/long-stream/", query=b"n=100")
    worker = threading.Thread(target=ViewConsumer(), args=(message,))
    worker.start()
    assert ready.wait(10)
    assert len(handler_urls.events) == 64
    interface.give_credit(asked[0])
    worker.join(10)
    assert len(handler_urls.events) == 101
    assert interface.responses[str(message.reply_channel)].complete


@pytest.mark.parametrize("path", ["/long-stream/", "/async-stream/"])
def test_a_client_that_left_ends_the_view(
    interface: FakeInterface, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    interface.on_credit = lambda message: interface.layer.send(message["credit_channel"], {"gone": True})
    with caplog.at_level(logging.INFO):
        response = interface.run(interface.message(path, query=b"n=1000000"))
    assert len(response.messages) == 64
    assert not response.complete
    assert handler_urls.events[63:] == ["part 63", "closed"]
    assert [action_of(record) for record in caplog.records] == ["response_gone"]


class QuietConsumer(ViewConsumer):
    """Looks for the client each time that an asynchronous response is quiet for some milliseconds."""

    class handler_class(AsgiHandler):
        quiet_seconds = 0.02

    credit_seconds = 0


def test_a_client_that_left_a_quiet_response_ends_the_view(
    interface: FakeInterface, caplog: pytest.LogCaptureFixture
) -> None:
    interface.on_credit = lambda message: interface.layer.send(message["credit_channel"], {"gone": True})
    with caplog.at_level(logging.INFO):
        response = interface.run(interface.message("/quiet-stream/", query=b"first=1"), QuietConsumer())
    assert [message["content"] for message in response.messages] == [b"first ", b"", b""]
    assert handler_urls.events == ["closed"]
    assert [action_of(record) for record in caplog.records] == ["response_gone"]


def test_a_quiet_response_goes_on(interface: FakeInterface) -> None:
    def give(message: dict[str, Any]) -> None:
        interface.give_credit(message)
        handler_urls.events.append("go")

    interface.on_credit = give
    response = interface.run(interface.message("/quiet-stream/", query=b"first=1"), QuietConsumer())
    assert response.body == b"first second in sv"
    assert response.complete
    assert [message["content"] for message in response.messages][:3] == [b"first ", b"", b""]


def test_nothing_goes_out_before_the_first_part(interface: FakeInterface) -> None:
    threading.Timer(0.2, handler_urls.events.append, ["go"]).start()
    response = interface.run(interface.message("/quiet-stream/"), QuietConsumer())
    assert [message["content"] for message in response.messages] == [b"second in sv", b""]
    assert response.status == 200


def test_an_interface_that_never_answers_ends_the_view(
    interface: FakeInterface, caplog: pytest.LogCaptureFixture
) -> None:
    class Consumer(ViewConsumer):
        credit_timeout = 0.01

    interface.layer.block_timeout = 0.01  # type: ignore[misc]
    interface.on_credit = lambda message: None
    interface.run(interface.message("/long-stream/", query=b"n=1000000"), Consumer())
    assert handler_urls.events[-1] == "closed"
    assert [action_of(record) for record in caplog.records] == ["response_stalled"]


def test_replies_do_not_wait_for_the_consumers_end(interface: FakeInterface) -> None:
    pending_message_store.prepare()
    try:
        assert interface.get("/").body == b"root"
    finally:
        pending_message_store.discard()


def test_a_full_reply_channel_is_waited_for(interface: FakeInterface) -> None:
    layer = FakeFullLayer()
    layer.refusals = 4
    message = interface.message("/")
    interface.wrapper.channel_layer = layer
    message = Message(
        {**message.content, "reply_channel": layer.new_channel("http.response!")},
        "http.request",
        interface.wrapper,
    )
    ViewConsumer()(message)
    assert layer.refusals == 0
    _, sent = layer.receive([f"http.response.{layer.process}!"])
    assert sent is not None
    assert sent["content"] == b"root"


def test_a_reply_channel_that_stays_full(interface: FakeInterface, caplog: pytest.LogCaptureFixture) -> None:
    class Consumer(ViewConsumer):
        full_timeout = 0.02

    layer = FakeFullLayer()
    layer.refusals = 10_000
    message = interface.message("/")
    interface.wrapper.channel_layer = layer
    message = Message(
        {**message.content, "reply_channel": layer.new_channel("http.response!")},
        "http.request",
        interface.wrapper,
    )
    with pytest.raises(ChannelFull):
        Consumer()(message)
    assert action_of(caplog.records[-1]) == "response_not_ended"


@pytest.mark.parametrize(
    ("path", "query", "immediately", "sent"),
    [
        ("/", b"", False, ["with the acknowledgement"]),
        ("/", b"", True, ["at once"]),
        ("/big/", b"n=0", False, ["with the acknowledgement"]),
        ("/big/", b"n=300000", False, ["at once", "at once"]),
        ("/long-stream/", b"n=2", False, ["at once"] * 3),
    ],
    ids=["whole", "whole, immediately", "empty", "two parts", "streamed"],
)
def test_a_response_of_one_message_leaves_with_the_acknowledgement(
    interface: FakeInterface, path: str, query: bytes, immediately: bool, sent: list[str]
) -> None:
    layer = RecordingSettlementsLayer()
    message = interface.message(path, query=query)
    interface.wrapper.channel_layer = layer
    content = {**message.content, "reply_channel": layer.new_channel("http.response!")}
    consumer = ViewConsumer()
    consumer.immediately = immediately
    consumer(Message(content, "http.request", interface.wrapper))
    assert layer.sent == sent
