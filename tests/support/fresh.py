"""A project as ``django-admin startproject`` makes it, with what the tutorial adds to it."""

from __future__ import annotations

from pathlib import Path

from django.core.management import call_command

CELERY = """
import os
from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
app = Celery("shop")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
"""

CONSUMERS = """
from channelsq import Group

def connect(message):
    Group("all").add(message.reply_channel)
    message.reply_channel.send({"accept": True})

def receive(message):
    Group("all").send({"text": message["text"]})
"""

ROUTING = """
from channelsq import route
from shop import consumers

channel_routing = [
    route("websocket.connect", consumers.connect, path=r"^/ws/$"),
    route("websocket.receive", consumers.receive, path=r"^/ws/$"),
]
"""

LAYERS = """
CELERY_BROKER_URL = "{url}"
CHANNEL_LAYERS = {{
    "default": {{
        "BACKEND": "channelsq.layers.RedisChannelLayer",
        "CONFIG": {{"url": "{url}"}},
        "ROUTING": "shop.routing.channel_routing",
    }}
}}
"""


class FreshProject:
    """A project called ``shop`` in a folder.

    Args:
        folder: an empty one.
        url: of the Redis of its layer and of Celery.
    """

    def __init__(self, folder: Path, url: str = "redis://127.0.0.1:1/0") -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        call_command("startproject", "shop", str(folder))
        self.write("shop/celery.py", CELERY)
        self.write("shop/__init__.py", "from shop.celery import app as celery_app\n")
        self.write("shop/consumers.py", CONSUMERS)
        self.write("shop/routing.py", ROUTING)
        self.replace("shop/settings.py", "INSTALLED_APPS = [", 'INSTALLED_APPS = [\n    "channelsq",')
        self.append("shop/settings.py", LAYERS.format(url=url))

    def write(self, path: str, text: str) -> None:
        """Write a file."""
        (self.folder / path).write_text(text)

    def append(self, path: str, text: str) -> None:
        """Write at the end of a file."""
        self.write(path, (self.folder / path).read_text() + text)

    def replace(self, path: str, old: str, new: str) -> None:
        """Replace what stands once in a file."""
        text = (self.folder / path).read_text()
        assert text.count(old) == 1, (path, old)
        self.write(path, text.replace(old, new))
