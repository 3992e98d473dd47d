"""One change of a page, and its form for each library in the browser.  No I/O."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import NamedTuple

from channelsq.core import names

#: The forms of fragments: for channelsq's script, for htmx 2 with its extension ``ws``, for ``<turbo-stream-source>``.
LIBRARY, HTMX, TURBO = FORMS = ("library", "htmx", "turbo")

#: The actions, in the words of Turbo Streams, and their swap styles of htmx.
_STYLES = {
    "append": "beforeend",
    "prepend": "afterbegin",
    "before": "beforebegin",
    "after": "afterend",
    "replace": "outerHTML",
    "update": "innerHTML",
    "remove": "delete",
}

#: An id that needs no escape in a selector.
_ID = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")

#: White space and comments before the first element.
_BEFORE = re.compile(r"(?:\s+|<!--.*?-->)*", re.DOTALL)

#: The parents without which an HTML parser drops an element.
_PARENTS = {
    "tr": "tbody",
    "td": "tr",
    "th": "tr",
    "tbody": "table",
    "thead": "table",
    "tfoot": "table",
    "caption": "table",
    "colgroup": "table",
    "col": "colgroup",
    "option": "select",
    "optgroup": "select",
}


class Swap(NamedTuple):
    """One change of a page."""

    #: ``"append"``, ``"prepend"``, ``"before"``, ``"after"``, ``"replace"``, ``"update"`` or ``"remove"``.
    action: str
    #: The id of the element to change, or to change next to.
    target: str
    #: The new HTML; empty to remove.
    html: str


class _Root(HTMLParser):
    """The first element of a fragment: its name in lower case, and its id."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tag = self.id = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if not self.tag:
            self.tag = tag
            self.id = dict(attrs).get("id") or ""


def _begins_with_element(html: str) -> bool:
    return bool(_Root(html).tag) and html[_BEFORE.match(html).end() :].startswith("<")  # type: ignore[union-attr]


def id_of(html: str) -> str:
    """Return the id of the element with which a fragment begins; "" if there is none."""
    return _Root(html).id if _begins_with_element(html) else ""


def make_swap(html: str, target: str, action: str) -> Swap:
    """Return a change of a page.

    Args:
        html: the fragment; empty to remove.
        target: the id of an element, without ``#``; if empty, that of the fragment's first element.
        action: see :class:`Swap`; if empty, ``"append"``, and without a target ``"replace"``.

    Raises:
        ValueError: there is no such action, no target, or no element to replace one with.
    """
    html = html.strip()
    action = action or ("append" if target else "replace")
    if action not in _STYLES:
        raise ValueError(f"{action!r} is not an action: use one of {', '.join(_STYLES)}")
    if not target:
        target = id_of(html)
        if not target:
            raise ValueError("the fragment's first element has no id: give it one, or say with target= where it goes")
    if not isinstance(target, str) or _ID.fullmatch(target) is None:
        raise ValueError(
            f"{target!r} is not the id of a target: use ASCII letters, digits, '-' and '_', a letter or '_' first"
        )
    if action == "replace" and not _begins_with_element(html):
        raise ValueError(f"{target!r} is to be replaced by a fragment that does not begin with an element")
    return Swap(action, target, "" if action == "remove" else html)


def encode(swap: Swap, form: str) -> str:
    """Return the text of a WebSocket frame with a change.

    Args:
        swap: the change.
        form: one of :data:`FORMS`.
    """
    if form == HTMX:
        return _for_htmx(swap)
    if form == TURBO:
        body = f"<template>{swap.html}</template>" if swap.html else ""
        return f'<turbo-stream action="{swap.action}" target="{swap.target}">{body}</turbo-stream>'
    return frame(swap._asdict())


def frame(payload: dict[str, object]) -> str:
    """Return the text of a WebSocket frame for channelsq's own script."""
    return json.dumps({"stream": names.PAGE_STREAM, "payload": payload}, separators=(",", ":"), ensure_ascii=False)


def _for_htmx(swap: Swap) -> str:
    """Return an out-of-band swap.

    htmx inserts the children of the element that has the attribute, except when it replaces an element.
    """
    attribute = f'hx-swap-oob="{_STYLES[swap.action]}:#{swap.target}" data-channelsq'
    if swap.action == "replace":
        start = _BEFORE.match(swap.html).end() + 1 + len(_Root(swap.html).tag)  # type: ignore[union-attr]
        return f"{swap.html[:start]} {attribute}{swap.html[start:]}"
    parent = _PARENTS.get(_Root(swap.html).tag, "div")
    return f"<{parent} {attribute}>{swap.html}</{parent}>"
