"""Open admin pages: their content, signed by the view that rendered them, and the groups of their sockets."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import Any

from django.core import signing
from django.db.models import Model
from django.utils.crypto import salted_hmac

from channelsq.contrib.admin.live_sites import concrete

_SALT = "channelsq.contrib.admin"

#: The longest text that is accepted as a signed page.
_LONGEST = 128 * 1024

#: The most rows of a changelist that are watched; rows below are not.
MOST_ROWS = 500

#: The most sockets in one group; further pages must try again later.
MOST_SOCKETS = 200

#: The kinds of pages: the change form, the other pages of an object, and the changelist.
CHANGE, HISTORY, DELETE, LIST = "change", "history", "delete", "list"


@dataclass(frozen=True)
class OpenPage:
    """A page as it was rendered.

    Args:
        kind: the kind of page.
        site: the name of the admin site.
        model: the label of the model.
        pk: the object's primary key as text; empty on a changelist.
        user: the primary key of the user who got the page.
        opened: the time of rendering, in seconds since the epoch.
        digest: the result of :func:`digest_of` for the objects on the page; empty for no comparison.
        rows: the primary keys on a changelist, in order.
    """

    kind: str
    site: str
    model: str
    pk: str
    user: str
    opened: float
    digest: str
    rows: tuple[str, ...] = ()

    def signed(self) -> str:
        """Return this page as a signed text for :func:`read_page`."""
        return signing.Signer(salt=_SALT).sign_object(list(astuple(self)), compress=True)

    def packed(self) -> list[Any]:
        """Return the page as a list for JSON, for a session."""
        return [*astuple(self)[:-1], list(self.rows)]


def read_page(text: object) -> OpenPage | None:
    """Return the page of a signed text; None if the signature is invalid."""
    if not isinstance(text, str) or len(text) > _LONGEST:
        return None
    try:
        return unpacked(signing.Signer(salt=_SALT).unsign_object(text))
    except (signing.BadSignature, TypeError, ValueError):
        return None


def unpacked(values: Any) -> OpenPage:
    """Return the page from a list of :meth:`OpenPage.packed`."""
    kind, site, model, pk, user, opened, digest, rows = values
    return OpenPage(kind, site, model, pk, user, opened, digest, tuple(rows))


def now() -> float:
    """Return the current time for :attr:`OpenPage.opened`."""
    return time.time()


def digest_of(objects: Iterable[Model]) -> str:
    """Return a digest of the stored fields of objects; it does not reveal their values."""
    values = [
        (field.attname, repr(field.value_from_object(each)))
        for each in objects
        for field in each._meta.concrete_fields
        if field.attname not in each.get_deferred_fields()
    ]
    return salted_hmac(_SALT, repr(values), algorithm="sha256").hexdigest()[:16]


def group_of(model: type[Model], pk: str | None = None) -> str:
    """Return the name of the group of the pages that show a model, or one object of it."""
    text = repr((concrete(model)._meta.label_lower, pk))
    return f"channelsq-admin-{hashlib.sha256(text.encode()).hexdigest()[:40]}"
