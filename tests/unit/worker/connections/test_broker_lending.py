"""A Celery app that names no broker gets the default layer's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from django.test import override_settings

from channelsq import conf
from channelsq.worker.connections.broker_lending import lend_broker
from tests.support.layers import installed

URL = "redis-streams://redis.example/0"
REDIS = {"BACKEND": "channelsq.layers.RedisChannelLayer", "ROUTING": [], "CONFIG": {"url": URL}}
MEMORY = {"BACKEND": "channelsq.layers.InMemoryChannelLayer", "ROUTING": []}


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    monkeypatch.delenv("CELERY_BROKER_URL", raising=False)
    with Celery("lent", set_as_current=False) as app, installed(None):
        monkeypatch.setattr(conf, "_celery_app", app)
        yield app


@pytest.mark.parametrize("read_before", [False, True])
def test_an_app_without_a_broker_gets_the_layers(app: Celery, read_before: bool) -> None:
    with override_settings(CHANNEL_LAYERS={"default": REDIS}):
        if read_before:
            assert app.conf.broker_url is None
        lend_broker(app)
        lend_broker(app)
        assert app.conf.broker_url == URL
        assert conf.celery_broker_url() == URL


def test_an_app_with_a_broker_keeps_it(app: Celery) -> None:
    app.conf.update(broker_url="amqp://rabbit.example")
    with override_settings(CHANNEL_LAYERS={"default": REDIS}):
        lend_broker(app)
        assert app.conf.broker_url == "amqp://rabbit.example"


@pytest.mark.parametrize(
    "layers",
    [
        {},
        {"other": REDIS},
        {"default": MEMORY},
        {"default": {**REDIS, "CONFIG": {}}},
        {"default": {**REDIS, "CONFIG": {"url": 5}}},
        {"default": {**REDIS, "BACKEND": "nowhere.Layer"}},
    ],
    ids=["none", "no default", "memory", "no url", "unusable", "no class"],
)
def test_layers_that_lend_nothing(app: Celery, layers: Any) -> None:
    with override_settings(CHANNEL_LAYERS=layers):
        lend_broker(app)
        assert app.conf.broker_url is None
