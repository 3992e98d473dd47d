"""The HTML of ``{% live %}``, with the ticket of a page."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from django.urls import get_script_prefix
from django.utils.html import format_html
from django.utils.safestring import SafeString

from channelsq import conf
from channelsq.channel import Group
from channelsq.fragments.page_tickets import MOST_GROUPS, PageTicket, issue, request_begun
from channelsq.fragments.swaps import HTMX, LIBRARY, TURBO
from channelsq.users import User, is_user

_TAG = "{% live %}"


class LiveElement(NamedTuple):
    """The element that keeps a page up to date.

    Args:
        groups: the groups whose fragments change the page.
        form: see :data:`channelsq.fragments.swaps.FORMS`.
        refresh: the ids of the elements that are loaded again after fragments were missed.
    """

    groups: Sequence[Group]
    form: str
    refresh: str

    def html(self, request: Any) -> SafeString:
        """Return the HTML for a page.

        Args:
            request: the request of the page; None if it is unknown.

        Raises:
            ValueError: the form is that of Turbo, which needs the request.
        """
        path = get_script_prefix().rstrip("/") + conf.live_settings().path
        ticket = issue(self._ticket(getattr(request, "user", None)))
        return format_html(
            '<channelsq-live id="channelsq-live-{}" refresh="{}" {}</channelsq-live>',
            hashlib.sha256(" ".join((self.form, *self._names)).encode()).hexdigest()[:12],
            self.refresh,
            self._socket(ticket, path, request),
        )

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(group.name for group in self.groups)

    def _ticket(self, user: Any) -> PageTicket:
        key, own = None, ""
        if user is not None and user.is_authenticated:
            key, own = user._meta.pk.value_to_string(user), User(user).group.name
        return PageTicket(self._names, self.groups[0].channel_layer.alias, request_begun(), key, own)

    def _socket(self, ticket: str, path: str, request: Any) -> SafeString:
        """Return further attributes of the element, and its content."""
        if self.form == LIBRARY:
            return format_html('ticket="{}" path="{}">', ticket, path)
        url = f"{path}?form={self.form}&page_ticket={quote(ticket)}"
        if self.form == HTMX:
            return format_html('form="htmx" hx-ext="ws" ws-connect="{}">', url)
        if request is None:
            raise ValueError(
                "{% live turbo=True %} needs the request: render the template with it, and put "
                "'django.template.context_processors.request' among the context processors"
            )
        scheme = "wss" if request.is_secure() else "ws"
        return format_html(
            'form="turbo"><turbo-stream-source src="{}"></turbo-stream-source>',
            f"{scheme}://{request.get_host()}{url}",
        )


def live_element(groups: Iterable[Any], refresh: str, *, htmx: bool, turbo: bool) -> LiveElement:
    """Return the element for the arguments of the tag; errors as those of the tag."""
    found = [_group_of(each) for each in groups]
    if not 0 < len(found) <= MOST_GROUPS:
        raise ValueError(f"{_TAG} takes one to {MOST_GROUPS} groups, not {len(found)}")
    if htmx and turbo:
        raise ValueError(f"{_TAG} takes htmx=True or turbo=True, not both")
    aliases = {group.channel_layer.alias for group in found}
    if len(aliases) > 1:
        raise TypeError(f"{_TAG} joins groups of one layer, not of {sorted(aliases)}")
    return LiveElement(found, HTMX if htmx else TURBO if turbo else LIBRARY, refresh)


def _group_of(thing: Any) -> Group:
    if isinstance(thing, str):
        return Group(thing)
    if isinstance(thing, Group):
        return thing
    if isinstance(thing, User):
        return thing.group
    if is_user(thing):
        return User(thing).group
    raise TypeError(f"{_TAG} takes names of groups, Group, User, or users of Django, not {thing!r}")
