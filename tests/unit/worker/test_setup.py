"""The layers that a Celery app's workers consume, and the message if there is none."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from django.test import override_settings

from channelsq import conf
from channelsq.worker import setup
from tests.support.layers import installed

URL = "redis-streams://redis.example/0"
REDIS = {"BACKEND": "channelsq.layers.RedisChannelLayer", "ROUTING": [], "CONFIG": {"url": URL}}
OTHER = {**REDIS, "CONFIG": {"url": URL, "prefix": "other"}}
BESIDE = {**REDIS, "CONFIG": {"url": "redis-streams://redis.example/1"}}
KOMBU = {"BACKEND": "channelsq.layers.KombuChannelLayer", "ROUTING": []}
ELSEWHERE = {**KOMBU, "CONFIG": {"url": "redis://redis.example/1"}}
MEMORY = {"BACKEND": "channelsq.layers.InMemoryChannelLayer", "ROUTING": []}


OWN = {"BACKEND": "tests.support.fakes.layers.FakeRemoteLayer", "ROUTING": []}


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    monkeypatch.delenv("CELERY_BROKER_URL", raising=False)
    with Celery("consumed", broker=URL, set_as_current=False) as app, installed(None):
        monkeypatch.setattr(conf, "_celery_app", app)
        yield app


@pytest.mark.parametrize(
    ("layers", "aliases"),
    [
        ({"default": REDIS}, ["default"]),
        ({"default": REDIS, "other": OTHER}, ["default", "other"]),
        ({"default": BESIDE, "other": OTHER}, ["default", "other"]),
        ({"default": {**REDIS, "CONFIG": {"url": "redis://redis.example/2"}}}, ["default"]),
        ({"default": ELSEWHERE, "other": OTHER}, ["default", "other"]),
        ({"default": MEMORY, "other": OTHER}, ["other"]),
        ({"default": MEMORY, "own": OWN}, []),
        ({"default": {**REDIS, "CONFIG": {}}}, ["default"]),
    ],
)
def test_workers_consume_the_layers_that_other_processes_can_read(app: Celery, layers: Any, aliases: list[str]) -> None:
    with override_settings(CHANNEL_LAYERS=layers):
        assert [layer.alias for layer in setup.consumed()] == aliases


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ({"default": MEMORY}, "lives inside one process"),
        ({"other": MEMORY}, r"the channel layer other .* lives inside one process"),
        ({"default": OWN}, "on no broker that a Celery worker can read"),
    ],
    ids=["memory", "other", "own"],
)
def test_a_worker_with_nothing_to_consume_says_why(app: Celery, layers: Any, says: str) -> None:
    with override_settings(CHANNEL_LAYERS=layers), pytest.raises(SystemExit, match=f"(?s){says}"):
        setup._refuse_unusable_layers(instance=SimpleNamespace(app=app))
