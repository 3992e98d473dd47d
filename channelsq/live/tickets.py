"""Tickets: signed permissions to watch a live task, and perhaps to cancel it.

A page gets a ticket with the first message about its task, or from a template.  Whoever has a ticket may use it, so it
goes to nobody but the task's audience, and it ends after ``CHANNEL_LIVE["ticket_age"]`` seconds.
"""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from django.core import signing

from channelsq import conf
from channelsq.exceptions import InvalidTicket

_SALT = "channelsq.live.tickets"

#: The longest ticket; a longer one is refused unread.
_LONGEST = 400

_WATCH, _CANCEL = "w", "c"


class Ticket(NamedTuple):
    """The permission of a ticket."""

    #: The id of the live task.
    job: str
    #: The alias of the layer with the task's state.
    layer: str
    may_cancel: bool


def _signer() -> signing.TimestampSigner:
    return signing.TimestampSigner(sep="~", salt=_SALT)


def issue(ticket: Ticket) -> str:
    """Return a ticket as a text; the part before the first ``:`` is the task's id."""
    return _signer().sign(f"{ticket.job}:{ticket.layer}:{_CANCEL if ticket.may_cancel else _WATCH}")


def read(text: object) -> Ticket:
    """Return the permission of a ticket.

    Raises:
        InvalidTicket: it is not a ticket of this site, or it has expired.
    """
    if not isinstance(text, str) or len(text) > _LONGEST:
        raise InvalidTicket("it is not a ticket")
    try:
        age = timedelta(seconds=conf.live_settings().ticket_age)
        job, layer, right = _signer().unsign(text, max_age=age).rsplit(":", 2)
    except signing.SignatureExpired:
        raise InvalidTicket("it has expired", expired=True) from None
    except (signing.BadSignature, ValueError):
        raise InvalidTicket("it is not a ticket of this site") from None
    return Ticket(job, layer, right == _CANCEL)
