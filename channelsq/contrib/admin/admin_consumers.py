"""The consumers of the live admin, for its pages' sockets and for saved changes."""

from __future__ import annotations

import json
from typing import Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.core.exceptions import SuspiciousOperation, ValidationError
from django.db import OperationalError
from django.db.models import Model

from channelsq.contrib.admin.editors import frame, tell_one, tell_who_is_there
from channelsq.contrib.admin.open_pages import LIST, MOST_SOCKETS, OpenPage, digest_of, group_of, read_page
from channelsq.contrib.admin.page_sockets import ADDRESS, FULL, NOT_ALLOWED, PAGE, PageSocket, name_of, socket_on
from channelsq.contrib.admin.saved_changes import ADDED, DELETED
from channelsq.exceptions import BadFrame, DenyConnection
from channelsq.handler import AsgiRequest
from channelsq.message import Message
from channelsq.options import consumer
from channelsq.security.websockets import allowed_hosts_only
from channelsq.sessions import channel_and_http_session

_again = consumer(autoretry_for=(OperationalError,), max_retries=3, retry_backoff=True)


@_again
@allowed_hosts_only
@channel_and_http_session
def connect(message: Message) -> None:
    """Accept a page's socket if its user is logged in; the page is checked later."""
    try:
        request = AsgiRequest(message)
        address = [request.get_host(), request.META.get("REMOTE_ADDR", "")]
    except (ValueError, SuspiciousOperation) as error:
        raise DenyConnection(f"no proper handshake: {error}") from error
    if not PageSocket(message).user.is_authenticated:
        # Accepted first: a page's script cannot tell a refused handshake from an unreachable server.
        message.reply_channel.send({"accept": True, "close": NOT_ALLOWED})
        return
    message.channel_session[ADDRESS] = address
    message.reply_channel.send({"accept": True})


@_again
@channel_and_http_session
def receive(message: Message) -> None:
    """Handle a page's frame: ``{"type": "hello", "page": …}`` at first, ``{"type": "look"}`` to stay."""
    try:
        content = json.loads(message.get("text") or "")
    except (ValueError, RecursionError):
        content = None
    kind = content.get("type") if isinstance(content, dict) else None
    if kind == "hello":
        page = read_page(content.get("page"))
        known = PageSocket(message).page
        if known is not None and known != page:
            raise BadFrame("a second page on one socket")
        _enter(message, page)
    elif kind == "look" and (page := PageSocket(message).page) is not None:
        _enter(message, page)
    else:
        raise BadFrame('no JSON object with the "type" hello or look')


def _enter(message: Message, page: OpenPage | None) -> None:
    """Add a page to its groups, or close its socket."""
    socket = PageSocket(message, page)
    if page is None or socket.model_admin is None:
        socket.refuse()
    elif page.pk and socket.shown is None:
        if _is_deleted(socket):
            user = _deleter(socket.model_admin.model, page.pk)
            socket.channel.send(frame(type="deleted", **_author(user, socket), at=None))
        else:
            socket.refuse()
    elif not page.pk and not socket.may_look:
        socket.refuse()
    else:
        _join(message, socket, page)


def _join(message: Message, socket: PageSocket, page: OpenPage) -> None:
    layer = message.channel_layer
    is_known = PAGE in message.channel_session
    *_, of_model = socket.groups
    members = layer.group_channels(of_model.name)
    if len(members) >= MOST_SOCKETS and socket.channel.name not in members:
        socket.channel.send({"close": FULL})
        return
    if not is_known:
        message.channel_session[PAGE] = page.packed()
        message.channel_session.save()  # before other workers find the socket in the groups
    for group in socket.groups:
        group.add(socket.channel)  # renews a membership
    _catch_up(socket, page)
    if page.pk and is_known:
        tell_one(layer, socket.model_admin.model, page.pk, socket.channel.name)
    elif page.pk:
        tell_who_is_there(layer, socket.model_admin.model, page.pk)


def _is_deleted(socket: PageSocket) -> bool:
    """Return whether the page's object was deleted; False if the user may not see objects of the model."""
    page, model = socket.page, socket.model_admin.model
    return socket.may_look and page is not None and not _exists(model, page.pk)


def _exists(model: type[Model], pk: str) -> bool:
    try:
        return model._base_manager.filter(pk=pk).exists()
    except (ValidationError, ValueError):
        return False


def _catch_up(socket: PageSocket, page: OpenPage) -> None:
    """Send a page the changes since its rendering."""
    if page.kind == LIST:
        stored = socket.rows(page.rows)
        found = {str(each.pk): each for each in stored}
        removed = [key for key in page.rows if key not in found]
        if removed or (page.digest and digest_of(found[key] for key in page.rows) != page.digest):
            socket.channel.send(frame(type="rows", changed=list(found), removed=removed, added=[], more=False))
    elif socket.shown is not None:
        author = _last_author(socket, page)
        if author is not None or (page.digest and digest_of([socket.shown]) != page.digest):
            socket.channel.send(frame(type="saved", **_author(author, socket), at=None))
    socket.channel.send(frame(type="welcome"))


def _last_author(socket: PageSocket, page: OpenPage) -> Any:
    """Return the last user who changed an object in an admin since a page was opened; None without a change."""
    from django.contrib.admin.models import LogEntry

    entries = LogEntry.objects.filter(
        content_type__app_label=socket.model_admin.opts.app_label,
        content_type__model=socket.model_admin.opts.model_name,
        object_id=page.pk,
    )
    last = entries.select_related("user").order_by("-pk").first()
    return last.user if last is not None and last.action_time.timestamp() >= page.opened else None


def _deleter(model: type[Model], pk: str) -> Any:
    """Return the user who deleted an object, from the admin's log; None without an entry."""
    from django.contrib.admin.models import DELETION, LogEntry

    entries = LogEntry.objects.filter(
        content_type__app_label=model._meta.app_label,
        content_type__model=model._meta.model_name,
        object_id=pk,
        action_flag=DELETION,
    )
    last = entries.select_related("user").order_by("-pk").first()
    return None if last is None else last.user


def _author(user: Any, socket: PageSocket) -> dict[str, Any]:
    """Return the part of a frame that names the author of a change."""
    if user is None:
        return {"by": None, "you": False}
    return {"by": name_of(user), "you": str(user.pk) == socket.user_key}


@_again
@channel_and_http_session
def disconnect(message: Message) -> None:
    """Remove a closed page from its groups, and notify the other pages of its object."""
    socket = PageSocket(message)
    page = socket.page
    if page is None:
        return
    socket.leave()
    message.channel_session.flush()
    if page.pk:
        tell_who_is_there(message.channel_layer, apps.get_model(page.model), page.pk)


@_again
def changed(message: Message) -> None:
    """Notify pages of saved and deleted objects; each page gets only changes that its user may see."""
    model = apps.get_model(message["model"])
    event = _Event(model, message["objects"], message["more"], message["at"])
    layer = message.channel_layer
    for channel in sorted(layer.group_channels(group_of(model))):
        socket = socket_on(layer, channel)
        if socket.page is None:
            continue
        if socket.page.kind == LIST:
            event.tell_list(socket, socket.page)
        elif socket.page.pk in event.objects or event.more:
            event.tell_object(socket, socket.page)


class _Event:
    """The changes of some objects of one model.

    Args:
        model: the model.
        objects: by primary key, the known action and the known key of its user.
        more: whether further objects were changed.
        at: the time of the changes, in seconds since the epoch.
    """

    def __init__(self, model: type[Model], objects: dict[str, dict[str, Any]], more: bool, at: float) -> None:
        self.objects = objects
        self.more = more
        self._model = model
        self._at = at
        self._users: dict[str, Any] = {}
        self._visible: dict[tuple[str, str, str], set[str]] = {}

    def tell_object(self, socket: PageSocket, page: OpenPage) -> None:
        """Send the change of an object to its page."""
        change = self.objects.get(page.pk, {})
        if socket.shown is not None:
            if change.get("action") != DELETED:
                socket.send(frame(type="saved", **_author(self._user(change), socket), at=self._at))
        elif not _is_deleted(socket):
            socket.refuse()
        else:
            socket.leave()
            user = self._user(change) or _deleter(self._model, page.pk)
            socket.send(frame(type="deleted", **_author(user, socket), at=self._at))

    def tell_list(self, socket: PageSocket, page: OpenPage) -> None:
        """Send a changelist the changes of objects that its user sees, or saw when it was rendered."""
        if not socket.may_look:
            socket.refuse()
            return
        visible = self._visible_to(socket, page)
        rows = set(page.rows)
        added = [key for key in visible if self.objects[key].get("action") == ADDED and key not in rows]
        changed = [key for key in visible if key not in added]
        removed = [key for key in self.objects if key in rows and key not in visible]
        if added or changed or removed or self.more:
            socket.send(frame(type="rows", changed=changed, removed=removed, added=added, more=self.more))

    def _visible_to(self, socket: PageSocket, page: OpenPage) -> set[str]:
        key = (page.site, page.model, socket.user_key)
        if key not in self._visible:
            self._visible[key] = {str(each.pk) for each in socket.rows(self.objects)}
        return self._visible[key]

    def _user(self, change: dict[str, Any]) -> Any:
        key = change.get("user")
        if key is None:
            return None
        if key not in self._users:
            self._users[key] = get_user_model()._base_manager.filter(pk=key).first()
        return self._users[key]
