"""Data binding, as Channels 1.1 documents it, and told only of what is committed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group as UserGroup
from django.contrib.auth.models import User
from django.core import serializers
from django.core.management import call_command
from django.db import IntegrityError, connection, connections, transaction
from django.db.models.signals import post_save
from django.test import TestCase
from django.test.utils import CaptureQueriesContext
from django.utils.functional import cached_property

from app.models import Message, Room
from channelsq import exceptions, route
from channelsq.asgi import ChannelLayerWrapper
from channelsq.binding.base import CREATE, DELETE, UPDATE, Binding
from channelsq.binding.websockets import (
    WebsocketBinding,
    WebsocketBindingDemultiplexer,
    WebsocketBindingWithMembers,
)
from channelsq.exceptions import MessageTooLarge
from channelsq.generic.websockets import WebsocketDemultiplexer
from channelsq.test import ChannelTestCase, Client, TransactionChannelTestCase, WSClient, apply_routes
from tests.support.bindings import forgotten_afterwards
from tests.support.logs import action_of, connection_of


@pytest.fixture(autouse=True)
def only_bindings_of_this_test(channel_layer: ChannelLayerWrapper) -> Iterator[None]:
    with forgotten_afterwards():
        yield


def bind(bound: Any = User, base: type[Binding] = WebsocketBinding, **attributes: Any) -> Any:
    """A binding of users whose group is their last name."""

    if "exclude" not in attributes:
        attributes.setdefault("fields", ["username", "last_name"])

    class TheBinding(base):  # type: ignore[misc,valid-type]
        model = bound
        stream = "users"

        @classmethod
        def group_names(cls, instance: Any) -> list[str]:
            return [getattr(instance, "last_name", "all") or "all"]

        def has_permission(self, user: Any, action: str, pk: Any) -> bool:
            return True

        locals().update(attributes)

    return TheBinding


def member(*groups: str) -> WSClient:
    client = WSClient()
    for group in groups or ("all",):
        client.join_group(group)
    return client


def all_of(client: WSClient) -> list[Any]:
    """Return the messages to a client."""
    return list(iter(client.receive, None))


def actions(client: WSClient) -> list[tuple[str, Any]]:
    """Return the actions and user names in the messages to a client."""
    return [(received["payload"]["action"], received["payload"]["data"].get("username")) for received in all_of(client)]


# -- outbound


@pytest.mark.django_db
def test_create_goes_out() -> None:
    bind(fields=["username", "email", "password", "last_name"])
    client = member()
    user = User.objects.create(username="test", email="test@test.com")
    assert client.receive() == {
        "stream": "users",
        "payload": {
            "action": "create",
            "pk": user.pk,
            "model": "auth.user",
            "data": {"username": "test", "email": "test@test.com", "password": "", "last_name": ""},
        },
    }
    assert client.receive() is None


@pytest.mark.django_db
def test_update_goes_out() -> None:
    bind()
    user = User.objects.create(username="test")
    client = member()
    user.username = "new"
    user.save()
    assert actions(client) == [("update", "new")]


@pytest.mark.django_db
def test_delete_goes_out() -> None:
    bind()
    user = User.objects.create(username="test")
    pk = user.pk
    client = member()
    user.delete()
    received = client.receive()
    assert received["payload"]["action"] == "delete"
    assert received["payload"]["pk"] == pk
    assert client.receive() is None


@pytest.mark.django_db
def test_an_object_that_moves_is_deleted_here_and_created_there() -> None:
    bind()
    user = User.objects.create(username="test", last_name="a")
    a, b, both = member("a"), member("b"), member("a", "b")
    user.last_name = "b"
    user.save()
    assert actions(a) == [("delete", "test")]
    assert actions(b) == [("create", "test")]
    assert actions(both) == [("delete", "test"), ("create", "test")]


@pytest.mark.django_db
def test_all_fields_and_excluded_ones() -> None:
    bind(fields=["__all__"])
    bind(exclude=["password", "user_permissions"])
    client = member()
    User.objects.create(username="test")
    everything, less = client.receive()["payload"]["data"], client.receive()["payload"]["data"]
    assert {"password", "email", "username", "groups"} <= set(everything)
    assert set(everything) - set(less) == {"password", "user_permissions"}
    assert bind(fields="__all__")().serialize_data(User.objects.get())["username"] == "test"


@pytest.mark.django_db
def test_a_serialize_that_says_nothing_sends_nothing() -> None:
    bind(serialize=lambda self, instance, action: {})
    client = member()
    User.objects.create(username="test")
    assert actions(client) == []


@pytest.mark.django_db
def test_serialize_knows_what_the_signal_brought() -> None:
    seen = []

    def serialize_data(self: Any, instance: Any) -> dict[str, Any]:
        seen.append((self.signal_kwargs["update_fields"], self.instance is instance))
        return {}

    bind(serialize_data=serialize_data)
    member()
    user = User.objects.create(username="test")
    user.save(update_fields=["username"])
    assert seen == [(None, True), (frozenset({"username"}), True)]


@pytest.mark.django_db
def test_members_that_are_no_fields() -> None:
    class Members(WebsocketBindingWithMembers):
        model = Room
        stream = "rooms"
        fields = ["slug"]
        send_members = ["group.name", "__str__", "pk"]

        @classmethod
        def group_names(cls, instance: Any) -> list[str]:
            return ["all"]

    client = member()
    room = Room.objects.create(slug="tea", name="Tea")
    data = client.receive()["payload"]["data"]
    assert data == {"slug": "tea", "group__name": room.group.name, "__str__": str(room), "pk": room.pk}


@pytest.mark.django_db
def test_a_model_that_is_named() -> None:
    binding = bind("auth.Group", fields=["name"])
    assert binding.model is UserGroup
    assert binding.model_label == "auth.group"
    client = member()
    UserGroup.objects.create(name="editors")
    assert client.receive()["payload"]["model"] == "auth.group"


def test_a_binding_without_model_or_fields_is_refused() -> None:
    with pytest.raises(ValueError, match="neither fields nor exclude"):
        bind(fields=None)

    class Abstract(WebsocketBinding):
        model = None

    assert Abstract.get_registered_models() == []
    with pytest.raises(ValueError, match="has no model"):

        class Forgotten(Abstract):
            fields = ["name"]


@pytest.mark.django_db
def test_a_binding_without_a_stream_is_refused() -> None:
    bind(stream=None)
    with pytest.raises(ValueError, match="has no stream"):
        User.objects.create(username="test")


@pytest.mark.django_db
def test_several_bindings_on_one_model() -> None:
    bind(stream="names", fields=["username"])
    bind(stream="mails", fields=["email"])
    client = member()
    user = User.objects.create(username="test", email="test@test.com")
    user.delete()
    told = [
        (received["stream"], received["payload"]["action"], received["payload"]["data"]) for received in all_of(client)
    ]
    names, mails = {"username": "test"}, {"email": "test@test.com"}
    assert told == [
        ("names", "create", names),
        ("mails", "create", mails),
        ("names", "delete", names),
        ("mails", "delete", mails),
    ]


@pytest.mark.django_db
def test_a_binding_that_inherits_from_another_listens_as_well() -> None:
    base = bind()
    bind(base=base, stream="derived", fields=["email"])
    client = member()
    User.objects.create(username="test")
    assert [received["stream"] for received in all_of(client)] == ["users", "derived"]


@pytest.mark.django_db
def test_a_proxy_of_the_model_has_a_binding_of_its_own() -> None:
    class Editor(User):
        class Meta:
            proxy = True
            app_label = "auth"

    try:
        bind()
        bind(Editor, stream="editors")
        client = member()
        Editor.objects.create(username="proxy")
        User.objects.create(username="plain")
        told = [(received["stream"], received["payload"]["model"]) for received in all_of(client)]
        assert told == [("editors", "auth.editor"), ("users", "auth.user")]
    finally:
        del apps.all_models["auth"]["editor"]
        apps.clear_cache()


@pytest.mark.django_db
def test_an_object_that_is_made_with_the_key_of_another_is_an_update() -> None:
    bind()
    client = member()
    pk = User.objects.create(username="test", last_name="a").pk
    User(pk=pk, username="again").save()
    User(pk=pk + 1, username="other").save()
    assert actions(client) == [("create", "again"), ("create", "other")]
    assert actions(member("a")) == []
    mover = member("a", "all")
    User(pk=pk, username="back", last_name="a").save()
    assert actions(mover) == [("delete", "back"), ("create", "back")]
    User(pk=pk, username="same", last_name="a").save()
    assert actions(mover) == [("update", "same")]


@pytest.mark.django_db
def test_a_move_that_was_not_saved_is_none() -> None:
    bind()
    user = User.objects.create(username="test", last_name="a")
    client = member("a", "b")
    user.username, user.last_name = "new", "b"
    user.save(update_fields=["username"])
    assert actions(client) == [("update", "new")]
    user.save(update_fields=["last_name"])
    assert actions(client) == [("delete", "new"), ("create", "new")]


@pytest.mark.django_db
def test_group_names_may_use_what_is_no_field() -> None:
    bind(group_names=classmethod(lambda cls, instance: [f"{instance.last_name}-{instance.suffix}"]))
    user: Any = User(username="test", last_name="a")
    user.suffix = "x"
    user.save()
    client = member("a-x", "b-x")
    user.last_name = "b"
    user.save()
    assert actions(client) == [("delete", "test"), ("create", "test")]


@pytest.mark.django_db
def test_group_names_may_use_what_is_computed_once() -> None:
    class Titled(User):
        @cached_property
        def title(self) -> str:
            return f"title-{self.last_name}"

        class Meta:
            proxy = True
            app_label = "auth"

    try:
        bind(Titled, group_names=classmethod(lambda cls, instance: [instance.title]))
        user = Titled.objects.create(username="test", last_name="a")
        client = member("title-a", "title-b")
        del user.title
        user.last_name = "b"
        assert user.title == "title-b"
        user.save()
        assert actions(client) == [("delete", "test"), ("create", "test")]
    finally:
        del apps.all_models["auth"]["titled"]
        apps.clear_cache()


@pytest.mark.django_db
def test_a_save_costs_one_query_more() -> None:
    room = Room.objects.create(slug="tea", name="Tea")
    message = Message.objects.create(room=room, author=User.objects.create(username="a"), text="x")
    message = Message.objects.select_related("room").get(pk=message.pk)
    with CaptureQueriesContext(connection) as without:
        message.save()
    bind(Message, fields=["text"], group_names=classmethod(lambda cls, instance: [instance.room.slug]))
    client = member("tea")
    with CaptureQueriesContext(connection) as bound:
        message.save()
    assert len(bound) == len(without) + 1
    assert [told["payload"]["action"] for told in all_of(client)] == ["update"]


@pytest.mark.django_db
def test_an_object_is_deleted_where_the_database_has_it() -> None:
    bind()
    stale = User.objects.create(username="test", last_name="a")
    User.objects.update(last_name="b")
    here, there = member("a"), member("b")
    stale.delete()
    assert actions(here) == []
    assert actions(there) == [("delete", "test")]


@pytest.mark.django_db
def test_many_objects_are_deleted_without_a_query_each() -> None:
    User.objects.bulk_create(User(username=str(number)) for number in range(10))
    with CaptureQueriesContext(connection) as without:
        User.objects.all().delete()
    bind()
    User.objects.bulk_create(User(username=str(number)) for number in range(10))
    client = member()
    with CaptureQueriesContext(connection) as bound:
        User.objects.all().delete()
    assert len(actions(client)) == 10
    assert len(bound) <= len(without) + 1


@pytest.mark.django_db
def test_a_copy_that_loses_its_key_is_a_new_object() -> None:
    bind()
    user = User.objects.create(username="test")
    client = member()
    user.pk, user.username = None, "copy"
    user.save()
    assert actions(client) == [("create", "copy")]


@pytest.mark.django_db
def test_a_save_within_a_save() -> None:
    """Whichever receiver is first, groups are what they were at each save."""

    def move_on(instance: Any, **kwargs: Any) -> None:
        if instance.last_name == "b":
            instance.last_name = "c"
            instance.save()

    user = User.objects.create(username="test", last_name="a")
    post_save.connect(move_on, sender=User)
    try:
        bind()
        client = member("a", "b", "c")
        user.last_name = "b"
        user.save()
    finally:
        post_save.disconnect(move_on, sender=User)
    # The inner save ends first: it left "b" for "c"; then the outer: it had left "a" for what is "c" by now.
    assert actions(client) == [("delete", "test"), ("create", "test"), ("delete", "test"), ("create", "test")]


@pytest.mark.django_db
def test_a_save_after_one_that_failed() -> None:
    bind()
    User.objects.create(username="taken")
    user = User.objects.create(username="test", last_name="a")
    client = member("a", "b")
    user.username, user.last_name = "taken", "b"
    with pytest.raises(IntegrityError), transaction.atomic():
        user.save()
    user.username = "free"
    user.save()
    assert actions(client) == [("delete", "free"), ("create", "free")]


@pytest.mark.django_db
def test_instances_keep_nothing_of_it() -> None:
    bind()
    user = User.objects.create(username="test")
    assert vars(user).keys() == vars(User()).keys()


@pytest.mark.django_db
def test_group_names_that_are_a_str_are_refused() -> None:
    bind(group_names=classmethod(lambda cls, instance: "everybody"))
    with pytest.raises(
        TypeError, match=r"TheBinding\.group_names returned 'everybody': it must return a list of names"
    ):
        User.objects.create(username="test")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("attributes", "error"),
    [
        ({"group_names": classmethod(lambda cls, instance: ["no name"])}, TypeError),
        ({"serialize_data": lambda self, instance: {"name": "x" * 2**20}}, MessageTooLarge),
    ],
    ids=["group", "size"],
)
def test_what_cannot_be_sent_is_not_saved_in_a_transaction(attributes: Any, error: type[Exception]) -> None:
    bind(**attributes)
    with pytest.raises(error), transaction.atomic():
        User.objects.create(username="test")
    assert not User.objects.exists()


@pytest.mark.django_db
def test_a_receiver_of_a_binding_can_be_disconnected() -> None:
    binding = bind()
    client = member()
    assert post_save.disconnect(binding.post_save_receiver, sender=User)
    User.objects.create(username="test")
    assert actions(client) == []


@pytest.mark.django_db
def test_to_register_once_more_changes_nothing() -> None:
    bind().register()
    client = member()
    User.objects.create(username="test")
    assert actions(client) == [("create", "test")]


@pytest.mark.django_db
def test_fixtures_and_bulk_operations_are_told_nobody(tmp_path: Any) -> None:
    bind()
    client = member()
    User.objects.bulk_create([User(username="one"), User(username="two")])
    User.objects.update(first_name="x")
    fixture = tmp_path / "users.json"
    fixture.write_text(serializers.serialize("json", [User(pk=77, username="fixture")]))
    call_command("loaddata", fixture, verbosity=0)
    assert User.objects.count() == 3
    assert actions(client) == []


@pytest.mark.django_db
def test_changes_without_signals_can_be_told_by_hand() -> None:
    binding = bind()
    client = member("a", "all")
    (user,) = User.objects.bulk_create([User(username="bulk")])
    binding.pre_change_receiver(user, CREATE)
    binding.post_change_receiver(user, CREATE)
    assert actions(client) == [("create", "bulk")]
    binding.pre_change_receiver(user, UPDATE)
    User.objects.update(last_name="a")
    user.refresh_from_db()
    binding.post_change_receiver(user, UPDATE)
    assert actions(client) == [("delete", "bulk"), ("create", "bulk")]


@pytest.mark.django_db
def test_the_payload_is_of_the_moment_of_the_change() -> None:
    bind()
    client = member()
    with transaction.atomic():
        user = User.objects.create(username="first")
        user.username = "second"
        user.save()
    assert actions(client) == [("create", "first"), ("update", "second")]


# -- commits


class Rollback(Exception):
    pass


def lose(name: str) -> None:
    """Make a user in a transaction, or savepoint, that is rolled back."""
    try:
        with transaction.atomic():
            User.objects.create(username=name)
            raise Rollback
    except Rollback:
        pass


@pytest.mark.django_db(transaction=True)
def test_nothing_goes_out_before_the_commit() -> None:
    bind()
    client = member()
    with transaction.atomic():
        user = User.objects.create(username="test")
        with transaction.atomic():
            user.last_name = "moved"
            user.save()
        assert actions(client) == []
    assert actions(client) == [("create", "test"), ("delete", "test")]


@pytest.mark.django_db(transaction=True)
def test_nothing_goes_out_of_what_is_rolled_back() -> None:
    bind()
    client = member()
    lose("one")
    with transaction.atomic():
        User.objects.create(username="kept")
        lose("another")
    assert actions(client) == [("create", "kept")]


@pytest.mark.django_db(transaction=True)
def test_without_a_transaction_it_goes_out_at_once() -> None:
    bind()
    client = member()
    User.objects.create(username="test")
    assert actions(client) == [("create", "test")]


class TestInAConsumer:
    """It waits for the consumer's end among the other sends, and goes out whatever that is."""

    @staticmethod
    def run(consumer: Callable[..., Any]) -> list[Any]:
        bind()
        client = member()
        with apply_routes([route("work", consumer)]), contextlib.suppress(Rollback):
            client.send_and_consume("work")
        return ["reply" if "stream" not in received else received["payload"]["action"] for received in all_of(client)]

    @staticmethod
    def reply(message: Any) -> None:
        message.reply_channel.send({"text": "{}"})

    @pytest.mark.django_db(transaction=True)
    def test_it_takes_its_turn(self) -> None:
        def consumer(message: Any) -> None:
            self.reply(message)
            user = User.objects.create(username="there")
            self.reply(message)
            with transaction.atomic():
                user.delete()
                self.reply(message)

        assert self.run(consumer) == ["reply", "create", "reply", "delete", "reply"]

    @pytest.mark.django_db(transaction=True)
    def test_what_was_committed_is_told_even_if_the_consumer_fails_later(self) -> None:
        def consumer(message: Any) -> None:
            self.reply(message)
            User.objects.create(username="there")
            raise Rollback

        assert self.run(consumer) == ["create"]

    @pytest.mark.django_db(transaction=True)
    def test_what_was_rolled_back_is_not(self) -> None:
        @transaction.atomic
        def consumer(message: Any) -> None:
            User.objects.create(username="there")
            raise Rollback

        assert self.run(consumer) == []

    @pytest.mark.django_db
    def test_the_same_in_a_test_case(self) -> None:
        @transaction.atomic
        def consumer(message: Any) -> None:
            User.objects.create(username="there")
            self.reply(message)

        assert self.run(consumer) == ["create", "reply"]


@pytest.fixture
def other_database(django_db_setup: None, django_db_blocker: Any, tmp_path: Any) -> Iterator[str]:
    """The alias of a database besides the default one; it has user groups alone."""
    name, engine = str(tmp_path / "other.sqlite3"), "django.db.backends.sqlite3"
    connections.settings["other"] = {**connections.settings["default"], "ENGINE": engine, "NAME": name, "OPTIONS": {}}
    with django_db_blocker.unblock():
        try:
            with connections["other"].schema_editor() as editor:
                editor.create_model(UserGroup)
            yield "other"
        finally:
            UserGroup.objects.all().delete()
            connections["other"].close()
            del connections["other"], connections.settings["other"]


def test_the_commit_is_that_of_the_objects_database(other_database: str) -> None:
    bind(UserGroup, fields=["name"])
    client = member()
    with transaction.atomic():  # which another database's objects do not wait for
        UserGroup.objects.using(other_database).create(name="at once")
        assert len(all_of(client)) == 1
    with transaction.atomic(using=other_database):
        group = UserGroup.objects.using(other_database).create(name="later")
        # The same key, but no such object is in that database.
        UserGroup(pk=group.pk, name="elsewhere").save(using="default")
        assert [told["payload"]["action"] for told in all_of(client)] == ["create"]
    assert [told["payload"]["data"]["name"] for told in all_of(client)] == ["later"]


class _InTests:
    """Tests that hold in any of Django's test cases."""

    def test_changes_are_told_at_the_end_of_the_applications_own_transaction(self) -> None:
        bind()
        client = member()
        User.objects.create(username="bare")
        assert actions(client) == [("create", "bare")]
        with transaction.atomic():
            User.objects.create(username="atomic")
            assert actions(client) == []
        assert actions(client) == [("create", "atomic")]
        lose("lost")
        User.objects.get(username="bare").delete()  # in a transaction of Django's own
        assert actions(client) == [("delete", "bare")]


class TestInAChannelTestCase(_InTests, ChannelTestCase):
    pass


class TestInATransactionChannelTestCase(_InTests, TransactionChannelTestCase):
    pass


class TestInDjangosTestCase(_InTests, TestCase):
    def test_the_first_change_of_a_connection_in_a_transaction(self) -> None:
        for attribute in ("savepoint_commit", "_channelsq_watched"):
            vars(connection).pop(attribute, None)
        bind()
        client = member()
        with transaction.atomic():
            with transaction.atomic():
                User.objects.create(username="atomic")
            assert actions(client) == []
        assert actions(client) == [("create", "atomic")]

    def test_a_block_without_a_savepoint_is_none(self) -> None:
        bind()
        client = member()
        with transaction.atomic(savepoint=False):
            User.objects.create(username="at once")
            assert actions(client) == [("create", "at once")]

    def test_callbacks_that_are_captured_are_not_called_twice(self) -> None:
        bind()
        client = member()
        with self.captureOnCommitCallbacks(execute=True), transaction.atomic():
            User.objects.create(username="atomic")
        assert actions(client) == [("create", "atomic")]
        # Django leaves the callbacks of others, the live admin's say, where they are.
        left = [type(entry[1]).__module__ for entry in connection.run_on_commit]
        assert "channelsq.delivery.commits" not in left


@pytest.mark.django_db
def test_with_pytests_database_fixture() -> None:
    _InTests().test_changes_are_told_at_the_end_of_the_applications_own_transaction()


# -- inbound


@pytest.fixture
def say() -> Iterator[Callable[..., Any]]:
    """Sends a payload on the stream of a binding."""

    def say(binding: Any, client: WSClient | None = None, **payload: Any) -> WSClient:
        class Demultiplexer(WebsocketDemultiplexer):
            consumers = {"users": binding.consumer}
            groups = ["inbound"]

        client = client or WSClient()
        with apply_routes([Demultiplexer.as_route(path=r"/path/(?P<id>\d+)")]):
            client.send_and_consume("websocket.connect", path="/path/7")
            client.send_and_consume("websocket.receive", text={"stream": "users", "payload": payload}, path="/path/7")
            client.send_and_consume("websocket.disconnect", path="/path/7")
        return client

    return say  # type: ignore[return-value]


@pytest.mark.django_db
def test_inbound_create(say: Any) -> None:
    client = say(bind(), action=CREATE, data={"username": "in", "last_name": "bound"})
    user = User.objects.get()
    assert (user.username, user.last_name) == ("in", "bound")
    assert client.receive() is None


@pytest.mark.django_db
def test_inbound_update(say: Any) -> None:
    user = User.objects.create(username="test", email="old@test.com")
    say(bind(), action=UPDATE, pk=user.pk, data={"username": "in"})
    user.refresh_from_db()
    assert (user.username, user.email) == ("in", "old@test.com")


@pytest.mark.django_db
def test_inbound_delete(say: Any) -> None:
    user = User.objects.create(username="test")
    say(bind(), action=DELETE, pk=user.pk)
    assert not User.objects.exists()
    say(bind(), action=DELETE, pk=user.pk)  # once more: nothing is there


@pytest.mark.django_db
@pytest.mark.parametrize("restricted", [{}, {"fields": None, "exclude": ["is_superuser", "email"]}], ids=str)
def test_inbound_data_write_the_bindings_fields_alone(say: Any, restricted: dict[str, Any]) -> None:
    """Also on create, where Channels 1 let a client write any."""
    binding = bind(**restricted)
    data = {"username": "in", "email": "in@test.com", "is_superuser": True, "id": 77}
    say(binding, action=CREATE, data=data)
    user = User.objects.get()
    assert (user.username, user.email, user.is_superuser, user.pk != 77) == ("in", "", False, True)
    say(binding, action=UPDATE, pk=user.pk, data={**data, "username": "again"})
    user = User.objects.get()
    assert (user.username, user.email, user.is_superuser) == ("again", "", False)


@pytest.mark.django_db
def test_a_create_of_ones_own_can_build_on_what_came_in(say: Any) -> None:
    def create(self: Any, data: Any) -> None:
        hydrated = self._hydrate(None, self.writable(data))
        hydrated.object.email = "set@test.com"
        hydrated.save()

    client = member()
    say(bind(create=create), client, action=CREATE, data={"username": "in"})
    assert User.objects.get().email == "set@test.com"
    assert actions(client) == [("create", "in")]


@pytest.mark.django_db
def test_inbound_relations(say: Any) -> None:
    editors, authors = UserGroup.objects.create(name="editors"), UserGroup.objects.create(name="authors")
    binding = bind(fields=["username", "groups"])
    say(binding, action=CREATE, data={"username": "in", "groups": [editors.pk]})
    user = User.objects.get()
    assert list(user.groups.all()) == [editors]
    say(binding, action=UPDATE, pk=user.pk, data={"groups": [authors.pk]})
    assert list(user.groups.all()) == [authors]


@pytest.mark.django_db
def test_permission_is_asked_with_the_user_the_action_and_the_key(say: Any) -> None:
    asked: list[Any] = []

    def has_permission(self: Any, user: Any, action: str, pk: Any) -> bool:
        asked.append((str(user), action, pk, self.data, self.kwargs["id"]))
        return False

    alice = get_user_model().objects.create_user("alice")
    binding = bind(has_permission=has_permission)
    client = WSClient()
    client.force_login(alice)
    say(binding, client, action=UPDATE, pk=alice.pk, data={"username": "in"})
    say(binding, action=CREATE, data={"username": "in"})
    say(binding, action=DELETE, pk=alice.pk)
    assert asked == [
        ("alice", "update", alice.pk, {"username": "in"}, "7"),
        ("AnonymousUser", "create", None, {"username": "in"}, "7"),
        ("AnonymousUser", "delete", alice.pk, None, "7"),
    ]
    assert User.objects.get().username == "alice"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        ({"action": "drop"}, "supports only the actions create, update and delete"),
        ({"action": {"create": 1}}, "supports only the actions create, update and delete"),
        ({"pk": 1}, 'not a JSON object with an "action"'),
        ({"action": "create", "data": [1]}, '"data" is not a JSON object'),
    ],
    ids=str,
)
def test_frames_that_are_no_actions_leave_the_socket_open(
    say: Any,
    payload: dict[str, Any],
    problem: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    exceptions._ignored_frames.reset()
    assert Client.receive(say(bind(), **payload)) is None
    assert problem in caplog.text


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        ({"action": "update", "pk": 77, "data": {}}, "DoesNotExist"),
        ({"action": "update", "pk": "secret"}, "DoesNotExist"),
        ({"action": "update", "pk": {"pk": 1}}, "DoesNotExist"),
        ({"action": "delete", "pk": {"pk": 1}}, "DoesNotExist"),
        ({"action": "delete", "pk": "secret"}, "DoesNotExist"),
        ({"action": "create", "data": {"username": "in", "secret": 1}}, "FieldDoesNotExist"),
        ({"action": "create", "data": {"username": "in", "is_staff": "secret"}}, "DeserializationError"),
        ({"action": "create", "data": {"username": "in", "groups": "secret"}}, "DeserializationError"),
        ({"action": "create", "data": {"username": "\ud800secret"}}, "DeserializationError"),
        ({"action": "update", "pk": 1, "data": {"first_name": "\ud800secret"}}, "DataError"),
    ],
    ids=str,
)
def test_data_that_do_not_fit(
    say: Any, payload: dict[str, Any], problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One line in the log, without what the client sent; the socket stays open, as others' streams are on it."""
    User.objects.create(pk=1, username="bystander")
    with caplog.at_level("INFO", "channelsq"), transaction.atomic():
        client = say(bind(fields="__all__"), **payload)
    assert client.receive() is None
    (record,) = [record for record in caplog.records if record.name == "channelsq.binding"]
    assert (action_of(record), connection_of(record)) == ("binding_bad_data", client.reply_channel)
    assert record.getMessage().endswith(problem)
    assert record.exc_info is None
    assert [user.username for user in User.objects.all()] == ["bystander"]


@pytest.mark.django_db
def test_a_create_never_writes_into_what_is_there(say: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Django's deserializer gives a new object the key of the one with its natural key."""
    User.objects.create(username="in", email="theirs@test.com")
    with caplog.at_level("INFO", "channelsq"), transaction.atomic():
        say(bind(), action=CREATE, data={"username": "in", "email": "mine@test.com"})
    assert caplog.messages[-1].endswith("IntegrityError")
    assert [user.email for user in User.objects.all()] == ["theirs@test.com"]


@pytest.mark.django_db
def test_a_fault_of_the_application_is_none_of_the_clients(say: Any) -> None:
    def create(self: Any, data: Any) -> None:
        raise ValueError("a fault")

    with pytest.raises(ValueError, match="a fault"):
        say(bind(create=create), action=CREATE, data={"username": "in"})


@pytest.mark.django_db
def test_a_binding_alone_on_a_channel() -> None:
    with apply_routes([route("websocket.receive", bind().consumer)]):
        WSClient().send_and_consume("websocket.receive", text={"action": "create", "data": {"username": "in"}})
    assert User.objects.get().username == "in"


@pytest.mark.django_db
def test_a_binding_that_keeps_the_order() -> None:
    binding = bind(strict_ordering=True)
    with apply_routes([route("websocket.receive", binding.consumer)]):
        client = WSClient()
        for order in (1, 0):
            text = {"action": "create", "data": {"username": f"u{order}"}}
            client.send("websocket.receive", {"order": order}, text=text)
        for _ in range(3):
            client.consume("websocket.receive")
    assert [user.username for user in User.objects.order_by("pk")] == ["u0", "u1"]
    with pytest.raises(ValueError, match="slight_ordering"):
        bind(slight_ordering=True).get_handler()


def test_a_plain_binding_says_what_is_missing() -> None:
    class Plain(Binding):
        model = None

    for call in (
        lambda: Plain.encode("s", {}),
        lambda: Plain.group_names(None),
        lambda: Plain().serialize(None, CREATE),
        lambda: Plain().deserialize(None),  # type: ignore[arg-type]
        lambda: Plain().has_permission(None, CREATE, None),
        lambda: Plain().create({}),
        lambda: Plain().update(1, {}),
    ):
        with pytest.raises(NotImplementedError):
            call()


def test_the_other_name_of_the_demultiplexer() -> None:
    assert WebsocketBindingDemultiplexer is WebsocketDemultiplexer
