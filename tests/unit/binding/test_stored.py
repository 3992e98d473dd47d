"""Bindings tell what the database has, not what was assigned, and ``save()`` is as without them."""

from __future__ import annotations

import datetime
import decimal
import json
import uuid
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import User
from django.core import serializers
from django.core.files.base import ContentFile
from django.db import connection, transaction
from django.db.models import F, Value
from django.db.models.functions import Now, Upper
from django.db.models.signals import post_save
from django.test.utils import CaptureQueriesContext

from channelsq.asgi import ChannelLayerWrapper
from channelsq.binding.websockets import WebsocketBinding, WebsocketBindingWithMembers
from channelsq.test import WSClient
from tests.support.binding_models import State, binding_models
from tests.support.bindings import forgotten_afterwards

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def models(django_db_setup: None, django_db_blocker: Any) -> Iterator[SimpleNamespace]:
    with django_db_blocker.unblock(), binding_models() as made:
        yield made


@pytest.fixture(autouse=True)
def only_bindings_of_this_test(channel_layer: ChannelLayerWrapper, settings: Any, tmp_path: Any) -> Iterator[None]:
    settings.MEDIA_ROOT = tmp_path
    with forgotten_afterwards():
        yield


def bind(bound: Any, base: type[WebsocketBinding] = WebsocketBinding, **attributes: Any) -> Any:
    if "exclude" not in attributes:
        attributes.setdefault("fields", "__all__")

    class TheBinding(base):  # type: ignore[misc,valid-type]
        model = bound
        stream = "things"

        @classmethod
        def group_names(cls, instance: Any) -> list[str]:
            return ["all"]

        locals().update(attributes)

    return TheBinding


@pytest.fixture
def client() -> WSClient:
    client = WSClient()
    client.join_group("all")
    return client


def told(client: WSClient) -> list[tuple[str, Any, Any]]:
    """The messages that a client got: actions, primary keys, and data."""
    payloads = [each["payload"] for each in iter(client.receive, None)]
    return [(each["action"], each["pk"], each["data"]) for each in payloads]


def row(model: Any, pk: Any) -> tuple[Any, Any]:
    """Primary key and data of what the database has."""
    (found,) = json.loads(serializers.serialize("json", [model._base_manager.get(pk=pk)]))
    return found["pk"], found["fields"]


UTC = datetime.UTC
SUMMER = datetime.datetime(2026, 7, 1, 12, 30, 15, 123456, tzinfo=ZoneInfo("Europe/Berlin"))

#: Values that an application may assign, by field.
ASSIGNED: list[tuple[str, Any]] = [
    ("count", "5"), ("count", True), ("count", 2.0), ("count", Value(3)),
    ("text", 7), ("text", Value("v")), ("text", State.SHUT), ("text", Upper(Value("v"))),
    ("lower", "LOUD"),
    ("price", "1.5"), ("price", 1), ("price", 2.5), ("price", decimal.Decimal("1.5")), ("price", "1.005"),
    ("price", decimal.Decimal("1E+2")), ("price", decimal.Decimal("-0")),
    ("day", "2026-01-02"), ("day", SUMMER), ("day", Now()),
    ("at", "2026-01-02T03:04:05Z"), ("at", "2026-01-02T03:04:05+05:00"), ("at", SUMMER), ("at", Now()),
    ("at", datetime.datetime(2026, 1, 2, tzinfo=UTC)),
    ("clock", "12:30"), ("clock", datetime.time(1, 2, 3, 4)),
    ("length", datetime.timedelta(days=1, microseconds=5)),
    ("ratio", "0.1"), ("ratio", 1), ("ratio", decimal.Decimal("0.5")),
    ("yes", "True"), ("yes", 1), ("yes", Value(True)),
    ("state", State.SHUT), ("state", "shut"),
    ("data", {1: "a", "b": (1, 2)}), ("data", [1.5, None, {"a": True}]), ("data", {"a": "\ud800"}),
    ("mark", "12345678123456781234567812345678"), ("mark", uuid.UUID(int=5)),
    ("blob", b"\x00\xff"), ("blob", memoryview(b"ab")), ("blob", bytearray(b"ab")),
    ("file", "given.txt"), ("file", ContentFile(b"x", name="up.txt")),
    ("address", "10.0.0.1"), ("address", "2001:0db8::0001"),
    ("size", F("count") + 1), ("size", 3),
    ("key", str(uuid.UUID(int=9))), ("owner_id", "OWNER"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("model", "name", "value"),
    [
        (model, name, value)
        for model in ("Thing", "Plain")
        for name, value in ASSIGNED
        if model == "Thing" or name not in ("lower", "size", "key")
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_the_payload_is_the_row(models: Any, client: WSClient, model: str, name: str, value: Any) -> None:
    """On create and on update; and the instance is left as it is without a binding."""
    bound = getattr(models, model)
    if value == "OWNER":
        value = str(User.objects.create(username="ann").pk)
    first = 4 if name == "size" and hasattr(value, "resolve_expression") else value  # nothing to count from yet

    def save_twice() -> Iterator[Any]:
        """Give the object after each save, and what its values became of."""
        made = bound(**{name: first})
        made.save()
        yield made, {key: type(each) for key, each in vars(made).items()}
        if name == "key":
            return
        setattr(made, name, value)
        before = dict(vars(made))
        made.save()
        yield made, {key for key, each in vars(made).items() if each is not before[key]}

    unbound = [changes for _, changes in save_twice()]
    bound.objects.all().delete()
    bind(bound)
    for (made, changes), action, expected in zip(save_twice(), ("create", "update"), unbound, strict=False):
        assert changes == expected
        assert told(client) == [(action, *row(bound, made.pk))]


def test_a_counter_that_counts_in_the_database(models: Any, client: WSClient) -> None:
    bind(models.Plain, fields=["count"])
    thing = models.Plain.objects.create(count=4)
    told(client)
    for _ in range(2):
        thing.count = F("count") + 1
        thing.save()
    assert [data for _, _, data in told(client)] == [{"count": 5}, {"count": 6}]


def test_groups_are_of_what_is_stored(models: Any) -> None:
    seen: list[Any] = []

    def group_names(cls: Any, instance: Any) -> list[str]:
        seen.append((instance.count, instance.state, instance.day, instance.mark))
        return [f"count-{instance.count}"]

    bind(models.Thing, group_names=classmethod(group_names))
    thing = models.Thing.objects.create(count="1", state=State.OPEN, day="2026-01-02")
    four, five = WSClient(), WSClient()
    four.join_group("count-1")
    five.join_group("count-2")
    thing.mark = 4
    thing.count = F("count") + 1
    thing.save()
    assert [action for action, _, _ in told(four)] == ["delete"]
    assert [action for action, _, _ in told(five)] == ["create"]
    day = datetime.date(2026, 1, 2)
    assert seen == [(1, "open", day, None), (1, "open", day, None), (2, "open", day, uuid.UUID(int=4))]


@pytest.mark.parametrize("model", ["Thing", "Plain"])
def test_what_was_not_saved_is_not_told(models: Any, client: WSClient, model: str) -> None:
    bound = getattr(models, model)
    bind(bound)
    thing = bound.objects.create(count=1, text="kept")
    told(client)
    thing.text, thing.count, thing.day = "not saved", F("count") + 1, "no day"
    thing.save(update_fields=["count"])
    assert told(client) == [("update", *row(bound, thing.pk))]
    assert row(bound, thing.pk)[1]["text"] == "kept"
    assert (thing.text, thing.day) == ("not saved", "no day")


@pytest.mark.parametrize("model", ["Thing", "Plain"])
def test_deferred_fields_stay_deferred(models: Any, client: WSClient, model: str) -> None:
    bound = getattr(models, model)
    pk = bound.objects.create(text="kept", count=1).pk
    bind(bound)
    thing = bound.objects.only("count").get(pk=pk)
    deferred = thing.get_deferred_fields()
    thing.count = 2
    thing.save()
    assert thing.get_deferred_fields() == deferred
    assert told(client) == [("update", *row(bound, pk))]
    expected = row(bound, pk)
    bound.objects.only("count").get(pk=pk).delete()
    assert told(client) == [("delete", *expected)]


@pytest.mark.parametrize("many", [False, True], ids=["one", "queryset"])
def test_a_delete_tells_what_was_there(models: Any, client: WSClient, many: bool) -> None:
    bind(models.Plain)
    thing = models.Plain.objects.create(text="kept")
    expected = row(models.Plain, thing.pk)
    told(client)
    if many:
        models.Plain.objects.only("count").delete()
    else:
        thing.text, thing.count, thing.day = "not saved", F("count") + 1, "no day"
        thing.delete()
        assert (thing.text, thing.day, thing.pk) == ("not saved", "no day", None)
    assert told(client) == [("delete", *expected)]


def test_changes_told_by_hand(models: Any, client: WSClient) -> None:
    binding = bind(models.Plain)
    thing = models.Plain(text="first", day="2026-01-02")
    models.Plain.objects.bulk_create([thing])
    binding.pre_change_receiver(thing, "create")
    binding.post_change_receiver(thing, "create")
    assert told(client) == [("create", *row(models.Plain, thing.pk))]
    binding.pre_change_receiver(thing, "update")
    models.Plain.objects.update(count=F("count") + 1)
    binding.post_change_receiver(thing, "update")
    assert told(client) == [("update", *row(models.Plain, thing.pk))]
    assert thing.count == 0
    thing.text = "second"
    binding.pre_change_receiver(thing, "update")
    models.Plain.objects.bulk_update([thing], ["text"])
    binding.post_change_receiver(thing, "update")
    assert told(client) == [("update", *row(models.Plain, thing.pk))]


def test_members_are_of_what_is_stored(models: Any, client: WSClient) -> None:
    bind(models.Plain, base=WebsocketBindingWithMembers, fields=["count"], send_members=["count", "day.year", "pk"])
    thing = models.Plain.objects.create(day="2026-01-02")
    told(client)
    thing.count = F("count") + 1
    thing.save()
    assert told(client) == [("update", thing.pk, {"count": 1, "day__year": 2026, "pk": thing.pk})]


@pytest.mark.parametrize(
    ("model", "values", "pk"),
    [
        ("Span", {"length": datetime.timedelta(days=1)}, "P1DT00H00M00S"),
        ("Bytes", {"key": b"\x00\xff"}, "AP8="),
        ("Seat", {"row": "1", "number": 2}, [1, 2]),
        ("Thing", {"key": str(uuid.UUID(int=1))}, str(uuid.UUID(int=1))),
    ],
)
def test_keys_of_every_kind(models: Any, client: WSClient, model: str, values: dict[str, Any], pk: Any) -> None:
    bound = getattr(models, model)
    bind(bound)
    bound.objects.create(**values)
    thing = bound.objects.get()
    thing.save()
    thing.delete()
    assert [(action, key) for action, key, _ in told(client)] == [("create", pk), ("update", pk), ("delete", pk)]


def test_parents_are_read_too(models: Any, client: WSClient) -> None:
    bind(models.Special)
    special = models.Special.objects.create(name=7, level="1", remark=Value("r"))
    special.level = F("level") + 1
    special.save()
    assert [data["level"] for _, _, data in told(client)] == [1, 2]


def test_what_another_receiver_deletes_is_in_no_group(models: Any, client: WSClient) -> None:
    def undo(instance: Any, **kwargs: Any) -> None:
        models.Plain.objects.filter(pk=instance.pk)._raw_delete("default")

    thing = models.Plain.objects.create()
    post_save.connect(undo, sender=models.Plain)
    try:
        bind(models.Plain, fields=["count"])
        thing.count = F("count") + 1
        thing.save(update_fields=["count"])
    finally:
        post_save.disconnect(undo, sender=models.Plain)
    assert [(action, data) for action, _, data in told(client)] == [("delete", {"count": 0})]


def test_attributes_that_are_no_fields_are_there(models: Any, client: WSClient) -> None:
    bind(models.Plain, fields=["count"], group_names=classmethod(lambda cls, instance: [instance.where]))
    thing = models.Plain(day="2026-01-02", count="1")
    thing.where = "all"
    thing.save()
    thing.count = F("count") + 1
    thing.save()
    assert [data for _, _, data in told(client)] == [{"count": 1}, {"count": 2}]


@pytest.mark.parametrize(
    ("change", "more"),
    [
        (lambda thing: None, 1),
        (lambda thing: setattr(thing, "at", SUMMER), 1),
        (lambda thing: setattr(thing, "count", "5"), 1),
        (lambda thing: setattr(thing, "price", decimal.Decimal("1.5")), 1),
        (lambda thing: setattr(thing, "price", "1.005"), 2),
    ],
    ids=["nothing", "aware", "str", "decimal", "rounded"],
)
def test_the_row_is_read_only_where_need_be(models: Any, change: Callable[[Any], None], more: int) -> None:
    thing = models.Plain.objects.create()
    change(thing)
    with CaptureQueriesContext(connection) as without:
        thing.save()
    bind(models.Plain)
    with CaptureQueriesContext(connection) as bound:
        thing.save()
    assert len(bound) == len(without) + more


def test_a_faulty_serialize_data_raises_as_ever(models: Any, client: WSClient) -> None:
    def serialize_data(self: Any, instance: Any) -> Any:
        raise LookupError("the application's")

    bind(models.Plain, serialize_data=serialize_data)
    with pytest.raises(LookupError, match="the application's"), transaction.atomic():
        models.Plain.objects.create()
    assert not models.Plain.objects.exists()


def test_times_of_a_database_with_a_zone_of_its_own(models: Any, client: WSClient, monkeypatch: Any) -> None:
    monkeypatch.setitem(connection.settings_dict, "TIME_ZONE", "Europe/Berlin")
    for cached in ("timezone", "timezone_name"):
        vars(connection).pop(cached, None)
    try:
        bind(models.Plain)
        thing = models.Plain.objects.create(at=SUMMER)
        assert told(client) == [("create", *row(models.Plain, thing.pk))]
    finally:
        for cached in ("timezone", "timezone_name"):
            vars(connection).pop(cached, None)
