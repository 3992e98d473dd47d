"""One message, one context: what is in it, what stays the thread's, and the test client's own."""

from __future__ import annotations

import decimal
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pytest
from celery import Celery
from django.core.cache import caches
from django.db import connection
from django.test import TestCase, override_settings
from django.utils import timezone, translation

from channelsq import Channel, Group, route
from channelsq.asgi import ChannelLayerWrapper
from channelsq.message import Message
from channelsq.test import ChannelTestCase, Client, apply_routes
from channelsq.worker.running import database_connections
from channelsq.worker.running.consumer_task import make_consumer_task
from channelsq.worker.running.isolation import IsolatedTracer, bare, fresh
from tests.support.apps import current
from tests.support.layers import installed, wrapped

_variable: ContextVar[str] = ContextVar("tests_variable", default="")


def stain(message: Any = None, **kwargs: Any) -> None:
    translation.activate("de")
    timezone.activate("Asia/Tokyo")
    decimal.getcontext().prec = 5
    _variable.set("stained")


def look() -> tuple[str | None, str, int, str]:
    return translation.get_language(), timezone.get_current_timezone_name(), decimal.getcontext().prec, _variable.get()


@pytest.fixture
def clean() -> Iterator[tuple[str | None, str, int, str]]:
    """The content of a new context, with something else in the test's own."""
    with translation.override("fr"), timezone.override("America/Lima"), decimal.localcontext(prec=9):
        token = _variable.set("the thread's")
        yield fresh().run(look)
        _variable.reset(token)


def test_a_context_begins_without_what_the_thread_has(clean: tuple[str | None, str, int, str]) -> None:
    assert clean[2:] == (28, "")
    assert clean[0] != "fr"
    before = look()
    fresh().run(stain)
    assert look() == before
    assert fresh().run(look) == clean


def test_caches_stay_a_threads() -> None:
    found: list[list[Any]] = []
    for _ in range(
        2
    ):  # threads of their own, as other tests may have changed the caches since this one's base was made
        thread = threading.Thread(target=lambda: found.append([fresh().run(lambda: caches["default"]) for _ in "ab"]))
        thread.start()
        thread.join()
    (mine, others) = found
    assert mine[0] is mine[1]
    assert others[0] is not mine[0]


def test_a_cache_that_cannot_be_made_is_reported_to_who_uses_it() -> None:
    made: list[Any] = []
    with override_settings(CACHES={"default": {"BACKEND": "tests.nowhere.Cache"}}):
        thread = threading.Thread(target=lambda: made.append(fresh().run(lambda: None)))
        thread.start()
        thread.join()
    assert made == [None]


@pytest.fixture
def layer() -> Iterator[ChannelLayerWrapper]:
    layer = wrapped()
    with installed(layer):
        yield layer


@pytest.fixture
def app() -> Iterator[Celery]:
    with Celery("isolation", broker="memory://", set_as_current=False) as app, current(app):
        yield app


def test_whatever_tracer_celery_gives_a_consumer_runs_in_a_context(app: Celery, layer: ChannelLayerWrapper) -> None:
    task: Any = make_consumer_task(app, layer, stain, "tests.stain")
    assert task.__trace__ is None

    def tracer(*args: Any) -> tuple[Any, ...]:
        stain()
        return args

    task.__trace__ = tracer
    before = look()
    assert task.__trace__("id", [], {}) == ("id", [], {}, None)
    assert look() == before
    assert bare(task.__trace__).tracer is tracer
    once = task.__trace__
    task.__trace__ = once  # as a test that puts it back does
    assert isinstance(once, IsolatedTracer)
    assert task.__trace__ is once


def test_a_consumer_that_is_applied_in_place_leaves_nothing(app: Celery, layer: ChannelLayerWrapper) -> None:
    seen: list[Any] = []

    def consumer(message: Message) -> None:
        seen.append(look())
        stain()

    task = make_consumer_task(app, layer, consumer, "tests.applied")
    before = look()
    for _ in range(2):
        task.apply(("channel", {}), throw=True)
    assert seen == [fresh().run(look)] * 2
    assert look() == before


@pytest.mark.django_db
def test_queries_of_a_connection_that_was_closed_are_forgotten_too() -> None:
    connection.queries_log.append({"sql": "of the message before", "time": "0"})
    connection.close()
    database_connections.close_old()
    assert database_connections.here.may_be_open
    database_connections.begin()
    assert len(connection.queries_log) == 0


def answers(message: Message) -> None:
    language = translation.get_language()
    stain()
    assert message.reply_channel is not None
    message.reply_channel.send({"language": language, "variable": "set"})
    Group("everybody").send({"text": "hello"})


@apply_routes([route("stains", answers)])
class TestClientTests(ChannelTestCase, TestCase):
    def test_a_consumer_leaves_nothing_in_the_test(self) -> None:
        before = look()
        client = Client()
        client.join_group("everybody")
        client.send_and_consume("stains")
        assert look() == before
        assert client.receive()["variable"] == "set"
        assert client.receive() == {"text": "hello"}

    def test_a_consumer_sees_what_the_test_has_activated(self) -> None:
        client = Client()
        with translation.override("fr"):
            client.send_and_consume("stains")
            assert translation.get_language() == "fr"
        assert client.receive()["language"] == "fr"

    def test_what_a_consumer_writes_is_in_the_tests_transaction(self) -> None:
        def writes(message: Message) -> None:
            from django.contrib.auth import get_user_model

            get_user_model().objects.create(username="made by a consumer")

        from django.contrib.auth import get_user_model

        with apply_routes([route("writes", writes)]):
            Channel("writes").send({})
            Client().consume("writes")
        assert get_user_model().objects.filter(username="made by a consumer").exists()
