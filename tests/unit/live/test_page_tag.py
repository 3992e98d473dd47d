"""``{% live %}``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest
from django.template import Context, Template
from django.test import RequestFactory, override_settings
from django.urls import set_script_prefix

from channelsq import Group, User
from channelsq.asgi import ChannelLayerWrapper
from channelsq.fragments.page_tickets import PageTicket, read
from channelsq.layers import InMemoryChannelLayer
from tests.support.layers import installed


@pytest.fixture(autouse=True)
def layer() -> Iterator[None]:
    with installed(ChannelLayerWrapper(InMemoryChannelLayer(), "default", [])):
        yield


def render(source: str, **context: Any) -> str:
    return unescape(Template("{% load channelsq %}" + source).render(Context(context)))


def request(user: Any = None, **options: Any) -> HttpRequest:
    found = RequestFactory().get("/", **options)
    found.user = AnonymousUser() if user is None else user
    return found


def ticket_of(html: str) -> PageTicket:
    found = re.search(r'(?:ticket="|page_ticket=)([^"]+)"', html)
    assert found is not None, html
    return read(found[1].replace("%7E", "~"))


def test_a_page_gets_a_ticket_of_its_groups() -> None:
    html = render('{% live "room" board refresh="rows" %}', board=Group("board"))
    assert ticket_of(html).groups == ("room", "board")
    assert ticket_of(html).user is None
    assert 'path="/channelsq/live/"' in html
    assert 'refresh="rows"' in html
    assert 'src="static/channelsq/js/livepage.js"' in html or "js/livepage.js" in html


@pytest.mark.django_db
def test_a_page_of_a_user_has_the_user_in_its_ticket() -> None:
    user = get_user_model().objects.create(username="alice")
    own = User(user).group.name
    for source in ("{% live user %}", "{% live member %}"):
        ticket = ticket_of(render(source, request=request(user), user=user, member=User(user)))
        assert ticket.groups == (own,)
        assert (ticket.user, ticket.user_group) == (str(user.pk), own)


def test_the_element_keeps_its_id_from_page_to_page() -> None:
    def identity(source: str) -> str:
        found = re.search(r'id="(channelsq-live-\w+)"', render(source, request=request()))
        assert found is not None
        return found[1]

    assert identity('{% live "room" %}') == identity('{% live "room" refresh="x" %}')
    others = ['{% live "other" %}', '{% live "room" htmx=True %}', '{% live "room" turbo=True %}']
    assert len({identity('{% live "room" %}'), *map(identity, others)}) == 4


def test_htmx_and_turbo_get_an_address() -> None:
    html = render('{% live "room" htmx=True %}')
    assert 'hx-ext="ws" ws-connect="/channelsq/live/?form=htmx&page_ticket=' in html
    assert ticket_of(html).groups == ("room",)
    html = render('{% live "room" turbo=True %}', request=request(HTTP_HOST="testserver"))
    assert '<turbo-stream-source src="ws://testserver/channelsq/live/?form=turbo&page_ticket=' in html
    html = render('{% live "room" turbo=True %}', request=request(HTTP_HOST="testserver", secure=True))
    assert 'src="wss://testserver/channelsq' in html


def test_the_path_and_the_nonce_are_those_of_the_site() -> None:
    set_script_prefix("/mounted/")
    try:
        with override_settings(CHANNEL_LIVE={"path": "/live/"}):
            html = render('{% live "room" %}', csp_nonce="abc")
    finally:
        set_script_prefix("/")
    assert 'path="/mounted/live/"' in html
    assert '<script type="module" src=' in html
    assert 'nonce="abc"' in html


@pytest.mark.parametrize(
    ("source", "error", "text"),
    [
        ("{% live %}", ValueError, "one to 20 groups, not 0"),
        ('{% live "a" htmx=True turbo=True %}', ValueError, "not both"),
        ("{% live 7 %}", TypeError, "users of Django, not 7"),
        ('{% live "a b" %}', TypeError, "'a b' is not a group name"),
        ("{% live anonymous %}", TypeError, "not an anonymous one"),
        ('{% live "room" turbo=True %}', ValueError, "needs the request"),
        ("{% live missing %}", TypeError, "is not a group name"),
    ],
)
def test_mistakes_are_named(source: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        render(source, anonymous=AnonymousUser())
