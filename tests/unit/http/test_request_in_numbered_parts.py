"""Bodies in numbered parts, as workers read them."""

from __future__ import annotations

from typing import Any

import pytest

from channelsq.exceptions import RequestAborted, RequestIncomplete
from channelsq.handler import AsgiRequest
from channelsq.message import Message
from tests.support.fakes.interface import FakeInterface
from tests.support.http_channel import django_settings

CHANNEL = "http.request.body?a"
AGAIN = "http.request.body?b"


def upload(interface: FakeInterface, *parts: tuple[int | None, bytes], wire: bool = True) -> Message:
    """A request whose parts, by number and content, lie on the body's channel."""
    message = interface.message("/", "POST", body_channel=CHANNEL)
    put(interface, CHANNEL, *parts)
    assert message.reply_channel is not None
    if wire:
        message.reply_channel.attempt = {message.id: "run"}
    return message


def put(interface: FakeInterface, channel: str, *parts: tuple[int | None, bytes]) -> None:
    for at, (number, content) in enumerate(parts):
        numbered: dict[str, Any] = {} if number is None else {"part": number}
        more = at < len(parts) - 1
        interface.layer.send(channel, {"content": content, "more_content": more, "closed": False, **numbered})


@pytest.fixture
def interface() -> FakeInterface:
    return FakeInterface()


def answering(interface: FakeInterface, answer: dict[str, Any]) -> list[dict[str, Any]]:
    asked: list[dict[str, Any]] = []

    def on_credit(message: dict[str, Any]) -> None:
        asked.append(message)
        interface.layer.send(message["credit_channel"], answer)

    interface.on_credit = on_credit
    return asked


@pytest.mark.parametrize("numbers", [(0, 1, 2), (None, None, None), (0, None, None)])
def test_parts_in_order(interface: FakeInterface, numbers: Any) -> None:
    with django_settings():
        parts = zip(numbers, (b"a", b"b", b"c"), strict=True)
        assert AsgiRequest(upload(interface, *parts)).body == b"abc"


def test_a_part_that_was_sent_twice_is_read_once(interface: FakeInterface) -> None:
    with django_settings():
        assert AsgiRequest(upload(interface, (0, b"a"), (0, b"a"), (1, b"b"), (1, b"b"), (2, b"c"))).body == b"abc"


@pytest.mark.parametrize("numbers", [(1, 2), (0, 2)])
def test_a_body_with_a_hole_is_asked_for_again(interface: FakeInterface, numbers: tuple[int, int]) -> None:
    asked = answering(interface, {"credit": True, "body_channel": AGAIN})
    message = upload(interface, *((number, b"x") for number in numbers))
    put(interface, AGAIN, (0, b"a"), (1, b"b"), (2, b"c"))
    with django_settings():
        assert AsgiRequest(message).body == b"abc"
    assert len(asked) == 1


@pytest.mark.parametrize("answer", [{"credit": True, "body_channel": None}, {"credit": True}])
def test_a_body_that_cannot_be_sent_again(interface: FakeInterface, answer: dict[str, Any]) -> None:
    answering(interface, answer)
    with django_settings(), pytest.raises(RequestIncomplete, match="part 0"):
        AsgiRequest(upload(interface, (1, b"b")))


def test_a_body_with_a_hole_again(interface: FakeInterface) -> None:
    answering(interface, {"credit": True, "body_channel": AGAIN})
    message = upload(interface, (1, b"b"))
    put(interface, AGAIN, (0, b"a"), (2, b"c"))
    with django_settings(), pytest.raises(RequestIncomplete, match="part 1"):
        AsgiRequest(message)


def test_a_client_that_has_left_meanwhile(interface: FakeInterface) -> None:
    answering(interface, {"gone": True})
    with django_settings(), pytest.raises(RequestAborted):
        AsgiRequest(upload(interface, (1, b"b")))


@pytest.mark.parametrize("number", ["1", 1.0, True, -1])
def test_numbers_that_are_none(interface: FakeInterface, number: Any) -> None:
    # Negative ones are those of parts that were there before.
    message = upload(interface, (number, b"x"), (0, b"a"), (1, b"b"), wire=False)
    with django_settings():
        if number == -1:
            assert AsgiRequest(message).body == b"ab"
        else:
            with pytest.raises(RequestIncomplete):
                AsgiRequest(message)


@pytest.mark.parametrize("numbered", [True, False])
def test_an_older_server_cannot_send_it_again(interface: FakeInterface, numbered: bool) -> None:
    message = upload(interface, (0 if numbered else None, b"a"), wire=False)
    message.is_redelivered = True
    with django_settings(), pytest.raises(RequestIncomplete, match="earlier run"):
        AsgiRequest(message)


def test_the_view_does_not_run_on_it_and_its_client_gets_503(interface: FakeInterface) -> None:
    answering(interface, {"credit": True, "body_channel": None})
    with django_settings():
        response = interface.run(upload(interface, (1, b"b")))
    del response.messages[0]  # the question
    assert response.status == 503
    assert b"a part of the request's body was lost" in response.body
