"""The project that docs/how-to/begin/works-with.md adds to, and its processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx

from tests.support.demo import QUICK
from tests.support.markdown import blocks, doc_page
from tests.support.ports import free_port
from tests.support.processes import Process, Processes

PAGE = doc_page("works-with")

#: What a project has before it meets the page.
FILES = {
    "manage.py": """
import os
import sys

from django.core.management import execute_from_command_line

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
execute_from_command_line(sys.argv)
""",
    "shop/__init__.py": "from shop.celery import app as celery_app\n",
    "shop/celery.py": """
import os

from celery import Celery
from celery.signals import setup_logging

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
app = Celery("shop")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@setup_logging.connect
def leave_logging_to_django(**kwargs):
    pass
""",
    "shop/settings.py": """
import os

import structlog

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # as logging in is not what is tested
SECRET_KEY = "for the tests alone: 32 bytes or more"
DEBUG = True
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "shop.urls"
STATIC_URL = "static/"
INSTALLED_APPS = [
    "channelsq",
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_htmx",
    "rest_framework",
    "rest_framework.authtoken",
    "shop",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": "shop.sqlite3",
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20},
    }
}
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework_simplejwt.authentication.JWTAuthentication",
        "rest_framework.authentication.TokenAuthentication",
    ]
}
CELERY_BROKER_URL = os.environ["SHOP_BROKER"]
CELERY_RESULT_BACKEND = os.environ["SHOP_LAYER"]
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channelsq.layers.RedisChannelLayer",
        "CONFIG": {"url": os.environ["SHOP_LAYER"]},
        "ROUTING": "shop.routing.channel_routing",
    }
}
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.processors.ExceptionRenderer(),
        structlog.processors.JSONRenderer(),
    ],
    logger_factory=structlog.stdlib.LoggerFactory(),
)
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"out": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["out"], "level": "INFO"},
}
""",
    "shop/tasks.py": """
import structlog
from celery import shared_task

from shop.room import tell

log = structlog.get_logger("shop")


@shared_task
def add(a, b):
    log.info("in a task")
    return a + b


@shared_task
def push(text):
    tell("tea", text)
""",
    "shop/views.py": """
import structlog
from celery.result import AsyncResult
from django.http import HttpResponse, JsonResponse
from rest_framework.decorators import api_view, permission_classes
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response

from shop.tasks import add, push

log = structlog.get_logger("shop")


def index(request):
    return HttpResponse("<html><body><h1>shop</h1></body></html>")


def logs(request):
    log.info("in a view")
    return HttpResponse(str(add.delay(20, 22).get(timeout=20)))


def state(request, task):
    result = AsyncResult(task)
    result.get(timeout=20, propagate=False)
    return JsonResponse({"state": result.state})


def pushes(request):
    push.delay("from <a> task")
    return HttpResponse("pushed")


@api_view(["GET", "POST"])
@permission_classes([IsAuthenticated])
def whoami(request):
    return Response({"user": request.user.get_username(), "sent": request.data})
""",
    "shop/consumers.py": """
import structlog

from channelsq import consumer
from channelsq.auth import channel_session_user, channel_session_user_from_token
from channelsq.exceptions import DenyConnection
from shop.tasks import add

log = structlog.get_logger("shop")


@channel_session_user_from_token
def own_token_connect(message):
    if not message.user.is_authenticated:
        raise DenyConnection
    message.reply_channel.send({"text": message.user.get_username()})


@channel_session_user
def jwt_receive(message):
    message.reply_channel.send({"text": f"{message.user}: {message['text']}"})


@consumer(ignore_result=False)
def kept(message):
    message.reply_channel.send({"text": message.id})


def logs(message):
    log.info("in a consumer")
    message.reply_channel.send({"text": str(add.delay(int(message["text"]), 1).get(timeout=20))})
""",
    "shop/routing.py": """
from channelsq import route
from shop import consumers, room, tokens

channel_routing = [
    route("websocket.connect", room.connect, path=r"^/ws/room/(?P<room>\\w+)/$"),
    route("websocket.receive", room.receive, path=r"^/ws/room/(?P<room>\\w+)/$"),
    route("websocket.connect", tokens.jwt_connect, path="^/ws/jwt/$"),
    route("websocket.receive", consumers.jwt_receive, path="^/ws/jwt/$"),
    route("websocket.connect", tokens.open_connect, path="^/ws/(?:token|logs|kept)/$"),
    route("websocket.receive", tokens.token_receive, path="^/ws/token/$"),
    route("websocket.connect", consumers.own_token_connect, path="^/ws/own/$"),
    route("websocket.receive", consumers.logs, path="^/ws/logs/$"),
    route("websocket.receive", consumers.kept, path="^/ws/kept/$"),
]
""",
    "shop/urls.py": """
from debug_toolbar.toolbar import debug_toolbar_urls
from django.urls import path
from rest_framework.authtoken.views import obtain_auth_token
from rest_framework_simplejwt.views import token_obtain_pair

from shop import room, tokens, views

urlpatterns = [
    path("", views.index),
    path("logs/", views.logs),
    path("push/", views.pushes),
    path("state/<slug:task>/", views.state),
    path("room/", room.page),
    path("whoami/", views.whoami),
    path("token/", obtain_auth_token),
    path("jwt/", token_obtain_pair),
    path("socket-token/", tokens.socket_token),
    *debug_toolbar_urls(),
]
""",
}

#: What is below all that the page adds.
ENDS = {"shop/settings.py": 'MIDDLEWARE.insert(0, "whitenoise.middleware.WhiteNoiseMiddleware")\n'}


def write(folder: Path) -> None:
    """Write the project with all that the page adds to it."""
    files = dict(FILES)
    for block in blocks(PAGE):
        if block.file:
            files[block.file] = files.get(block.file, "") + "\n" + block.text
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + ENDS.get(name, ""))


class Shop:
    """The project's processes: an interface server, and a worker with channel processes of its own.

    Args:
        folder: an existing, empty one.
        broker: Celery's.
        layer: the Redis of the channels.
    """

    def __init__(self, folder: Path, broker: str, layer: str) -> None:
        write(folder)
        self.folder = folder
        self.processes = Processes(folder / "logs")
        self.port = free_port()
        self.env = {
            "DJANGO_SETTINGS_MODULE": "shop.settings",
            "SHOP_BROKER": broker,
            "SHOP_LAYER": layer,
            "PYTHONPATH": str(folder),
        }
        self.interface: Process
        self.worker: Process

    def start(self) -> None:
        """Make the database with a user, and start."""
        make_user = "from django.contrib.auth.models import User; User.objects.create_user('alice', password='pw')"
        for args in (("migrate", "-v0"), ("shell", "-v0", "-c", make_user)):
            process = self._run("python", "manage.py", *args)
            assert process.wait(60) == 0, process.output
        self.worker = self._run(
            "celery", "-A", "shop", "worker", "--loglevel", "INFO", *QUICK, "-P", "prefork", "-c", "1",
            "--channel-processes", "2", "--channel-threads", "4",
        )  # fmt: skip
        self.start_interface()
        self.worker.wait_for_output(r"\bready\.", 60)

    def start_interface(self) -> None:
        """Start the interface server, on the port on which it was before."""
        self.interface = self._run("python", "-m", "channelsq.interface", "--port", str(self.port))
        self.interface.wait_for_port(self.port)

    def start_flower(self) -> str:
        """Start Flower; returns its URL."""
        port = free_port()
        args = ("celery", "-A", "shop", "flower", "--address=127.0.0.1", f"--port={port}")
        self._run(*args, FLOWER_UNAUTHENTICATED_API="true").wait_for_port(port, 60)
        return f"http://127.0.0.1:{port}"

    def _run(self, *args: str, **env: str) -> Process:
        return self.processes.start(*args, env={**self.env, **env}, cwd=self.folder)

    @property
    def url(self) -> str:
        """The URL of pages."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        """The URL of sockets."""
        return f"ws://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """Ask a page for JSON; AssertionError if its status is none of success."""
        answer = httpx.request(method, self.url + path, trust_env=False, timeout=30, **options)
        assert answer.is_success, f"{answer.status_code}: {answer.text}"
        return answer.json()

    def logged(self) -> list[dict[str, Any]]:
        """Return the lines of structlog in the worker, its channel processes and its pool."""
        lines = self.worker.output.splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and '"event"' in line]

    def stop(self) -> None:
        """Stop everything."""
        self.processes.stop()
