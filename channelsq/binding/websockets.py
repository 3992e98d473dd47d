"""Bindings that exchange JSON on the streams of a WebSocket.

Out: ``{"stream": …, "payload": {"action": …, "pk": …, "model": "app.model", "data": {…}}}``.
In, behind a :class:`channelsq.generic.websockets.WebsocketDemultiplexer`: the payload, without ``model``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar
from uuid import UUID

from django.core import serializers
from django.core.exceptions import FieldDoesNotExist
from django.core.serializers.base import DeserializationError, DeserializedObject
from django.core.serializers.json import DjangoJSONEncoder
from django.db import DataError, IntegrityError

from channelsq.binding.base import Binding
from channelsq.binding.fields import field_of, fields_of, is_foreign, is_generated, is_kept, keys_of, parts_of
from channelsq.core.names import WEBSOCKET_RECEIVE
from channelsq.exceptions import BadFrame
from channelsq.generic.websockets import WebsocketDemultiplexer, WebsocketMultiplexer
from channelsq.message import Message
from channelsq.sessions import ordered_as_declared

__all__ = ["WebsocketBinding", "WebsocketBindingDemultiplexer", "WebsocketBindingWithMembers"]


class Hydrated(DeserializedObject):
    """An object with the field values of a frame; it is not saved."""

    def save(self, save_m2m: bool = True, using: str | None = None, **kwargs: Any) -> None:
        """Save the object with the model's own ``save()``, as an application does, and then its many-to-many relations.

        Raises:
            DataError: the database cannot keep a value.
        """
        try:
            self.object.save(using=using, **kwargs)
        except (OverflowError, UnicodeEncodeError) as error:  # from drivers that check values themselves
            raise DataError(str(error)) from error
        if save_m2m:
            for name, related in (self.m2m_data or {}).items():
                getattr(self.object, name).set(related)


class WebsocketBinding(Binding):
    """A binding for WebSockets; a subclass implements :meth:`group_names` and :meth:`has_permission`.

    It may also override :meth:`serialize_data`, :meth:`create` and :meth:`update`.
    """

    model: Any = None

    #: Whether incoming changes are handled strictly in the order of the socket's messages.
    strict_ordering = False

    @classmethod
    def encode(cls, stream: str, payload: Any) -> dict[str, Any]:
        """Return the frame for a group's members."""
        return WebsocketMultiplexer.encode(stream, payload)

    def serialize(self, instance: Any, action: str) -> dict[str, Any]:
        """Return the payload that reports ``action`` on ``instance``."""
        return {
            "action": action,
            "pk": self._key(instance),
            "data": self.serialize_data(instance),
            "model": self.model_label,
        }

    @staticmethod
    def _key(instance: Any) -> Any:
        """Return the primary key, or the text of Django's serializer for a key that JSON does not support."""
        if type(instance.pk) in (int, str, UUID):
            return instance.pk
        try:
            DjangoJSONEncoder().encode(instance.pk)
        except TypeError:
            return json.loads(serializers.serialize("json", [instance], fields=()))[0]["pk"]
        return instance.pk

    def serialize_data(self, instance: Any) -> dict[str, Any]:
        """Return the outgoing values of ``instance``, by field, as JSON values."""
        is_included = self._included()
        names = [field.name for field in instance._meta.get_fields() if is_included(field)]
        data: dict[str, Any] = json.loads(serializers.serialize("json", [instance], fields=names))[0]["fields"]
        return data

    @classmethod
    def _all_fields(cls) -> bool:
        return cls.fields is not None and (cls.fields == "__all__" or "__all__" in cls.fields)

    @classmethod
    def _named(cls) -> set[Any]:
        """Return the fields named in :attr:`fields`, without those of ``"__all__"``."""
        return fields_of(cls.model, cls.fields or ())

    @classmethod
    def _included(cls) -> Callable[[Any], bool]:
        """Return a function that says whether a field belongs to the binding, under any spelling."""
        named = None if cls.fields is None or cls._all_fields() else cls._named()
        excluded = {part for field in fields_of(cls.model, cls.exclude or ()) for part in parts_of(cls.model, field)}
        return lambda field: field not in excluded and (named is None or field in named)

    @classmethod
    def get_handler(cls) -> Callable[..., None]:
        """Return :meth:`trigger_inbound`, decorated according to the class attributes.

        Raises:
            ValueError: ``slight_ordering`` is set, which is no longer needed.
        """
        return ordered_as_declared(cls, super().get_handler())

    @classmethod
    def trigger_inbound(cls, message: Message, **kwargs: Any) -> None:
        """Run a frame's action, if its sender may; connects and disconnects have none."""
        if message.channel_name == WEBSOCKET_RECEIVE:
            super().trigger_inbound(message, **kwargs)

    def deserialize(self, message: Message) -> tuple[str, Any, Any]:
        """Return ``(action, pk, data)`` of a frame that a demultiplexer has taken out of its stream.

        Raises:
            BadFrame: the frame is not a JSON object with an ``action``, or its ``data`` is not an object.
        """
        try:
            body = json.loads(message["text"])
        except (KeyError, TypeError, ValueError, RecursionError):  # for a binding without a demultiplexer
            raise BadFrame(f"{type(self).__qualname__}: not JSON") from None
        if not isinstance(body, dict) or "action" not in body:
            raise BadFrame(f'{type(self).__qualname__}: not a JSON object with an "action"', None)
        data = body.get("data")
        if not isinstance(data, dict | None):
            raise BadFrame(f'{type(self).__qualname__}: its "data" is not a JSON object', None)
        return body["action"], body.get("pk"), data

    def writable(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the part of ``data`` that clients may write: the binding's fields, and never a key.

        Fields count under any spelling.  Left out are primary keys, also those of parents and the links to them, fields
        that the database computes and, unless :attr:`fields` names them, fields that are not ``editable``.

        Raises:
            FieldDoesNotExist: the data name a relation that is stored in other objects.
        """
        is_included, named, keys = self._included(), self._named(), keys_of(self.model)
        writable = {}
        for name, value in data.items():
            field = field_of(self.model, name)
            if field is None:
                # Django rejects an unknown name, if any field may be written.
                if (self.fields is None or self._all_fields()) and name not in (self.exclude or ()):
                    writable[name] = value
            elif is_included(field) and field not in keys and not is_generated(field):
                if not is_kept(field):
                    raise FieldDoesNotExist(f"{self.model_label} does not store {name}: other objects do")
                if field.editable or field in named:
                    writable[name] = value
        return writable

    def create(self, data: Any) -> None:
        """Create and save an object from the writable part of ``data``; never write into an existing one.

        Raises:
            IntegrityError: an object with the same key exists; or the key is a relation, which data never set.
        """
        hydrated = self._hydrate(None, self.writable(data or {}))
        for field in self.model._meta.pk_fields:
            if is_foreign(field) and getattr(hydrated.object, field.attname) is None:
                # SQLite would invent one, which may belong to another user's object.
                raise IntegrityError(f"{self.model_label} needs {field.name}, its key: set it in create()")
        hydrated.save(force_insert=True)

    def update(self, pk: Any, data: Any) -> None:
        """Write the writable part of ``data`` into the object with the primary key ``pk``, and save it.

        Raises:
            ObjectDoesNotExist: there is none.
        """
        try:
            instance = self.model._default_manager.get(pk=pk)
        except (OverflowError, TypeError, ValueError) as error:
            raise self.model.DoesNotExist("no object can have this primary key") from error
        writable = self.writable(data or {})
        hydrated = self._hydrate(pk, writable)
        for name in writable:
            field = self.model._meta.get_field(name)
            if not field.many_to_many:
                setattr(instance, field.attname, getattr(hydrated.object, field.attname))
        hydrated.object = instance
        hydrated.save()

    def _hydrate(self, pk: Any, data: Mapping[str, Any]) -> Hydrated:
        try:
            (found,) = serializers.deserialize("python", [{"pk": pk, "model": self.model_label, "fields": data}])
        except (OverflowError, UnicodeEncodeError) as error:  # from the query for an object with this natural key
            raise DeserializationError(str(error)) from error
        instance = found.object
        if pk is None and hasattr(instance, "natural_key"):
            # Django has just looked it up: a user with only the right to create would write into an existing object.
            instance.pk = instance._meta.pk.get_default()
        return Hydrated(instance, found.m2m_data)


class WebsocketBindingWithMembers(WebsocketBinding):
    """A binding that also sends members other than fields: attributes, properties, and methods without arguments."""

    model: Any = None

    #: Their names; ``"author.get_full_name"`` is sent as ``author__get_full_name``.
    send_members: ClassVar[Sequence[str]] = []

    #: The encoder that turns them into JSON.
    encoder: ClassVar[json.JSONEncoder] = DjangoJSONEncoder()

    def serialize_data(self, instance: Any) -> dict[str, Any]:
        """Return the fields, and the members."""
        members = {}
        for path in self.send_members:
            member = instance
            for name in path.split("."):
                member = getattr(member, name)
            members[path.replace(".", "__")] = member() if callable(member) else member
        return {**super().serialize_data(instance), **json.loads(self.encoder.encode(members))}


#: Another name for the demultiplexer of bindings.
WebsocketBindingDemultiplexer = WebsocketDemultiplexer
