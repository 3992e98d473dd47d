"""Settings of the project board.  Without REDIS_URL everything runs in one process (``manage.py runserver``)."""

import os
from pathlib import Path

from channelsq.transport import streams_url

BASE_DIR = Path(__file__).resolve().parent.parent

SECRET_KEY = os.environ.get("SECRET_KEY", "insecure-and-only-for-this-example")
DEBUG = True
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]

INSTALLED_APPS = [
    "channelsq",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "board",
]

MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]

ROOT_URLCONF = "project.urls"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
            ],
        },
    },
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("BOARD_DATABASE", BASE_DIR / "board.sqlite3"),
        "OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL"},
    },
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_USER_MODEL = "board.Person"
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "boards"
LOGOUT_REDIRECT_URL = "login"
USE_TZ = True
STATIC_URL = "static/"

REDIS_URL = os.environ.get("REDIS_URL")
if REDIS_URL:
    CELERY_BROKER_URL = streams_url(REDIS_URL)
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channelsq.layers.RedisChannelLayer",
            "CONFIG": {"url": streams_url(REDIS_URL)},
            "ROUTING": "project.routing.channel_routing",
            "TEST_CONFIG": {"url": streams_url(REDIS_URL), "prefix": "test"},
        },
    }
else:
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channelsq.layers.InMemoryChannelLayer",
            "ROUTING": "project.routing.channel_routing",
        },
    }
