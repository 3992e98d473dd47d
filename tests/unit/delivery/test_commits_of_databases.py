"""Sends made in transactions of several databases at once wait for all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connections, transaction

from channelsq import Channel
from channelsq.asgi import ChannelLayerWrapper


class Rollback(Exception):
    pass


@pytest.fixture(autouse=True)
def layer(channel_layer: ChannelLayerWrapper) -> ChannelLayerWrapper:
    return channel_layer


@pytest.fixture
def heard(layer: ChannelLayerWrapper) -> Any:
    return lambda: [content["text"] for content in iter(lambda: layer.receive(["news"])[1], None)]


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


def say(text: str) -> None:
    Channel("news").send({"text": text})


@pytest.fixture
def other(django_db_setup: None, django_db_blocker: Any, tmp_path: Any) -> Iterator[str]:
    name, engine = str(tmp_path / "other.sqlite3"), "django.db.backends.sqlite3"
    connections.settings["other"] = {**connections.settings["default"], "ENGINE": engine, "NAME": name, "OPTIONS": {}}
    with django_db_blocker.unblock():
        yield "other"
        connections["other"].close()
        del connections["other"], connections.settings["other"]


@pytest.mark.parametrize("first", ["default", "other"])
def test_they_wait_for_all_databases(other: str, first: str, heard: Any, writes: list[int]) -> None:
    outer = transaction.atomic(using=first)
    inner = transaction.atomic(using=other if first == "default" else "default")
    with outer:
        say("outer")
        with inner:
            say("both")
        assert heard() == []
    assert heard() == ["outer", "both"]
    assert writes == [2]


@pytest.mark.parametrize("inner_fails", [True, False])
def test_a_rollback_of_any_database_drops_them(other: str, inner_fails: bool, heard: Any) -> None:
    with contextlib.suppress(Rollback), transaction.atomic():
        say("outer")
        with contextlib.suppress(Rollback), transaction.atomic(using=other):
            say("both")
            with contextlib.suppress(Rollback), transaction.atomic():
                say("a savepoint's")
                raise Rollback
            if inner_fails:
                raise Rollback
        if not inner_fails:
            raise Rollback
    assert heard() == (["outer"] if inner_fails else [])
