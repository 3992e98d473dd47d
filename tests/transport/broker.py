"""A broker as an application uses it through Kombu, for the tests of the transport."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

import kombu
import redis
from kombu.asynchronous.hub import Hub
from kombu.transport.virtual import Message

from tests.support.servers import RedisServer


def admin(server: RedisServer) -> redis.Redis:
    """A plain client that sees what is really there."""
    return redis.Redis(port=server.port, decode_responses=True)


def queue(name: str, **options: Any) -> kombu.Queue:
    """A queue with a direct exchange of its own."""
    return kombu.Queue(name, kombu.Exchange(name, type="direct"), routing_key=name, **options)


def header(message: Message, name: str) -> Any:
    """Return one of a message's headers, which are not all text as Kombu's types have it."""
    return message.headers[name]


class Peer:
    """A connection of an application; what it consumes is in ``messages`` and ``bodies``.

    Args:
        url: the broker's.
        hub: whether an event loop drives it, as in a Celery worker.
        options: transport options.
    """

    def __init__(self, url: str, *, hub: bool = False, ssl: Any = False, **options: Any) -> None:
        self.connection = kombu.Connection(url, transport_options=options, ssl=ssl)
        self.messages: list[Message] = []
        self.auto_ack = True
        self.consumer: kombu.Consumer | None = None
        self.hub = Hub() if hub else None

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        connected = self.connection.connected
        transport: Any = self.connection.transport if connected else None
        channels = list(transport.channels or ()) if connected else []
        self.connection.release()
        for channel in channels:
            # Kombu's own Redis channel opens a connection while it closes, to give messages back.
            for pool in (getattr(channel, "_pool", None), getattr(channel, "_async_pool", None)):
                if pool is not None:
                    pool.disconnect()
        if self.hub is not None:
            self.hub.close()

    def connect_once(self) -> None:
        """Connect, without trying again."""
        self.connection.transport.establish_connection()

    @property
    def channel(self) -> Any:
        return self.connection.default_channel

    def forget_declared(self) -> None:
        """Have queues declared again by what publishes to them."""
        declared: Any = self.connection.declared_entities
        declared.clear()

    @property
    def bodies(self) -> list[Any]:
        return [message.payload for message in self.messages]

    def publish(self, to: kombu.Queue, *bodies: Any, **options: Any) -> None:
        producer = self.connection.Producer()
        for body in bodies:
            producer.publish(body, exchange=to.exchange, routing_key=to.routing_key, declare=[to], **options)

    def consume(self, *queues: kombu.Queue, ack: bool = True, prefetch: int | None = None, **options: Any) -> Any:
        self.auto_ack = ack
        self.consumer = self.connection.Consumer(queues, on_message=self._received, auto_declare=True, **options)
        if prefetch is not None:
            self.consumer.qos(prefetch_count=prefetch)
        self.consumer.consume()
        if self.hub is not None:
            self.connection.register_with_event_loop(self.hub)
        return self.consumer

    def _received(self, message: Message) -> None:
        self.messages.append(message)
        if self.auto_ack:
            message.ack()

    def get(self, source: kombu.Queue, no_ack: bool = False) -> Any:
        return source(self.channel).get(
            no_ack=no_ack, accept=["json", "msgpack", "text/plain", "application/octet-stream"]
        )

    def size(self, of: kombu.Queue) -> int:
        declared: Any = of(self.channel).queue_declare(passive=True)
        return int(declared.message_count)

    def turn(self, timeout: float = 0.1) -> None:
        """Let one thing happen."""
        if self.hub is not None:
            timer = self.hub.call_later(timeout, lambda: None)  # else it waits up to a second
            self.hub.run_once()
            timer.cancel()
            return
        with contextlib.suppress(TimeoutError):
            self.connection.drain_events(timeout=timeout)

    def until(self, condition: Callable[[], object], timeout: float = 30.0) -> None:
        """Consume until ``condition`` holds."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"not in {timeout:g} s; got {self.bodies}"
            self.turn()

    def receive(self, count: int, timeout: float = 30.0) -> list[Any]:
        """Consume until ``count`` messages have come in all; gives their bodies."""
        self.until(lambda: len(self.messages) >= count, timeout)
        return self.bodies

    def nothing_more(self, during: float = 0.3) -> bool:
        """Return whether no message comes for so many seconds."""
        before = len(self.messages)
        end = time.monotonic() + during
        while time.monotonic() < end:
            self.turn(timeout=0.05)
        return len(self.messages) == before


def redelivered(message: Message) -> bool:
    """Return whether a message says so in both places."""
    flags = {message.headers.get("redelivered", False), message.delivery_info.get("redelivered", False)}
    assert len(flags) == 1, f"headers and delivery_info differ: {message.headers} {message.delivery_info}"
    return bool(flags.pop())


def kill_connections(server: RedisServer) -> int:
    """CLIENT KILL for every connection but this one."""
    with admin(server) as client:
        return int(client.execute_command("CLIENT", "KILL", "SKIPME", "yes"))


def keys(server: RedisServer, pattern: str = "*") -> set[str]:
    """The keys of database 0 without Kombu's bindings, which outlive queues on the stock transport too."""
    with admin(server) as client:
        found: Iterable[Any] = client.keys(pattern)
        return {key for key in found if "_kombu.binding" not in key}
