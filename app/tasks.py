"""Celery tasks.  They, like views, signals and the shell, can push to any page.

The two tasks of jobs are live tasks: pages follow their progress and their text.  Both may run twice, since a worker
that dies leaves its task to another one (``acks_late``); keys let each message be posted once.
"""

from __future__ import annotations

import time
from typing import Any

from celery import shared_task
from django.conf import settings
from django.contrib.auth import get_user_model
from django.utils import timezone

from app import assistant, importing
from app.models import Job, Message, frame
from channelsq import Group
from channelsq.live import Cancelled, progress, stream

#: Seconds for a word of the assistant, and for a row of an import: a model and a slow system would take them.
WORD, ROW = 0.06, 0.15


def pause(seconds: float) -> None:
    """Take some time, so that there is something to watch; ``CHAT_PACE`` in the settings is a factor."""
    time.sleep(seconds * getattr(settings, "CHAT_PACE", 1))


@shared_task
def announce(slug: str, text: str) -> None:
    """Show a notice in a room: ``announce.delay("lobby", "Tea is ready")``."""
    Group(f"chat-{slug}").send(frame(type="notice", text=text, at=timezone.now().isoformat()))


@shared_task(acks_late=True)
def answer(pk: int) -> None:
    """Answer the question of a job, word by word, and post the answer.

    Args:
        pk: the job's.
    """
    job = _job(pk)
    said = ""
    try:
        with stream("answer") as out:
            for word in assistant.words(job.message.text, job.room):
                pause(WORD)
                out.write(word)
                said += word
        _post_answer(job, said)
    except Cancelled:
        if said:
            _post_answer(job, f"{said.rstrip()} …")
        raise
    finally:
        job.end()


@shared_task(acks_late=True)
def import_messages(pk: int) -> int:
    """Import the rows of a job's file, or sample rows, as messages of its user; return their number.

    Args:
        pk: the job's.

    Raises:
        PublicError: the file has another form.
    """
    job = _job(pk)
    try:
        rows = importing.rows_of(job)
        for number, text in enumerate(rows, 1):
            # The cancellation of the task is raised here, between two rows.
            progress(number - 1, len(rows), "messages")
            pause(ROW)
            job.room.post(job.author, text, f"{job.key}-{number}", source=Message.Source.IMPORT, immediately=True)
        progress(len(rows), len(rows), "messages")
        return len(rows)
    finally:
        job.end()


def _job(pk: int) -> Job:
    return Job.objects.select_related("room", "author", "message").get(pk=pk)


def _post_answer(job: Job, text: str) -> None:
    """Post the assistant's message; in an embedded worker before the end of the consumer that runs the task."""
    author: Any = get_user_model().objects.get_or_create(username=assistant.NAME)[0]  # without a password: no login
    job.room.post(author, text.strip(), job.key, source=Message.Source.ASSISTANT, immediately=True)
