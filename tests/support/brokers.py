"""One broker with a project's worker on it, and a client that speaks to the worker as an interface server does."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from celery import Celery
from kombu import pools

from channelsq.asgi import ChannelLayerWrapper
from channelsq.channel import Channel
from channelsq.layers import KombuChannelLayer, RedisChannelLayer


def layer_on(url: str, **config: Any) -> KombuChannelLayer:
    """Return a layer as the test project has it: on channelsq's streams, or on Kombu's own transport."""
    kind = RedisChannelLayer if url.startswith("redis-streams") else KombuChannelLayer
    return kind(url=url, **config)


class Broker:
    """A broker's URLs, and what tells the test project to use it.

    Args:
        url: of the broker that carries the channels.
        groups_url: of the Redis that holds the groups.
        quiet: whether its worker is to log nothing of each message.
        celery_url: of Celery's own broker, if that is another.
    """

    def __init__(self, url: str, groups_url: str, *, quiet: bool = False, celery_url: str | None = None) -> None:
        self.url = url
        self.groups_url = groups_url
        self.celery_url = celery_url or url
        #: Whether its worker is to log nothing of each message.
        self.quiet = quiet

    @property
    def env(self) -> dict[str, str]:
        """Environment for the test project's processes."""
        return {
            "DJANGO_SETTINGS_MODULE": "tests.project.settings",
            "TEST_BROKER": self.celery_url,
            "TEST_GROUPS": self.groups_url,
            **({"TEST_LAYER": self.url} if self.url != self.celery_url else {}),
        }


def make_broker(request: pytest.FixtureRequest, named: str | None = None) -> Broker:
    """The broker that a fixture's parameter, or ``named``, names; groups are in Redis for all.

    ``"redis-streams"`` is a RedisChannelLayer with Celery's tasks on the same Redis, ``"X beside streams"`` one with
    Celery's tasks on X.  ``"redis"`` and ``"rabbitmq"`` are a KombuChannelLayer.  ``" quiet"`` may follow each.
    """
    named = named or str(request.param)
    kind = named.removesuffix("quiet").rstrip(" -")
    quiet = kind != named
    server = request.getfixturevalue("redis_url").rsplit("/", 1)[0]
    # A database each: what one leaves is not there for the other.
    if kind.endswith(" beside streams"):
        on_redis = kind.startswith("redis")
        channels = f"{server}/{5 if on_redis else 9}"
        celery_url = f"{server}/3" if on_redis else request.getfixturevalue("rabbitmq_url")
        return Broker(channels.replace("redis:", "redis-streams:"), channels, quiet=quiet, celery_url=celery_url)
    if kind == "redis-streams":
        return Broker(f"{server}/4".replace("redis:", "redis-streams:"), f"{server}/4", quiet=quiet)
    url = f"{server}/3" if kind == "redis" else request.getfixturevalue("rabbitmq_url")
    return Broker(url, f"{server}/3", quiet=quiet)


@contextlib.contextmanager
def operator(broker: Broker) -> Iterator[Celery]:
    """A Celery app of this process on the broker, to inspect, control and send with; no connection of it is left."""
    with Celery("operator", broker=broker.celery_url, set_as_current=False) as app:
        try:
            yield app
        finally:
            pools.reset()  # app.pool is one of Kombu's, which outlives the app


class LayerClient:
    """A reply channel of this process, and what arrives there."""

    def __init__(self, broker: Broker, **config: Any) -> None:
        self.layer = ChannelLayerWrapper(layer_on(broker.url, groups_url=broker.groups_url, **config), "default", [])
        self.reply_channel: str = self.layer.new_channel("websocket.send!")

    def send(self, channel: str, content: Mapping[str, Any] | None = None, **options: Any) -> None:
        """Send to a channel with this client's reply channel."""
        message = {"reply_channel": self.reply_channel, **(content or {})}
        Channel(channel, channel_layer=self.layer).send(message, **options)

    def receive(self, timeout: float = 15.0) -> dict[str, Any]:
        """The next answer; AssertionError if none comes."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            _, message = self.layer.receive([self.reply_channel], block=True)
            if message is not None:
                return message
        raise AssertionError(f"no answer in {timeout:g} s")

    def nothing(self) -> bool:
        """Return whether nothing has arrived."""
        return self.layer.receive([self.reply_channel]) == (None, None)

    def close(self) -> None:
        """Give back the connections."""
        self.layer.close()


def assert_echo_sends_events(app: Celery, client: LayerClient) -> None:
    """Switch a worker's events on, as Flower does, and check those of one message; then switch them off."""
    got: list[dict[str, Any]] = []
    assert app.control.enable_events(reply=True, timeout=10, limit=1)
    with contextlib.ExitStack() as stack:
        receiver = app.events.Receiver(stack.enter_context(app.connection_for_read()), handlers={"*": got.append})
        consuming = receiver.itercapture(limit=None, timeout=20, wakeup=False)
        stack.enter_context(contextlib.closing(consuming))
        next(consuming)  # subscribed
        client.send("echo", {"value": 1})
        for _ in consuming:
            ours = [event for event in got if event["type"].startswith("task-")]
            if any(event["type"] == "task-succeeded" for event in ours):
                break
    assert app.control.disable_events(reply=True, timeout=10, limit=1)
    assert any(event.get("name") == "tests.project.consumers.echo" for event in ours)
    assert [event["type"] for event in ours][:3] == ["task-received", "task-started", "task-succeeded"]
