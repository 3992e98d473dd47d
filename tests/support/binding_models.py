"""Models with every kind of key, relation and column, which are there for a module's tests alone."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from django.apps import apps
from django.contrib.auth.models import Group as UserGroup
from django.contrib.auth.models import User
from django.contrib.contenttypes.fields import GenericForeignKey, GenericRelation
from django.contrib.contenttypes.models import ContentType
from django.db import connection, models
from django.db.models.functions import Now, Upper
from django.utils import timezone


class Lower(models.CharField):  # type: ignore[type-arg]  # Django's takes none at run time
    """Keeps something else than what is assigned."""

    def get_prep_value(self, value: Any) -> Any:
        return None if value is None else str(value).lower()


class NamedManager(models.Manager):  # type: ignore[type-arg]
    def get_by_natural_key(self, name: str) -> Any:
        return self.get(name=name)


class State(models.TextChoices):
    OPEN = "open"
    SHUT = "shut"


def _define() -> SimpleNamespace:
    class Labelled:
        app_label = "app"

    class Base(models.Model):
        name = models.CharField(max_length=40)
        secret = models.CharField(max_length=40, default="kept")

        Meta = Labelled

    class Extra(models.Model):
        extra_id = models.AutoField(primary_key=True)
        remark = models.CharField(max_length=40, default="")

        Meta = Labelled

    class Card(Base, Extra):
        owner = models.ForeignKey(User, models.CASCADE, null=True)
        friends = models.ManyToManyField(User, related_name="cards")
        note = models.CharField(max_length=40, default="")
        internal = models.CharField(max_length=40, default="kept", editable=False)

        Meta = Labelled

    class Special(Card):
        level = models.IntegerField(default=0)

        Meta = Labelled

    class Profile(models.Model):
        user = models.OneToOneField(User, models.CASCADE, primary_key=True)
        bio = models.CharField(max_length=40, default="")

        Meta = Labelled

    class Seat(models.Model):
        pk = models.CompositePrimaryKey("row", "number")
        row = models.IntegerField()
        number = models.IntegerField()
        label = models.CharField(max_length=40, default="")

        Meta = Labelled

    class Tag(models.Model):
        text = models.CharField(max_length=40, default="")
        kind = models.ForeignKey(ContentType, models.CASCADE, null=True)
        key = models.IntegerField(null=True)
        target = GenericForeignKey("kind", "key")

        Meta = Labelled

    class Tagged(models.Model):
        name = models.CharField(max_length=40)
        tags = GenericRelation(Tag, content_type_field="kind", object_id_field="key")

        Meta = Labelled

    class Page(models.Model):
        slug = models.CharField(max_length=40, primary_key=True)
        title = models.CharField(max_length=40)
        text = models.CharField(max_length=40, default="")

        Meta = Labelled

        def save(self, *args: Any, **kwargs: Any) -> None:
            self.slug = self.title.lower()
            super().save(*args, **kwargs)

    class Named(models.Model):
        name = models.CharField(max_length=40)
        text = models.CharField(max_length=40, default="")
        objects = NamedManager()

        Meta = Labelled

        def natural_key(self) -> tuple[str]:
            return (self.name,)

    class Columns(models.Model):
        owner = models.ForeignKey(User, models.CASCADE, null=True)
        count = models.IntegerField(default=0)
        text = models.CharField(max_length=40, default="")
        price = models.DecimalField(max_digits=8, decimal_places=2, default=0)
        day = models.DateField(default=datetime.date(2026, 1, 1))
        at = models.DateTimeField(default=timezone.now)
        clock = models.TimeField(default=datetime.time(12))
        length = models.DurationField(default=datetime.timedelta)
        ratio = models.FloatField(default=0.0)
        yes = models.BooleanField(default=False)
        state = models.CharField(max_length=8, choices=State, default=State.OPEN)
        data = models.JSONField(default=dict)
        mark = models.UUIDField(null=True)
        blob = models.BinaryField(default=b"")
        file = models.FileField(default="", upload_to="things")
        address = models.GenericIPAddressField(null=True)
        changed = models.DateTimeField(auto_now=True)

        class Meta(Labelled):
            abstract = True

    class Plain(Columns):
        """One without anything that only the database knows."""

        class Meta(Labelled):
            pass

    class Thing(Columns):
        key = models.UUIDField(primary_key=True, default=uuid.uuid4)
        lower = Lower(max_length=40, default="")
        made = models.DateTimeField(db_default=Now())
        size = models.IntegerField(db_default=7)
        loud = models.GeneratedField(
            expression=Upper("text"), output_field=models.CharField(max_length=40), db_persist=True
        )

        class Meta(Labelled):
            pass

    class Span(models.Model):
        length = models.DurationField(primary_key=True)

        Meta = Labelled

    class Bytes(models.Model):
        key = models.BinaryField(primary_key=True)

        Meta = Labelled

    return SimpleNamespace(**{name: value for name, value in locals().items() if name not in ("Labelled", "Columns")})


@contextmanager
def binding_models() -> Iterator[SimpleNamespace]:
    """Give the models, by name, with tables; afterwards they are forgotten."""
    before = set(apps.all_models["app"])
    defined = _define()
    models_ = list(vars(defined).values())
    with connection.schema_editor() as editor:
        for model in models_:
            editor.create_model(model)
    try:
        yield defined
    finally:
        with connection.schema_editor() as editor:
            for model in reversed(models_):
                editor.delete_model(model)
        for name in set(apps.all_models["app"]) - before:
            del apps.all_models["app"][name]
        apps.clear_cache()
        for related in (User, UserGroup, ContentType):
            options: Any = related._meta
            options._expire_cache()
