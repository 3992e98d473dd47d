"""Fields by identity, not by spelling: those that a binding names, and those that clients may not write."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

from django.core.exceptions import FieldDoesNotExist
from django.db.models import ManyToManyRel, Model


def field_of(model: type[Model], name: str) -> Any | None:
    """Return the field with this name, attribute name (``owner_id``) or ``pk``; or None."""
    if name == "pk":
        return model._meta.pk
    try:
        return model._meta.get_field(name)
    except FieldDoesNotExist:
        return None


def fields_of(model: type[Model], names: Iterable[str]) -> set[Any]:
    """Return the fields of these names; other names are left out."""
    names = [names] if isinstance(names, str) else names
    return {field for name in names if (field := field_of(model, name)) is not None}


def parts_of(model: type[Model], field: Any) -> set[Any]:
    """Return ``field`` and its parts, for example those of a generic relation or of a composite key."""
    if getattr(field, "concrete", False):
        return {field}
    ours = model._meta
    names = [getattr(field, "ct_field", None), getattr(field, "fk_field", None)]  # of a GenericForeignKey
    members = [*getattr(field, "fields", ()), *(ours.get_field(name) for name in names if name)]
    if getattr(field, "many_to_one", False) or getattr(
        field, "one_to_one", False
    ):  # a ForeignObject of several columns
        members += [each for each in getattr(field, "local_related_fields", ()) if each in ours.concrete_fields]
    return {field, *members}


@functools.cache
def keys_of(model: type[Model]) -> frozenset[Any]:
    """Return every field that identifies an object's rows: its keys, its parents' keys, and the links to them."""
    found: set[Any] = set()
    for each in (model, *model._meta.all_parents):
        found.update((each._meta.pk, *each._meta.pk_fields))
        found.update(link for link in each._meta.parents.values() if link is not None)
    return frozenset(found)


def is_generated(field: Any) -> bool:
    """Return whether the database computes ``field``."""
    return bool(getattr(field, "generated", False))


def is_kept(field: Any) -> bool:
    """Return whether ``field`` is a column, or a many-to-many relation from its model's side."""
    return bool(field.concrete) or isinstance(getattr(field, "remote_field", None), ManyToManyRel)


def is_foreign(field: Any) -> bool:
    """Return whether ``field`` refers to another object, unlike the link to a parent."""
    return bool(field.is_relation) and not field.remote_field.parent_link
