"""Tickets of live tasks."""

from __future__ import annotations

import time

import pytest
from django.test import override_settings

from channelsq.exceptions import InvalidTicket
from channelsq.live.tickets import Ticket, issue, read

TICKET = Ticket("0c6b5a52-9d7e-4cb7-8f43-3f6f0a1f9f10", "default", True)


@pytest.mark.parametrize("ticket", [TICKET, TICKET._replace(may_cancel=False), TICKET._replace(layer="other")])
def test_a_ticket_is_read_as_it_was_issued(ticket: Ticket) -> None:
    text = issue(ticket)
    assert read(text) == ticket
    assert text.partition(":")[0] == ticket.job


def test_a_ticket_of_another_kind_is_refused() -> None:
    text = issue(TICKET)
    for wrong in (text[:-1], text + "A", text.replace(":c~", ":w~"), TICKET.job, "", "x" * 1000, None, 7, ["a"]):
        with pytest.raises(InvalidTicket):
            read(wrong)
    with override_settings(SECRET_KEY="another"), pytest.raises(InvalidTicket, match="of this site"):
        read(text)


def test_an_old_key_still_opens() -> None:
    with override_settings(SECRET_KEY="old"):
        text = issue(TICKET)
    with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["old"]):
        assert read(text) == TICKET


def test_a_ticket_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    text, now = issue(TICKET), time.time()
    monkeypatch.setattr(time, "time", lambda: now + 86_399)
    assert read(text) == TICKET
    with override_settings(CHANNEL_LIVE={"ticket_age": 30}), pytest.raises(InvalidTicket, match="expired"):
        read(text)
    monkeypatch.setattr(time, "time", lambda: now + 86_402)
    with pytest.raises(InvalidTicket, match="expired"):
        read(text)
