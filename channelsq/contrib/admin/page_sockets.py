"""The sockets of admin pages, with the current permissions of their users.

A socket's channel session stores the page.  The user is read from the browser's session each time, so that a logout, a
new password and lost permissions take effect at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

from django.apps import apps
from django.contrib.auth import get_user
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ValidationError
from django.db import Error
from django.db.models import Model
from django.http import HttpRequest

from channelsq.asgi import ChannelLayerWrapper
from channelsq.channel import Group
from channelsq.contrib.admin.live_sites import admin_of
from channelsq.contrib.admin.open_pages import OpenPage, group_of, unpacked
from channelsq.exceptions import ChannelFull
from channelsq.message import Message
from channelsq.sessions import channel_and_http_session

logger = logging.getLogger("channelsq.contrib.admin")

#: The keys of a channel session for the page and for the address of the handshake.
PAGE, ADDRESS = "channelsq.admin.page", "channelsq.admin.address"

#: The close codes for a user who may not see the page, and for a group that is full.
NOT_ALLOWED, FULL = 4403, 4013


class PageSocket:
    """A socket of an admin page.

    Args:
        message: a message of the socket, with both sessions.
        page: the socket's page, if it is not in the channel session yet.
    """

    def __init__(self, message: Message, page: OpenPage | None = None) -> None:
        self.channel = message.reply_channel
        self._layer = message.channel_layer
        self._session = message.channel_session
        self._http_session = message.http_session
        self._given = page

    @cached_property
    def page(self) -> OpenPage | None:
        """The socket's page; None before its hello frame, and after its session has ended."""
        if self._given is not None:
            return self._given
        packed = self._session.get(PAGE)
        return None if packed is None else unpacked(packed)

    @property
    def groups(self) -> list[Group]:
        """The groups of the page: the object's group, if it has an object, and the model's group."""
        if self.page is None:
            return []
        model = apps.get_model(self.page.model)
        names = [group_of(model, self.page.pk), group_of(model)] if self.page.pk else [group_of(model)]
        return [Group(name, channel_layer=self._layer) for name in names]

    @cached_property
    def request(self) -> HttpRequest:
        """A request like the page's own, for methods of ModelAdmins; it has not passed through middleware."""
        request = HttpRequest()
        request.method = "GET"
        host, address = self._session.get(ADDRESS) or ("", "")
        request.META = {"HTTP_HOST": host, "SERVER_NAME": host, "SERVER_PORT": "80", "REMOTE_ADDR": address}
        request.user = AnonymousUser()
        if self._http_session is not None:
            request.session = self._http_session
            request.user = get_user(request)
        return request

    @property
    def user(self) -> Any:
        """The socket's user; AnonymousUser after a logout."""
        return self.request.user

    @property
    def user_key(self) -> str:
        """The primary key of the user as text."""
        return "" if self.user.pk is None else str(self.user.pk)

    @cached_property
    def model_admin(self) -> Any:
        """The ModelAdmin of the page; None if it is not live any more."""
        return None if self.page is None else admin_of(self.page.site, self.page.model)

    @cached_property
    def may_look(self) -> bool:
        """True if the user may see pages of this model."""
        page, model_admin = self.page, self.model_admin
        if page is None or model_admin is None or page.user != self.user_key:
            return False
        return self._asked(
            lambda: (
                model_admin.admin_site.has_permission(self.request)
                and model_admin.has_view_or_change_permission(self.request)
            )
        )

    @cached_property
    def shown(self) -> Model | None:
        """The stored object of the page; None if it was deleted or the user may not see it."""
        page, model_admin = self.page, self.model_admin
        if page is None or model_admin is None or page.user != self.user_key:
            return None
        found: list[Model] = []

        def look() -> bool:
            if not model_admin.admin_site.has_permission(self.request):
                return False
            found.extend(self._rows([page.pk]))
            return bool(found) and model_admin.has_view_or_change_permission(self.request, found[0])

        return found[0] if self._asked(look) else None

    @cached_property
    def may_edit(self) -> bool:
        """True if the user may change the object of the page."""
        return self.shown is not None and self._asked(
            lambda: self.model_admin.has_change_permission(self.request, self.shown)
        )

    def rows(self, keys: Iterable[str]) -> list[Model]:
        """Return the objects with these keys that the user finds in changelists."""
        found: list[Model] = []

        def look() -> bool:
            found.extend(self._rows(keys))
            return True

        self._asked(look)
        return found

    def _rows(self, keys: Iterable[str]) -> list[Model]:
        model = self.model_admin.model
        values = []
        for key in keys:
            try:
                values.append(model._meta.pk.to_python(key))
            except ValidationError:
                continue
        return list(self.model_admin.get_queryset(self.request).filter(pk__in=values)) if values else []

    def _asked(self, question: Callable[[], Any]) -> bool:
        """Return the result of the project's ModelAdmin; False if it raises an exception."""
        try:
            return bool(question())
        except Error:
            raise
        except Exception:
            logger.exception(
                "%r could not check a socket user's permissions", self.model_admin, extra={"action": "admin_refused"}
            )
            return False

    def send(self, message: dict[str, Any]) -> None:
        """Send a message at once, or drop it if the socket's queue is full; the interface server closes it then."""
        try:
            self.channel.send(message, immediately=True)
        except ChannelFull:
            logger.info("the queue of %s is full", self.channel.name, extra={"action": "admin_socket_full"})

    def leave(self) -> None:
        """Remove the socket from its groups."""
        for group in self.groups:
            group.discard(self.channel)

    def refuse(self) -> None:
        """Close the socket, as its user may not see the page any more."""
        self.leave()
        self.send({"close": NOT_ALLOWED})


def socket_on(layer: ChannelLayerWrapper, channel: str) -> PageSocket:
    """Return the socket with this reply channel."""
    return _with_sessions(Message({"reply_channel": channel, "path": "/"}, "websocket.receive", layer))


@channel_and_http_session
def _with_sessions(message: Message) -> PageSocket:
    return PageSocket(message)


def name_of(user: Any) -> str:
    """Return a user's name as the admin's history pages show it."""
    full_name = getattr(user, "get_full_name", str)()
    name = str(user.get_username())
    return f"{name} ({full_name})" if full_name and full_name != name else name
