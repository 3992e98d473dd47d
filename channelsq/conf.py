"""Django's settings, read lazily and only here, and the project's Celery app."""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from channelsq.core import celery_app_internals
from channelsq.diagnostics.causes import meant
from channelsq.exceptions import InvalidChannelLayerError

if TYPE_CHECKING:
    from celery import Celery

DEFAULT_CHANNEL_LAYER = "default"

_KNOWN_KEYS = frozenset({"BACKEND", "CONFIG", "ROUTING", "TEST_CONFIG"})

REMEDY = (
    'in your settings, for example CHANNEL_LAYERS = {"default": {"BACKEND": '
    '"channelsq.layers.RedisChannelLayer", "CONFIG": {"url": REDIS_URL}, '
    '"ROUTING": "app.routing.channel_routing"}}'
)


#: The text for :func:`is_forgotten_in_apps`.
NOT_INSTALLED = (
    '"channelsq" is not in INSTALLED_APPS: Celery workers do not consume the channels of CHANNEL_LAYERS, the settings '
    "are not checked, and manage.py runserver is Django's; put it first, as in "
    'INSTALLED_APPS = ["channelsq", "django.contrib.staticfiles", …]'
)


@dataclass(frozen=True)
class LayerSettings:
    """One entry of ``CHANNEL_LAYERS``, its keys checked."""

    alias: str
    backend: str
    routing: Any
    config: Mapping[str, Any] = field(default_factory=dict)
    test_config: Mapping[str, Any] | None = None


def project_modules() -> list[str]:
    """Return the dotted paths by which the settings name modules of the project: settings, URLs, WSGI and ASGI."""
    names = ("SETTINGS_MODULE", "ROOT_URLCONF", "WSGI_APPLICATION", "ASGI_APPLICATION")
    return [value for name in names if isinstance(value := getattr(settings, name, None), str)]


def forced_script_name() -> str:
    """Return Django's ``FORCE_SCRIPT_NAME``, the prefix under which the site is mounted; "" if it is not set."""
    return settings.FORCE_SCRIPT_NAME or ""


def is_forgotten_in_apps() -> bool:
    """Return whether Django has loaded its apps, and channelsq is not among them."""
    return apps.ready and not apps.is_installed("channelsq")


def layer_configs() -> dict[str, Any]:
    """Return ``CHANNEL_LAYERS`` as in the settings; ``{}`` if it is missing."""
    configs = getattr(settings, "CHANNEL_LAYERS", {})
    if not isinstance(configs, dict):
        raise InvalidChannelLayerError(
            f"CHANNEL_LAYERS must be a dict of aliases, not {type(configs).__name__}; write it {REMEDY}"
        )
    return configs


def layer_settings(alias: str) -> LayerSettings:
    """Return the checked settings of one layer.

    Raises:
        InvalidChannelLayerError: the alias is unknown, or its entry cannot be used.
    """
    configs = layer_configs()
    try:
        entry = configs[alias]
    except KeyError:
        known = ", ".join(map(repr, configs)) or "none"
        raise InvalidChannelLayerError(
            f"CHANNEL_LAYERS has no layer {alias!r} (there: {known}); add it {REMEDY}"
        ) from None
    if not isinstance(entry, dict):
        raise InvalidChannelLayerError(f"CHANNEL_LAYERS[{alias!r}] must be a dict, not {entry!r}")
    unknown = sorted(set(entry) - _KNOWN_KEYS, key=repr)
    if unknown:
        raise InvalidChannelLayerError(
            f"CHANNEL_LAYERS[{alias!r}] has unknown keys {unknown}; known are {sorted(_KNOWN_KEYS)}"
            f"{meant(unknown[0], _KNOWN_KEYS)}"
        )
    for key in ("BACKEND", "ROUTING"):
        if entry.get(key) in (None, ""):
            raise InvalidChannelLayerError(f"CHANNEL_LAYERS[{alias!r}] has no {key!r}; write it {REMEDY}")
    if not isinstance(entry["BACKEND"], str):
        raise InvalidChannelLayerError(
            f"CHANNEL_LAYERS[{alias!r}]['BACKEND'] must be the dotted path to a layer class, not "
            f"{entry['BACKEND']!r}; write it {REMEDY}"
        )
    for key in ("CONFIG", "TEST_CONFIG"):
        if not isinstance(entry.get(key) or {}, dict):
            raise InvalidChannelLayerError(f"CHANNEL_LAYERS[{alias!r}][{key!r}] must be a dict, not {entry[key]!r}")
    return LayerSettings(
        alias,
        entry["BACKEND"],
        entry["ROUTING"],
        entry.get("CONFIG") or {},
        entry.get("TEST_CONFIG"),
    )


def ordering_wait() -> float:
    """Return ``CHANNEL_ORDERING_WAIT``: seconds after which ``@enforce_ordering`` gives up a missing message."""
    seconds = getattr(settings, "CHANNEL_ORDERING_WAIT", 30)
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < float("inf"):
        raise ImproperlyConfigured(f"CHANNEL_ORDERING_WAIT must be seconds, more than 0, not {seconds!r}")
    return seconds


def rerun_methods() -> frozenset[str]:
    """Return ``CHANNEL_RERUN_METHODS``: HTTP methods of requests that run again although their view had begun.

    The default is the safe methods of RFC 9110, section 9.2.1.
    """
    methods = getattr(settings, "CHANNEL_RERUN_METHODS", ("GET", "HEAD", "OPTIONS", "TRACE"))
    if isinstance(methods, str) or not isinstance(methods, (list, tuple, set, frozenset)):
        raise ImproperlyConfigured(
            f'CHANNEL_RERUN_METHODS cannot be {methods!r}: write a list such as ["GET", "HEAD"], or ["*"] for all'
        )
    for method in methods:
        if not isinstance(method, str) or not method:
            raise ImproperlyConfigured(f'CHANNEL_RERUN_METHODS cannot have {method!r}: write methods such as "GET"')
    return frozenset(method.upper() for method in methods)


def shutdown_timeout() -> float:
    """Return ``CHANNEL_SHUTDOWN_TIMEOUT``: seconds after which a worker that is stopping ends streaming responses."""
    seconds = getattr(settings, "CHANNEL_SHUTDOWN_TIMEOUT", 20)
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < float("inf"):
        raise ImproperlyConfigured(f"CHANNEL_SHUTDOWN_TIMEOUT must be seconds, 0 or more, not {seconds!r}")
    return seconds


def sends_events(identity: str | None = None) -> bool:
    """Return ``CHANNEL_EVENTS``: whether Celery's events are sent for a consumer's message.

    The setting is True or False for all or none, or the sampled part of the messages, 0 to 1.  All events of one
    message are sent, or none.

    Args:
        identity: the message's id; None to ask whether events of any message are sent.
    """
    part = getattr(settings, "CHANNEL_EVENTS", False)
    if isinstance(part, bool):
        return part
    if not isinstance(part, (int, float)) or not 0 <= part <= 1:
        raise ImproperlyConfigured(f"CHANNEL_EVENTS must be True, False or a part from 0 to 1, not {part!r}")
    return part > 0 if identity is None else zlib.crc32(identity.encode()) < part * 2**32


def recycled_after(limit: str) -> int:
    """Return ``CHANNEL_MAX_MESSAGES`` or ``CHANNEL_MAX_MEMORY``, the limit of a channel process; 0 for none.

    Args:
        limit: ``"messages"``, their number, or ``"memory"``, in KB.
    """
    name = f"CHANNEL_MAX_{limit.upper()}"
    number = getattr(settings, name, 0)
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise ImproperlyConfigured(f"{name} must be a whole number, 0 for no limit, not {number!r}")
    return number


#: An origin.  The origin of a page in a file, or in an app, may have no host: ``file://``.
_ORIGIN = re.compile(r"https?://[^/\s]+|(?!https?:)[\w.+-]+://[^/\s]*", re.IGNORECASE)


def allowed_origins() -> list[str]:
    """Return ``CHANNEL_ALLOWED_ORIGINS``: pages that may open a WebSocket besides those of ``ALLOWED_HOSTS``."""
    origins = getattr(settings, "CHANNEL_ALLOWED_ORIGINS", [])
    remedy = 'write a list such as ["https://example.com", "https://*.example.com"], or ["*"] to let every page in'
    if isinstance(origins, str) or not isinstance(origins, (list, tuple, set)):
        raise ImproperlyConfigured(f"CHANNEL_ALLOWED_ORIGINS cannot be {origins!r}: {remedy}")
    for origin in origins:
        if not isinstance(origin, str) or not (origin in ("*", "null") or _ORIGIN.fullmatch(origin)):
            raise ImproperlyConfigured(f"CHANNEL_ALLOWED_ORIGINS cannot have {origin!r}: {remedy}")
    return list(origins)


def takes_session_key_in_url() -> bool:
    """Return ``CHANNEL_SESSION_KEY_IN_URL``: whether ``?session_key=`` names a session, as in Channels 1."""
    taken = getattr(settings, "CHANNEL_SESSION_KEY_IN_URL", True)
    if not isinstance(taken, bool):
        raise ImproperlyConfigured(f"CHANNEL_SESSION_KEY_IN_URL must be True or False, not {taken!r}")
    return taken


def secrets() -> list[bytes]:
    """Return ``SECRET_KEY``, then ``SECRET_KEY_FALLBACKS``."""
    found = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    return [secret.encode() if isinstance(secret, str) else secret for secret in found]


def token_age() -> float:
    """Return ``CHANNEL_TOKEN_AGE``: seconds for which a token opens a WebSocket."""
    seconds = getattr(settings, "CHANNEL_TOKEN_AGE", 60)
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < float("inf"):
        raise ImproperlyConfigured(f"CHANNEL_TOKEN_AGE must be seconds, more than 0, not {seconds!r}")
    return seconds


def requires_origin() -> bool:
    """Return ``CHANNEL_REQUIRE_ORIGIN``: whether clients without an origin, which are not browsers, are refused."""
    required = getattr(settings, "CHANNEL_REQUIRE_ORIGIN", False)
    if not isinstance(required, bool):
        raise ImproperlyConfigured(f"CHANNEL_REQUIRE_ORIGIN must be True or False, not {required!r}")
    return required


def admin_path() -> str:
    """Return ``CHANNEL_ADMIN_PATH``: the path of the live admin's WebSocket below the site's own prefix."""
    path = getattr(settings, "CHANNEL_ADMIN_PATH", "/channelsq/admin/")
    if not isinstance(path, str) or not path.startswith("/"):
        raise ImproperlyConfigured(f'CHANNEL_ADMIN_PATH must be a path such as "/channelsq/admin/", not {path!r}')
    return path


def admin_for_all() -> bool:
    """Return ``CHANNEL_ADMIN_ALL``: whether a ModelAdmin without a choice of its own is live."""
    for_all = getattr(settings, "CHANNEL_ADMIN_ALL", True)
    if not isinstance(for_all, bool):
        raise ImproperlyConfigured(f"CHANNEL_ADMIN_ALL must be True or False, not {for_all!r}")
    return for_all


@dataclass(frozen=True)
class DashboardSettings:
    """``CHANNEL_DASHBOARD``: the dashboard, all optional."""

    #: Whether the dashboard is on although ``DEBUG`` is off.
    enabled: bool = False
    #: The path of its WebSocket below the site's own prefix.
    path: str = "/channelsq/dashboard/"
    #: Seconds between two samples.
    every: float = 2.0
    #: The permission that staff need to replay and delete dead letters, such as ``"shop.operate"``; superusers always
    #: may.
    permission: str = ""
    #: The metrics pages of the interface servers, such as ``["http://10.0.0.5:8000/-/metrics"]``.
    metrics: Sequence[str] = ()

    @property
    def is_on(self) -> bool:
        """True if the site has the dashboard now."""
        return self.enabled or settings.DEBUG


#: The most metrics pages that the dashboard reads.
MOST_METRICS_PAGES = 50


def dashboard_settings() -> DashboardSettings:
    """Return ``CHANNEL_DASHBOARD``."""
    example = {"enabled": True, "metrics": ["http://127.0.0.1:8000/-/metrics"]}
    value = dict(_checked_dict("CHANNEL_DASHBOARD", example, asdict(DashboardSettings())))
    pages = tuple(value.pop("metrics", ()))
    if len(pages) > MOST_METRICS_PAGES:
        raise ImproperlyConfigured(
            f"CHANNEL_DASHBOARD['metrics'] has {len(pages)} addresses; name at most {MOST_METRICS_PAGES}, and use "
            "Prometheus for more"
        )
    for page in pages:
        if not isinstance(page, str) or not _METRICS_PAGE.fullmatch(page):
            raise ImproperlyConfigured(
                f"CHANNEL_DASHBOARD['metrics'] cannot have {page!r}: write the address of a metrics page, such as "
                f"{example['metrics']}, without user and password"
            )
    return DashboardSettings(**value, metrics=pages)


_METRICS_PAGE = re.compile(r"https?://[^/\s@?#]+(/[^\s@?#]*)?", re.IGNORECASE)


def sms_settings() -> dict[str, Any]:
    """Return ``CHANNEL_SMS``: the provider of the SMS gateway, and its settings; ``{}`` if it is not set."""
    return _gateway_settings("CHANNEL_SMS", '{"account_sid": …, "auth_token": …, "sender": "+4915…"}')


def email_settings() -> dict[str, Any]:
    """Return ``CHANNEL_EMAIL``: the settings of the email gateway; ``{}`` if it is not set."""
    return _gateway_settings("CHANNEL_EMAIL", '{"domains": ["chat.example.com"]}')


def _gateway_settings(name: str, example: str) -> dict[str, Any]:
    value = getattr(settings, name, {})
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ImproperlyConfigured(f"{name} must be a dict such as {example}, not {type(value).__name__}")
    return dict(value)


@dataclass(frozen=True)
class LiveSettings:
    """``CHANNEL_LIVE``: the limits of live tasks and pages, all optional."""

    #: Seconds that the state of a live task is kept after its end.
    keep: float = 3600.0
    #: Seconds for which a ticket is valid, and for which the state of a task without an end is kept.
    ticket_age: float = 86_400.0
    #: The fewest seconds between two messages about a task's progress.
    progress_every: float = 0.1
    #: The fewest seconds between two pieces of a stream.
    stream_every: float = 0.03
    #: Bytes of each stream that are kept for pages which come later.
    stream_size: int = 1_000_000
    #: Bytes of a result in JSON; a longer one is omitted.
    result_size: int = 65_536
    #: Whether a cancelled task is ended by a signal, if its pool supports that.
    terminate: bool = False
    #: The dotted path of a function of a message and a task's id that returns whether the socket may cancel the task.
    may_cancel: str = ""
    #: Whether a task that a view or consumer calls with ``delay()`` is live for the user of the request, or the socket.
    from_requests: bool = False
    #: The path of the WebSocket for pages without one of their own, below the site's own prefix.
    path: str = "/channelsq/live/"
    #: Seconds for which the ticket of a live page is valid.
    page_age: float = 3600.0
    #: The dotted path of a function of a user and a group's name that returns whether the user's page may join it.
    may_join: str = ""


def live_settings() -> LiveSettings:
    """Return ``CHANNEL_LIVE``."""
    global _live
    value = getattr(settings, "CHANNEL_LIVE", None)
    if _live[0] is not value:
        _live = value, LiveSettings(**_checked_dict("CHANNEL_LIVE", {"keep": 3600}, asdict(LiveSettings())))
    return _live[1]


#: The value of ``CHANNEL_LIVE`` that was read last, and its meaning: each report of a task asks for it.
_live: tuple[Any, LiveSettings] = (None, LiveSettings())


@dataclass(frozen=True)
class UserSettings:
    """``CHANNEL_USERS``: what is done with the sockets of users by itself, all optional."""

    #: Whether the sockets of a user join the group of :class:`channelsq.users.User`.
    join: bool = False
    #: Whether a logout closes the user's sockets.
    disconnect_on_logout: bool = False
    #: Whether a changed password closes the user's sockets.
    disconnect_on_password_change: bool = False


_NO_USERS = UserSettings()


def user_settings() -> UserSettings:
    """Return ``CHANNEL_USERS``."""
    if getattr(settings, "CHANNEL_USERS", None) is None:
        return _NO_USERS
    return UserSettings(**_checked_dict("CHANNEL_USERS", {"join": True}, asdict(UserSettings())))


def _checked_dict(setting: str, example: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """Return a setting that is a dict; its keys are known, and its values have the types of the defaults."""
    value = getattr(settings, setting, {})
    if not isinstance(value, dict):
        raise ImproperlyConfigured(f"{setting} must be a dict such as {example}, not {value!r}")
    for name, given in value.items():
        if name not in known:
            raise ImproperlyConfigured(
                f"{setting} has no setting {name!r}; there are {sorted(known)}{meant(str(name), known)}"
            )
        wanted = _wrong_value(known[name], given)
        if wanted:
            raise ImproperlyConfigured(f"{setting}[{name!r}] must be {wanted}, not {given!r}")
    return value


def _wrong_value(default: Any, given: Any) -> str:
    """Return what a value must be; "" if it is of the kind of the default."""
    if isinstance(default, bool):
        return "" if isinstance(given, bool) else "True or False"
    if isinstance(default, tuple):
        return "" if isinstance(given, (list, tuple)) else "a list"
    if isinstance(default, str):
        if default.startswith("/"):
            return "" if isinstance(given, str) and given.startswith("/") else f"a path such as {default!r}"
        return "" if isinstance(given, str) else "a dotted path"
    whole = isinstance(default, int)
    is_number = isinstance(given, int if whole else (int, float)) and not isinstance(given, bool)
    return "" if is_number and 0 < given < float("inf") else f"a {'whole ' * whole}number, more than 0"


def import_dotted(path: str) -> Any:
    """Return the object that a dotted path such as ``"app.routing.channel_routing"`` names.

    Raises:
        ImportError: the module, or the name in it, does not exist; the text says which.
    """
    module_name, _, attribute = path.rpartition(".")
    if not module_name or not all(part.isidentifier() for part in path.split(".")):
        raise ImportError(f"{path!r} is not a dotted path to something in a module")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module exists, but imports one that does not
        raise ImportError(f"{error}{meant(error.name, _neighbours(error.name))}") from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        hint = meant(attribute, dir(module))
        raise ImportError(f"module {module_name!r} has nothing called {attribute!r}{hint}") from None


def _neighbours(module_name: str) -> list[str]:
    """Return the names of the modules in a module's package."""
    package, _, _ = module_name.rpartition(".")
    path = getattr(sys.modules.get(package), "__path__", None)
    return [] if path is None else [f"{package}.{each.name}" for each in pkgutil.iter_modules(path)]


_celery_app: Celery | None = None


def remember_celery_app() -> None:
    """Store the Celery app that the project created.

    This is called when Django's apps are loaded: the project's package has been imported by then, and Celery's
    *current* app exists for the importing thread alone.
    """
    global _celery_app
    current = celery_app_internals.app_of_thread()
    if current is not None:
        _celery_app = current


def known_celery_app() -> Celery | None:
    """Return the Celery app that the project created; None if there is none yet."""
    if _celery_app is None:
        remember_celery_app()
    return _celery_app


def celery_app() -> Celery:
    """Return the project's Celery app; Celery's default one if there is none."""
    return known_celery_app() or celery_app_internals.current_app()


def celery_broker_url(app: Celery | None = None) -> str:
    """Return the URL that a Celery app's workers consume; several brokers for failover are joined as Kombu expects."""
    app_conf = (app or celery_app()).conf
    url = app_conf.broker_read_url or app_conf.broker_url or ""
    return url if isinstance(url, str) else ";".join(url)


def is_chosen(app: Celery, setting: str) -> bool:
    """Return whether a setting of a Celery app was set, and is not Celery's own default.

    Args:
        app: the app.
        setting: its name in lower case, such as ``"worker_pool"``; it may have been set as ``CELERY_WORKER_POOL``.
    """
    return celery_app_internals.is_chosen(app, setting)
