"""The start of the rooms' tasks, and the permission to cancel them."""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from app import tasks
from app.models import Job, Presence, frame
from channelsq.live import start
from channelsq.message import Message

_TASKS = {Job.Kind.ANSWER: tasks.answer, Job.Kind.IMPORT: tasks.import_messages}


def begin(message: Message) -> None:
    """Start a job's task for the pages of its room; a consumer of ``chat.jobs``.

    It is a consumer of its own, because an embedded worker has no Celery: there the task runs in this consumer, while
    other threads go on with the chat.
    """
    job = Job.objects.filter(pk=message["job"], task_id="").select_related("room", "author").first()
    if job is None:  # started by an earlier delivery, or deleted with its room
        return
    group = job.room.group
    with transaction.atomic():
        # In this order after the commit: pages learn of the job, and then the task starts.
        transaction.on_commit(lambda: group.send(frame(**job.content), immediately=True))
        live = start(_TASKS[Job.Kind(job.kind)].s(job.pk), to=group, may_cancel=True)
        job.task_id, job.ticket = live.id, live.ticket
        job.save(update_fields=["task_id", "ticket"])


def may_cancel(message: Message, task_id: str) -> bool:
    """Return whether a page may cancel a task: its user's own; the job has then ended.

    ``CHANNEL_LIVE["may_cancel"]`` in the settings names this function.
    """
    presence = Presence.objects.filter(channel=message.reply_channel.name).first()
    if presence is None:
        return False
    mine = Job.objects.filter(task_id=task_id, author=presence.user)
    return bool(mine.update(ended_at=timezone.now()))
