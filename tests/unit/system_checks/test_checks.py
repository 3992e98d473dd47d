from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Iterator
from typing import Any, ClassVar

import celery
import pytest
from django.core import checks as django_checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.test import override_settings

from channelsq import conf, include, route, route_class
from channelsq.asgi import ChannelLayerWrapper, channel_layers
from channelsq.generic import BaseConsumer
from channelsq.generic.websockets import WebsocketConsumer
from channelsq.message import Message
from channelsq.sessions import channel_session
from channelsq.system_checks import checks
from tests.support.layers import installed

LAYERS = "channelsq.layers."
MEMORY = {"BACKEND": LAYERS + "InMemoryChannelLayer", "ROUTING": []}
REDIS = {"BACKEND": LAYERS + "RedisChannelLayer", "ROUTING": [], "CONFIG": {"url": "redis-streams://redis.example/0"}}
AMQP = {
    "BACKEND": LAYERS + "KombuChannelLayer",
    "ROUTING": [],
    "CONFIG": {"url": "amqp://rabbit.example", "groups_url": "redis://redis.example/0"},
}


@pytest.fixture(autouse=True)
def _no_layer_yet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Layers are made from the settings of each test; the command is an innocent one."""
    monkeypatch.delenv("CELERY_BROKER_URL", raising=False)
    monkeypatch.setattr(sys, "argv", ["manage.py", "check"])
    use_broker(monkeypatch, None)
    with installed(None):
        yield


def use_broker(monkeypatch: pytest.MonkeyPatch, url: str | None, **more: Any) -> None:
    """Make the project's Celery app one with this broker."""
    app = celery.Celery("checked", set_as_current=False)
    app.conf.update(broker_url=url, **more)
    monkeypatch.setattr(conf, "_celery_app", app)


def found(entry: Any, **settings: Any) -> dict[str, django_checks.CheckMessage]:
    """Return the messages of the checks for ``entry`` as the default layer, by id."""
    with override_settings(CHANNEL_LAYERS={"default": entry}, **settings):
        return by_id(checks.check_layers(None))


def wrapped_layer(entry: Any) -> ChannelLayerWrapper:
    """Return the default layer that ``entry`` makes."""
    with override_settings(CHANNEL_LAYERS={"default": entry}):
        return channel_layers["default"]


def by_id(messages: list[django_checks.CheckMessage]) -> dict[str, django_checks.CheckMessage]:
    return {str(message.id).removeprefix("channelsq."): message for message in messages}


def text(message: django_checks.CheckMessage) -> str:
    return f"{message.msg} {message.hint or ''}"


def test_good_settings_are_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(MEMORY) == {}
    with installed(None):
        use_broker(monkeypatch, "redis-streams://redis.example/0")
        assert found(REDIS) == {}
        assert found({**REDIS, "CONFIG": {}}) == {}
    with installed(None):
        use_broker(monkeypatch, "amqp://rabbit.example")
        assert found(AMQP) == {}


def test_w001_no_layers() -> None:
    nothing: tuple[dict[str, Any] | None, ...] = ({}, None)
    for layers in nothing:
        with override_settings(CHANNEL_LAYERS=layers):
            (message,) = checks.check_layers(None)
        assert message.id == "channelsq.W001"
        assert message.level == django_checks.WARNING
        assert 'CHANNEL_LAYERS = {"default": {"BACKEND"' in str(message.hint)


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ({"other": MEMORY}, ["no layer 'default'", "CHANNEL_LAYERS = {"]),
        ([MEMORY], ["must be a dict", "CHANNEL_LAYERS = {"]),
        ({"default": {"ROUTING": []}}, ["no 'BACKEND'", "CHANNEL_LAYERS = {"]),
        ({"default": {**MEMORY, "BACKEND": "nowhere.Layer"}}, ["'nowhere.Layer'", "use channelsq.layers."]),
        (
            {"default": {**MEMORY, "BACKEND": "collections.OrderedDict"}},
            ["not a channel layer", "use channelsq.layers."],
        ),
        ({"default": {**MEMORY, "CONFIG": {"capcity": 5}}}, ["'capcity'", "does not fit", "it takes capacity,"]),
        ({"default": {**MEMORY, "CONFIG": {"capacity": -5}}}, ["'capacity'", "-5", "above 0"]),
        ({"default": {**MEMORY, "CONFIG": {"channel_capacity": {"x": "y"}}}}, ["'x'", "'y'", "above 0"]),
        ({"default": {**REDIS, "CONFIG": {"url": "amqp://x"}}}, ["'amqp://x", "KombuChannelLayer"]),
        ({"default": {**REDIS, "CONFIG": {"hosts": []}}}, ["a list of URLs, (host, port)", "not an empty one"]),
        (
            {"default": {**REDIS, "CONFIG": {"hosts": [{"sentinels": [("a", 26379)], "master": "mymaster"}]}}},
            ["CONFIG['hosts'][0]", "without 'master_name'", "a dict names Sentinels"],
        ),
    ],
    ids=lambda value: "" if isinstance(value, list) else repr(value)[:50],
)
def test_e001_no_usable_default_layer(layers: Any, says: list[str]) -> None:
    with override_settings(CHANNEL_LAYERS=layers):
        (message,) = checks.check_layers(None)
    assert message.id == "channelsq.E001"
    assert message.level == django_checks.ERROR
    for part in says:
        assert part in text(message)


@pytest.mark.parametrize(
    ("routing", "says"),
    [
        ("nowhere.routing", "'nowhere.routing'"),
        ("os.path.join", "must be a list"),
        ("plain", "not a dotted path"),
        ({"a b": "os.path.join"}, "'a b'"),
        ({"a": "os.nothing"}, "'os.nothing'"),
        ([5], "not 5"),
    ],
    ids=repr,
)
def test_e002_unreadable_routing(routing: Any, says: str) -> None:
    messages = found({**MEMORY, "ROUTING": routing})
    assert list(messages) == ["E002"]
    assert says in messages["E002"].msg
    assert messages["E002"].msg.startswith("CHANNEL_LAYERS['default']['ROUTING']")
    assert "route() and include()" in messages["E002"].msg


@pytest.mark.parametrize(
    "code",
    [
        "from channelsq import route\nrouting = [route('a', print, path='(x)')]",
        "from channelsq import route\nrouting = [route('a', print, path='[')]",
        "import nowhere",
        "routing = [",
        "import os\nrouting = [os.no_such_consumer]",
    ],
    ids=["positional", "regex", "import", "syntax", "attribute"],
)
def test_e002_a_routing_module_that_fails(code: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "routing_of_the_check.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "routing_of_the_check", raising=False)
    assert list(found({**MEMORY, "ROUTING": "routing_of_the_check.routing"})) == ["E002"]
    sys.modules.pop("routing_of_the_check", None)


@pytest.mark.parametrize(
    ("argv", "several"),
    [
        (["manage.py", "runworker"], True),
        (["manage.py", "runworker", "-v", "2"], True),
        (["/venv/bin/celery", "-A", "app", "worker"], True),
        (["celery", "worker"], True),
        (["manage.py", "runserver"], False),
        (["manage.py", "check"], False),
        (["manage.py", "test", "runworker"], False),
        (["celery", "-A", "app", "beat"], False),
        (["manage.py"], False),
        ([], False),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "entry", [MEMORY, {"BACKEND": LAYERS + "KombuChannelLayer", "ROUTING": [], "CONFIG": {"url": "memory://"}}]
)
def test_e003_in_process_layer(entry: Any, argv: list[str], several: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    messages = found(entry)
    assert list(messages) == (["E003"] if several else [])
    if several:
        assert "default (channelsq.layers." in messages["E003"].msg
        assert "REDIS_URL" in str(messages["E003"].hint)
        assert "RedisChannelLayer" in str(messages["E003"].hint)


def test_e003_is_not_for_layers_on_a_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["manage.py", "runworker"])
    use_broker(monkeypatch, "redis-streams://redis.example/0")
    assert found(REDIS) == {}


def test_e004_no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    for entry in ({**REDIS, "CONFIG": {}}, {**AMQP, "CONFIG": {}}):
        with installed(None):
            messages = found(entry)
        assert list(messages) == ["E004"]
        assert 'CHANNEL_LAYERS["default"]["CONFIG"]["url"]' in text(messages["E004"])
        assert "broker_url" in text(messages["E004"])


def test_e004_a_broker_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    use_broker(monkeypatch, "amqp://user:secret@rabbit.example")
    messages = found({**REDIS, "CONFIG": {}})
    assert list(messages) == ["E004"]
    assert "KombuChannelLayer" in text(messages["E004"])
    assert "secret" not in text(messages["E004"])


def test_e005_no_redis_for_the_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    use_broker(monkeypatch, "amqp://user:secret@rabbit.example")
    messages = found({**AMQP, "CONFIG": {}})
    assert list(messages) == ["E005"]
    assert 'CHANNEL_LAYERS["default"]["CONFIG"]["groups_url"]' in text(messages["E005"])
    assert "secret" not in text(messages["E005"])


@pytest.mark.parametrize("broker", [None, "memory://", "amqp://rabbit.example", "redis://redis.example/0"])
def test_celerys_broker_may_be_any_other(monkeypatch: pytest.MonkeyPatch, broker: str | None) -> None:
    use_broker(monkeypatch, broker)
    for backend in ("RedisChannelLayer", "KombuChannelLayer"):
        layer = {"BACKEND": LAYERS + backend, "ROUTING": [], "CONFIG": {"url": "redis://redis.example/1"}}
        with installed(None):
            assert found(layer) == {}
    with installed(None):
        assert found(AMQP) == {}


@pytest.mark.parametrize(
    ("debug", "hosts", "warned"),
    [(False, [], True), (False, ["chat.example.com"], False), (True, [], False), (True, ["x"], False)],
)
def test_w002_allowed_hosts(debug: bool, hosts: list[str], warned: bool) -> None:
    with override_settings(DEBUG=debug, ALLOWED_HOSTS=hosts):
        messages = by_id(checks.check_settings(None))
    assert ("W002" in messages) is warned
    if warned:
        assert "Set ALLOWED_HOSTS" in str(messages["W002"].hint)


@pytest.mark.parametrize(
    ("apps", "warned"),
    [
        (["channelsq", "django.contrib.staticfiles"], False),
        (["django.contrib.staticfiles", "channelsq"], True),
        (["django.contrib.staticfiles.apps.StaticFilesConfig", "channelsq.apps.ChannelsqConfig"], True),
        (["channelsq.apps.ChannelsqConfig", "django.contrib.staticfiles"], False),
        (["channelsq"], False),
        (["django.contrib.staticfiles"], False),
        (["channelsqlite", "django.contrib.staticfiles", "django.contrib.auth"], False),
    ],
    ids=str,
)
def test_w003_order_of_the_apps(apps: list[str], warned: bool) -> None:
    settings = types.SimpleNamespace(INSTALLED_APPS=apps, DEBUG=True, ALLOWED_HOSTS=[])
    with pytest.MonkeyPatch.context() as patch:
        # The list alone is looked at; override_settings would load these applications.
        patch.setattr(checks, "settings", settings)
        messages = by_id(checks.check_settings(None))
    assert list(messages) == (["W003"] if warned else [])
    if warned:
        assert 'Put "channelsq" first' in str(messages["W003"].hint)


@pytest.mark.parametrize(
    ("entry", "warned"),
    [
        (MEMORY, True),
        ({**AMQP, "CONFIG": {"url": "memory://"}}, True),
        (REDIS, False),
        ({**REDIS, "CONFIG": {}}, False),  # E004's business
        ({"ROUTING": []}, False),  # E001's business
    ],
    ids=["memory", "kombu-memory", "redis", "no broker", "no layer"],
)
def test_w004_in_process_layer_in_production(entry: Any, warned: bool) -> None:
    with override_settings(CHANNEL_LAYERS={"default": entry}, CHANNEL_SESSION_KEY_IN_URL=False):
        messages = by_id(checks.check_deployment(None))
    assert list(messages) == (["W004"] if warned else [])
    if warned:
        assert "REDIS_URL" in str(messages["W004"].hint)


def test_w006_and_w007_what_is_open_in_production() -> None:
    with override_settings(CHANNEL_LAYERS={"default": REDIS}):
        assert list(by_id(checks.check_deployment(None))) == ["W006"]
        with override_settings(CHANNEL_SESSION_KEY_IN_URL=False, CHANNEL_ALLOWED_ORIGINS=["https://example.com"]):
            assert list(by_id(checks.check_deployment(None))) == []
        with override_settings(CHANNEL_SESSION_KEY_IN_URL=False, CHANNEL_ALLOWED_ORIGINS=["*"]):
            assert list(by_id(checks.check_deployment(None))) == ["W007"]


@pytest.mark.parametrize(
    ("url", "groups_url", "public"),
    [
        ("redis-streams://:secret@redis.example.com:6379/0", None, True),
        ("redis-streams://203.0.113.7:6379/0", None, False),  # addresses for documentation are nobody's
        ("redis-streams://8.8.8.8/0", None, True),
        ("redis-streams://[2001:4860::8888]/0", None, True),
        ("rediss-streams://redis.example.com/0", None, False),
        ("redis-streams+socket:///run/redis.sock", None, False),
        *(
            (f"redis-streams://{host}/0", None, False)
            for host in ("localhost", "redis", "10.0.0.5", "127.0.0.1", "[::1]")
        ),
        ("redis-streams://cache.internal/0", None, False),
        ("amqp://guest:secret@mq.example.com//", "redis://localhost/0", True),
        ("amqps://guest:secret@mq.example.com//", "redis://localhost/0", False),
        ("amqps://mq.example.com//", "redis://:secret@redis.example.com/0", True),
        ("amqp://localhost//;amqp://mq.example.com//", "redis://localhost/0", True),
        ("sentinel://one.internal;sentinel://two.internal/0?master_name=m", None, False),
        ("sentinel://:secret@one.example.com;sentinel://two.example.com/0?master_name=m", None, True),
        ("sentinel://:secret@one.example.com/0?master_name=m&ssl=true", None, False),
    ],
)
def test_w008_a_broker_on_the_internet(url: str, groups_url: str | None, public: bool) -> None:
    config = {"url": url, **({"groups_url": groups_url} if groups_url else {})}
    layer = {"BACKEND": LAYERS + "KombuChannelLayer", "CONFIG": config, "ROUTING": []}
    allowed = {"CHANNEL_SESSION_KEY_IN_URL": False, "CHANNEL_ALLOWED_ORIGINS": []}
    with override_settings(CHANNEL_LAYERS={"default": layer}, **allowed):
        messages = by_id(checks.check_deployment(None))
    assert list(messages) == (["W008"] if public else [])
    assert not any("secret" in text(message) for message in messages.values())


@pytest.mark.parametrize(("ssl", "public"), [(False, True), (True, False)])
def test_w008_sentinels_in_a_dict(ssl: bool, public: bool) -> None:
    host = {"sentinels": [("one.example.com", 26379)], "master_name": "m", "password": "secret", "ssl": ssl}
    layer = {"BACKEND": LAYERS + "RedisChannelLayer", "CONFIG": {"hosts": [host]}, "ROUTING": []}
    allowed = {"CHANNEL_SESSION_KEY_IN_URL": False, "CHANNEL_ALLOWED_ORIGINS": []}
    with override_settings(CHANNEL_LAYERS={"default": layer}, **allowed):
        messages = by_id(checks.check_deployment(None))
    assert list(messages) == (["W008"] if public else [])
    assert not any("secret" in text(message) for message in messages.values())


def test_a_redis_layer_is_on_streams_however_its_url_is_spelt(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("redis://redis.example", "redis-streams://redis.example", "amqp://rabbit.example", ""):
        use_broker(monkeypatch, url)
        for config in ({"url": "redis://redis.example"}, {"hosts": [("redis.example", 6379)]}):
            with installed(None):
                assert found({**REDIS, "CONFIG": config}) == {}, (url, config)


def test_django_runs_them(capsys: pytest.CaptureFixture[str]) -> None:
    registered: set[object] = {*django_checks.registry.registry.get_checks(include_deployment_checks=True)}
    usual: list[object] = [*django_checks.registry.registry.get_checks()]
    assert {checks.check_layers, checks.check_settings, checks.check_deployment} <= registered
    assert checks.check_deployment not in usual
    with (
        override_settings(CHANNEL_LAYERS={"default": {"BACKEND": "nowhere.Layer", "ROUTING": []}}),
        pytest.raises(SystemCheckError, match=r"channelsq\.E001"),
    ):
        call_command("check", "--tag", "channelsq")
    with installed(None), override_settings(CHANNEL_LAYERS={"default": MEMORY}):
        call_command("check", "--tag", "channelsq", "--deploy")
        assert "channelsq.W004" in capsys.readouterr().err


def test_every_id_is_in_the_list_of_the_module() -> None:
    assert checks.__doc__ is not None
    for number in (
        *(f"E{number:03}" for number in (1, 2, 3, 4, 5, 7)),
        *(f"W{number:03}" for number in (1, 2, 3, 4, 6, 7, 8)),
    ):
        assert f"channelsq.{number}" in checks.__doc__


def test_e007_another_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    use_broker(monkeypatch, "redis-streams://redis.example/0")
    for other, says in (
        ({"BACKEND": "nowhere.Layer", "ROUTING": []}, "CHANNEL_LAYERS['other']['BACKEND'] 'nowhere.Layer'"),
        ({**REDIS, "ROUTING": "nowhere.routing"}, "'nowhere.routing'"),
        (REDIS, "CHANNEL_LAYERS['default'] and CHANNEL_LAYERS['other'] are on one broker"),
    ):
        with installed(None), override_settings(CHANNEL_LAYERS={"default": REDIS, "other": other}):
            (message,) = checks.check_layers(None)
            assert message.id == "channelsq.E007"
            assert says in message.msg
    good = {**REDIS, "CONFIG": {**REDIS["CONFIG"], "prefix": "other"}}  # type: ignore[dict-item]
    with installed(None), override_settings(CHANNEL_LAYERS={"default": REDIS, "other": good, "memory": MEMORY}):
        assert checks.check_layers(None) == []


def sync_consumer(message: Message) -> None:
    """A consumer."""


async def async_consumer(message: Message) -> None:
    """None of ours."""


class AsyncMethod(WebsocketConsumer):
    async def receive(self, **kwargs: Any) -> None:  # type: ignore[override]
        """Never awaited."""


class OfItsOwnChannel(BaseConsumer):
    method_mapping: ClassVar[dict[str, str]] = {"jobs": "work"}

    async def work(self, message: Message, **kwargs: Any) -> None:
        """Never awaited."""


@pytest.mark.parametrize(
    ("consumer", "name"),
    [
        (async_consumer, "async_consumer"),
        (channel_session(async_consumer), "async_consumer"),
        (AsyncMethod, "AsyncMethod.receive"),
        (OfItsOwnChannel, "OfItsOwnChannel.work"),
    ],
    ids=["function", "decorated", "generic", "class"],
)
def test_a_coroutine_function_is_no_consumer(consumer: Any, name: str) -> None:
    entry = route_class(consumer) if inspect.isclass(consumer) else route("jobs", consumer)
    (said,) = found({**MEMORY, "ROUTING": [include([entry])]}).items()
    assert said[0] == "E008"
    assert f"{name}, of the route" in said[1].msg


@pytest.mark.parametrize(
    ("channel", "meant"),
    [
        ("websocket.recieve", "websocket.receive"),
        ("websocket_receive", "websocket.receive"),
        ("websockets.connect", "websocket.connect"),
        ("websocket.message", "websocket.connect, websocket.receive, websocket.disconnect"),
        ("http.requests", "http.request"),
    ],
)
def test_a_channel_that_is_called_almost_as_an_event(channel: str, meant: str) -> None:
    (said,) = found({**MEMORY, "ROUTING": [route(channel, sync_consumer)]}).items()
    assert said[0] == "W009"
    assert repr(channel) in said[1].msg
    assert f"write {meant}." in str(said[1].hint)


def test_a_class_that_gets_only_some_of_its_channels() -> None:
    (said,) = found({**MEMORY, "ROUTING": [include([route("websocket.connect", WebsocketConsumer)])]}).items()
    assert said[0] == "W011"
    assert "is for websocket.connect alone" in said[1].msg
    assert "handles websocket.disconnect, websocket.receive, which it never gets" in said[1].msg
    assert "route_class(WebsocketConsumer, …)" in str(said[1].hint)


@pytest.mark.parametrize(
    "routing",
    [
        [route_class(WebsocketConsumer)],
        [WebsocketConsumer.as_route(path="^/x/$")],
        [route(["websocket.connect", "websocket.receive", "websocket.disconnect"], WebsocketConsumer)],
        [route("websocket.connect", WebsocketConsumer, path="^/x/$"), route_class(WebsocketConsumer)],
    ],
)
def test_a_class_that_gets_all_of_its_channels(routing: Any) -> None:
    assert found({**MEMORY, "ROUTING": routing}) == {}


@pytest.mark.parametrize("channel", ["jobs", "chat.receive", "chat-messages", "http.request", "websocket.disconnect"])
def test_other_channels_have_any_name(channel: str) -> None:
    assert found({**MEMORY, "ROUTING": [route(channel, sync_consumer)]}) == {}
