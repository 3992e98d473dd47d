"""Saved and deleted objects, sent to the worker that notifies the open admin pages.

Changes are gathered until the transaction's commit, and sent as one message per model, if any page shows that model.
They may include changes that were rolled back to a savepoint; the worker compares them with the stored objects.
"""

from __future__ import annotations

import logging
import threading
import time
from functools import partial
from typing import Any

from django.apps import apps
from django.db import router, transaction
from django.db.models import Model
from django.db.models.signals import m2m_changed, post_delete, post_save

from channelsq.asgi import channel_layers
from channelsq.channel import Channel
from channelsq.conf import DEFAULT_CHANNEL_LAYER
from channelsq.contrib.admin.live_sites import live_models, with_parents
from channelsq.contrib.admin.open_pages import group_of
from channelsq.core.logs import LogLimit
from channelsq.exceptions import ChannelsqError

logger = logging.getLogger("channelsq.contrib.admin")

#: The channel of the changes.
CHANNEL = "channelsq.admin.changes"

#: The most objects of one model in a message; if there are more, the message only says so.
MOST_OBJECTS = 200

ADDED, CHANGED, DELETED = "added", "changed", "deleted"

#: The changes of each object, by the model's label and the object's primary key.
Changes = dict[str, dict[str, dict[str, Any]]]


class _Gathered(threading.local):
    """The changes of this thread that wait for a commit, by database."""

    def __init__(self) -> None:
        self.by_database: dict[str, Changes] = {}


_gathered = _Gathered()
_watched: set[type[Model]] = set()
#: Models for which a message could not be sent; their next message says that there are more changes.
_missed: set[str] = set()
_failures = LogLimit()


def watch() -> None:
    """Connect the signals of the models that have a live ModelAdmin now."""
    from django.contrib.admin.models import LogEntry

    _watched.update(live_models())
    post_save.connect(_on_log_entry, sender=LogEntry, dispatch_uid="channelsq.admin.log")
    for model in apps.get_models():
        if _watched.isdisjoint(with_parents(model)):
            continue
        # Only for these models: Django deletes others faster without receivers.
        post_save.connect(_on_save, sender=model, dispatch_uid="channelsq.admin.save")
        post_delete.connect(_on_delete, sender=model, dispatch_uid="channelsq.admin.delete")
        for field in model._meta.many_to_many:
            m2m_changed.connect(_on_relation, sender=field.remote_field.through, dispatch_uid="channelsq.admin.m2m")


def _on_save(instance: Model, created: bool, raw: bool, using: str, **kwargs: Any) -> None:
    if not raw:
        _note_instance(instance, ADDED if created else CHANGED, using)


def _on_delete(instance: Model, using: str, **kwargs: Any) -> None:
    _note_instance(instance, DELETED, using)


def _on_relation(instance: Model, action: str, using: str, **kwargs: Any) -> None:
    if not action.startswith("post_"):
        return
    if not kwargs["reverse"]:
        _note_instance(instance, CHANGED, using)
    else:
        for pk in kwargs["pk_set"] or ():
            _note(kwargs["model"], pk, {"action": CHANGED}, using)


def _on_log_entry(instance: Any, created: bool, **kwargs: Any) -> None:
    """Note the user of a change, whose log entry the admin saves in the same transaction."""
    model = instance.content_type.model_class() if created and instance.content_type_id else None
    if model is not None:
        _note(model, instance.object_id, {"user": str(instance.user_id)}, router.db_for_write(model))


def _note_instance(instance: Model, action: str, using: str) -> None:
    for model in with_parents(type(instance)):
        pk = getattr(instance, model._meta.pk.attname)
        if pk is not None:
            _note(model, pk, {"action": action}, using)


def _note(model: type[Model], pk: Any, change: dict[str, Any], using: str) -> None:
    if with_parents(model)[0] not in _watched:
        return
    objects = _gathered.by_database.setdefault(using, {}).setdefault(with_parents(model)[0]._meta.label_lower, {})
    known = objects.get(str(pk))
    if known is None:
        if len(objects) <= MOST_OBJECTS:  # one more than a message names
            objects[str(pk)] = change
    elif known.get("action") == ADDED and change.get("action") == CHANGED:
        pass
    else:
        known.update(change)
    transaction.on_commit(partial(_send, using), using=using, robust=True)


def _send(using: str) -> None:
    for label, objects in _gathered.by_database.pop(using, {}).items():
        try:
            _send_of(label, objects)
        except ChannelsqError as error:
            # The save is committed and must not fail because of this.
            _missed.add(label)
            if _failures.allows():
                logger.warning(
                    "open admin pages missed changes of %s: %s", label, error, extra={"action": "admin_untold"}
                )


def _send_of(label: str, objects: dict[str, dict[str, Any]]) -> None:
    layer = channel_layers[DEFAULT_CHANNEL_LAYER]
    if not layer.group_channels(group_of(apps.get_model(label))):
        _missed.discard(label)
        return
    named = dict(list(objects.items())[:MOST_OBJECTS])
    more = len(named) < len(objects) or label in _missed
    content = {"model": label, "objects": named, "more": more, "at": time.time()}
    # The changes are committed; the consumer that saved them must not fail because this send fails.
    Channel(CHANNEL, channel_layer=layer).send(content, immediately=True)
    _missed.discard(label)
