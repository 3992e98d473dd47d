from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import pytest

import channelsq
import channelsq.layers
from channelsq.layers.contract.layer_contract import BaseChannelLayer
from channelsq.message import Message

#: What applications may import; everything else may change without notice.
PUBLIC = {
    "channelsq": [
        "Channel", "Group", "route", "route_class", "include", "DEFAULT_CHANNEL_LAYER", "channel_layers", "__version__",
        "consumer", "Message", "User",
    ],
    "channelsq.binding.live_templates": ["LiveTemplate"],
    "channelsq.users": ["User"],
    "channelsq.delayed": ["DelayedSend", "cancel"],
    "channelsq.channel": ["Channel", "Group"],
    "channelsq.message": ["Message", "pending_message_store"],
    "channelsq.routing": [
        "route", "route_class", "include", "Route", "RouteClass", "Include", "Router", "connect_consumer",
        "null_consumer",
    ],
    "channelsq.exceptions": [
        "ConsumeLater", "ResponseLater", "RequestTimeout", "RequestAborted", "DenyConnection", "ChannelSocketException",
        "WebsocketCloseException", "SendNotAvailableOnDemultiplexer", "ChannelsqError", "ChannelFull",
        "MessageTooLarge", "BrokerUnavailable", "ChannelLayerError", "ChannelNotLocal", "InvalidChannelLayerError",
        "InvalidRouting", "InvalidSessionEngine", "InvalidToken", "BadFrame", "RequestIncomplete", "InvalidTicket",
        "PublicError",
    ],
    "channelsq.handler": ["AsgiRequest", "AsgiHandler", "ViewConsumer"],
    "channelsq.security.websockets": [
        "BaseOriginValidator", "AllowedHostsOnlyOriginValidator", "allowed_hosts_only",
    ],
    "channelsq.security.tokens": ["make_token", "read_token", "token_in", "token_view"],
    "channelsq.sessions": [
        "channel_session", "http_session", "channel_and_http_session", "enforce_ordering", "session_for_reply_channel",
        "wait_channel_name", "requeue_messages",
    ],
    "channelsq.auth": [
        "transfer_user", "channel_session_user", "http_session_user", "channel_session_user_from_http",
        "channel_and_http_session_user_from_http", "channel_session_user_from_token", "token_user",
        "log_in",
    ],
    "channelsq.live.middleware": ["LiveTasksMiddleware"],
    "channelsq.live": [
        "start", "progress", "stream", "listeners", "LiveTask", "Stream", "Cancelled", "InvalidTicket", "PublicError",
    ],
    "channelsq.generic": ["BaseConsumer"],
    "channelsq.generic.websockets": [
        "WebsocketConsumer", "JsonWebsocketConsumer", "WebsocketDemultiplexer", "WebsocketMultiplexer",
        "WebsocketConsumerDemultiplexer",
    ],
    "channelsq.binding": ["Binding"],
    "channelsq.binding.base": ["Binding", "BindingMetaclass", "CREATE", "UPDATE", "DELETE"],
    "channelsq.binding.websockets": [
        "WebsocketBinding", "WebsocketBindingWithMembers", "WebsocketBindingDemultiplexer",
    ],
    "channelsq.test": [
        "ChannelTestCase", "TransactionChannelTestCase", "Client", "HttpClient", "WSClient", "apply_routes",
        "ChannelLiveServerTestCase",
    ],
    "channelsq.pytest_plugin": ["channel_layer", "ws_client"],
    "channelsq.test.contract": [
        "LayerContract", "QueueContract", "StatisticsContract", "MarkContract", "RecordContract", "SourceContract",
        "LayerFixtures", "MakeLayer", "Unique",
    ],
    "channelsq.contrib.admin": ["LiveAdminMixin"],
    "channelsq.contrib.django_tasks": ["CeleryBackend"],
    "channelsq.client": [
        "Client", "ClientStream", "ClientTask", "TaskReport", "TextChange", "ClientError", "ClientClosed", "QueueFull",
        "TaskFailed",
    ],
    "channelsq.staticfiles": ["StaticFilesConsumer", "StaticFilesHandler"],
    "channelsq.signals": ["consumer_started", "consumer_finished", "worker_ready", "worker_process_ready"],
    "channelsq.utils": ["name_that_thing"],
    "channelsq.options": ["consumer"],
    "channelsq.asgi": [
        "ChannelLayerManager", "channel_layers", "get_channel_layer", "ChannelLayerWrapper", "InvalidChannelLayerError",
    ],
    "channelsq.layers": [
        "BaseChannelLayer", "RedisChannelLayer", "IPCChannelLayer", "InMemoryChannelLayer", "KombuChannelLayer",
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in PUBLIC.items() for name in names], ids=str
)
def test_public_names(module: str, name: str) -> None:
    assert hasattr(importlib.import_module(module), name)


@pytest.mark.parametrize("module", PUBLIC)
def test_no_name_appears_or_disappears(module: str) -> None:
    assert sorted(importlib.import_module(module).__all__) == sorted(PUBLIC[module])


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in PUBLIC.items() for name in names], ids=str
)
def test_public_names_are_documented(module: str, name: str) -> None:
    thing = getattr(importlib.import_module(module), name)
    if not inspect.isclass(thing) and not inspect.isfunction(thing):
        return
    assert inspect.getdoc(thing)
    if inspect.isclass(thing):
        silent = [
            f"{name}.{member}"
            for member, value in vars(thing).items()
            if inspect.isfunction(inspect.unwrap(getattr(value, "__func__", value)))
            and not member.startswith(("_", "test_"))  # the name of a test says what it tests
            and not inspect.getdoc(getattr(thing, member))
        ]
        assert not silent


def test_all_of_the_package() -> None:
    assert sorted(channelsq.__all__) == sorted(PUBLIC["channelsq"])
    assert set(channelsq.__all__) <= set(dir(channelsq))
    names: dict[str, Any] = {}
    exec("from channelsq import *", names)
    assert set(channelsq.__all__) <= set(names)
    assert channelsq.DEFAULT_CHANNEL_LAYER == "default"


def test_lazy_names_are_the_ones_of_their_modules() -> None:
    from channelsq import asgi, channel, options, routing, users

    assert channelsq.Channel is channel.Channel
    assert channelsq.Group is channel.Group
    assert channelsq.User is users.User
    assert channelsq.route is routing.route
    assert channelsq.route_class is routing.route_class
    assert channelsq.include is routing.include
    assert channelsq.channel_layers is asgi.channel_layers
    assert channelsq.consumer is options.consumer


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'channelsq' has no attribute 'nothing'"):
        channelsq.nothing  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError, match="nothing"):
        from channelsq import nothing  # type: ignore[attr-defined]  # noqa: F401


def loaded_after(code: str) -> set[str]:
    """The top-level modules that a new interpreter has loaded after ``code``."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"],
        cwd=Path(channelsq.__file__).parent.parent,
        env={"PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    # Django imports it while it loads its applications, and without its settings.
    loaded = loaded_after("import channelsq; channelsq.__version__; dir(channelsq)")
    assert "channelsq" in loaded
    assert not {"celery", "kombu", "redis", "django", "msgpack", "uvicorn", "asyncio"} & loaded


@pytest.mark.parametrize(
    "code",
    [
        "from channelsq import Channel, Group, route, include, route_class",
        "import channelsq.message, channelsq.core.names",
    ],
)
def test_what_an_application_imports_needs_no_broker_library_and_no_settings(code: str) -> None:
    assert not {"celery", "kombu", "redis", "uvicorn"} & loaded_after(code)


def test_the_client_needs_neither_django_nor_celery() -> None:
    assert not {"celery", "kombu", "redis", "django", "msgpack", "uvicorn"} & loaded_after("import channelsq.client")


def test_the_layers_stand_below_everything_else() -> None:
    code = "from channelsq.layers import *; import sys; assert 'channelsq.asgi' not in sys.modules"
    assert "uvicorn" not in loaded_after(code)
    with pytest.raises(ImportError, match="nothing"):
        from channelsq.layers import nothing  # noqa: F401
    assert set(channelsq.layers.__all__) <= set(dir(channelsq.layers))


def test_types_are_shipped() -> None:
    assert resources.files("channelsq").joinpath("py.typed").is_file()
    for script in ("group_members.lua", "drop_expired.lua"):
        assert resources.files("channelsq.redis_core.lua").joinpath(script).is_file()


def test_the_version_is_the_packages() -> None:
    assert channelsq.__version__ == metadata.version("channelsq")


# -- signatures that applications written for Channels 1 rely on -----------------------------------


def parameters(thing: Any) -> list[str]:
    return [name for name in inspect.signature(thing).parameters if name != "self"]


def test_signatures() -> None:
    assert parameters(channelsq.Channel) == ["name", "alias", "channel_layer"]
    assert parameters(channelsq.Channel.send)[:2] == ["content", "immediately"]
    assert parameters(channelsq.Group) == ["name", "alias", "channel_layer"]
    assert parameters(channelsq.Group.send)[:2] == ["content", "immediately"]
    assert parameters(channelsq.Group.add) == parameters(channelsq.Group.discard) == ["channel"]
    assert parameters(Message) == [
        "content",
        "channel_name",
        "channel_layer",
    ]
    assert parameters(channelsq.route)[:2] == ["channels", "consumer"]
    assert parameters(channelsq.route_class)[0] == "consumer"
    assert parameters(channelsq.include)[0] == "routing"


def test_a_layer_has_what_the_contract_names() -> None:
    for name in (
        "send", "receive", "receive_many", "new_channel", "group_add", "group_discard", "group_channels", "send_group",
        "flush", "close", "asend", "agroup_add", "agroup_discard", "asend_group", "ChannelFull", "MessageTooLarge",
        "extensions", "capacity_of",
    ):  # fmt: skip
        assert hasattr(BaseChannelLayer, name)
    assert parameters(BaseChannelLayer.receive) == ["channels", "block"]
