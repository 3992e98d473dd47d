"""Fragments on their way: rendered once, sent after the commit, and noted for pages that join later."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import transaction
from django.template import TemplateDoesNotExist

from channelsq import Group, User
from channelsq.asgi import ChannelLayerWrapper
from channelsq.delivery.pending import pending_message_store
from channelsq.exceptions import MessageTooLarge
from channelsq.fragments.joining import PageSocket, join
from channelsq.fragments.page_groups import form_of, has_missed, page_group
from channelsq.fragments.page_tickets import PageTicket
from channelsq.fragments.swaps import FORMS, HTMX, LIBRARY, TURBO
from channelsq.layers import InMemoryChannelLayer
from tests.support.layers import installed

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {
            "loaders": [
                ("django.template.loaders.locmem.Loader", {"row.html": '<li id="row-{{ pk }}">{{ text }}</li>\n'}),
            ]
        },
    }
]


@pytest.fixture(autouse=True)
def layer(settings: Any) -> Iterator[InMemoryChannelLayer]:
    settings.TEMPLATES = TEMPLATES
    layer = InMemoryChannelLayer()
    with installed(ChannelLayerWrapper(layer, "default", [])):
        yield layer


def new_socket(layer: InMemoryChannelLayer) -> PageSocket:
    return PageSocket(layer.new_channel("websocket.send!"), "default")


def joined(layer: InMemoryChannelLayer, name: str, form: str) -> str:
    """Return the reply channel of a socket whose page has joined a group."""
    channel = layer.new_channel("websocket.send!")
    join(PageTicket((name,), "default", time.time(), None, ""), PageSocket(channel, "default"), form)
    return channel


def received(layer: InMemoryChannelLayer, channel: str) -> str | None:
    """Return the text that a socket got; None if it got nothing."""
    _, message = layer.receive([channel])
    return None if message is None else str(message["text"])


def test_each_form_gets_the_fragment(layer: InMemoryChannelLayer) -> None:
    channels = {form: joined(layer, "room", form) for form in FORMS}
    stranger = joined(layer, "other", LIBRARY)
    consumers = layer.new_channel("websocket.send!")
    layer.group_add("room", consumers)
    Group("room").render("row.html", {"pk": 7, "text": "<&"}, target="rows")
    assert received(layer, channels[HTMX]) == (
        '<div hx-swap-oob="beforeend:#rows" data-channelsq><li id="row-7">&lt;&amp;</li></div>'
    )
    assert '<template><li id="row-7">&lt;&amp;</li></template>' in str(received(layer, channels[TURBO]))
    assert '"action":"append","target":"rows"' in str(received(layer, channels[LIBRARY]))
    assert received(layer, stranger) is None
    assert received(layer, consumers) is None


def test_the_longest_name_of_a_group_can_be_joined(layer: InMemoryChannelLayer) -> None:
    name = "x" * 99
    channels = [joined(layer, name, form) for form in FORMS]
    Group(name).render(None, target="row-7", action="remove")
    assert all(received(layer, channel) for channel in channels)
    assert len({page_group(name, form) for form in FORMS}) == 3
    assert [form_of(page_group(name, form)) for form in FORMS] == list(FORMS)


def test_other_groups_are_none_of_live_pages() -> None:
    assert [form_of(page_group("room", form)) for form in FORMS] == list(FORMS)
    assert {form_of(name) for name in ("room", "channelsq.page", "channelsq.pages.x", "channelsq.task.x")} == {None}


@pytest.mark.django_db
def test_a_user_s_pages_get_the_fragment(layer: InMemoryChannelLayer) -> None:
    user = get_user_model().objects.create(username="alice")
    channel = joined(layer, User(user).group.name, LIBRARY)
    User(user).render("row.html", {"pk": 1})
    assert '"target":"row-1"' in str(received(layer, channel))


@pytest.mark.django_db(transaction=True)
def test_fragments_leave_with_the_commit_and_are_noted_then(layer: InMemoryChannelLayer) -> None:
    channel = joined(layer, "room", LIBRARY)
    with transaction.atomic():
        Group("room").render("row.html", {"pk": 1})
        assert received(layer, channel) is None
        between = time.time()
        assert not has_missed(layer, "room", 0)
    assert received(layer, channel)
    assert has_missed(layer, "room", between)
    assert not has_missed(layer, "room", time.time())
    with transaction.atomic():
        Group("room").render("row.html", {"pk": 2})
        transaction.set_rollback(True)
    assert received(layer, channel) is None


def test_fragments_of_a_consumer_leave_if_it_succeeds(layer: InMemoryChannelLayer) -> None:
    channel = joined(layer, "room", LIBRARY)
    with pending_message_store.holding() as pending:
        Group("room").render("row.html", {"pk": 1})
        assert received(layer, channel) is None
        Group("room").render("row.html", {"pk": 2}, immediately=True)
        assert '"target":"row-2"' in str(received(layer, channel))
        pending.settle()
    assert '"target":"row-1"' in str(received(layer, channel))
    with pending_message_store.holding():
        Group("room").render("row.html", {"pk": 3})
    assert received(layer, channel) is None


def test_a_page_that_joins_later_is_told_whether_it_missed_something(layer: InMemoryChannelLayer) -> None:
    before = PageTicket(("quiet", "room"), "default", time.time(), None, "")
    assert join(before, new_socket(layer), LIBRARY) is False
    Group("other").render("row.html", {"pk": 1})
    assert join(before, new_socket(layer), LIBRARY) is False
    Group("room").render("row.html", {"pk": 1})
    assert join(before, new_socket(layer), HTMX) is True
    after = before._replace(since=time.time())
    assert join(after, new_socket(layer), LIBRARY) is False


def test_mistakes_are_named(layer: InMemoryChannelLayer) -> None:
    with pytest.raises(TemplateDoesNotExist):
        Group("room").render("missing.html")
    with pytest.raises(ValueError, match="the action 'append' needs a template"):
        Group("room").render(None, target="rows")
    with pytest.raises(ValueError, match="'#rows' is not the id"):
        Group("room").render("row.html", {"pk": 1}, target="#rows")
    with pytest.raises(MessageTooLarge):
        Group("room").render("row.html", {"pk": 1, "text": "x" * layer.message_size_limit})
    assert not has_missed(layer, "room", 0)
