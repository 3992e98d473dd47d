"""Messages of Channels 4, and answers that are returned and not sent: a line in the log for each line of code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.http import HttpResponse

from channelsq import Channel, Group
from channelsq.asgi import ChannelLayerWrapper
from channelsq.diagnostics import misuse
from channelsq.diagnostics.causes import short
from channelsq.message import Message
from channelsq.worker.running.execution import run_consumer

REPLY = "websocket.send.3fa2!c1"


@pytest.fixture(autouse=True)
def _nothing_told(channel_layer: ChannelLayerWrapper) -> Iterator[None]:
    misuse.reported.clear()
    yield
    misuse.reported.clear()


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "channelsq"]


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ({"type": "chat.message", "message": "hi"}, 'send {"text": json.dumps(…)}'),
        ({"type": "chat_message"}, 'send {"text": json.dumps(…)}'),
        ({"type": "websocket.send", "text": "hi"}, 'send {"text": …} or {"bytes": …} '),
        ({"type": "websocket.accept"}, 'send {"accept": True} '),
        ({"type": "websocket.close", "code": 4000}, 'send {"close": True} or {"close": 4000} '),
        ({"type": "http.response.start", "status": 200}, 'send {"status": 200, '),
    ],
)
@pytest.mark.parametrize("target", [Group, Channel])
def test_messages_of_channels_4(
    target: Any, message: dict[str, Any], remedy: str, caplog: pytest.LogCaptureFixture
) -> None:
    to = Group("chat") if target is Group else Channel(REPLY)
    for _ in range(3):
        to.send(message)
    (line,) = said(caplog)
    place = f"{short(__file__)}, line "
    assert line.startswith(place)
    assert ", in test_messages_of_channels_4: a message to the " in line
    assert f'{"group chat" if target is Group else "channel " + REPLY} has {{"type": {message["type"]!r}}}' in line
    assert remedy in line
    assert "docs/how-to/begin/porting-from-channels-4.md" in line
    to.send(message)  # another line of code
    assert len(said(caplog)) == 2


@pytest.mark.parametrize("message", [{"text": "x"}, {"type": 5, "x": 1}, {"type": "chat.message", "text": "x"}])
def test_what_may_be_meant_to_a_group(message: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    Group("chat").send(message)
    assert said(caplog) == []


@pytest.mark.parametrize("channel", ["jobs", "my.replies!x", "jobs?x"])
def test_channels_of_the_applications_own_carry_anything(channel: str, caplog: pytest.LogCaptureFixture) -> None:
    Channel(channel).send({"type": "chat.message"})
    assert said(caplog) == []


def test_layers_that_are_asked_themselves(channel_layer: ChannelLayerWrapper, caplog: pytest.LogCaptureFixture) -> None:
    channel_layer.send_group("chat", {"type": "chat.message"})
    channel_layer.send(REPLY, {"type": "websocket.accept"})
    assert len(said(caplog)) == 2


def test_the_lines_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    for number in range(misuse._MOST + 50):
        Group("chat").send({"type": f"kind.n{number}"})
    assert len(said(caplog)) == misuse._MOST


def run(value: Any, times: int = 1) -> None:
    """Run a consumer that returns something."""
    for _ in range(times):
        run_consumer(lambda message: value, Message({}, "websocket.connect", misused()), "shop.consumers.connect")


def misused() -> Any:
    from channelsq import channel_layers

    return channel_layers["default"]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"accept": True}, "returned a dict; it is not sent: send it with message.reply_channel.send(…)"),
        ({"text": "x"}, "returned a dict; "),
        ({"type": "websocket.accept"}, "returned a dict; "),
        ((number for number in range(0)), "returned a generator; nothing of it has run: write it without yield"),
    ],
)
def test_answers_that_are_returned(value: Any, says: str, caplog: pytest.LogCaptureFixture) -> None:
    run(value, times=2)
    (line,) = said(caplog)
    assert line.startswith("shop.consumers.connect ")
    assert says in line


def test_a_response_that_is_returned(caplog: pytest.LogCaptureFixture) -> None:
    run(HttpResponse("x"))
    assert "returned an HttpResponse; it is not sent: write a Django view" in said(caplog)[0]


@pytest.mark.parametrize("value", [None, 5, "text", {"rows": 3}, [1], object()])
def test_results_of_a_task(value: Any, caplog: pytest.LogCaptureFixture) -> None:
    run(value)
    assert said(caplog) == []
