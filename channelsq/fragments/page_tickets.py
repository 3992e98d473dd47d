"""Page tickets: signed permissions of a page to get the fragments of groups.

``{% live %}`` puts one into a page.  Whoever may read the page may hear its groups, for ``CHANNEL_LIVE["page_age"]``
seconds; then the page must be rendered anew, which asks the view again.
"""

from __future__ import annotations

from contextvars import ContextVar
from datetime import timedelta
from time import time
from typing import Any, NamedTuple

from django.core import signing
from django.core.signals import request_started

from channelsq import conf
from channelsq.exceptions import InvalidTicket

_SALT = "channelsq.fragments.page_tickets"

#: The longest ticket; a longer one is refused unread.
_LONGEST = 4096

#: The most groups of one page.
MOST_GROUPS = 20


class PageTicket(NamedTuple):
    """The permission of a ticket."""

    #: The names of the groups.
    groups: tuple[str, ...]
    #: The alias of their layer.
    alias: str
    #: The time, in seconds since 1970, from which the page does not know the fragments.
    since: float
    #: The primary key of the user of the page as text, and the user's group; None and "" without a login.
    user: str | None
    user_group: str


def _signer() -> signing.TimestampSigner:
    return signing.TimestampSigner(sep="~", salt=_SALT)


def issue(ticket: PageTicket) -> str:
    """Return a ticket as a text."""
    return _signer().sign_object(list(ticket))


def read(text: object) -> PageTicket:
    """Return the permission of a ticket.

    Raises:
        InvalidTicket: it is not a ticket of this site, or it has expired.
    """
    if not isinstance(text, str) or len(text) > _LONGEST:
        raise InvalidTicket("it is not a ticket of a page")
    try:
        age = timedelta(seconds=conf.live_settings().page_age)
        groups, *rest = _signer().unsign_object(text, max_age=age)
        return PageTicket(tuple(groups), *rest)
    except signing.SignatureExpired:
        raise InvalidTicket("it has expired", expired=True) from None
    except (signing.BadSignature, ValueError, TypeError):
        raise InvalidTicket("it is not a ticket of a page of this site") from None


#: The start of the running request, in seconds since 1970; 0 outside of requests.
_begun: ContextVar[float] = ContextVar("channelsq_request_begun", default=0.0)


def _note_begin(**kwargs: Any) -> None:
    _begun.set(time())


def watch_requests() -> None:
    """Record the start of each request of this process; repeated calls are harmless."""
    request_started.connect(_note_begin, dispatch_uid=__name__)


def request_begun() -> float:
    """Return the start of the running request: what a view has read is not older.  The present time outside of one."""
    return _begun.get() or time()
