"""The groups of the sockets of live pages, and the time of the last fragment to each.

A page names a group such as ``"room"``.  Its socket joins another one, ``"channelsq.page.room"``: the members of
``"room"`` itself get the messages of consumers, which a page cannot show.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterable

from channelsq.core import names
from channelsq.fragments.swaps import FORMS, LIBRARY
from channelsq.layers.contract.layer_contract import BaseChannelLayer

logger = logging.getLogger("channelsq.fragments")

#: The field of a record with the time.
_AT = "at"


#: The beginning of the names of groups with the form ``"library"``.
_LIBRARY = "channelsq.page"


def _stem(form: str) -> str:
    return _LIBRARY if form == LIBRARY else f"channelsq.{form}"


def page_group(name: str, form: str) -> str:
    """Return the group of the sockets that get the fragments of a group.

    Args:
        name: the group's name.
        form: see :data:`channelsq.fragments.swaps.FORMS`.
    """
    stem = _stem(form)
    found = f"{stem}.{name}"
    return found if len(found) <= names.MAX_LENGTH else f"{stem}-{hashlib.sha256(name.encode()).hexdigest()}"


def form_of(group: str) -> str | None:
    """Return the form of the fragments of a group; None if it is not a group of live pages."""
    for form in FORMS:
        stem = _stem(form)
        if group.startswith(stem) and group[len(stem) : len(stem) + 1] in (".", "-"):
            return form
    return None


def _record(group: str) -> str:
    return f"page:{group}"


def note_fragments(layer: BaseChannelLayer, groups: Iterable[str], seconds: float) -> None:
    """Record that fragments leave now.

    Args:
        layer: their layer.
        groups: the groups that they go to; one with the form ``"library"`` is always among them.
        seconds: the time for which to remember it.

    Raises:
        BrokerUnavailable: the layer does not answer.
    """
    if layer.records is not None:
        for group in {group for group in groups if group.startswith(_LIBRARY)}:
            layer.records.write(_record(group), {_AT: repr(time.time()).encode()}, seconds)


def has_missed(layer: BaseChannelLayer, name: str, since: float) -> bool:
    """Return whether a fragment has left for a group since a time; True if that is unknown.

    Args:
        layer: the group's layer.
        name: the group's name.
        since: the time, in seconds since 1970.

    Raises:
        BrokerUnavailable: the layer does not answer.
    """
    if layer.records is None:
        return True
    value = layer.records.read(_record(page_group(name, LIBRARY))).get(_AT)
    return value is not None and float(value) >= since
