"""The answers to pages that join, while a layer is away or not configured any more."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from django.test import override_settings

from channelsq.asgi import ChannelLayerWrapper
from channelsq.fragments.joining import PageSocket, answer_connect, answer_frame
from channelsq.fragments.page_tickets import PageTicket, issue
from channelsq.layers import RedisChannelLayer
from tests.support.layers import installed
from tests.support.ports import free_port

SOCKET = PageSocket("websocket.send.abc!def", "default")


@pytest.fixture
def away() -> Iterator[None]:
    layer = RedisChannelLayer(url=f"redis://127.0.0.1:{free_port()}/0", transport_options={"socket_connect_timeout": 1})
    with installed(ChannelLayerWrapper(layer, "default", [])):
        yield


def ticket(alias: str = "default") -> str:
    return issue(PageTicket(("room",), alias, time.time(), None, ""))


@pytest.mark.usefixtures("away")
def test_a_socket_of_another_layer_is_refused() -> None:
    (answer,) = answer_frame(frame(ticket("other")), SOCKET)
    error = json.loads(answer["text"])["payload"]["error"]
    assert error == "its groups are on the layer 'other', and its socket is on 'default'"


def frame(*tickets: str) -> str:
    return json.dumps({"stream": "channelsq.page", "payload": {"join": tickets}}, separators=(",", ":"))


@pytest.mark.parametrize("alias", ["default", "gone"])
@pytest.mark.usefixtures("away")
def test_a_page_is_told_to_try_again(alias: str) -> None:
    text, socket = ticket(alias), SOCKET._replace(alias=alias)
    (answer,) = answer_frame(frame(text), socket)
    assert json.loads(answer["text"])["payload"] == {"unavailable": text}
    query = f"form=htmx&page_ticket={text}".encode()
    assert answer_connect(query, socket) == {"close": True}  # htmx and Turbo try again after any refusal


@pytest.mark.usefixtures("away")
def test_a_question_for_a_sign_of_life_needs_no_layer() -> None:
    (answer,) = answer_frame(frame(), SOCKET)
    assert json.loads(answer["text"])["payload"] == {"alive": True}


@pytest.mark.django_db
@pytest.mark.usefixtures("away")
def test_a_hook_is_asked_before_the_layer() -> None:
    asked: list[tuple[bool, str]] = []

    def may_join(user: object, group: str) -> bool:
        asked.append((bool(getattr(user, "is_authenticated", False)), group))
        return False

    globals()["forbidding"] = may_join
    with override_settings(CHANNEL_LIVE={"may_join": f"{__name__}.forbidding"}):
        deleted = issue(PageTicket(("room",), "default", time.time(), "999999", ""))
        (answer,) = answer_frame(frame(deleted), SOCKET)
    assert json.loads(answer["text"])["payload"]["error"] == "it is forbidden"
    assert asked == [(False, "room")]
