"""The base of bindings, independent of their protocol."""

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
from django.db import DEFAULT_DB_ALIAS, DataError, IntegrityError, connections
from django.db.models import Model
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save

from channelsq.auth import channel_session_user
from channelsq.binding import changed_rows
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
#: The action of an object that has left a group.
DELETE = "delete"

#: The attribute of an instance with its previous groups, by binding, between the signals before and after a change.
_BEFORE = "_binding_group_names"
#: The most changes of one instance that are under way at once, each made by a signal's receiver within another.
_NESTED = 16

#: Errors for a client's key, field or value that the model, or the database, does not know.
_BAD_DATA = (
    DataError,
    DeserializationError,
    FieldDoesNotExist,
    IntegrityError,
    MultipleObjectsReturned,
    ObjectDoesNotExist,
    ValidationError,
)

#: The arguments of the signal before a change; empty if an application reports the change by hand.
_signal: ContextVar[Mapping[str, Any]] = ContextVar("channelsq_binding_signal", default=MappingProxyType({}))


class BindingMetaclass(type):
    """A metaclass that records every binding class, and connects it to its model once Django's apps are loaded."""

    #: Whether Django's apps are loaded, so that a new class is connected at once.
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
        """Connect all binding classes; called when Django's apps are loaded."""
        for cls in mcs.binding_classes:
            cls.register()
        mcs.register_immediately = True

    def register(cls) -> None:
        """Connect to the model; a class of a binding overrides it."""


class Binding(metaclass=BindingMetaclass):
    """A class that binds a model to groups: its changes are sent to them, and incoming messages may change it.

    A subclass sets :attr:`model`, and :attr:`fields` or :attr:`exclude`.  ``model = None`` makes it abstract.  A change
    is sent when its transaction is committed, to the groups of the object before it and after it.  Groups that the
    object left get ``delete``, groups that it stays in ``update``, new ones ``create``.
    """

    #: The model, or its label (``"app.Model"``).
    model: Any = None
    #: The label of :attr:`model`, in lower case.
    model_label: ClassVar[str]
    #: The fields that are sent and may be changed; ``["__all__"]`` for all.
    fields: ClassVar[Sequence[str] | None] = None
    #: Or the fields that are not.
    exclude: ClassVar[Sequence[str] | None] = None
    #: The name under which clients know the binding.
    stream: ClassVar[str | None] = None

    #: Whether the user of the channel session is ``message.user`` for :meth:`has_permission`.
    channel_session_user = True
    #: Whether there is a ``message.channel_session``.
    channel_session = False

    #: The arguments of the signal after a change: ``using``, ``update_fields``, ….
    signal_kwargs: dict[str, Any] | None = None

    #: The changed object.
    instance: Any
    #: The incoming message.
    message: Message
    #: The arguments of its route.
    kwargs: dict[str, Any]
    #: Its sender; the anonymous user if unknown.
    user: Any
    #: The requested action: ``"create"``, ``"update"`` or ``"delete"``.
    action: str
    #: The primary key of its object; None for ``"create"``.
    pk: Any
    #: The data of the message; None for ``"delete"``.
    data: Any

    @classmethod
    def register(cls) -> None:
        """Connect to the model.

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
                signal.connect(receiver, sender=model, weak=False)  # a repeated call has no effect

    @classmethod
    def get_registered_models(cls) -> list[type[Model]]:
        """Return the models that the binding is connected to; none if it is abstract.

        Raises:
            ValueError: as in :meth:`register`.
        """
        if cls.model is None:
            if "model" in vars(cls):
                return []
            raise ValueError(f"{cls.__qualname__} has no model: set it, or model = None for an abstract binding")
        if cls.fields is None and cls.exclude is None:
            raise ValueError(f"{cls.__qualname__} has neither fields nor exclude: name those of {cls.model} to send")
        if isinstance(cls.model, str):
            cls.model = apps.get_model(cls.model)
        cls.model_label = cls.model._meta.label_lower
        return [cls.model]

    # -- outbound

    @classmethod
    def encode(cls, stream: str, payload: Any) -> dict[str, Any]:
        """Return the message for a group's members: ``payload`` on ``stream``."""
        raise NotImplementedError

    @classmethod
    def group_names(cls, instance: Any) -> Iterable[str]:
        """Return the groups that ``instance`` belongs to in its present state."""
        raise NotImplementedError

    def serialize(self, instance: Any, action: str) -> Any:
        """Return the payload that reports ``action`` on ``instance``; ``{}`` to send nothing."""
        raise NotImplementedError

    @classmethod
    def pre_save_receiver(cls, instance: Any, **kwargs: Any) -> None:
        """Receive ``pre_save``; the loading of fixtures is ignored."""
        if not kwargs.get("raw"):
            cls._note(instance, CREATE if instance._state.adding else UPDATE, kwargs)

    @classmethod
    def post_save_receiver(cls, instance: Any, created: bool, **kwargs: Any) -> None:
        """Receive ``post_save``."""
        if not kwargs.get("raw"):
            cls.post_change_receiver(instance, CREATE if created else UPDATE, **kwargs)

    @classmethod
    def pre_delete_receiver(cls, instance: Any, **kwargs: Any) -> None:
        """Receive ``pre_delete``."""
        cls._note(instance, DELETE, kwargs)

    @classmethod
    def post_delete_receiver(cls, instance: Any, **kwargs: Any) -> None:
        """Receive ``post_delete``."""
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
        """Record the groups of ``instance`` before ``action``; applications call it for changes without signals."""
        signal = _signal.get()
        if action == DELETE:
            before = changed_rows.before_delete(cls.model, instance, signal)
        else:
            before = changed_rows.before_save(cls.model, instance, signal, is_new=action == CREATE)
        changes = vars(instance).setdefault(_BEFORE, {}).setdefault(cls, deque(maxlen=_NESTED))
        changes.append((before, set() if before is None else cls._groups(before)))

    @classmethod
    def _groups(cls, instance: Any) -> set[str]:
        names = cls.group_names(instance)
        if isinstance(names, (str, bytes)):
            raise TypeError(f"{cls.__qualname__}.group_names returned {names!r}: it must return a list of names")
        return set(names)

    @classmethod
    def post_change_receiver(cls, instance: Any, action: str, **kwargs: Any) -> None:
        """Send ``action`` to the groups, once it is committed, with the stored values; after a delete, the previous.

        Args:
            instance: the changed object; it is not modified.
            action: the action.
            kwargs: the arguments of the signal.
        """
        row, before = cls._noted_before(instance)
        now = None if action == DELETE else changed_rows.after_save(cls.model, instance, kwargs)
        after = set() if now is None else cls._groups(now)
        self = cls()
        self.instance = now or row or instance
        # The order matters: a client in an old and in a new group ends up with the object.
        self.send_messages(self.instance, before - after, DELETE, **kwargs)
        self.send_messages(self.instance, before & after, UPDATE, **kwargs)
        self.send_messages(self.instance, after - before, CREATE, **kwargs)

    @classmethod
    def _noted_before(cls, instance: Any) -> tuple[Any, set[str]]:
        """Return the object and groups that :meth:`pre_change_receiver` recorded last, and remove the record."""
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
        """Send ``action`` to groups when the transaction is committed.

        Args:
            instance: the object; it is serialized now.
            group_names: the groups.
            action: the action.
            kwargs: the arguments of the signal; ``using`` is the database's alias.

        Raises:
            ValueError: the binding has no ``stream``.
            TypeError: a group's name is invalid, or the payload cannot be sent.
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
        """Run the action of a message, if its sender may.

        Args:
            message: the incoming message.
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
        """Return :meth:`trigger_inbound`, decorated according to the class attributes."""
        if cls.channel_session_user:
            return channel_session_user(cls.trigger_inbound)
        if cls.channel_session:
            return channel_session(cls.trigger_inbound)
        return cls.trigger_inbound

    @classmethod
    def consumer(cls, message: Message, **kwargs: Any) -> None:
        """Handle an incoming message, for a route or for a demultiplexer's ``consumers``."""
        cls.get_handler()(message, **kwargs)

    def deserialize(self, message: Message) -> tuple[str, Any, Any]:
        """Return ``(action, pk, data)`` of a message; ``pk`` is None for ``"create"``, ``data`` for ``"delete"``."""
        raise NotImplementedError

    def has_permission(self, user: Any, action: str, pk: Any) -> bool:
        """Return whether ``user`` may do ``action`` to the object with the primary key ``pk``.

        Args:
            user: the user; the anonymous user without a login.
            action: ``"create"``, ``"update"`` or ``"delete"``.
            pk: None for ``"create"``; the data to write are in ``self.data``.
        """
        raise NotImplementedError

    def run_action(self, action: str, pk: Any, data: Any) -> None:
        """Call :meth:`create`, :meth:`update` or :meth:`delete` if the user may; otherwise do nothing.

        Data that do not fit the model, and a missing object, are a line in the log.

        Raises:
            BadFrame: the action is unknown.
        """
        if action not in (CREATE, UPDATE, DELETE):
            raise BadFrame(f"{type(self).__qualname__} supports only the actions create, update and delete", None)
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
        except _BAD_DATA as error:  # their texts may quote the client's data
            self._say("binding_bad_data", "%s cannot %s %.80r: %s", self.user, action, pk, type(error).__name__)

    def _say(self, action: str, text: str, *values: Any) -> None:
        reply_channel = self.message.reply_channel
        connection = "" if reply_channel is None else reply_channel.name
        extra = {"action": action, "connection": connection}
        logger.info(f"%s: {text}", type(self).__qualname__, *values, extra=extra)

    def create(self, data: Any) -> None:
        """Create an object from ``data``."""
        raise NotImplementedError

    def update(self, pk: Any, data: Any) -> None:
        """Write ``data`` into the object with the primary key ``pk``."""
        raise NotImplementedError

    def delete(self, pk: Any) -> None:
        """Delete the object with the primary key ``pk``, if it exists."""
        try:
            found = self.model._default_manager.filter(pk=pk)
        except (OverflowError, TypeError, ValueError) as error:
            raise self.model.DoesNotExist("no object can have this primary key") from error
        found.delete()
