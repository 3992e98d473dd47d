"""Boards of columns of cards; their members; their activity."""

from django.conf import settings
from django.contrib.auth.models import AbstractUser
from django.db import models
from django.urls import reverse


class Person(AbstractUser):
    """The project's user model."""


class Board(models.Model):
    name = models.CharField(max_length=80)
    slug = models.SlugField(unique=True)
    members = models.ManyToManyField(settings.AUTH_USER_MODEL, related_name="boards", blank=True)

    class Meta:
        ordering = ["name"]

    def __str__(self):
        return self.name

    def get_absolute_url(self):
        return reverse("board", args=[self.slug])

    def may_be_changed_by(self, user):
        return user is not None and user.is_authenticated and self.members.filter(pk=user.pk).exists()

    @property
    def group_name(self):
        """Return the name of the group of all users with this board open."""
        return f"board-{self.slug}"


class Column(models.Model):
    board = models.ForeignKey(Board, on_delete=models.CASCADE, related_name="columns")
    title = models.CharField(max_length=40)
    position = models.FloatField(default=0)

    class Meta:
        ordering = ["position", "pk"]

    def __str__(self):
        return f"{self.board}: {self.title}"


class Card(models.Model):
    column = models.ForeignKey(Column, on_delete=models.CASCADE, related_name="cards")
    title = models.CharField(max_length=120)
    text = models.TextField(blank=True)
    position = models.FloatField(default=0)

    class Meta:
        ordering = ["position", "pk"]

    def __str__(self):
        return self.title


class Comment(models.Model):
    card = models.ForeignKey(Card, on_delete=models.CASCADE, related_name="comments")
    author = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    text = models.CharField(max_length=500)

    class Meta:
        ordering = ["pk"]

    def __str__(self):
        return self.text


class Activity(models.Model):
    board = models.ForeignKey(Board, on_delete=models.CASCADE, related_name="activities")
    text = models.CharField(max_length=200)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-pk"]
        verbose_name_plural = "activities"

    def __str__(self):
        return self.text
