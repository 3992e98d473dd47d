"""Receivers of Django's signals that close the sockets of users, see ``CHANNEL_USERS``."""

from __future__ import annotations

import logging
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_out
from django.core.exceptions import FieldDoesNotExist
from django.db import connections, router
from django.db.models.signals import post_save, pre_save

from channelsq import conf
from channelsq.asgi import channel_layers
from channelsq.delivery.pending import pending_message_store
from channelsq.exceptions import ChannelsqError
from channelsq.users import User, closing

logger = logging.getLogger("channelsq.auth")

#: The close code "service restart": the browser library connects again, with the session that it has then.
_CODE = 1012

#: The attribute of a user that is being saved: the stored password hash.
_BEFORE = "_channelsq_password"


def install(*, setting: str = "CHANNEL_USERS", **kwargs: Any) -> None:
    """Connect the receivers that ``CHANNEL_USERS`` asks for, and disconnect the others.

    Args:
        setting: the setting that has changed; a receiver of Django's ``setting_changed``.
        kwargs: further arguments of the signal.
    """
    if setting != "CHANNEL_USERS":
        return
    chosen = conf.user_settings()
    for signal, receiver, is_on in (
        (user_logged_out, _on_logged_out, chosen.disconnect_on_logout),
        (pre_save, _on_pre_save, chosen.disconnect_on_password_change),
        (post_save, _on_post_save, chosen.disconnect_on_password_change),
    ):
        if is_on:
            signal.connect(receiver, dispatch_uid=__name__)
        else:
            signal.disconnect(dispatch_uid=__name__)


def _on_logged_out(request: Any = None, user: Any = None, **kwargs: Any) -> None:
    """Close the user's sockets once the session is deleted, which Django does after the signal.

    Otherwise a page could connect again with the old session.
    """
    if user is None or not user.is_authenticated:
        return
    session = getattr(request, "session", None)
    if session is None:
        _disconnect(user, None)
        return

    def flush() -> None:
        restore()
        session.flush()
        _disconnect(user, None)

    async def aflush() -> None:
        restore()
        await session.aflush()
        await sync_to_async(_disconnect)(user, None)

    def restore() -> None:
        del session.flush, session.aflush  # those of the class again

    session.flush, session.aflush = flush, aflush


def _on_pre_save(
    instance: Any = None, raw: bool = False, using: Any = None, update_fields: Any = None, **kwargs: Any
) -> None:
    """Remember the stored password hash of a user that is saved."""
    if not _has_password(instance):
        return
    vars(instance).pop(_BEFORE, None)
    if raw or instance._state.adding:
        return
    if update_fields is not None and "password" not in update_fields:
        return
    users = get_user_model()._base_manager.using(using)
    stored = users.filter(pk=instance.pk).values_list("password", flat=True).first()
    if stored is not None and stored != instance.password:
        vars(instance)[_BEFORE] = stored


def _on_post_save(instance: Any = None, using: Any = None, **kwargs: Any) -> None:
    """Close the sockets of a user whose password was changed, on commit."""
    if vars(instance).pop(_BEFORE, None) is not None:
        _disconnect(instance, using)


def _has_password(instance: Any) -> bool:
    model = get_user_model()
    if not isinstance(instance, model):
        return False
    try:
        model._meta.get_field("password")
    except FieldDoesNotExist:
        return False
    return True


def _disconnect(user: Any, using: str | None) -> None:
    """Close the sockets of a user on every layer; an error is logged, as the database has changed already.

    Args:
        user: the user.
        using: the alias of the database whose transaction must be committed first; None for that of the users.
    """
    connection = connections[using or router.db_for_write(get_user_model())]
    for alias in channel_layers.configs:
        try:
            group = User(user, alias).group
            pending_message_store.hold_certain(group.channel_layer, (group.prepare(closing(_CODE)),), connection)
        except ChannelsqError as error:
            logger.error(
                "user %s: the sockets on the layer %r may still be open: %s", user.pk, alias, error,
                extra={"action": "user_not_disconnected"},
            )  # fmt: skip
