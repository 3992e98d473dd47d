"""Models whose saves and deletions change live pages."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import transaction

from channelsq.asgi import ChannelLayerWrapper
from channelsq.binding.live_templates import LiveTemplate
from channelsq.delivery.pending import pending_message_store
from channelsq.fragments.joining import PageSocket, join
from channelsq.fragments.page_tickets import PageTicket
from channelsq.fragments.swaps import LIBRARY
from channelsq.layers import InMemoryChannelLayer
from tests.support.bindings import forgotten_afterwards
from tests.support.layers import installed

pytestmark = pytest.mark.django_db(transaction=True)

USER = '<li id="user-{{ user.pk }}">{{ object.username }}</li>'


@pytest.fixture(autouse=True)
def layer(settings: Any) -> Iterator[InMemoryChannelLayer]:
    files = {"user.html": USER, "other.html": '<li id="x"></li>', "text.html": "text"}
    settings.TEMPLATES = [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {"loaders": [("django.template.loaders.locmem.Loader", files)]},
        }
    ]
    layer = InMemoryChannelLayer()
    with forgotten_afterwards(), installed(ChannelLayerWrapper(layer, "default", [])):
        yield layer


def declare(**attributes: Any) -> type[LiveTemplate]:
    """Declare a template for users, whose group is their last name."""

    class LiveUser(LiveTemplate):
        model = User
        template = "user.html"
        target = "users"

        @classmethod
        def group_names(cls, instance: Any) -> list[str]:
            return [instance.last_name]

    for name, value in attributes.items():
        setattr(LiveUser, name, value)
    return LiveUser


class Pages:
    """The pages of a group."""

    def __init__(self, layer: InMemoryChannelLayer, group: str) -> None:
        self.layer, self.channel = layer, layer.new_channel("websocket.send!")
        join(PageTicket((group,), "default", time.time(), None, ""), PageSocket(self.channel, "default"), LIBRARY)

    def changes(self) -> list[tuple[str, str, str]]:
        """Return what came since the last call: actions, targets and fragments."""
        found = []
        while (message := self.layer.receive([self.channel])[1]) is not None:
            payload = json.loads(message["text"])["payload"]
            found.append((payload["action"], payload["target"], payload["html"]))
        return found


def test_pages_follow_an_object(layer: InMemoryChannelLayer) -> None:
    declare()
    pages, others = Pages(layer, "tea"), Pages(layer, "milk")
    user = User.objects.create(username="a<b", last_name="tea")
    key = f"user-{user.pk}"
    assert pages.changes() == [("append", "users", f'<li id="{key}">a&lt;b</li>')]
    user.username = "b"
    user.save(update_fields=["username"])
    assert pages.changes() == [("replace", key, f'<li id="{key}">b</li>')]
    user.last_name = "milk"
    user.save()
    assert pages.changes() == [("remove", key, "")]
    assert others.changes() == [("append", "users", f'<li id="{key}">b</li>')]
    user.delete()
    assert others.changes() == [("remove", key, "")]


def test_new_objects_come_first_if_the_declaration_says_so(layer: InMemoryChannelLayer) -> None:
    declare(placed="prepend", dom_id=classmethod(lambda cls, instance: "x"), template="other.html")
    pages = Pages(layer, "tea")
    User.objects.create(username="a", last_name="tea")
    assert pages.changes() == [("prepend", "users", '<li id="x"></li>')]


def test_pages_hear_of_committed_changes_alone(layer: InMemoryChannelLayer) -> None:
    declare()
    pages = Pages(layer, "tea")
    with transaction.atomic():
        User.objects.create(username="a", last_name="tea")
        assert pages.changes() == []
    assert len(pages.changes()) == 1
    with transaction.atomic():
        User.objects.create(username="b", last_name="tea")
        transaction.set_rollback(True)
    assert pages.changes() == []


def test_pages_hear_of_a_committed_change_although_its_consumer_fails(layer: InMemoryChannelLayer) -> None:
    declare()
    pages = Pages(layer, "tea")
    with pending_message_store.holding():
        User.objects.create(username="a", last_name="tea")
        assert pages.changes() == []
    assert len(pages.changes()) == 1


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        ({"template": ""}, "LiveUser needs a template, and a target"),
        ({"target": ""}, "LiveUser needs a template, and a target"),
        ({"target": "#users"}, "'#users' is not the id"),
        ({"placed": "last"}, "'last' is not an action"),
        ({"template": "other.html"}, r"'other.html' must have the id 'user-\d+', not 'x'"),
        ({"template": "text.html"}, r"must have the id 'user-\d+', not ''"),
    ],
)
def test_a_mistake_fails_the_save(attributes: dict[str, str], text: str) -> None:
    declare(**attributes)
    with pytest.raises(ValueError, match=text), transaction.atomic():
        User.objects.create(username="a", last_name="tea")
    assert not User.objects.exists()
