"""``ChannelLiveServerTestCase``: a real interface server and real workers on the test's database."""

from __future__ import annotations

import contextlib
import json
import tempfile
import threading
import unittest
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.test import override_settings
from kombu import Connection, Queue
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from channelsq import Group, channel_layers, route
from channelsq.auth import channel_session_user_from_http
from channelsq.test import ChannelLiveServerTestCase, apply_routes
from tests.support.ports import is_open


def look(message: Any) -> None:
    """Accept, and say what is in the database."""
    Group("live").add(message.reply_channel)
    message.reply_channel.send({"accept": True})
    message.reply_channel.send({"text": json.dumps(sorted(User.objects.values_list("username", flat=True)))})


def make(message: Any) -> None:
    User.objects.create(username=message["text"])
    message.reply_channel.send({"text": "made"})


@channel_session_user_from_http
def who(message: Any) -> None:
    message.reply_channel.send({"accept": True})
    message.reply_channel.send({"text": message.user.get_username()})


ROUTING = [
    route("websocket.connect", who, path="^/who"),
    route("websocket.connect", look),
    route("websocket.receive", make),
]
LAYERS = {"default": {"BACKEND": "channelsq.layers.InMemoryChannelLayer", "ROUTING": f"{__name__}.ROUTING"}}


def threads() -> list[str]:
    return sorted(thread.name for thread in threading.enumerate() if "channelsq" in thread.name)


@override_settings(CHANNEL_LAYERS={"default": {**LAYERS["default"], "ROUTING": ROUTING}})
class LiveServerTests(ChannelLiveServerTestCase):
    worker_threads = 2

    def setUp(self) -> None:
        get_user_model().objects.create_user("alice", password="secret")

    def test_a_socket_sees_what_the_test_has_saved_and_the_test_what_it_saves(self) -> None:
        with connect(f"{self.live_server_ws_url}/") as socket:
            assert json.loads(socket.recv(10)) == ["alice"]
            socket.send("bob")
            assert socket.recv(10) == "made"
            assert User.objects.count() == 2
            Group("live").send({"text": "from the test"})
            assert socket.recv(10) == "from the test"

    def test_each_test_begins_anew(self) -> None:
        assert [user.username for user in User.objects.all()] == ["alice"]
        assert channel_layers["default"].group_channels("live") == []

    def test_views_and_static_files_are_served(self) -> None:
        with httpx.Client(base_url=self.live_server_url) as client:
            assert client.get("/accounts/login/").status_code == 200
            assert "--accent" in client.get("/static/app/chat.css").text

    def test_a_browsers_user_is_the_sockets(self) -> None:
        self.client.force_login(User.objects.get())
        cookie = f"sessionid={self.client.cookies['sessionid'].value}"
        with connect(f"{self.live_server_ws_url}/who", additional_headers={"Cookie": cookie}) as socket:
            assert socket.recv(10) == "alice"


@apply_routes([route("websocket.connect", look)])
class RoutesOfTheClass(ChannelLiveServerTestCase):
    def test_the_workers_have_them(self) -> None:
        with connect(f"{self.live_server_ws_url}/who") as socket:
            assert json.loads(socket.recv(10)) == []

    def test_it_is_too_late_for_others(self) -> None:
        with pytest.raises(RuntimeError, match="decorate the class"), apply_routes(ROUTING):
            raise AssertionError("was applied")


@override_settings(CHANNEL_LAYERS={"default": {**LAYERS["default"], "ROUTING": ROUTING}})
class WithoutStaticFiles(ChannelLiveServerTestCase):
    serve_static = False
    host = "127.0.0.1"

    def test_static_files_are_not_served(self) -> None:
        assert self.live_server_url.startswith("http://127.0.0.1:")
        assert httpx.get(f"{self.live_server_url}/static/app/chat.css").status_code == 404


def run(case: type[unittest.TestCase], name: str) -> unittest.TestResult:
    """Run one test as Django's runner does."""
    result = unittest.TestResult()
    suite = unittest.TestSuite([case(name)])
    suite.run(result)
    return result


@pytest.mark.redis
@pytest.mark.django_db(transaction=True)
def test_a_live_server_on_redis_meets_nobody_elses_messages(redis_url: str, settings: Any) -> None:
    import redis

    database = f"{redis_url.rsplit('/', 1)[0]}/3"
    with redis.Redis.from_url(database) as client:
        client.flushdb()
        settings.CHANNEL_LAYERS = {
            "default": {
                "BACKEND": "channelsq.layers.RedisChannelLayer",
                "CONFIG": {"url": "redis-streams://127.0.0.1:1/0"},
                "TEST_CONFIG": {"url": database.replace("redis://", "redis-streams://")},
                "ROUTING": ROUTING,
            }
        }

        another = channel_layers.make_test_backend("default")  # as of the site, or of a run that was killed
        another.send("websocket.receive", {"text": "stale", "reply_channel": "somebody"})
        another.group_add("live", "somebody")
        before = sorted(client.keys())

        class OnRedis(ChannelLiveServerTestCase):
            def test(self) -> None:
                assert channel_layers["default"].prefix.startswith("channelsq.")
                with connect(f"{self.live_server_ws_url}/") as socket:
                    assert json.loads(socket.recv(10)) == []
                    socket.send("bob")
                    assert socket.recv(10) == "made"
                    Group("live").send({"text": "hello"})
                    assert socket.recv(10) == "hello"

        result = run(OnRedis, "test")
        assert result.wasSuccessful(), result.errors + result.failures
        assert sorted(client.keys()) == before
        assert another.group_channels("live") == ["somebody"]
        assert another.receive(["websocket.receive"])[1] == {"text": "stale", "reply_channel": "somebody"}
        another.close()


@pytest.mark.ways("other ways")
@pytest.mark.redis
@pytest.mark.rabbitmq
@pytest.mark.django_db(transaction=True)
def test_a_live_server_on_rabbitmq_leaves_no_queues(rabbitmq_url: str, redis_url: str, settings: Any) -> None:
    settings.CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channelsq.layers.KombuChannelLayer",
            "TEST_CONFIG": {"url": rabbitmq_url, "groups_url": redis_url},
            "ROUTING": ROUTING,
        }
    }
    queues: list[str] = []
    before = threads()

    class OnRabbitMQ(ChannelLiveServerTestCase):
        def test(self) -> None:
            with connect(f"{self.live_server_ws_url}/") as socket:
                assert json.loads(socket.recv(10)) == []
            layer = channel_layers["default"]
            queues.extend(layer.queue(channel).name for channel in layer.router.channels)

    result = run(OnRabbitMQ, "test")
    assert result.wasSuccessful(), result.errors + result.failures
    assert threads() == before
    assert any(name.startswith("channelsq.") and name.endswith(":websocket.connect") for name in queues)
    with Connection(rabbitmq_url) as connection:
        for name in queues:
            with connection.channel() as channel, pytest.raises(connection.channel_errors, match="NOT_FOUND"):
                Queue(name, channel=channel).queue_declare(passive=True)


@pytest.mark.django_db(transaction=True)
def test_a_live_server_on_ipc_has_a_directory_of_its_own(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    settings.CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channelsq.layers.IPCChannelLayer",
            "TEST_CONFIG": {"path": str(tmp_path / "never-made")},
            "ROUTING": ROUTING,
        }
    }

    class OnIPC(ChannelLiveServerTestCase):
        def test(self) -> None:
            with connect(f"{self.live_server_ws_url}/") as socket:
                assert json.loads(socket.recv(10)) == []
                Group("live").send({"text": "hello"})
                assert socket.recv(10) == "hello"
            (directory,) = tmp_path.iterdir()
            assert directory.name.startswith("channelsq-")

    result = run(OnIPC, "test")
    assert result.wasSuccessful(), result.errors + result.failures
    assert list(tmp_path.iterdir()) == []


@pytest.mark.django_db(transaction=True)
def test_nothing_is_left_of_a_live_server(settings: Any) -> None:
    settings.CHANNEL_LAYERS = {"default": {**LAYERS["default"], "ROUTING": ROUTING}}
    before, layer = threads(), channel_layers["default"]
    left: dict[str, Any] = {}

    class LeavesASocket(ChannelLiveServerTestCase):
        def test(self) -> None:
            left["port"] = int(self.live_server_url.rpartition(":")[2])
            left["socket"] = sockets.enter_context(connect(f"{self.live_server_ws_url}/"))
            left["socket"].recv(10)
            left["worker"] = threads()

    with contextlib.ExitStack() as sockets:
        result = run(LeavesASocket, "test")
        assert result.wasSuccessful(), result.errors + result.failures
        assert len(left["worker"]) > len(before)
        assert threads() == before
        assert not is_open(left["port"])
        with pytest.raises(ConnectionClosed):
            left["socket"].recv(10)
    assert channel_layers["default"] is layer


@pytest.mark.django_db(transaction=True)
def test_a_live_server_serves_one_layer(settings: Any) -> None:
    settings.CHANNEL_LAYERS = dict.fromkeys(("default", "other"), LAYERS["default"])

    class Several(ChannelLiveServerTestCase):
        def test(self) -> None:
            raise AssertionError("was run")

    result = run(Several, "test")
    ((_, problem),) = result.errors
    assert ImproperlyConfigured.__name__ in problem
    assert "serves one channel layer" in problem


@pytest.mark.django_db(transaction=True)
def test_a_host_that_is_none_is_the_tests_error(settings: Any) -> None:
    settings.CHANNEL_LAYERS = {"default": {**LAYERS["default"], "ROUTING": ROUTING}}
    before = threads()

    class Nowhere(ChannelLiveServerTestCase):
        host = "192.0.2.1"  # of documentation, RFC 5737

        def test(self) -> None:
            raise AssertionError("was run")

    ((_, problem),) = run(Nowhere, "test").errors
    assert "cannot listen on 192.0.2.1" in problem
    assert threads() == before


def test_a_database_in_memory_is_shared_with_the_workers(tmp_path: Any) -> None:
    """In a process of its own, as this one's tests have a database in a file."""
    import subprocess
    import sys

    from tests.support.processes import ROOT, environment

    (tmp_path / "memory_settings.py").write_text(
        "from tests.settings import *\n"
        "DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': ':memory:'}}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "django", "test", "tests.integration.docs.test_live_server.LiveServerTests"],
        cwd=ROOT,
        env=environment({"PYTHONPATH": f"{tmp_path}:{ROOT}", "DJANGO_SETTINGS_MODULE": "memory_settings"}),
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Ran 4 tests" in done.stderr


def test_connections_are_not_left_shared() -> None:
    assert all(not connection.allow_thread_sharing for connection in connections.all(initialized_only=True))
