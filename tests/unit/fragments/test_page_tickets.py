"""The tickets of live pages."""

from __future__ import annotations

import time

import pytest
from django.core.signals import request_started
from django.test import override_settings

from channelsq.exceptions import InvalidTicket
from channelsq.fragments.page_tickets import MOST_GROUPS, PageTicket, issue, read, request_begun
from channelsq.live import tickets

TICKET = PageTicket(("room", "board"), "default", 1_790_000_000.25, "7", "channelsq.user.auth.user.7")


def test_a_ticket_is_read_as_it_was_issued() -> None:
    assert read(issue(TICKET)) == TICKET
    assert read(issue(TICKET._replace(user=None, user_group=""))).user is None


def test_the_largest_ticket_can_be_read() -> None:
    ticket = TICKET._replace(groups=tuple(f"{number:02}" + "x" * 97 for number in range(MOST_GROUPS)))
    assert read(issue(ticket)) == ticket


@pytest.mark.parametrize("text", [None, 7, "", "a", "a~b~c", issue(TICKET)[:-1] + "!", "x" * 5000, issue(TICKET) * 30])
def test_another_text_is_refused(text: object) -> None:
    with pytest.raises(InvalidTicket) as caught:
        read(text)
    assert not caught.value.expired


def test_a_ticket_of_a_task_is_refused() -> None:
    with pytest.raises(InvalidTicket):
        read(tickets.issue(tickets.Ticket("job", "default", True)))
    with pytest.raises(InvalidTicket):
        tickets.read(issue(TICKET))


def test_a_ticket_expires() -> None:
    text = issue(TICKET)
    with override_settings(CHANNEL_LIVE={"page_age": 1e-9}), pytest.raises(InvalidTicket, match="expired") as caught:
        read(text)
    assert caught.value.expired
    with override_settings(SECRET_KEY="another"), pytest.raises(InvalidTicket) as caught:
        read(text)
    assert not caught.value.expired


def test_a_request_begins_before_its_view() -> None:
    request_started.send(sender=None)
    begun = request_begun()
    assert begun <= time.time()
    assert request_begun() == begun
