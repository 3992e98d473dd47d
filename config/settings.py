"""The demo project's settings, all from environment variables.

Without any of them it is a development project: SQLite, and one process that serves and works
(``python manage.py runserver``).  ``REDIS_URL`` or ``IPC_PREFIX`` alone divides it into interface servers and
workers; ``SECRET_KEY`` makes it a production site.

==================== =================================================================================
SECRET_KEY           makes it a production site; required there
DEBUG                1 or 0; off with SECRET_KEY or on Heroku, else on
ALLOWED_HOSTS        the names the site is reached by, divided by commas
HTTPS                1 or 0, whether the site is only reached by https; the opposite of DEBUG if unset
CSRF_TRUSTED_ORIGINS more origins that may post forms and open sockets, divided by commas
DATABASE_URL         such as postgres://user:password@host/name; SQLite if unset
REDIS_URL            redis://, rediss:// or sentinel://: channels, groups, and tasks unless BROKER_URL is set
IPC_PREFIX           a name: channels, groups and tasks between processes of this machine, without a server
BROKER_URL           another broker for tasks, such as amqp://
MEDIA_ROOT           the folder for files that users upload; media/ in the project if unset
CHAT_UPLOAD_SIZE     the most bytes of such a file; 5 MB if unset
CHAT_PACE            a factor for the time that the demo's tasks take; 1 if unset
GATEWAY_ROOM         the slug of the room that shows texts and mails; none if unset
TWILIO_ACCOUNT_SID   with TWILIO_AUTH_TOKEN and TWILIO_SENDER: for python -m channelsq.interface.sms
EMAIL_DOMAINS        domains whose mails python -m channelsq.interface.email accepts, divided by commas
EMAIL_HOST           the mail server for answers, and EMAIL_PORT
==================== =================================================================================
"""

import os
from pathlib import Path
from typing import Any

import dj_database_url
from django.core.exceptions import ImproperlyConfigured

from channelsq.ipc import ipc_url
from channelsq.transport import streams_url

BASE_DIR = Path(__file__).resolve().parent.parent

# Every process on Heroku has a DYNO.
ON_HEROKU = "DYNO" in os.environ


def flag(name: str, default: bool) -> bool:
    """Return an environment variable that is on or off."""
    value = os.environ.get(name, "").strip().lower()
    if value in ("1", "true", "yes", "on"):
        return True
    if value in ("0", "false", "no", "off"):
        return False
    if value:
        raise ImproperlyConfigured(f"{name} must be 1 or 0, not {os.environ[name]!r}")
    return default


def words(name: str) -> list[str]:
    """Return an environment variable that is a list divided by commas."""
    return [word.strip() for word in os.environ.get(name, "").split(",") if word.strip()]


def number(name: str, default: float) -> float:
    """Return an environment variable that is a number, not below 0."""
    try:
        value = float(os.environ.get(name, "") or default)
    except ValueError:
        value = -1
    if not 0 <= value < float("inf"):
        raise ImproperlyConfigured(f"{name} must be a number that is not below 0, not {os.environ[name]!r}")
    return value


# -- security -----------------------------------------------------------------------------------

SECRET_KEY = os.environ.get("SECRET_KEY", "")
DEBUG = flag("DEBUG", default=not (SECRET_KEY or ON_HEROKU))
if not SECRET_KEY:
    if not DEBUG:
        raise ImproperlyConfigured(
            "SECRET_KEY is not set, and DEBUG is off.  Set it to a long random text, the same in every process: "
            "python -c 'import secrets; print(secrets.token_urlsafe(60))'"
        )
    SECRET_KEY = "insecure-and-only-for-development"  # noqa: S105 - the same in every process on this machine

# Heroku's router passes on only requests for the names of this app.
ALLOWED_HOSTS = words("ALLOWED_HOSTS") or ([".herokuapp.com"] if ON_HEROKU else [])
CSRF_TRUSTED_ORIGINS = words("CSRF_TRUSTED_ORIGINS")

HTTPS = flag("HTTPS", default=not DEBUG)
if HTTPS:
    SECURE_SSL_REDIRECT = True
    # The proxy in front (Heroku's router, nginx) must set this header itself, and overwrite the client's.
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True
    # For a year browsers will refuse plain http for this host and its subdomains.
    SECURE_HSTS_SECONDS = 31_536_000
    SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = True

# -- the application ----------------------------------------------------------------------------

INSTALLED_APPS = [
    "channelsq",  # first: its runserver replaces that of django.contrib.staticfiles
    "channelsq.contrib.dashboard",
    "channelsq.contrib.admin",  # above the admin, whose templates it extends
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "app",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "config.urls"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# Programs without cookies are not among the chat's clients.
CHANNEL_SESSION_KEY_IN_URL = False

LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "rooms"
LOGOUT_REDIRECT_URL = "rooms"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

# Every socket joins the group of its user: User(user).send() reaches all pages that the user has open.
CHANNEL_USERS = {"join": True, "disconnect_on_logout": True}

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True

# -- static files: runserver serves them from the apps, otherwise whitenoise does ------------------

STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
WHITENOISE_USE_FINDERS = WHITENOISE_AUTOREFRESH = DEBUG
if not DEBUG:
    STORAGES = {
        "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
        "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
    }

# -- files of users: never served from a folder, see app/uploads.py --------------------------------

# Every worker needs the same folder.  On several machines, and on Heroku, whose disks are emptied daily, set
# STORAGES["default"] to a shared storage, such as one of django-storages.
MEDIA_ROOT = Path(os.environ.get("MEDIA_ROOT", "") or BASE_DIR / "media")
CHAT_UPLOAD_SIZE = number("CHAT_UPLOAD_SIZE", 5 * 1024 * 1024)
CHAT_PACE = number("CHAT_PACE", 1)

# -- the database -------------------------------------------------------------------------------

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES: dict[str, Any] = {
    "default": dj_database_url.config(
        default=f"sqlite:///{BASE_DIR / 'db.sqlite3'}",
        # Consumers keep a connection from message to message, as views do from request to request.
        conn_max_age=600,
        conn_health_checks=True,
        ssl_require=ON_HEROKU,
    )
}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # Many threads write: let them wait for each other instead of failing, and let readers read meanwhile.
    DATABASES["default"]["OPTIONS"] = {
        "timeout": 20,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
    }

# -- channels and tasks -------------------------------------------------------------------------


def redis_url() -> str:
    """Return ``REDIS_URL``, adapted to Heroku, whose certificates are self-signed."""
    url = os.environ.get("REDIS_URL", "")
    if ON_HEROKU and url.startswith("rediss://") and "ssl_cert_reqs" not in url:
        url += ("&" if "?" in url else "?") + "ssl_cert_reqs=none"
    return url


REDIS_URL = redis_url()
IPC_PREFIX = os.environ.get("IPC_PREFIX", "")
BROKER_URL = os.environ.get("BROKER_URL", "")

CHANNEL_LAYER: dict[str, Any]
if REDIS_URL:
    BROKER_URL = BROKER_URL or streams_url(REDIS_URL)  # channelsq's own transport recovers faster than Kombu's
    CHANNEL_LAYER = {"BACKEND": "channelsq.layers.RedisChannelLayer", "CONFIG": {"url": REDIS_URL}}
elif IPC_PREFIX:
    BROKER_URL = BROKER_URL or ipc_url(IPC_PREFIX)
    CHANNEL_LAYER = {"BACKEND": "channelsq.layers.IPCChannelLayer", "CONFIG": {"prefix": IPC_PREFIX}}
else:
    CHANNEL_LAYER = {"BACKEND": "channelsq.layers.InMemoryChannelLayer"}
CHANNEL_LAYERS = {"default": {**CHANNEL_LAYER, "ROUTING": "app.routing.channel_routing"}}

# Celery reads the names that begin with CELERY_ (see app/celery.py).
if BROKER_URL:
    CELERY_BROKER_URL = BROKER_URL
else:
    CELERY_TASK_ALWAYS_EAGER = True  # .delay() runs in place: there is no worker
# Threads for both tasks and consumers fit into a small dyno.  With Celery's own default, prefork, each process of the
# pool, and the one that then runs the consumers, takes the memory of a whole Django project.
CELERY_WORKER_POOL = "threads"
CELERY_WORKER_CONCURRENCY = 8
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_IGNORE_RESULT = True
CELERY_TIMEZONE = TIME_ZONE

# A task of a room may be cancelled by the user who has started it.
CHANNEL_LIVE = {"may_cancel": "app.jobs.may_cancel"}

# -- texts and mails ----------------------------------------------------------------------------

GATEWAY_ROOM = os.environ.get("GATEWAY_ROOM", "")
if "TWILIO_ACCOUNT_SID" in os.environ:
    CHANNEL_SMS = {
        "account_sid": os.environ["TWILIO_ACCOUNT_SID"],
        "auth_token": os.environ.get("TWILIO_AUTH_TOKEN", ""),
        "sender": os.environ.get("TWILIO_SENDER", ""),
    }
CHANNEL_EMAIL = {"domains": words("EMAIL_DOMAINS")}
EMAIL_HOST = os.environ.get("EMAIL_HOST", "localhost")
EMAIL_PORT = int(os.environ.get("EMAIL_PORT", "25"))

# -- logs ---------------------------------------------------------------------------------------

if not DEBUG:
    # Django itself mails a view's traceback to ADMINS in production; here it goes to stderr, like all other logs.
    LOGGING = {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"console": {"class": "logging.StreamHandler"}},
        "loggers": {"django": {"handlers": ["console"], "level": "INFO"}},
    }
