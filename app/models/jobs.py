"""Tasks that work for a room: the assistant's answers, and imports."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import models
from django.utils import timezone

from app.models.rooms import Message, Room

#: A job without an end for so long counts as lost: its process was ended, and nothing runs it again.
LOST_AFTER = timedelta(minutes=3)


class JobManager(models.Manager["Job"]):
    """The jobs of all rooms."""

    def running(self) -> models.QuerySet[Job]:
        """Return the jobs that have not ended."""
        return self.filter(ended_at=None, created_at__gte=timezone.now() - LOST_AFTER)


class Job(models.Model):
    """A task for a room, with the ticket by which pages follow it."""

    class Kind(models.TextChoices):
        """The kinds of jobs."""

        ANSWER = "answer", "answer"
        IMPORT = "import", "import"

    #: The message with the command.
    message = models.OneToOneField(Message, models.CASCADE, related_name="job")
    room = models.ForeignKey(Room, models.CASCADE, related_name="jobs")
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="chat_jobs")
    kind = models.CharField(max_length=6, choices=Kind)
    #: Both are empty until the task has been started.
    task_id = models.CharField(max_length=36, blank=True, db_index=True)
    ticket = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True)

    objects = JobManager()

    def __str__(self) -> str:
        return f"{self.kind} for {self.room}"

    @property
    def key(self) -> str:
        """The key of the message with the result: it is posted once, although a task may run twice."""
        return f"job-{self.pk}"

    @property
    def content(self) -> dict[str, Any]:
        """The job in the form for pages."""
        return {
            "type": "job",
            "id": self.task_id,
            "kind": self.kind,
            "user": self.author.get_username(),
            "key": self.key,
        }

    def end(self) -> None:
        """Record that the task has ended."""
        Job.objects.filter(pk=self.pk).update(ended_at=timezone.now())
