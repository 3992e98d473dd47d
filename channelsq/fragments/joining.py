"""The answers to sockets of pages that join groups: from the interface server, or from a worker with ``may_join``."""

from __future__ import annotations

import json
import logging
from time import time
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from django.contrib.auth import get_user_model

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
    """A socket may not join: the hook ``CHANNEL_LIVE["may_join"]`` says so, or it is a socket of another layer."""


class PageSocket(NamedTuple):
    """A socket of a page."""

    #: Its reply channel.
    channel: str
    #: The alias of its layer.
    alias: str


def join(ticket: PageTicket, socket: PageSocket, form: str) -> bool:
    """Let a socket join the groups of a ticket; return whether its page has missed a fragment.

    Args:
        ticket: the permission.
        socket: the socket.
        form: see :data:`channelsq.fragments.swaps.FORMS`.

    Raises:
        Forbidden: the project's hook says so, or the groups are on another layer than the socket.
        BrokerUnavailable: the layer does not answer.
        InvalidChannelLayerError: the layer is not configured any more.
    """
    if ticket.alias != socket.alias:
        raise Forbidden(f"its groups are on the layer {ticket.alias!r}, and its socket is on {socket.alias!r}")
    hook = conf.live_settings().may_join
    if hook:
        may_join, user = conf.import_dotted(hook), _user(ticket.user)
        for name in ticket.groups:
            if not may_join(user, name):
                raise Forbidden("it is forbidden")
    layer = channel_layers[ticket.alias].channel_layer
    for name in ticket.groups:
        layer.group_add(page_group(name, form), socket.channel)
    if ticket.user_group and conf.user_settings().join:
        layer.group_add(ticket.user_group, socket.channel)
    # After the joining: nothing can be missed between the two.
    return any(has_missed(layer, name, ticket.since) for name in ticket.groups)


def _user(key: str | None) -> Any:
    from django.contrib.auth.models import AnonymousUser  # an interface server's settings may lack Django's apps

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


def answer_connect(query: bytes, socket: PageSocket) -> dict[str, Any]:
    """Return the answer to the handshake of htmx or Turbo.

    Args:
        query: its query string, with ``page_ticket`` and ``form``.
        socket: the socket.
    """
    words = parse_qs(query.decode("ascii", "replace"))
    form = words.get("form", [HTMX])[0]
    text = words.get("page_ticket", [""])[0]
    if form not in FORMS:
        return {"close": True}
    try:
        ticket = read(text)
        is_stale = join(ticket, socket, form)
    except InvalidTicket as error:
        if not error.expired:
            return {"close": True}
        if form == TURBO:
            return {"accept": True, "text": _REFRESH, "close": EXPIRED}
        return {"accept": True, "text": _NOTES.format("expired")}
    except (Forbidden, BrokerUnavailable, InvalidChannelLayerError) as error:
        _log(socket, error)
        return {"close": True}
    if form == TURBO:
        is_stale = is_stale and time() - ticket.since > _NEW
    note = _REFRESH if form == TURBO else _NOTES.format("stale")
    return {"accept": True, "text": note} if is_stale else {"accept": True}


def answer_frame(text: str, socket: PageSocket) -> list[dict[str, Any]]:
    """Return the answers to a frame ``{"stream": "channelsq.page", "payload": {"join": [ticket, …]}}``.

    Without tickets it asks for a sign of life.

    Args:
        text: the frame.
        socket: its socket.

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
    return [{"text": frame(_answer(ticket, socket))} for ticket in tickets]


def _answer(text: object, socket: PageSocket) -> dict[str, object]:
    shown = str(text)[:4096]
    try:
        return {"joined": shown, "stale": join(read(text), socket, LIBRARY)}
    except InvalidTicket as error:
        return {"refused": shown, "expired": error.expired, "error": str(error)}
    except Forbidden as error:
        _log(socket, error)
        return {"refused": shown, "expired": False, "error": str(error)}
    except (BrokerUnavailable, InvalidChannelLayerError) as error:
        _log(socket, error)
        return {"unavailable": shown}


def _log(socket: PageSocket, error: Exception) -> None:
    text = "%s: a page does not join: %s"
    logger.info(text, socket.channel, error, extra={"action": "page_refused", "connection": socket.channel})
