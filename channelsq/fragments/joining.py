"""The answers to sockets of pages that join groups: from the interface server, or from a worker with ``may_join``."""

from __future__ import annotations

import json
import logging
from time import time
from typing import Any
from urllib.parse import parse_qs

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser

from channelsq import conf
from channelsq.asgi import channel_layers
from channelsq.exceptions import BadFrame, BrokerUnavailable, InvalidChannelLayerError, InvalidTicket
from channelsq.fragments.page_groups import has_missed, page_group
from channelsq.fragments.page_tickets import PageTicket, read
from channelsq.fragments.swaps import FORMS, HTMX, LIBRARY, TURBO, frame

logger = logging.getLogger("channelsq.fragments")

#: The most tickets in one frame.
MOST = 50

#: Seconds after which a socket of Turbo counts as one that has come back.  Turbo loads the whole page to bring it up to
#: date, and a new page has a new ticket: on a busy group that would never end.
_NEW = 5.0

#: The close code for a page whose ticket has expired, and which has been told so.
EXPIRED = 4001

#: Words in place of fragments, for channelsq's script beside htmx.
_NOTES = '<template data-channelsq-page="{}"></template>'
_REFRESH = '<turbo-stream action="refresh"></turbo-stream>'


class Forbidden(Exception):
    """The hook ``CHANNEL_LIVE["may_join"]`` forbids a group."""


def join(ticket: PageTicket, channel: str, form: str) -> bool:
    """Let a socket join the groups of a ticket; return whether its page has missed a fragment.

    Args:
        ticket: the permission.
        channel: the socket's reply channel.
        form: see :data:`channelsq.fragments.swaps.FORMS`.

    Raises:
        Forbidden: the project's hook says so.
        BrokerUnavailable: the layer does not answer.
        InvalidChannelLayerError: the layer is not configured any more.
    """
    hook = conf.live_settings().may_join
    if hook:
        may_join, user = conf.import_dotted(hook), _user(ticket.user)
        for name in ticket.groups:
            if not may_join(user, name):
                raise Forbidden(name)
    layer = channel_layers[ticket.alias].channel_layer
    for name in ticket.groups:
        layer.group_add(page_group(name, form), channel)
    if ticket.user_group and conf.user_settings().join:
        layer.group_add(ticket.user_group, channel)
    # After the joining: nothing can be missed between the two.
    return any(has_missed(layer, name, ticket.since) for name in ticket.groups)


def _user(key: str | None) -> Any:
    if key is None:
        return AnonymousUser()
    model: Any = get_user_model()
    return model._default_manager.filter(pk=model._meta.pk.to_python(key)).first() or AnonymousUser()


def is_of_page(query: bytes) -> bool:
    """Return whether a handshake's query string has the ticket of a page."""
    return b"page_ticket=" in query


def lost_note(form: str) -> str:
    """Return the text that tells a page to load itself again, as groups were lost and fragments may have been.

    Args:
        form: see :data:`channelsq.fragments.swaps.FORMS`.
    """
    return frame({"lost": True}) if form == LIBRARY else _REFRESH if form == TURBO else _NOTES.format("lost")


def answer_connect(query: bytes, channel: str) -> dict[str, Any]:
    """Return the answer to the handshake of htmx or Turbo.

    Args:
        query: its query string, with ``page_ticket`` and ``form``.
        channel: its reply channel.
    """
    words = parse_qs(query.decode("ascii", "replace"))
    form = words.get("form", [HTMX])[0]
    text = words.get("page_ticket", [""])[0]
    if form not in FORMS:
        return {"close": True}
    try:
        ticket = read(text)
        is_stale = join(ticket, channel, form)
    except InvalidTicket as error:
        if not error.expired:
            return {"close": True}
        if form == TURBO:
            return {"accept": True, "text": _REFRESH, "close": EXPIRED}
        return {"accept": True, "text": _NOTES.format("expired")}
    except (Forbidden, BrokerUnavailable, InvalidChannelLayerError) as error:
        logger.info("%s: a page is refused: %r", channel, error, extra={"action": "page_refused"})
        return {"close": True}
    if form == TURBO:
        is_stale = is_stale and time() - ticket.since > _NEW
    note = _REFRESH if form == TURBO else _NOTES.format("stale")
    return {"accept": True, "text": note} if is_stale else {"accept": True}


def answer_frame(text: str, channel: str) -> list[dict[str, Any]]:
    """Return the answers to a frame ``{"stream": "channelsq.page", "payload": {"join": [ticket, …]}}``.

    Without tickets it asks for a sign of life.

    Args:
        text: the frame.
        channel: the reply channel of its socket.

    Raises:
        BadFrame: the frame has another form.
    """
    try:
        tickets = json.loads(text)["payload"]["join"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadFrame('a frame about live pages has the payload {"join": ["ticket"]}') from None
    if not isinstance(tickets, list) or len(tickets) > MOST:
        raise BadFrame(f"a frame about live pages has a list of at most {MOST} tickets")
    if not tickets:
        return [{"text": frame({"alive": True})}]
    return [{"text": frame(_answer(ticket, channel))} for ticket in tickets]


def _answer(text: object, channel: str) -> dict[str, object]:
    shown = str(text)[:4096]
    try:
        return {"joined": shown, "stale": join(read(text), channel, LIBRARY)}
    except InvalidTicket as error:
        return {"refused": shown, "expired": error.expired, "error": str(error)}
    except Forbidden:
        return {"refused": shown, "expired": False, "error": "it is forbidden"}
    except (BrokerUnavailable, InvalidChannelLayerError) as error:
        logger.info("%s: a page waits: %r", channel, error, extra={"action": "page_refused"})
        return {"unavailable": shown}
