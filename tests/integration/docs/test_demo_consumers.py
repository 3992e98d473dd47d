"""The demo's consumers, called with messages as the interface server makes them."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from app import consumers
from app.models import GONE_AFTER, HISTORY, Message, Presence, Room
from app.tasks import announce
from channelsq import Group
from channelsq.asgi import ChannelLayerWrapper
from channelsq.exceptions import DenyConnection, WebsocketCloseException
from tests.support.chat_page import ChatPage, types

pytestmark = pytest.mark.django_db


class TestConnect:
    def test_welcome_and_own_arrival(self, layer: ChannelLayerWrapper, lobby: Room, alice: User) -> None:
        page = ChatPage(layer, alice)
        page.connect()
        accept, welcome, join = page.received()
        assert accept == {"accept": True}
        assert welcome == {"type": "welcome", "messages": [], "people": ["alice"], "jobs": []}
        assert (join["type"], join["user"], join["people"]) == ("join", "alice", ["alice"])

    def test_others_are_told(self, layer: ChannelLayerWrapper, alices: ChatPage, bob: User) -> None:
        ChatPage(layer, bob).connect()
        (join,) = alices.received()
        assert (join["type"], join["user"], join["people"]) == ("join", "bob", ["alice", "bob"])

    def test_second_tab_is_no_arrival(self, layer: ChannelLayerWrapper, alices: ChatPage, alice: User) -> None:
        tab = ChatPage(layer, alice)
        tab.connect()
        assert types(tab.received()) == ["accept", "welcome"]
        assert alices.received() == []

    def test_the_same_connect_twice(self, alices: ChatPage) -> None:
        alices.connect()
        assert Presence.objects.count() == 1

    def test_missed_messages(self, layer: ChannelLayerWrapper, lobby: Room, alice: User) -> None:
        said = [lobby.post(alice, f"message {number}")[0] for number in range(5)]
        page = ChatPage(layer, alice)
        page.connect(query=f"after={said[2].pk}".encode())
        welcome = page.received()[1]
        assert [message["text"] for message in welcome["messages"]] == ["message 3", "message 4"]

    def test_a_gap_is_told(self, layer: ChannelLayerWrapper, lobby: Room, alice: User) -> None:
        said = [lobby.post(alice, str(number))[0] for number in range(HISTORY + 2)]
        for have, gap in ((said[0], True), (said[1], None)):
            page = ChatPage(layer, alice)
            page.connect(query=f"after={have.pk}".encode())
            welcome = page.received()[1]
            assert len(welcome["messages"]) == HISTORY
            assert welcome.get("gap") is gap

    @pytest.mark.parametrize("after", ["", "-1", "x", "9" * 40, "%FF", "٣"])
    def test_a_bad_position_is_none(self, after: str, layer: ChannelLayerWrapper, lobby: Room, alice: User) -> None:
        for number in range(HISTORY + 3):
            lobby.post(alice, str(number))
        page = ChatPage(layer, alice)
        page.connect(query=b"after=" + after.encode())
        messages = page.received()[1]["messages"]
        assert [message["text"] for message in messages] == [str(n) for n in range(3, HISTORY + 3)]

    def test_nobody_logged_in(self, layer: ChannelLayerWrapper, lobby: Room) -> None:
        with pytest.raises(DenyConnection, match="not logged in"):
            ChatPage(layer, None).connect()
        assert layer.group_channels("chat-lobby") == []

    def test_session_that_ended(self, layer: ChannelLayerWrapper, lobby: Room, alice: User) -> None:
        page = ChatPage(layer, alice)
        alice.set_password("new")
        alice.save()
        with pytest.raises(DenyConnection, match="not logged in"):
            page.connect()

    def test_inactive_user(self, layer: ChannelLayerWrapper, lobby: Room, alice: User) -> None:
        page = ChatPage(layer, alice)
        User.objects.update(is_active=False)
        with pytest.raises(DenyConnection, match="not logged in"):
            page.connect()

    def test_unknown_room(self, layer: ChannelLayerWrapper, alice: User) -> None:
        with pytest.raises(DenyConnection, match="no room 'cellar'"):
            ChatPage(layer, alice, path="/chat/cellar/").connect()

    @pytest.mark.parametrize(
        "origin", ["https://evil.example", "http://testserver.evil.example", "null", "http://testserver:81"]
    )
    def test_other_origin(self, origin: str, layer: ChannelLayerWrapper, lobby: Room, alice: User) -> None:
        with pytest.raises(DenyConnection, match="origin"):
            ChatPage(layer, alice).connect(origin=origin)

    def test_no_origin(self, layer: ChannelLayerWrapper, lobby: Room, alice: User) -> None:
        with pytest.raises(DenyConnection, match="Origin"):
            ChatPage(layer, alice).connect(origin="")

    def test_trusted_origin(
        self, layer: ChannelLayerWrapper, lobby: Room, alice: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(settings, "CSRF_TRUSTED_ORIGINS", ["https://chat.example"], raising=False)
        page = ChatPage(layer, alice)
        page.connect(origin="https://chat.example")
        assert page.received()[0] == {"accept": True}

    def test_foreign_host(self, layer: ChannelLayerWrapper, lobby: Room, alice: User) -> None:
        with pytest.raises(DenyConnection, match="not allowed"):
            ChatPage(layer, alice).connect(origin="http://evil.example", host="evil.example")
        with pytest.raises(DenyConnection, match="handshake"):
            ChatPage(layer, alice).connect(origin="http://testserver", host="evil.example")

    def test_query_that_is_no_text(self, layer: ChannelLayerWrapper, lobby: Room, alice: User) -> None:
        with pytest.raises(DenyConnection, match="handshake"):
            ChatPage(layer, alice).connect(query=b"after=\xff")


class TestReceive:
    def test_message_reaches_everybody(self, alices: ChatPage, bobs: ChatPage) -> None:
        alices.say({"type": "message", "text": "  Hello <b>all</b>\n🫖 ", "key": "k-1"})
        (seen,) = bobs.received()
        assert alices.received() == [seen]
        kept = Message.objects.get()
        assert kept.text == "Hello <b>all</b>\n🫖"
        assert seen == {
            "type": "message",
            "id": kept.pk,
            "key": "k-1",
            "user": "alice",
            "text": kept.text,
            "at": kept.sent_at.isoformat(),
        }

    def test_the_same_message_again(self, alices: ChatPage, bobs: ChatPage) -> None:
        frame = {"type": "message", "text": "once", "key": "k-1"}
        alices.say(frame)
        (first,) = alices.received()
        bobs.received()
        alices.say(frame)
        assert alices.received() == [first]
        assert bobs.received() == []
        assert Message.objects.count() == 1

    def test_the_same_key_of_two_users(self, alices: ChatPage, bobs: ChatPage) -> None:
        for page in (alices, bobs):
            page.say({"type": "message", "text": "mine", "key": "1"})
        assert Message.objects.count() == 2

    def test_without_key(self, alices: ChatPage) -> None:
        for _ in range(2):
            alices.say({"type": "message", "text": "again"})
        assert [frame["text"] for frame in alices.received()] == ["again", "again"]

    def test_longest(self, alices: ChatPage) -> None:
        alices.say({"type": "message", "text": "🫖" * 2000, "key": "1"})
        assert types(alices.received()) == ["message"]

    @pytest.mark.parametrize(
        ("frame", "problem", "key"),
        [
            ({"type": "message", "text": "x" * 2001, "key": "1"}, "at most 2000 characters", "1"),
            ({"type": "message", "text": " \n", "key": "1"}, "Write a message", "1"),
            ({"type": "message", "text": "a\0b", "key": "1"}, "Null characters", "1"),
            ({"type": "message", "text": "\ud800", "key": "1"}, "invalid characters", "1"),
            ({"type": "message", "text": "x", "key": "no key!"}, "valid value", ""),
            ({"type": "message", "text": ["x"]}, "must be strings", None),
            ({"type": "message", "text": "x", "key": 3}, "must be strings", None),
            ({"type": "message"}, "must be strings", None),
            ({"type": "shout", "text": "x"}, "type must be", None),
            ({}, "type must be", None),
            (["message"], "JSON object", None),
            (None, "JSON object", None),
        ],
    )
    def test_bad_frame(self, frame: object, problem: str, key: str | None, alices: ChatPage, bobs: ChatPage) -> None:
        alices.say(frame)
        (error,) = alices.received()
        assert error["type"] == "error"
        assert problem in error["text"]
        assert error.get("key") == key
        assert bobs.received() == []
        assert not Message.objects.exists()

    @pytest.mark.parametrize("content", [{"text": "{"}, {"text": ""}, {"text": "[" * 100_000}, {"bytes": b"{}"}])
    def test_no_json(self, content: dict[str, Any], alices: ChatPage) -> None:
        alices.say_raw(**content)
        assert types(alices.received()) == ["error"]

    def test_unknown_socket(self, alices: ChatPage) -> None:
        Presence.objects.all().delete()
        with pytest.raises(WebsocketCloseException) as caught:
            alices.say({"type": "ping"})
        assert caught.value.code == consumers.UNKNOWN_SOCKET

    def test_other_room(self, alices: ChatPage) -> None:
        Room.objects.create(name="Cellar", slug="cellar")
        alices.path = "/chat/cellar/"
        with pytest.raises(WebsocketCloseException):
            alices.say({"type": "message", "text": "x"})


class TestPresence:
    def test_leaving(self, alices: ChatPage, bobs: ChatPage) -> None:
        bobs.leave()
        (left,) = alices.received()
        assert (left["type"], left["user"], left["people"]) == ("leave", "bob", ["alice"])

    def test_leaving_twice(self, alices: ChatPage, bobs: ChatPage) -> None:
        bobs.leave()
        alices.received()
        bobs.leave()
        assert alices.received() == []

    def test_one_of_two_tabs(self, layer: ChannelLayerWrapper, alices: ChatPage, bobs: ChatPage, bob: User) -> None:
        tab = ChatPage(layer, bob)
        tab.connect()
        tab.leave()
        assert alices.received() == []
        bobs.leave()
        assert types(alices.received()) == ["leave"]

    def test_ping(self, alices: ChatPage) -> None:
        long_ago = timezone.now() - GONE_AFTER / 2
        Presence.objects.update(seen_at=long_ago)
        alices.say({"type": "ping"})
        assert alices.received() == [{"type": "pong"}]
        assert Presence.objects.get().seen_at > long_ago + timedelta(seconds=1)

    def test_the_silent_are_gone(self, alices: ChatPage, bobs: ChatPage) -> None:
        Presence.objects.filter(channel=bobs.channel).update(seen_at=timezone.now() - GONE_AFTER - timedelta(seconds=1))
        alices.say({"type": "ping"})
        assert alices.received() == [{"type": "people", "people": ["alice"]}, {"type": "pong"}]


class TestFromElsewhere:
    def test_group_send(self, alices: ChatPage) -> None:
        Group("chat-lobby").send({"text": json.dumps({"type": "message", "user": "cron", "text": "tick"})})
        assert alices.received() == [{"type": "message", "user": "cron", "text": "tick"}]

    def test_celery_task(self, alices: ChatPage) -> None:
        announce.delay("lobby", "Tea is ready")
        (notice,) = alices.received()
        assert (notice["type"], notice["text"]) == ("notice", "Tea is ready")

    def test_view(self, alices: ChatPage, client: Client, bob: User) -> None:
        client.force_login(bob)
        response = client.post("/chat/lobby/post/", {"text": "without scripts"})
        assert response.headers["Location"] == "/chat/lobby/"
        (message,) = alices.received()
        assert (message["user"], message["text"]) == ("bob", "without scripts")
