"""The stored values of an object after a ``save()``, derived from the assigned values.

A value that a field stores unchanged, or changes in a known way, is derived; for any other, such as an expression, the
row is read.
"""

from __future__ import annotations

import datetime
import enum
import functools
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from decimal import Context, Decimal, InvalidOperation
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import connections, models
from django.db.models.fields.files import FieldFile

from channelsq.binding.django_file_internals import is_stored


class Unsure(Exception):
    """The stored value is known only from the row."""


#: Returns the stored value of a value that is not None, or raises :class:`Unsure`.
Stored = Callable[[Any, Any], Any]

#: Errors of a conversion: the value has another type, or the database may have read it in another way.
_FAILURES = (Unsure, ValidationError, ArithmeticError, TypeError, ValueError, RecursionError)

#: Decimal digits that every database keeps; SQLite uses floating point.
_DIGITS = 15


def stored_values(model: type[models.Model], instance: models.Model, using: str) -> Sequence[Any] | None:
    """Return the row of ``instance``, which has just been saved as a whole, by concrete field.

    Returns:
        The very values of ``instance`` if they are stored unchanged; None if only the row has them.
    """
    assigned = vars(instance)
    timezone = connections[using].timezone_name
    if settings.USE_TZ and timezone != "UTC":
        return None
    try:
        return [convert(field, assigned[attname]) for attname, field, convert in _plan(model)]
    except (KeyError, *_FAILURES):  # KeyError: a deferred field
        return None


@functools.cache
def _plan(model: type[models.Model]) -> Sequence[tuple[str, Any, Stored]]:
    plan = []
    for field in model._meta.concrete_fields:
        target: Any = field
        while type(target) in (models.ForeignKey, models.OneToOneField):
            target = target.target_field
        plan.append((field.attname, target, _or_none(_STORED.get(type(target), _unsure))))
    return plan


def _or_none(convert: Stored) -> Stored:
    def converted(field: Any, value: Any) -> Any:
        return None if value is None else convert(field, value)

    return _unsure if convert is _unsure else converted


def _unsure(field: Any, value: Any) -> Any:
    raise Unsure


def _exactly(*types: type) -> Stored:
    def same(field: Any, value: Any) -> Any:
        return value if type(value) in types else _unsure(field, value)

    return same


def _integer(field: Any, value: Any) -> Any:
    if type(value) is int:
        return value
    return int(value) if isinstance(value, (int, float, str, Decimal)) else _unsure(field, value)


def _boolean(field: Any, value: Any) -> Any:
    return field.to_python(value) if isinstance(value, (bool, int, str)) else _unsure(field, value)


def _text(field: Any, value: Any) -> Any:
    if type(value) is str:
        return value
    if isinstance(value, str) and isinstance(value, enum.Enum) and str(value) == value.value:
        return value.value
    return str(value) if type(value) is int else _unsure(field, value)


def _float(field: Any, value: Any) -> Any:
    number = float(value) if isinstance(value, (int, float, str, Decimal)) else _unsure(field, value)
    if number != number:  # not a number, which some databases store as NULL
        raise Unsure
    return value if type(value) is float else number


def _decimal(field: Any, value: Any) -> Any:
    number = value if type(value) is Decimal else field.to_python(value)
    if not isinstance(value, (int, float, str, Decimal)) or not number.is_finite():
        raise Unsure
    try:
        kept = number.quantize(Decimal(1).scaleb(-field.decimal_places), context=Context(prec=_DIGITS))
    except InvalidOperation:
        raise Unsure from None
    if kept != number or (kept.is_signed() and not kept):  # rounded, differently in each database; minus zero
        raise Unsure
    return number if number.as_tuple() == kept.as_tuple() else kept


def _date(field: Any, value: Any) -> Any:
    if type(value) is datetime.date:
        return value
    return field.to_python(value) if type(value) in (datetime.datetime, str) else _unsure(field, value)


def _moment(field: Any, value: Any) -> Any:
    moment = field.to_python(value) if type(value) is str else value
    if type(moment) is not datetime.datetime or (moment.tzinfo is not None) is not settings.USE_TZ:
        raise Unsure
    if moment.tzinfo is None or moment.tzinfo is datetime.UTC:
        return moment
    return moment.astimezone(datetime.UTC)


def _time(field: Any, value: Any) -> Any:
    time = field.to_python(value) if type(value) is str else value
    return time if type(time) is datetime.time and time.tzinfo is None else _unsure(field, value)


def _uuid(field: Any, value: Any) -> Any:
    return value if type(value) is uuid.UUID else field.to_python(_exactly(str)(field, value))


def _json(field: Any, value: Any) -> Any:
    if field.encoder is not None or field.decoder is not None or json.loads(json.dumps(value)) != value:
        raise Unsure
    return value


def _file(field: Any, value: Any) -> Any:
    if not isinstance(value, FieldFile) or not is_stored(value):
        raise Unsure
    return value


def _address(field: Any, value: Any) -> Any:
    return value if type(value) is str and ":" not in value and value == value.strip() else _unsure(field, value)


#: By the exact class, as a subclass may convert values in another way.
_STORED: Mapping[type, Stored] = {
    **dict.fromkeys(
        (
            models.AutoField, models.BigAutoField, models.SmallAutoField, models.IntegerField, models.BigIntegerField,
            models.SmallIntegerField, models.PositiveIntegerField, models.PositiveBigIntegerField,
            models.PositiveSmallIntegerField, models.OrderWrt,
        ),
        _integer,
    ),
    **dict.fromkeys(
        (models.CharField, models.TextField, models.EmailField, models.SlugField, models.URLField,
         models.FilePathField),
        _text,
    ),
    models.BooleanField: _boolean,
    models.FloatField: _float,
    models.DecimalField: _decimal,
    models.DateField: _date,
    models.DateTimeField: _moment,
    models.TimeField: _time,
    models.DurationField: _exactly(datetime.timedelta),
    models.UUIDField: _uuid,
    models.JSONField: _json,
    models.BinaryField: _exactly(bytes),
    models.FileField: _file,
    models.ImageField: _file,
    models.GenericIPAddressField: _address,
}  # fmt: skip
