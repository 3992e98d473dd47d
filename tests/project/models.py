"""A model for data binding."""

from django.db import models


class Note(models.Model):
    """A line of text on a board."""

    board = models.CharField(max_length=20)
    text = models.CharField(max_length=100)
