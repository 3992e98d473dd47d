"""The rows that tell the groups of an object before and after a change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import DEFAULT_DB_ALIAS, router
from django.db.models.expressions import DatabaseDefault

from channelsq.binding.stored import stored_values


def stored(model: Any, instance: Any, using: str | None) -> Any:
    """Return ``instance`` with the fields of its row, or None.

    Args:
        model: the class that is read.
        instance: the object.
        using: the database's alias; None for the one that would store it.
    """
    using = using or router.db_for_write(model, instance=instance)
    row = model._base_manager.using(using).filter(pk=instance.pk).first()
    return None if row is None else _like(model, instance, row)


def before_delete(model: Any, instance: Any, signal: Mapping[str, Any]) -> Any:
    """Return the object whose groups are those of ``instance`` before it is deleted.

    Args:
        model: the class of the binding.
        instance: the object.
        signal: the arguments of the signal.
    """
    if signal.get("origin", instance) is not instance and not instance.get_deferred_fields():
        return instance  # one of many, which Django has just read
    return stored(model, instance, signal.get("using")) or instance


def before_save(model: Any, instance: Any, signal: Mapping[str, Any], *, is_new: bool) -> Any:
    """Return the object whose groups are those of ``instance`` before a save; None if it does not exist yet.

    Args:
        model: the class of the binding.
        instance: the object.
        signal: the arguments of the signal.
        is_new: whether the action is ``create``.
    """
    if is_new and not instance._state.adding:
        return None  # an application reports an object that was created without signals
    key = model._meta.pk_fields
    values = [getattr(instance, field.attname) for field in key]
    if any(value is None or isinstance(value, DatabaseDefault) for value in values):
        return None
    if is_new and all(field.has_default() or field.has_db_default() for field in key):
        return None  # Django inserts it without a lookup
    # The instance already has its new state, so its old groups are in the row.
    return stored(model, instance, signal.get("using"))


def after_save(model: Any, instance: Any, signal: Mapping[str, Any]) -> Any:
    """Return ``instance`` as stored by a save: itself, if known to be the same; None without a row.

    The row is read if an application reports the change by hand, if not all fields were saved, or if a value, such
    as an expression, is known only to the database.

    Args:
        model: the class of the binding.
        instance: the object.
        signal: the arguments of the signal; none if an application reports the change by hand.
    """
    using = signal.get("using") or instance._state.db or DEFAULT_DB_ALIAS
    if "signal" not in signal:
        return stored(model, instance, using) or instance
    values = None
    if signal.get("update_fields") is None:
        values = stored_values(model, instance, using)
    if values is None:
        return stored(model, instance, using)
    names = [field.attname for field in model._meta.concrete_fields]
    if all(vars(instance)[name] is value for name, value in zip(names, values, strict=True)):
        return instance
    return _like(model, instance, model.from_db(using, names, values))


def _like(model: Any, instance: Any, row: Any) -> Any:
    """Return ``row``, with the attributes of ``instance`` that are not fields."""
    ours, theirs = vars(row), vars(instance)
    # Attributes that an application has set, but none that was computed from the fields.
    ours.update({name: theirs[name] for name in theirs.keys() - ours.keys() if not hasattr(model, name)})
    for field in model._meta.concrete_fields:
        # Related objects are read once, for before and after, so that both agree on their groups.
        if field.is_relation and field.is_cached(instance) and theirs.get(field.attname) == ours.get(field.attname):
            field.set_cached_value(row, field.get_cached_value(instance))
    return row
