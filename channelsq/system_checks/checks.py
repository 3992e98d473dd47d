"""Django system checks: each finds one mistake in the settings and names the remedy.

Only E009 asks a server.  It belongs to ``check --deploy``, since ``runserver``, ``migrate`` and tests run the plain
``check``, which must need no Redis.  A Redis that does not answer is not an error there either, as a deploy may be
checked where its Redis is unreachable; use ``manage.py doctor`` for that.

=================  =====================================================================
channelsq.E001     CHANNEL_LAYERS has no usable default layer
channelsq.E002     the routing cannot be read
channelsq.E003     a layer inside one process under a command that works in several
channelsq.E004     the layer has no broker URL
channelsq.E005     the groups have no Redis
channelsq.E007     a layer other than the default one cannot be used, or shares another's queues
channelsq.E008     a consumer is a coroutine function
channelsq.E009     a layer's Redis is too old for its channels (``check --deploy``)
channelsq.E010     TASKS names a backend of channelsq, and this Django has no django.tasks
channelsq.W001     CHANNEL_LAYERS is missing
channelsq.W002     ALLOWED_HOSTS is empty outside DEBUG
channelsq.W003     "channelsq" is below "django.contrib.staticfiles"
channelsq.W004     a layer inside one process in production (``check --deploy``)
channelsq.W006     session keys are taken from URLs in production (``check --deploy``)
channelsq.W007     every page may open a WebSocket in production (``check --deploy``)
channelsq.W008     the broker is reached over the internet without TLS (``check --deploy``)
channelsq.W009     a route's channel has almost the name of a channel of the interface server
channelsq.W010     the project has a Celery app that Django does not import
channelsq.W011     a class gets only some of the channels that it handles
channelsq.W012     a backend of TASKS cannot read results, although Celery has a result backend
=================  =====================================================================
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import ipaddress
import os
import sys
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import django
from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from channelsq import conf
from channelsq.asgi import ChannelLayerWrapper, channel_layers, check_queues_apart
from channelsq.core.bounded import within
from channelsq.exceptions import ChannelsqError, InvalidChannelLayerError, InvalidRouting
from channelsq.layers.contract.broker_urls import shown
from channelsq.layers.redis_servers import RedisServer, is_old, redis_servers, version_of
from channelsq.redis_core.server_errors import NEEDED
from channelsq.redis_io.sentinel_urls import is_sentinel_url, read_sentinel_url
from channelsq.system_checks.routing_checks import check_routes

TAG = "channelsq"

#: Seconds that a server may take to report its version.
_PATIENCE = 3.0

#: Schemes of brokers and groups without TLS.
_WITHOUT_TLS = frozenset({"redis", "redis-streams", "sentinel", "sentinel-streams", "amqp", "pyamqp"})

_PROCESS_LAYER_HINT = (
    "Set REDIS_URL, or CHANNEL_LAYERS to channelsq.layers.RedisChannelLayer, KombuChannelLayer or, on one machine "
    "without a broker, IPCChannelLayer."
)


def register() -> None:
    """Register the checks with Django."""
    checks.register(check_layers, TAG)
    checks.register(check_settings, TAG)
    checks.register(check_deployment, TAG, deploy=True)
    checks.register(check_servers, TAG, deploy=True)


def _default_layer() -> ChannelLayerWrapper | None:
    try:
        return channel_layers[conf.DEFAULT_CHANNEL_LAYER]
    except ChannelsqError:
        return None


def check_layers(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Return E001 to E008, W001, W009 and W011."""
    if not getattr(settings, "CHANNEL_LAYERS", None):
        return [checks.Warning("CHANNEL_LAYERS is not set.", hint=f"Write it {conf.REMEDY}.", id="channelsq.W001")]
    try:
        layer = channel_layers[conf.DEFAULT_CHANNEL_LAYER]
    except ChannelsqError as error:
        return [checks.Error(str(error), id="channelsq.E001")]
    found: list[CheckMessage] = []
    try:
        _ = layer.router
    except InvalidRouting as error:
        found.append(
            checks.Error(
                str(error),
                id="channelsq.E002",
            )
        )
    return found + check_routes() + _check_broker(layer) + _check_others()


def _check_others() -> list[CheckMessage]:
    found: list[CheckMessage] = []
    layers: list[ChannelLayerWrapper] = []
    for alias in channel_layers.configs:
        try:
            layer = channel_layers[alias]
            if alias != conf.DEFAULT_CHANNEL_LAYER:
                _ = layer.router
            if not layer.in_process:
                layers.append(layer)
        except ChannelsqError as error:
            if alias != conf.DEFAULT_CHANNEL_LAYER:
                found.append(checks.Error(str(error), id="channelsq.E007"))
    try:
        check_queues_apart(layers)
    except InvalidChannelLayerError as error:
        found.append(checks.Error(str(error), id="channelsq.E007"))
    return found


def _check_broker(layer: ChannelLayerWrapper) -> list[CheckMessage]:
    try:
        in_process = layer.in_process
    except InvalidChannelLayerError as error:
        return [checks.Error(str(error), id="channelsq.E004")]
    if in_process:
        if not _is_multi_process_command(sys.argv):
            return []
        return [
            checks.Error(
                f"The channel layer {layer} lives inside one process, and this command works in several.",
                hint=_PROCESS_LAYER_HINT,
                id="channelsq.E003",
            )
        ]
    found: list[CheckMessage] = []
    try:
        getattr(layer, "groups_url", None)
    except InvalidChannelLayerError as error:
        found.append(checks.Error(str(error), id="channelsq.E005"))
    return found


def _is_multi_process_command(argv: Sequence[str]) -> bool:
    command = os.path.basename(argv[0]) if argv else ""
    return "runworker" in argv[1:2] or (command == "celery" and "worker" in argv[1:])


def check_settings(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Return E010, W002, W003 and W010."""
    found = _check_celery_app() + _check_tasks()
    if not settings.DEBUG and not settings.ALLOWED_HOSTS:
        found.append(
            checks.Warning(
                "ALLOWED_HOSTS is empty and DEBUG is off: every request will be answered with 400.",
                hint='Set ALLOWED_HOSTS to the names this site is reached by, such as ["chat.example.com"].',
                id="channelsq.W002",
            )
        )
    apps = list(settings.INSTALLED_APPS)
    mine = next((n for n, app in enumerate(apps) if app.split(".")[0] == "channelsq"), None)
    if mine is not None and any(app.startswith("django.contrib.staticfiles") for app in apps[:mine]):
        found.append(
            checks.Warning(
                '"channelsq" stands below "django.contrib.staticfiles", whose runserver hides channelsq\'s.',
                hint='Put "channelsq" first in INSTALLED_APPS.',
                id="channelsq.W003",
            )
        )
    return found


def _check_tasks() -> list[CheckMessage]:
    """Return E010; Django 5.2 does not read TASKS."""
    tasks = getattr(settings, "TASKS", None)
    if django.VERSION >= (6, 0) or not isinstance(tasks, dict):
        return []
    return [
        checks.Error(
            f"TASKS[{alias!r}] needs django.tasks, and this is Django {django.get_version()}.",
            hint="Install Django 6.0 or later, or call the function as a Celery task.",
            id="channelsq.E010",
        )
        for alias, params in tasks.items()
        if str(params.get("BACKEND", "")).startswith("channelsq.")
    ]


def _check_celery_app() -> list[CheckMessage]:
    """Return W010."""
    if conf.known_celery_app() is not None:
        return []
    module = _unimported_celery_module()
    if module is None:
        return []
    package = module.partition(".")[0]
    return [
        checks.Warning(
            f"Django does not import the Celery app in {module}: .delay() of the project's tasks uses Celery's default "
            "broker, amqp://localhost, and manage.py runworker has no app.",
            hint=f"Write into {package}/__init__.py: from {module} import app as celery_app",
            id="channelsq.W010",
        )
    ]


def _unimported_celery_module() -> str | None:
    """Return the module called ``celery`` in a package of the project, if it was not imported."""
    for module in conf.project_modules():
        package, _, rest = module.partition(".")
        name = f"{package}.celery"
        if rest and name not in sys.modules and _exists(name):
            return name
    return None


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def check_deployment(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Return W004 and W006 to W008."""
    return _check_production_layer() + _check_openness() + _check_brokers()


#: Ends of host names that do not exist on the internet.
_INTERNAL = (
    ".internal",
    ".local",
    ".localdomain",
    ".lan",
    ".home.arpa",
    ".svc",
    ".localhost",
    ".test",
    ".example",
    ".invalid",
)


def _is_public(host: str) -> bool:
    """Return whether a host is, by its name or address, one on the internet."""
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return "." in host.strip(".") and not host.lower().rstrip(".").endswith(_INTERNAL)


def _has_tls(url: str) -> bool:
    """Return whether a URL of Sentinels requests TLS to the servers."""
    return is_sentinel_url(url) and read_sentinel_url(url).tls is not None


def _check_brokers() -> list[CheckMessage]:
    found: list[CheckMessage] = []
    for alias in channel_layers.configs:
        try:
            layer = channel_layers[alias]
            if layer.in_process:
                continue
            urls = {getattr(layer, "url", ""), getattr(layer, "groups_url", None) or ""}
        except (ChannelsqError, ValueError, ImportError):
            continue  # another check says so
        for url in sorted(each for some in urls if not _has_tls(some) for each in some.split(";")):
            scheme, _, rest = url.partition("://")
            host = urlsplit(f"x://{rest}").hostname or ""
            if scheme in _WITHOUT_TLS and _is_public(host) and not conf.celery_app().conf.broker_use_ssl:
                found.append(
                    checks.Warning(
                        f"CHANNEL_LAYERS[{alias!r}] reaches {shown(url)} over the internet without TLS: an attacker in "
                        "between reads all messages, and can choose what workers run.",
                        hint="Use rediss-streams://, rediss:// or amqps://, with sentinel:// the option ssl=true, or a "
                        "private network; and see "
                        "CONFIG['signing'] in docs/explanation/security.md.",
                        id="channelsq.W008",
                    )
                )
    return found


def check_servers(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Return E009."""
    found: list[CheckMessage] = []
    for alias in channel_layers.configs:
        try:
            layer = channel_layers[alias].channel_layer
            servers = redis_servers(layer)
        except (ChannelsqError, ValueError, ImportError):
            continue  # another check says so
        for server in servers:
            if server.has_streams:
                with contextlib.suppress(RedisError, KombuError, OSError, ChannelsqError):
                    found += within(_PATIENCE, functools.partial(_check_version, alias, server))
    return found


def _check_version(alias: str, server: RedisServer) -> list[CheckMessage]:
    with server.connected() as client:
        if not is_old(client):
            return []
        version = version_of(client) or "an old Redis"
    return [
        checks.Error(
            f"CHANNEL_LAYERS[{alias!r}] keeps its channels on {version} at {server.shown}, and they need {NEEDED}: "
            "nothing can be sent or consumed.",
            hint="Upgrade the server, or use Valkey.  channelsq.layers.KombuChannelLayer works with older ones.",
            id="channelsq.E009",
        )
    ]


def _check_openness() -> list[CheckMessage]:
    found: list[CheckMessage] = []
    if conf.takes_session_key_in_url():
        found.append(
            checks.Warning(
                "Sessions are found by ?session_key= in URLs, which end in logs and histories of other programs.",
                hint="Set CHANNEL_SESSION_KEY_IN_URL = False, unless clients without cookies need it.",
                id="channelsq.W006",
            )
        )
    if "*" in conf.allowed_origins():
        found.append(
            checks.Warning(
                "CHANNEL_ALLOWED_ORIGINS has '*', so every page may open a WebSocket in its visitor's name.",
                hint="Name the origins, or check them in each websocket.connect consumer.",
                id="channelsq.W007",
            )
        )
    return found


def _check_production_layer() -> list[CheckMessage]:
    layer = _default_layer()
    try:
        in_process = layer is not None and layer.in_process
    except InvalidChannelLayerError:
        return []
    if not in_process:
        return []
    return [
        checks.Warning(
            f"The channel layer {layer} lives inside one process: a second process, and every restart, loses messages.",
            hint=_PROCESS_LAYER_HINT,
            id="channelsq.W004",
        )
    ]
