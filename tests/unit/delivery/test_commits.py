"""Sends made in a database transaction leave on its commit, and not at all on rollback."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import shared_task
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import DatabaseError, IntegrityError, connection, connections, transaction
from django.test import TestCase

from channelsq import Channel, Group, route
from channelsq.asgi import ChannelLayerWrapper, channel_layers
from channelsq.binding.websockets import WebsocketBinding
from channelsq.delivery import commits
from channelsq.delivery.pending import pending_message_store
from channelsq.exceptions import ChannelFull, DenyConnection, MessageTooLarge, WebsocketCloseException
from channelsq.generic.websockets import WebsocketConsumer
from channelsq.test import ChannelTestCase, Client, TransactionChannelTestCase, WSClient, apply_routes
from tests.support.bindings import forgotten_afterwards
from tests.support.logs import action_of

pytestmark = pytest.mark.django_db(transaction=True)


class Rollback(Exception):
    pass


def say(text: str, **kwargs: Any) -> None:
    Channel("news").send({"text": text}, **kwargs)


def heard() -> list[str]:
    layer = channel_layers["default"]
    received = iter(lambda: layer.receive(["news"])[1], None)
    return [content["text"] for content in received]


@pytest.fixture(autouse=True)
def layer(channel_layer: ChannelLayerWrapper) -> ChannelLayerWrapper:
    return channel_layer


@pytest.fixture
def writes(layer: ChannelLayerWrapper, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return how many sends each write had."""
    counted: list[int] = []
    dispatch = layer.channel_layer.dispatch

    def counting(sends: Any) -> None:
        counted.append(len(sends))
        dispatch(sends)

    monkeypatch.setattr(layer.channel_layer, "dispatch", counting)
    return counted


# -- when they leave


def test_they_leave_on_commit_in_one_write(writes: list[int]) -> None:
    with transaction.atomic():
        say("one")
        with transaction.atomic():
            say("two")
            with transaction.atomic(savepoint=False):
                Group("nobody").send({"text": "x"})
        say("three")
        assert heard() == []
    assert heard() == ["one", "two", "three"]
    assert writes == [4]
    say("without")
    assert heard() == ["without"]


def test_they_do_not_leave_on_rollback() -> None:
    with contextlib.suppress(Rollback), transaction.atomic():
        say("lost")
        raise Rollback
    with transaction.atomic():
        say("lost")
        transaction.set_rollback(True)
    with transaction.atomic():
        say("kept")
    assert heard() == ["kept"]


def test_a_savepoint_takes_its_own_alone_along(writes: list[int]) -> None:
    with transaction.atomic():
        say("one")
        with contextlib.suppress(Rollback), transaction.atomic():
            say("lost")
            with transaction.atomic():
                say("lost with it")
            raise Rollback
        with contextlib.suppress(Rollback), transaction.atomic():
            with transaction.atomic():
                say("two's inner")
            say("lost as well")
            raise Rollback
        say("two")
        with transaction.atomic():
            say("three")
            with contextlib.suppress(Rollback), transaction.atomic():
                say("lost")
                raise Rollback
    assert heard() == ["one", "two", "three"]
    assert writes == [3]


def test_a_block_without_a_savepoint_takes_all_along() -> None:
    with contextlib.suppress(Rollback), transaction.atomic():
        say("lost")
        with contextlib.suppress(Rollback), transaction.atomic(savepoint=False):
            raise Rollback
        say("lost")
    assert heard() == []


def test_immediately_is_now() -> None:
    with contextlib.suppress(Rollback), transaction.atomic():
        say("later")
        say("now", immediately=True)
        Group("nobody").send({"text": "x"}, immediately=True)
        assert heard() == ["now"]
        raise Rollback
    assert heard() == []


def test_a_commit_that_fails() -> None:
    def work() -> None:
        with transaction.atomic():
            LogEntry.objects.create(user_id=99, action_flag=1)  # which SQLite looks at when it commits
            say("lost")

    with pytest.raises(IntegrityError):
        work()
    assert heard() == []


def test_a_connection_that_is_closed_within() -> None:
    with contextlib.suppress(DatabaseError), transaction.atomic():
        say("lost")
        connection.close()
        say("lost, too")
    with transaction.atomic():
        assert User.objects.count() == 0
        say("kept")
    assert heard() == ["kept"]


def test_a_durable_block_is_any() -> None:
    with transaction.atomic(durable=True):
        say("one")
        assert heard() == []
    assert heard() == ["one"]


def test_what_waits_is_as_it_was_prepared() -> None:
    content = {"text": "first"}
    with transaction.atomic():
        Channel("news").send(content)
        content["text"] = "changed"
    assert heard() == ["first"]


def test_what_cannot_be_sent_raises_at_once() -> None:
    with transaction.atomic():
        with pytest.raises(TypeError):
            Channel("news").send({"text": object()})
        with pytest.raises(MessageTooLarge):
            Group("nobody").send({"text": "x" * 2**21})
        with pytest.raises(ValueError, match="delay"):
            Channel("news").send({"text": "x"}, delay=-1)
        say("kept")
    assert heard() == ["kept"]


def test_groups_are_joined_at_once(layer: ChannelLayerWrapper) -> None:
    with contextlib.suppress(Rollback), transaction.atomic():
        Group("room").add("news")
        assert layer.group_channels("room") == ["news"]
        raise Rollback
    Group("room").discard("news")


def test_the_order_with_what_bindings_tell() -> None:
    with forgotten_afterwards():

        class Users(WebsocketBinding):
            model = User
            stream = "users"
            fields = ("username",)

            @classmethod
            def group_names(cls, instance: Any) -> list[str]:
                return ["users"]

        Group("users").add("news")
        with transaction.atomic():
            say("before")
            User.objects.create(username="made")
            say("after")
        assert [text if text[0] != "{" else "made" for text in heard()] == ["before", "made", "after"]


def test_another_thread_is_in_no_transaction() -> None:
    """Nor is one whose connection is idle."""

    def elsewhere() -> None:
        try:
            User.objects.count()
            say("at once")
        finally:
            connections.close_all()

    with transaction.atomic():
        say("later")
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert heard() == ["at once"]
    assert heard() == ["later"]


def test_a_connection_that_another_thread_has_lent() -> None:
    """As Django's live server does with databases in memory."""
    lent = connections["default"]
    lent.inc_thread_sharing()

    def elsewhere() -> None:
        connections["default"] = lent
        with transaction.atomic():
            say("later")
            seen.append(heard())
        seen.append(heard())

    seen: list[list[str]] = []
    try:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    finally:
        lent.dec_thread_sharing()
    assert seen == [[], ["later"]]


@shared_task
def speak(text: str) -> None:
    with transaction.atomic():
        say(text)


def test_a_task_that_runs_at_once_is_in_the_callers_transaction() -> None:
    with contextlib.suppress(Rollback), transaction.atomic():
        speak.delay("lost")
        raise Rollback
    with transaction.atomic():
        speak.delay("kept")
        assert heard() == []
    assert heard() == ["kept"]


# -- failures after the commit


def test_a_failure_after_the_commit_is_logged_and_counted(
    layer: ChannelLayerWrapper, caplog: pytest.LogCaptureFixture
) -> None:
    called = []
    for _ in range(layer.capacity):
        say("full")
    with transaction.atomic():
        User.objects.create(username="kept")
        transaction.on_commit(lambda: called.append("before"))
        say("one too many")
        transaction.on_commit(lambda: called.append("after"))
    assert called == ["before", "after"]
    assert User.objects.get().username == "kept"
    assert layer.unsent == 1
    (record,) = [record for record in caplog.records if record.name.startswith("channelsq")]
    assert action_of(record) == "send_failed"
    assert "news" in record.getMessage()
    assert len(heard()) == layer.capacity
    for _ in range(layer.capacity):
        say("full")
    with pytest.raises(ChannelFull):
        say("without a transaction")


# -- autocommit off


@pytest.fixture
def no_autocommit() -> Iterator[None]:
    transaction.set_autocommit(False)
    try:
        yield
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)


@pytest.mark.usefixtures("no_autocommit")
def test_with_autocommit_off_the_outermost_block_is_the_transaction() -> None:
    say("at once")
    assert heard() == ["at once"]
    with transaction.atomic():
        say("with the block")
        with transaction.atomic():
            say("and its inner one")
        assert heard() == []
    assert heard() == ["with the block", "and its inner one"]
    with contextlib.suppress(Rollback), transaction.atomic():
        say("lost")
        raise Rollback
    assert heard() == []
    transaction.commit()
    assert heard() == []


# -- without a database


@pytest.mark.parametrize(
    "settings",
    ["", "settings.configure()", "settings.configure(DATABASES={})", "settings.configure(); django.setup()"],
)
def test_without_a_database_or_djangos_apps(settings: str) -> None:
    program = f"""
import django
from django.conf import settings
{settings}
from channelsq.channel import Channel
from channelsq.asgi import ChannelLayerWrapper
from channelsq.layers import InMemoryChannelLayer
layer = ChannelLayerWrapper(InMemoryChannelLayer(), "default", [])
for text in "ab":
    Channel("news", channel_layer=layer).send({{"text": text}})
    print(layer.receive(["news"])[1]["text"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("a\nb\n", "")


def test_the_import_reads_no_settings() -> None:
    """They may import what sends, and Django keeps what it found of databases by then."""
    program = "import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'nowhere'; import channelsq.channel"
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0


# -- in consumers


def run(consumer: Callable[..., Any], channel: str = "work", **content: Any) -> list[Any]:
    """Answers of a consumer to a client."""
    client = Client()
    with apply_routes([route(channel, consumer)]), contextlib.suppress(Rollback):
        client.send_and_consume(channel, content)
    return list(iter(client.receive, None))


class InConsumers:
    """Rules that hold in a worker, and in any of Django's test cases."""

    def test_the_consumers_end_comes_after_the_commit(self) -> None:
        def consumer(message: Any) -> None:
            message.reply_channel.send({"text": "before"})
            with transaction.atomic():
                message.reply_channel.send({"text": "within"})
                say("within")
            message.reply_channel.send({"text": "after"})
            assert heard() == []

        assert [each["text"] for each in run(consumer)] == ["before", "within", "after"]
        assert heard() == ["within"]

    def test_a_consumer_that_fails_after_the_commit(self) -> None:
        def consumer(message: Any) -> None:
            with transaction.atomic():
                message.reply_channel.send({"text": "within"})
            raise Rollback

        assert run(consumer) == []

    def test_a_block_that_fails_in_a_consumer(self) -> None:
        def consumer(message: Any) -> None:
            with contextlib.suppress(Rollback), transaction.atomic():
                message.reply_channel.send({"text": "lost"})
                raise Rollback
            message.reply_channel.send({"text": "kept"})

        assert run(consumer) == [{"text": "kept"}]

    def test_a_consumer_that_is_atomic(self) -> None:
        @transaction.atomic
        def consumer(message: Any) -> None:
            message.reply_channel.send({"text": "within"})

        @transaction.atomic
        def failing(message: Any) -> None:
            message.reply_channel.send({"text": "within"})
            raise Rollback

        assert run(consumer) == [{"text": "within"}]
        assert run(failing) == []

    def test_a_close_is_no_part_of_the_transaction(self) -> None:
        @transaction.atomic
        def closing(message: Any) -> None:
            message.reply_channel.send({"text": "lost"})
            raise WebsocketCloseException(3000)

        assert run(closing, "websocket.receive", text="x") == [{"close": 3000}]

    def test_generic_consumers(self) -> None:
        class Room(WebsocketConsumer):
            groups = ("room",)

            @transaction.atomic
            def receive(self, text: str | None = None, bytes: bytes | None = None, **kwargs: Any) -> None:  # noqa: A002
                self.send("to one")
                self.group_send("room", "to all")
                if text == "fail":
                    raise Rollback
                self.close()

        client = WSClient()
        with apply_routes([Room.as_route()]):
            client.send_and_consume("websocket.connect")
            with contextlib.suppress(Rollback):
                client.send_and_consume("websocket.receive", text="fail")
            assert Client.receive(client) is None
            client.send_and_consume("websocket.receive", text="x")
        heard = [each.get("text", each) for each in iter(lambda: Client.receive(client), None)]
        assert heard == ["to one", "to all", {"close": True}]

    def test_sends_by_hand(self) -> None:
        with pending_message_store.holding() as held:
            with transaction.atomic():
                pending_message_store.append(Channel("news"), {"text": "appended"})
                pending_message_store.send_and_flush()  # no end of the transaction
                assert heard() == []
            assert held.closed
            assert heard() == ["appended"]

    def test_what_is_discarded_within_a_transaction(self) -> None:
        with transaction.atomic():
            pending_message_store.prepare()
            say("discarded")
            pending_message_store.discard()
            say("kept")
        assert heard() == ["kept"]

    def test_messages_of_the_test_itself(self) -> None:
        say("at once")
        assert heard() == ["at once"]
        with transaction.atomic():
            say("with the block")
            assert heard() == []
        assert heard() == ["with the block"]
        with contextlib.suppress(Rollback), transaction.atomic():
            say("lost")
            raise Rollback
        assert heard() == []

    def test_a_consumer_within_a_transaction_of_the_test(self) -> None:
        def consumer(message: Any) -> None:
            message.reply_channel.send({"text": "said"})
            with transaction.atomic():
                message.reply_channel.send({"text": "within"})

        with transaction.atomic():
            assert [each["text"] for each in run(consumer)] == ["said", "within"]


class TestInAChannelTestCase(InConsumers, ChannelTestCase):
    pass


class TestInATransactionChannelTestCase(InConsumers, TransactionChannelTestCase):
    pass


class TestInDjangosTestCase(InConsumers, TestCase):
    pass


class TestWithPytestsFixture(InConsumers):
    pytestmark = pytest.mark.django_db


def test_a_refused_handshake_of_an_atomic_consumer() -> None:
    @transaction.atomic
    def refusing(message: Any) -> None:
        message.reply_channel.send({"text": "lost"})
        raise DenyConnection

    with pytest.raises(DenyConnection):
        run(refusing, "websocket.connect")


# -- Django's own


def test_what_is_used_of_djangos_transactions() -> None:
    """One callback a transaction, in a list of (savepoints, callback, robust) that a savepoint's rollback filters."""
    with transaction.atomic():
        transaction.on_commit(str)
        callbacks: Any = connection.run_on_commit
        ((savepoints, callback, robust),) = callbacks
        assert (savepoints, callback, robust) == (set(), str, False)
        say("one")
        with transaction.atomic():
            assert len(connection.savepoint_ids) == 1
            say("two")
        assert callbacks[0][1:] == (str, False)
        assert len(connection.run_on_commit) == 2
        assert [block.savepoint for block in connection.atomic_blocks] == [True]
        assert connection.commit_on_exit
    assert heard() == ["one", "two"]
    assert commits.transactions() == []
