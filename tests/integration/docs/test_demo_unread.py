"""Unread messages, mentions, typing and older messages in the demo."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client

from app.mentions import MOST, parts
from app.models import HISTORY, Mention, Message, ReadMarker, Room, unread_of
from channelsq import User as UserSockets
from channelsq.asgi import ChannelLayerWrapper
from channelsq.exceptions import DenyConnection
from tests.support.chat_page import ChatPage, types

pytestmark = pytest.mark.django_db


@pytest.fixture
def cellar() -> Room:
    return Room.objects.create(name="Cellar", slug="cellar")


@pytest.fixture
def elsewhere(layer: ChannelLayerWrapper, bob: User) -> ChatPage:
    """Bob's page outside the rooms, whose socket belongs to him."""
    page = ChatPage(layer, bob, "/notices/")
    page.connect()
    UserSockets(bob).group.add(page.channel)
    page.all_received()
    return page


class TestUnread:
    def test_messages_of_others_count_until_they_are_read(self, lobby: Room, alice: User, bob: User) -> None:
        said = [lobby.post(alice, str(number))[0] for number in range(3)]
        lobby.post(bob, "mine")
        assert unread_of(bob) == {"rooms": {"lobby": 3}, "mentions": 0}
        assert ReadMarker.objects.move(bob, lobby, said[1].pk)
        assert unread_of(bob)["rooms"] == {"lobby": 1}
        assert not ReadMarker.objects.move(bob, lobby, said[0].pk)  # never backwards
        assert unread_of(bob)["rooms"] == {"lobby": 1}

    def test_a_marker_does_not_run_ahead_of_the_room(self, lobby: Room, alice: User, bob: User) -> None:
        lobby.post(alice, "first")
        ReadMarker.objects.move(bob, lobby, 10**12)
        lobby.post(alice, "second")
        assert unread_of(bob)["rooms"] == {"lobby": 1}

    def test_the_page_of_a_room_reads_it(self, lobby: Room, cellar: Room, alice: User, bob: User) -> None:
        for room in (lobby, cellar):
            room.post(alice, "hello")
        client = Client()
        client.force_login(bob)
        page = client.get("/chat/lobby/").text
        assert '<span class="number">1</span><span class="sr-only"> unread</span>' in page  # the other room's
        assert unread_of(bob)["rooms"] == {"cellar": 1}
        lobby.post(alice, "news")
        assert 'id="first-unread"' in client.get("/chat/lobby/").text
        assert 'id="first-unread"' not in client.get("/chat/lobby/").text

    def test_a_page_elsewhere_learns_at_once(self, alices: ChatPage, elsewhere: ChatPage) -> None:
        alices.say({"type": "message", "text": "hello"})
        (said,) = elsewhere.notices()
        assert (said["type"], said["room"], said["user"], said["text"]) == ("said", "lobby", "alice", "hello")

    def test_reading_corrects_all_pages_of_the_user(
        self, bobs: ChatPage, elsewhere: ChatPage, lobby: Room, alice: User
    ) -> None:
        message, _ = lobby.post(alice, "hello")
        elsewhere.all_received()
        bobs.say({"type": "read", "id": message.pk})
        assert elsewhere.notices() == [{"type": "unread", "rooms": {}, "mentions": 0}]
        bobs.say({"type": "read", "id": message.pk})
        assert elsewhere.notices() == []  # known already

    @pytest.mark.parametrize("value", [None, "7", True, -1, 2**63, 1.5])
    def test_a_bad_position(self, value: object, alices: ChatPage) -> None:
        alices.say({"type": "read", "id": value})
        (error,) = alices.received()
        assert "whole number" in error["text"]
        assert repr(str(value)) in error["text"]

    def test_notices_need_a_login(self, layer: ChannelLayerWrapper) -> None:
        with pytest.raises(DenyConnection, match="not logged in"):
            ChatPage(layer, None, "/notices/").connect()


class TestMentions:
    def test_a_user_is_told_on_any_page(self, alices: ChatPage, elsewhere: ChatPage) -> None:
        alices.say({"type": "message", "text": "Are you there, @bob?"})
        _, mention = elsewhere.notices()
        message = Message.objects.get()
        assert mention == {
            "type": "mention", "name": "Lobby", "url": f"/chat/lobby/#message-{message.pk}", "room": "lobby",
            "text": "Are you there, @bob?", "id": message.pk, "user": "alice",
        }  # fmt: skip
        assert alices.received()[0]["mentions"] == ["bob"]

    def test_the_count_ends_when_the_room_is_read(self, lobby: Room, alice: User, bob: User) -> None:
        message, _ = lobby.post(alice, "@bob")
        assert unread_of(bob)["mentions"] == 1
        client = Client()
        client.force_login(bob)
        assert client.get("/mentions/").headers["Location"] == f"/chat/lobby/#message-{message.pk}"
        client.get("/chat/lobby/")
        assert unread_of(bob)["mentions"] == 0
        assert client.get("/mentions/").headers["Location"] == "/"

    def test_an_old_mention_leads_to_its_page(self, lobby: Room, alice: User, bob: User) -> None:
        message, _ = lobby.post(alice, "@bob")
        for number in range(HISTORY):
            lobby.post(alice, str(number))
        assert message.url == f"/chat/lobby/?before={message.pk + 1}#message-{message.pk}"

    def test_authors_do_not_notify_themselves(self, alices: ChatPage, alice: User) -> None:
        UserSockets(alice).group.add(alices.channel)
        alices.say({"type": "message", "text": "I am @alice"})
        assert [frame["type"] for frame in alices.notices()] == ["said"]
        assert unread_of(alice)["mentions"] == 0

    def test_an_inactive_user_and_the_limit(self, lobby: Room, alice: User) -> None:
        User.objects.create_user("gone", is_active=False)
        for number in range(MOST + 2):
            User.objects.create_user(f"u{number}")
        lobby.post(alice, "@gone " + " ".join(f"@u{number}" for number in range(MOST + 2)))
        assert Mention.objects.count() == MOST
        assert not Mention.objects.filter(user__username="gone").exists()

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("hi @bob!", [("hi ", ""), ("@bob", "bob"), ("!", "")]),
            ("@bob.", [("", ""), ("@bob", "bob"), (".", "")]),
            ("mail bob@bob.example", [("mail bob@bob.example", "")]),
            ("@bobby", [("@bobby", "")]),
        ],
    )
    def test_parts(self, text: str, expected: list[tuple[str, str]]) -> None:
        assert list(parts(text, {"bob"})) == expected

    def test_marked_text_is_escaped(self, lobby: Room, alice: User, bob: User) -> None:
        lobby.post(alice, "<i>@bob</i>")
        client = Client()
        client.force_login(bob)
        marked = '&lt;i&gt;<mark class="mention" data-name="bob">@bob</mark>&lt;/i&gt;'
        assert marked in client.get("/chat/lobby/").text


class TestTyping:
    def test_the_room_sees_it_and_nothing_is_stored(self, alices: ChatPage, bobs: ChatPage) -> None:
        cache.clear()
        alices.say({"type": "typing"})
        assert bobs.received() == [{"type": "typing", "user": "alice"}]
        assert not Message.objects.exists()

    def test_its_rate_is_limited(self, alices: ChatPage, bobs: ChatPage) -> None:
        cache.clear()
        for _ in range(20):
            alices.say({"type": "typing"})
        assert types(bobs.received()) == ["typing"]
        bobs.say({"type": "typing"})  # another socket's limit is its own
        assert types(alices.received()) == ["typing", "typing"]


class TestHistory:
    def test_pages_lead_back_to_the_first_message(self, lobby: Room, alice: User) -> None:
        said = [lobby.post(alice, f"number {number}.")[0] for number in range(HISTORY * 2 + 1)]
        client = Client()
        client.force_login(alice)
        page = client.get("/chat/lobby/").text
        assert f"?before={said[HISTORY + 1].pk}" in page
        page = client.get(f"/chat/lobby/?before={said[HISTORY + 1].pk}").text
        assert "number 1." in page
        assert f"number {HISTORY}." in page
        assert f"number {HISTORY + 1}." not in page
        assert "To the newest messages" in page
        page = client.get(f"/chat/lobby/?before={said[1].pk}").text
        assert "number 0." in page
        assert "Older messages" not in page

    @pytest.mark.parametrize("before", ["x", "-1", "9" * 40, "٣"])
    def test_a_bad_position_is_none(self, before: str, lobby: Room, alice: User) -> None:
        lobby.post(alice, "newest")
        client = Client()
        client.force_login(alice)
        assert "newest" in client.get("/chat/lobby/", {"before": before}).text
