"""The module that ``app.autodiscover_tasks()`` finds: it makes the project's Celery app consume its channels."""

from __future__ import annotations

from typing import Any

from celery import shared_task

from channelsq.channel import Group
from channelsq.conf import DEFAULT_CHANNEL_LAYER
from channelsq.core.celery_app_internals import current_app
from channelsq.worker.setup import install_or_refuse


@shared_task(name="channelsq.send_to_group", ignore_result=True)
def send_to_group(group: str, content: dict[str, Any], alias: str = DEFAULT_CHANNEL_LAYER) -> None:
    """Send a message to a group: a task for ``CELERY_BEAT_SCHEDULE``, which needs no code of the project.

    Args:
        group: the name of the group.
        content: the message, as for :meth:`channelsq.Group.send`.
        alias: the alias of the layer.
    """
    Group(group, alias).send(content)


install_or_refuse(current_app())
