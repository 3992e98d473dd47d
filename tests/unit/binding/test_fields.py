"""Fields that clients may write, and that go out, however they are spelt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.db import transaction

from channelsq import route
from channelsq.asgi import ChannelLayerWrapper
from channelsq.binding.websockets import WebsocketBinding, WebsocketBindingWithMembers
from channelsq.test import WSClient, apply_routes
from tests.support.binding_models import binding_models
from tests.support.bindings import forgotten_afterwards

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def models(django_db_setup: None, django_db_blocker: Any) -> Iterator[SimpleNamespace]:
    with django_db_blocker.unblock(), binding_models() as made:
        yield made


@pytest.fixture(autouse=True)
def only_bindings_of_this_test(channel_layer: ChannelLayerWrapper) -> Iterator[None]:
    with forgotten_afterwards():
        yield


def bind(bound: Any, base: type[WebsocketBinding] = WebsocketBinding, **attributes: Any) -> Any:
    class TheBinding(base):  # type: ignore[misc,valid-type]
        model = bound
        stream = "things"

        @classmethod
        def group_names(cls, instance: Any) -> list[str]:
            return ["all"]

        def has_permission(self, user: Any, action: str, pk: Any) -> bool:
            return True

        locals().update(attributes)

    return TheBinding


def ask(binding: Any, action: str, pk: Any = None, /, **data: Any) -> None:
    """Have a client ask for something, in a transaction of its own."""
    text = json.dumps({"action": action, "pk": pk, "data": data})
    with apply_routes([route("websocket.receive", binding.consumer)]), transaction.atomic():
        WSClient().send_and_consume("websocket.receive", text=text)


def create(binding: Any, /, **data: Any) -> None:
    ask(binding, "create", **data)


def update(binding: Any, pk: Any, /, **data: Any) -> None:
    ask(binding, "update", pk, **data)


@pytest.fixture
def users() -> tuple[User, User]:
    return User.objects.create(username="ann"), User.objects.create(username="eve")


# -- relations by their column's name


@pytest.mark.parametrize("spelt", ["owner", "owner_id"])
@pytest.mark.parametrize("excluded", ["owner", "owner_id"])
@pytest.mark.parametrize("fields", [None, ["__all__"], "__all__", ["note", "owner"]], ids=str)
def test_what_is_excluded_is_not_written(models: Any, users: Any, spelt: str, excluded: str, fields: Any) -> None:
    binding = bind(models.Card, exclude=[excluded], fields=fields)
    card = models.Card.objects.create(name="card", owner=users[0])
    update(binding, card.pk, note="changed", **{spelt: users[1].pk})
    create(binding, note="new", **{spelt: users[1].pk})
    assert [(each.note, each.owner) for each in models.Card.objects.order_by("pk")] == [
        ("changed", users[0]), ("new", None),
    ]  # fmt: skip


@pytest.mark.parametrize("spelt", ["owner", "owner_id"])
@pytest.mark.parametrize("named", ["owner", "owner_id"])
def test_what_is_named_is_written(models: Any, users: Any, spelt: str, named: str) -> None:
    binding = bind(models.Card, fields=[named])
    card = models.Card.objects.create(name="card", owner=users[0])
    update(binding, card.pk, **{spelt: users[1].pk}, note="not named", name="neither", secret="nor")
    create(binding, **{spelt: users[1].pk}, note="not named")
    assert [(each.note, each.owner) for each in models.Card.objects.all()] == [("", users[1])] * 2


def test_an_exclude_that_is_no_list_names_one_field(models: Any, users: Any) -> None:
    binding = bind(models.Card, exclude="owner")
    create(binding, note="new", owner_id=users[1].pk)
    assert models.Card.objects.get().owner is None


def test_fields_of_parents(models: Any, users: Any) -> None:
    binding = bind(models.Special, exclude=["secret", "owner"])
    create(binding, name="made", remark="r", level=1, secret="stolen", owner_id=users[1].pk)
    special = models.Special.objects.get()
    assert (special.name, special.remark, special.level) == ("made", "r", 1)
    update(binding, special.pk, name="changed", secret="stolen", owner_id=users[1].pk)
    special = models.Special.objects.get()
    assert (special.name, special.secret, special.owner) == ("changed", "kept", None)


def test_many_to_many(models: Any, users: Any) -> None:
    card = models.Card.objects.create(name="card")
    update(bind(models.Card, exclude=["friends"]), card.pk, friends=[users[1].pk], note="changed")
    assert list(card.friends.all()) == []
    update(bind(models.Card, fields=["friends"]), card.pk, friends=[users[1].pk], note="not named")
    assert list(card.friends.all()) == [users[1]]
    card.refresh_from_db()
    assert card.note == "changed"


# -- keys


def keys_of_a_special(models: Any, other: Any) -> dict[str, Any]:
    return {
        "pk": other.pk, "id": other.id, "extra_id": other.extra_id, "base_ptr": other.base_ptr_id,
        "base_ptr_id": other.base_ptr_id, "extra_ptr": other.extra_ptr_id, "extra_ptr_id": other.extra_ptr_id,
        "card_ptr": other.card_ptr_id, "card_ptr_id": other.card_ptr_id,
    }  # fmt: skip


@pytest.mark.parametrize(
    "key",
    ["pk", "id", "extra_id", "base_ptr", "base_ptr_id", "extra_ptr", "extra_ptr_id", "card_ptr", "card_ptr_id"],
)
@pytest.mark.parametrize("named", [False, True], ids=["all", "named"])
def test_no_key_of_a_parent_is_written(models: Any, key: str, named: bool) -> None:
    theirs = models.Special.objects.create(name="theirs", remark="theirs", note="theirs")
    mine = models.Special.objects.create(name="mine")
    fields = [key, "name", "remark", "note"] if named else "__all__"
    binding = bind(models.Special, fields=fields)
    forged = {key: keys_of_a_special(models, theirs)[key]}
    update(binding, mine.pk, name="stolen", remark="stolen", note="stolen", **forged)
    create(binding, name="made", remark="made", note="made", **forged)
    for model in (models.Special, models.Card, models.Base):
        assert [each.name for each in model.objects.order_by("id")] == ["theirs", "stolen", "made"]
    assert [each.remark for each in models.Extra.objects.order_by("pk")] == ["theirs", "stolen", "made"]


@pytest.mark.parametrize("key", ["pk", "user", "user_id"])
@pytest.mark.parametrize("fields", ["__all__", ["user", "bio"], ["user_id", "bio"], ["pk", "bio"]], ids=str)
def test_a_one_to_one_key(models: Any, users: Any, key: str, fields: Any, caplog: Any) -> None:
    models.Profile.objects.create(user=users[0], bio="theirs")
    models.Profile.objects.create(user=users[1], bio="mine")
    binding = bind(models.Profile, fields=fields)
    update(binding, users[1].pk, bio="changed", **{key: users[0].pk})
    with caplog.at_level("INFO", "channelsq"):
        create(binding, bio="stolen", **{key: users[0].pk})
    assert caplog.messages[-1].endswith("IntegrityError")
    assert sorted(models.Profile.objects.values_list("bio", flat=True)) == ["changed", "theirs"]


@pytest.mark.parametrize("key", [{"pk": [1, 1]}, {"row": 1, "number": 1}, {"number": 1}], ids=str)
def test_members_of_a_composite_key(models: Any, key: dict[str, Any], caplog: Any) -> None:
    models.Seat.objects.create(row=1, number=1, label="theirs")
    models.Seat.objects.create(row=1, number=2, label="mine")
    binding = bind(models.Seat, fields="__all__")
    update(binding, [1, 2], label="changed", **key)
    with caplog.at_level("INFO", "channelsq"):
        create(binding, label="stolen", **key)
    assert caplog.messages[-1].endswith("IntegrityError")
    assert sorted(models.Seat.objects.values_list("label", flat=True)) == ["changed", "theirs"]


def test_a_key_that_is_made_of_the_data(models: Any, caplog: Any) -> None:
    """By the model's own ``save()``, which finds another's row there."""
    models.Page.objects.create(title="Tea", text="theirs")
    with caplog.at_level("INFO", "channelsq"):
        create(bind(models.Page, fields=["title", "text"]), title="Tea", text="stolen")
    assert caplog.messages[-1].endswith("IntegrityError")
    assert models.Page.objects.get().text == "theirs"


@pytest.mark.parametrize("there", [1, 2], ids=["one", "several"])
def test_a_natural_key(models: Any, there: int, caplog: Any) -> None:
    for _ in range(there):
        models.Named.objects.create(name="tea", text="theirs")
    with caplog.at_level("INFO", "channelsq"):
        create(bind(models.Named, fields=["name", "text"]), name="tea", text="mine")
    texts = list(models.Named.objects.order_by("pk").values_list("text", flat=True))
    if there == 1:
        assert texts == ["theirs", "mine"]
    else:  # of which Django cannot choose one
        assert texts == ["theirs", "theirs"]
        assert caplog.messages[-1].endswith("MultipleObjectsReturned")


# -- what is no column


@pytest.mark.parametrize("excluded", ["target", "kind", "kind_id"])
def test_parts_of_a_generic_relation(models: Any, users: Any, excluded: str) -> None:
    kind = ContentType.objects.get_for_model(User)
    binding = bind(models.Tag, exclude=[excluded, "key"])
    create(binding, text="made", kind=kind.pk, kind_id=kind.pk, key=users[0].pk)
    tag = models.Tag.objects.get()
    assert (tag.text, tag.kind, tag.key) == ("made", None, None)
    binding = bind(models.Tag, exclude=["target"])
    update(binding, tag.pk, text="changed", kind=kind.pk, kind_id=kind.pk, key=users[0].pk, target=1)
    tag.refresh_from_db()
    assert (tag.text, tag.kind, tag.key) == ("changed", None, None)


@pytest.mark.parametrize(
    ("model", "name", "value"),
    [("Tag", "target", 1), ("Tagged", "tags", [1]), ("Base", "card", 1), ("Tag", "nothing", 1)],
)
def test_relations_that_are_kept_elsewhere_are_bad_data(
    models: Any, model: str, name: str, value: Any, caplog: Any
) -> None:
    bound = getattr(models, model)
    tag = models.Tag.objects.create(text="theirs")
    with caplog.at_level("INFO", "channelsq"):
        create(bind(bound, fields="__all__"), **{name: value})
    (line,) = [record for record in caplog.records if record.name == "channelsq.binding"]
    assert line.getMessage().endswith("FieldDoesNotExist")
    assert list(models.Tag.objects.all()) == [tag]
    create(bind(bound, exclude=[name]), **{name: value})  # what nobody may write is left out
    assert bound.objects.count() == (2 if bound is models.Tag else 1)


@pytest.mark.parametrize(("fields", "kept"), [("__all__", "kept"), (["internal"], "written")], ids=str)
def test_what_is_not_editable_must_be_named(models: Any, fields: Any, kept: str) -> None:
    card = models.Card.objects.create(name="card")
    update(bind(models.Card, fields=fields), card.pk, internal="written")
    card.refresh_from_db()
    assert card.internal == kept


def test_what_the_database_computes_may_come_back(models: Any) -> None:
    binding = bind(models.Thing, fields="__all__")
    create(binding, text="made", loud="LIE", length="01:00:00", day="2026-01-02")
    thing = models.Thing.objects.get()
    assert (thing.text, thing.loud) == ("made", "MADE")
    client = WSClient()
    client.join_group("all")
    thing.save()
    data = client.receive()["payload"]["data"]  # all of it, as a page would send it back
    update(binding, str(thing.pk), **{**data, "text": "changed"})
    thing.refresh_from_db()
    assert (thing.text, thing.loud) == ("changed", "CHANGED")


# -- outbound


@pytest.mark.parametrize("base", [WebsocketBinding, WebsocketBindingWithMembers])
@pytest.mark.parametrize(
    ("attributes", "there"),
    [
        ({"exclude": ["owner"]}, "friends internal note"),
        ({"exclude": ["owner_id"]}, "friends internal note"),
        ({"exclude": "owner_id"}, "friends internal note"),
        ({"exclude": ["owner"], "fields": "__all__"}, "friends internal note"),
        ({"exclude": ["owner"], "fields": ["owner", "note"]}, "note"),
        ({"exclude": ["friends", "note"]}, "internal owner"),
        ({"fields": ["owner"]}, "owner"),
        ({"fields": ["owner_id"]}, "owner"),
        ({"fields": []}, ""),
    ],
    ids=str,
)
def test_what_goes_out(models: Any, users: Any, base: Any, attributes: Any, there: str) -> None:
    bind(models.Card, base=base, **attributes)
    client = WSClient()
    client.join_group("all")
    models.Card.objects.create(name="card", owner=users[0])
    data = client.receive()["payload"]["data"]
    assert sorted(name for name in data if name not in ("base_ptr", "extra_ptr")) == there.split()


def test_parts_of_an_excluded_relation_do_not_go_out(models: Any) -> None:
    bind(models.Tag, exclude=["target"])
    client = WSClient()
    client.join_group("all")
    models.Tag.objects.create(text="made", key=7)
    assert client.receive()["payload"]["data"] == {"text": "made"}
