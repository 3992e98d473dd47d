"""A Redis that is older than 7: it is told of with the remedy, wherever it is met."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core import checks as django_checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.test import override_settings

from channelsq.asgi import channel_layers
from channelsq.exceptions import BrokerUnavailable
from channelsq.layers import RedisChannelLayer
from channelsq.system_checks import checks
from tests.support.layers import installed
from tests.support.old_redis import old_redis

TOO_OLD = "the server is too old: redis-streams needs Redis 7.0 or later, or Valkey"


@pytest.fixture(scope="module")
def old_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with old_redis(tmp_path_factory.mktemp("old")) as url:
        yield url


def found(url: str, backend: str = "RedisChannelLayer", **config: Any) -> list[django_checks.CheckMessage]:
    layer = {"BACKEND": f"channelsq.layers.{backend}", "ROUTING": [], "CONFIG": {"url": url, **config}}
    with installed(None), override_settings(CHANNEL_LAYERS={"default": layer}):
        try:
            return checks.check_servers(None)
        finally:
            channel_layers["default"].close()


def test_the_check_names_version_and_remedy(old_url: str) -> None:
    for url in (old_url, old_url.replace("redis://", "redis-streams://")):
        (message,) = found(url)
        assert (message.id, message.level) == ("channelsq.E009", django_checks.ERROR)
        assert "Redis 6.2.14" in message.msg
        assert "Redis 7.0 or later" in message.msg
        assert "Upgrade the server" in str(message.hint)


def test_the_check_where_info_is_forbidden(tmp_path: Path) -> None:
    with old_redis(tmp_path, "INFO") as url:
        (message,) = found(url)
    assert "Redis 6.2.14" in message.msg


def test_kombus_own_transport_works_with_it(old_url: str) -> None:
    assert found(old_url, "KombuChannelLayer") == []
    (message,) = found(old_url.replace("redis://", "redis-streams://"), "KombuChannelLayer")
    assert message.id == "channelsq.E009"


@pytest.mark.redis
def test_a_server_of_today_is_not_told_of(redis_url: str, old_url: str) -> None:
    assert found(redis_url) == []
    assert found(redis_url, groups_url=old_url) == []  # groups need nothing new


def test_a_server_that_does_not_answer_is_no_error_and_soon_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_PATIENCE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        assert found(f"redis://127.0.0.1:{silent.getsockname()[1]}/0") == []
        assert time.monotonic() - began < 2
    assert found("redis://127.0.0.1:1/0") == []


def test_only_a_deploy_is_checked(old_url: str) -> None:
    layer = {"BACKEND": "channelsq.layers.RedisChannelLayer", "ROUTING": [], "CONFIG": {"url": old_url}}
    with installed(None), override_settings(CHANNEL_LAYERS={"default": layer}):
        call_command("check", "--tag", "channelsq")
        with pytest.raises(SystemCheckError, match=r"channelsq\.E009"):
            call_command("check", "--tag", "channelsq", "--deploy")


def test_whoever_connects_is_told_the_remedy(old_url: str) -> None:
    layer = RedisChannelLayer(url=old_url)
    try:
        member = layer.new_channel("websocket.send!")
        for use in (
            lambda: layer.send("jobs", {"number": 1}),
            lambda: layer.receive(["jobs"]),
            lambda: layer.depth("jobs"),
            lambda: layer.send(member, {"text": "hello"}),
        ):
            with pytest.raises(BrokerUnavailable, match=TOO_OLD):
                use()
    finally:
        layer.close()
