"""What every binding does, whatever protocol it speaks."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, ClassVar

from django.apps import apps
from django.core.exceptions import FieldDoesNotExist, MultipleObjectsReturned, ObjectDoesNotExist, ValidationError
from django.core.serializers.base import DeserializationError
from django.db import DEFAULT_DB_ALIAS, DataError, IntegrityError, connections, router
from django.db.models import Model
from django.db.models.expressions import DatabaseDefault
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save

from channelsq.auth import channel_session_user
from channelsq.binding.stored import stored_values
from channelsq.channel import Group
from channelsq.delivery.pending import pending_message_store
from channelsq.exceptions import BadFrame
from channelsq.message import Message
from channelsq.sessions import channel_session

__all__ = ["CREATE", "DELETE", "UPDATE", "Binding", "BindingMetaclass"]

logger = logging.getLogger("channelsq.binding")

#: The action of an object that has come into a group.
CREATE = "create"
#: The action of an object that has changed.
UPDATE = "update"
#: The action of an object that is gone from a group.
DELETE = "delete"

#: Where an instance keeps the groups that it was in, by binding, between the signals before and after a change.
_BEFORE = "_binding_group_names"
#: How many changes of one instance can be under way at once, each made by a signal's receiver within another.
_NESTED = 16

#: What is raised for a key, a field or a value from a client that the model, or the database, does not know.
_BAD_DATA = (
    DataError,
    DeserializationError,
    FieldDoesNotExist,
    IntegrityError,
    MultipleObjectsReturned,
    ObjectDoesNotExist,
    ValidationError,
)

#: What the signal has brought that tells of a coming change; nothing if somebody tells of it by hand.
_signal: ContextVar[Mapping[str, Any]] = ContextVar("channelsq_binding_signal", default=MappingProxyType({}))


class BindingMetaclass(type):
    """Notes every binding class, and has it listen to its model once Django's apps are loaded."""

    #: Whether Django's apps are loaded, so that a new class listens at once.
    register_immediately: ClassVar[bool] = False
    #: Every binding class.
    binding_classes: ClassVar[list[BindingMetaclass]] = []

    def __new__(mcs, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> BindingMetaclass:
        cls = super().__new__(mcs, name, bases, body)
        if bases:
            mcs.binding_classes.append(cls)
            if mcs.register_immediately:
                cls.register()
        return cls

    @classmethod
    def register_all(mcs) -> None:
        """Have all binding classes listen; called when Django's apps are loaded."""
        for cls in mcs.binding_classes:
            cls.register()
        mcs.register_immediately = True

    def register(cls) -> None:
        """Listen to the model; a class of a binding overrides it."""


class Binding(metaclass=BindingMetaclass):
    """Binds a model to groups: what changes goes out to them, and what comes in may change it.

    A subclass sets :attr:`model`, and :attr:`fields` or :attr:`exclude`.  ``model = None`` makes it abstract.
    A change is told when its transaction is committed, to the groups that the object was in before it or is in
    after it: those that it left get ``delete``, those that it stays in ``update``, new ones ``create``.
    """

    #: The model, or its label (``"app.Model"``).
    model: Any = None
    #: The label of :attr:`model`, in lower case.
    model_label: ClassVar[str]
    #: The fields that go out and may be changed; ``["__all__"]`` for all.
    fields: ClassVar[Sequence[str] | None] = None
    #: Or those that do not and may not.
    exclude: ClassVar[Sequence[str] | None] = None
    #: The name under which clients know the binding.
    stream: ClassVar[str | None] = None

    #: Whether ``message.user`` is found in the channel session for :meth:`has_permission`.
    channel_session_user = True
    #: Whether there is a ``message.channel_session`` at all.
    channel_session = False

    #: What the signal brought that told of a change: ``using``, ``update_fields``, ….
    signal_kwargs: dict[str, Any] | None = None

    #: What is told about.
    instance: Any
    #: The message that came in.
    message: Message
    #: The arguments that came with it.
    kwargs: dict[str, Any]
    #: Who sent it; the anonymous user if nobody knows.
    user: Any
    #: What it asks for: ``"create"``, ``"update"`` or ``"delete"``.
    action: str
    #: The primary key of what it is about; None for ``"create"``.
    pk: Any
    #: What it says; None for ``"delete"``.
    data: Any

    @classmethod
    def register(cls) -> None:
        """Listen to the model.

        Raises:
            ValueError: there is no ``model``, or neither ``fields`` nor ``exclude``.
        """
        receivers = (
            (pre_save, cls.pre_save_receiver),
            (post_save, cls.post_save_receiver),
            (pre_delete, cls.pre_delete_receiver),
            (post_delete, cls.post_delete_receiver),
        )
        for model in cls.get_registered_models():
            for signal, receiver in receivers:
                signal.connect(receiver, sender=model, weak=False)  # again is as once

    @classmethod
    def get_registered_models(cls) -> list[type[Model]]:
        """The models that the binding listens to; none if it is abstract.

        Raises:
            ValueError: as :meth:`register`.
        """
        if cls.model is None:
            if "model" in vars(cls):
                return []
            raise ValueError(f"{cls.__qualname__} has no model: set it, or model = None for an abstract binding")
        if cls.fields is None and cls.exclude is None:
            raise ValueError(f"{cls.__qualname__} has neither fields nor exclude: say which of {cls.model} go out")
        if isinstance(cls.model, str):
            cls.model = apps.get_model(cls.model)
        cls.model_label = cls.model._meta.label_lower
        return [cls.model]

    # -- outbound

    @classmethod
    def encode(cls, stream: str, payload: Any) -> dict[str, Any]:
        """The message for a group's members: ``payload`` on ``stream``."""
        raise NotImplementedError

    @classmethod
    def group_names(cls, instance: Any) -> Iterable[str]:
        """The groups that ``instance`` belongs to, as it is."""
        raise NotImplementedError

    def serialize(self, instance: Any, action: str) -> Any:
        """The payload that tells of ``action`` on ``instance``; ``{}`` to tell nothing."""
        raise NotImplementedError

    @classmethod
    def pre_save_receiver(cls, instance: Any, **kwargs: Any) -> None:
        """Receives ``pre_save``.  Fixtures that are being loaded are told nobody."""
        if not kwargs.get("raw"):
            cls._note(instance, CREATE if instance._state.adding else UPDATE, kwargs)

    @classmethod
    def post_save_receiver(cls, instance: Any, created: bool, **kwargs: Any) -> None:
        """Receives ``post_save``."""
        if not kwargs.get("raw"):
            cls.post_change_receiver(instance, CREATE if created else UPDATE, **kwargs)

    @classmethod
    def pre_delete_receiver(cls, instance: Any, **kwargs: Any) -> None:
        """Receives ``pre_delete``."""
        cls._note(instance, DELETE, kwargs)

    @classmethod
    def post_delete_receiver(cls, instance: Any, **kwargs: Any) -> None:
        """Receives ``post_delete``."""
        cls.post_change_receiver(instance, DELETE, **kwargs)

    @classmethod
    def _note(cls, instance: Any, action: str, signal: Mapping[str, Any]) -> None:
        token = _signal.set(signal)
        try:
            cls.pre_change_receiver(instance, action)
        finally:
            _signal.reset(token)

    @classmethod
    def pre_change_receiver(cls, instance: Any, action: str) -> None:
        """Note the groups that ``instance`` is in before ``action``; also to be called for changes without signals."""
        before = cls._before(instance, action, _signal.get())
        changes = vars(instance).setdefault(_BEFORE, {}).setdefault(cls, deque(maxlen=_NESTED))
        changes.append((before, set() if before is None else cls._groups(before)))

    @classmethod
    def _before(cls, instance: Any, action: str, signal: Mapping[str, Any]) -> Any:
        """The object that says where ``instance`` belongs before a change; None if it is not there yet."""
        if action == DELETE:
            if signal.get("origin", instance) is not instance and not instance.get_deferred_fields():
                return instance  # one of many, and Django has just read them
            return cls._stored(instance, signal.get("using")) or instance
        if action == CREATE and not instance._state.adding:
            return None  # somebody tells of an object that was made without signals
        key = cls.model._meta.pk_fields
        values = [getattr(instance, field.attname) for field in key]
        if any(value is None or isinstance(value, DatabaseDefault) for value in values):
            return None
        if action == CREATE and all(field.has_default() or field.has_db_default() for field in key):
            return None  # which Django inserts without a look
        # What is to be saved already says where it belongs afterwards.
        return cls._stored(instance, signal.get("using"))

    @classmethod
    def _stored(cls, instance: Any, using: str | None) -> Any:
        """``instance`` with the fields that the database has, or None."""
        using = using or router.db_for_write(cls.model, instance=instance)
        stored = cls.model._base_manager.using(using).filter(pk=instance.pk).first()
        return None if stored is None else cls._like(instance, stored)

    @classmethod
    def _like(cls, instance: Any, stored: Any) -> Any:
        """``stored``, with what ``instance`` has besides the fields."""
        ours, theirs = vars(stored), vars(instance)
        # What is no field, such as what an application has left there; but nothing that was computed of the fields.
        ours.update({name: theirs[name] for name in theirs.keys() - ours.keys() if not hasattr(cls.model, name)})
        for field in cls.model._meta.concrete_fields:
            # Read once, for before and after: also so that both say the same of what it belongs to in turn.
            if field.is_relation and field.is_cached(instance) and theirs.get(field.attname) == ours.get(field.attname):
                field.set_cached_value(stored, field.get_cached_value(instance))
        return stored

    @classmethod
    def _after(cls, instance: Any, signal: Mapping[str, Any]) -> Any:
        """``instance`` as the database has it after a save: itself, if known to be the same; None without a row.

        The row is read if somebody tells of a change by hand, if not all was saved, or if a value was assigned that
        only the database can tell, such as an expression.
        """
        using = signal.get("using") or instance._state.db or DEFAULT_DB_ALIAS
        if "signal" not in signal:
            return cls._stored(instance, using) or instance
        values = None
        if signal.get("update_fields") is None:
            values = stored_values(cls.model, instance, using)
        if values is None:
            return cls._stored(instance, using)
        names = [field.attname for field in cls.model._meta.concrete_fields]
        if all(vars(instance)[name] is value for name, value in zip(names, values, strict=True)):
            return instance
        return cls._like(instance, cls.model.from_db(using, names, values))

    @classmethod
    def _groups(cls, instance: Any) -> set[str]:
        names = cls.group_names(instance)
        if isinstance(names, (str, bytes)):
            raise TypeError(f"{cls.__qualname__}.group_names gave {names!r}: it must give a list of names")
        return set(names)

    @classmethod
    def post_change_receiver(cls, instance: Any, action: str, **kwargs: Any) -> None:
        """Tell the groups of ``action``, once it is certain, with what the database has; after a delete, had.

        Args:
            instance: what was changed; it is left as it is.
            action: what was done.
            kwargs: what the signal brought.
        """
        row, before = cls._noted_before(instance)
        now = None if action == DELETE else cls._after(instance, kwargs)
        after = set() if now is None else cls._groups(now)
        self = cls()
        self.instance = now or row or instance
        # A client that is in an old and in a new group ends with the object there.
        self.send_messages(self.instance, before - after, DELETE, **kwargs)
        self.send_messages(self.instance, before & after, UPDATE, **kwargs)
        self.send_messages(self.instance, after - before, CREATE, **kwargs)

    @classmethod
    def _noted_before(cls, instance: Any) -> tuple[Any, set[str]]:
        """The object and its groups that :meth:`pre_change_receiver` noted last; the instance keeps nothing of it."""
        noted: dict[type[Binding], deque[tuple[Any, set[str]]]] = vars(instance).get(_BEFORE, {})
        changes = noted.get(cls)
        if not changes:
            return None, set()
        row, groups = changes.pop()
        if not changes:
            del noted[cls]
        if not noted:
            delattr(instance, _BEFORE)
        return row, groups

    def send_messages(self, instance: Any, group_names: Iterable[str], action: str, **kwargs: Any) -> None:
        """Send what tells of ``action`` to groups, when the transaction is committed.

        Args:
            instance: what it is about; written down now.
            group_names: the groups.
            action: what they are told.
            kwargs: what the signal brought; ``using`` is the database's alias.

        Raises:
            ValueError: the binding has no ``stream``.
            TypeError: a group's name is none, or the payload cannot be sent.
            MessageTooLarge: it is over the layer's ``message_size_limit``.
        """
        groups = [Group(name) for name in sorted(group_names)]
        if not groups:
            return
        self.signal_kwargs = kwargs
        payload = self.serialize(instance, action)
        if payload == {}:
            return
        if self.stream is None:
            raise ValueError(f"{type(self).__qualname__} has no stream: set the name under which clients know it")
        message = self.encode(self.stream, payload)
        using = kwargs.get("using") or instance._state.db or DEFAULT_DB_ALIAS
        # Checked now, while the change can still fail with it.
        sends = [group.prepare(message) for group in groups]
        pending_message_store.hold_certain(groups[0].channel_layer, sends, connections[using])

    # -- inbound

    @classmethod
    def trigger_inbound(cls, message: Message, **kwargs: Any) -> None:
        """Do what a message asks for, if its sender may.

        Args:
            message: what came in.
            kwargs: the named groups of the route's filters; ``multiplexer`` on a shared socket.
        """
        from django.contrib.auth.models import AnonymousUser  # not before Django's apps are loaded

        self = cls()
        self.message = message
        self.kwargs = kwargs
        self.action, self.pk, self.data = self.deserialize(message)
        self.user = getattr(message, "user", None) or AnonymousUser()
        self.run_action(self.action, self.pk, self.data)

    @classmethod
    def get_handler(cls) -> Callable[..., None]:
        """:meth:`trigger_inbound`, decorated as the class attributes say."""
        if cls.channel_session_user:
            return channel_session_user(cls.trigger_inbound)
        if cls.channel_session:
            return channel_session(cls.trigger_inbound)
        return cls.trigger_inbound

    @classmethod
    def consumer(cls, message: Message, **kwargs: Any) -> None:
        """The consumer of what comes in, for a route or for a demultiplexer's ``consumers``."""
        cls.get_handler()(message, **kwargs)

    def deserialize(self, message: Message) -> tuple[str, Any, Any]:
        """``(action, pk, data)`` of a message; ``pk`` is None for ``"create"``, ``data`` for ``"delete"``."""
        raise NotImplementedError

    def has_permission(self, user: Any, action: str, pk: Any) -> bool:
        """Whether ``user`` may do ``action`` to the object with the primary key ``pk``.

        Args:
            user: the anonymous user if nobody is logged in.
            action: ``"create"``, ``"update"`` or ``"delete"``.
            pk: None for ``"create"``; what is to be written is in ``self.data``.
        """
        raise NotImplementedError

    def run_action(self, action: str, pk: Any, data: Any) -> None:
        """Call :meth:`create`, :meth:`update` or :meth:`delete`, if the user may; else nothing happens.

        Data that do not fit the model, and an object that is not there, are a line in the log.

        Raises:
            BadFrame: there is no such action.
        """
        if action not in (CREATE, UPDATE, DELETE):
            raise BadFrame(f"{type(self).__qualname__} knows the actions create, update and delete alone", None)
        if not self.has_permission(self.user, action, pk):
            self._say("binding_refused", "%s may not %s %.80r", self.user, action, pk)
            return
        try:
            if action == CREATE:
                self.create(data)
            elif action == UPDATE:
                self.update(pk, data)
            else:
                self.delete(pk)
        except _BAD_DATA as error:  # whose texts may quote what the client sent
            self._say("binding_bad_data", "%s cannot %s %.80r: %s", self.user, action, pk, type(error).__name__)

    def _say(self, action: str, text: str, *values: Any) -> None:
        reply_channel = self.message.reply_channel
        connection = "" if reply_channel is None else reply_channel.name
        extra = {"action": action, "connection": connection}
        logger.info(f"%s: {text}", type(self).__qualname__, *values, extra=extra)

    def create(self, data: Any) -> None:
        """Make an object of ``data``."""
        raise NotImplementedError

    def update(self, pk: Any, data: Any) -> None:
        """Write ``data`` into the object with the primary key ``pk``."""
        raise NotImplementedError

    def delete(self, pk: Any) -> None:
        """Delete the object with the primary key ``pk``, if it is there."""
        try:
            found = self.model._default_manager.filter(pk=pk)
        except (OverflowError, TypeError, ValueError) as error:
            raise self.model.DoesNotExist("no object can have this primary key") from error
        found.delete()
