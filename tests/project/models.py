"""A model for data binding."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class Note(models.Model):
    """A line of text on a board."""

    objects: ClassVar[models.Manager[Note]] = models.Manager()

    board = models.CharField(max_length=20)
    text = models.CharField(max_length=100)
