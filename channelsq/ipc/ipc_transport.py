"""The store as a Kombu transport, so that Celery's workers read from it.

The exchanges and the interface of channels are those of Kombu's virtual transports; queues, bindings and what is
unacknowledged are in the store, where every process sees them.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from functools import cached_property
from queue import Empty
from typing import Any

from kombu.transport import virtual
from kombu.transport.base import to_rabbitmq_queue_arguments  # type: ignore[attr-defined]  # not in its stubs

from channelsq.ipc.directory import directory_from
from channelsq.ipc.file import LOOK_EVERY
from channelsq.ipc.store import Store, Taken, store_at
from channelsq.transport import payloads

#: Seconds between two looks for what other processes sent, where they cannot wake this one: the first, the longest.
FIRST_PAUSE, LONGEST_PAUSE = 0.001, 0.03


class QoS(virtual.QoS):
    """What a channel holds: the store knows it, too, so that it is given back if this process dies."""

    channel: Any

    def ack(self, delivery_tag: str) -> None:
        """See Kombu's."""
        self.channel.store.remove(int(delivery_tag))
        super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """See Kombu's."""
        if requeue:
            self.channel.store.release(int(delivery_tag))
        else:
            self.channel.store.remove(int(delivery_tag))
        super().ack(delivery_tag)

    def restore_unacked(self) -> Any:
        """Give back all that is held, each to its place."""
        held: Any = self._delivered
        done: Any = self._dirty
        for tag in [tag for tag in held if tag not in done]:
            self.channel.store.release(int(tag))
        held.clear()
        done.clear()
        return []


class Channel(virtual.Channel):
    """See Kombu's virtual channel."""

    QoS = QoS
    supports_fanout = True
    #: Bodies are bytes in the file.
    body_encoding: Any = None

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)
        self._unacknowledged: set[str] = set()

    @property
    def store(self) -> Store:
        """Where everything is."""
        store: Store = self._transport.store
        return store

    @cached_property
    def _transport(self) -> Any:
        return self.connection  # which is None once the channel is closed

    # -- messages ---------------------------------------------------------------------------

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        lifetime = payloads.lifetime(message)
        self.store.put(queue, payloads.encode(message), None if lifetime is None else lifetime / 1000)

    def _put_fanout(self, exchange: str, message: dict[str, Any], routing_key: str, **kwargs: Any) -> None:
        for queue in {queue for _, _, queue in self.get_table(exchange)}:
            self._put(queue, message)

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:
        return self._take([queue])[1]

    def _take(self, queues: list[str], unacknowledged: set[str] | None = None) -> tuple[str, dict[str, Any]]:
        taken = self.store.take(queues, self._unacknowledged if unacknowledged is None else unacknowledged)
        if taken is None:
            raise Empty
        return taken.queue, _payload(taken)

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        """See Kombu's."""
        try:
            _, payload = self._take([queue], {queue} if no_ack else set())
        except Empty:
            return None
        message = self.Message(payload, channel=self)
        if not no_ack:
            self.qos.append(message, str(message.delivery_tag))
        return message

    def basic_consume(self, queue: str, no_ack: bool, callback: Any, consumer_tag: Any, **kwargs: Any) -> Any:
        """See Kombu's."""
        if no_ack:
            self._unacknowledged.add(queue)
        else:
            self._unacknowledged.discard(queue)
        return super().basic_consume(queue, no_ack, callback, consumer_tag, **kwargs)

    def _poll(self, cycle: Any, callback: Callable[..., Any], timeout: float | None = None) -> None:
        queue, payload = self._take(self._active_queues)
        callback(payload, queue)

    # -- queues -----------------------------------------------------------------------------

    def prepare_queue_arguments(self, arguments: Any, **kwargs: Any) -> Any:
        """Have a queue's expiry among its arguments."""
        return to_rabbitmq_queue_arguments(arguments, **kwargs)

    def _new_queue(self, queue: str, **kwargs: Any) -> None:
        expires = (kwargs.get("arguments") or {}).get("x-expires")
        self.store.declare(queue, None if expires is None else expires / 1000)

    def _has_queue(self, queue: str, **kwargs: Any) -> bool:
        return self.store.has_queue(queue)

    def _size(self, queue: str) -> int:
        return self.store.size(queue)

    def _purge(self, queue: str) -> int:
        return self.store.purge(queue)

    def queue_bind(
        self, queue: str, exchange: str | None = None, routing_key: str = "", arguments: Any = None, **kwargs: Any
    ) -> None:
        """Bind a queue, for every process."""
        exchange = exchange or "amq.direct"
        binding: Any = self.typeof(exchange).prepare_bind(queue, exchange, routing_key, arguments)
        key, pattern, bound = (part or "" for part in binding)
        self.store.bind(exchange, key, pattern, bound)

    def queue_delete(self, queue: str, if_unused: bool = False, if_empty: bool = False, **kwargs: Any) -> None:
        """Delete a queue, for every process."""
        if not (if_empty and self._size(queue)):
            self.store.delete(queue)

    def get_table(self, exchange: str) -> list[tuple[str, str, str]]:
        """An exchange's bindings."""
        return self.store.bindings(exchange)


def _payload(taken: Taken) -> dict[str, Any]:
    payload = payloads.decode(taken.payload)
    payload["properties"]["delivery_tag"] = str(taken.id)
    if taken.again:
        payloads.mark_redelivered(payload)
    return payload


class Transport(virtual.Transport):
    """See Kombu's virtual transport."""

    Channel = Channel
    driver_type = "ipc"
    driver_name = "sqlite"
    connection_errors = (*virtual.Transport.connection_errors, sqlite3.Error)
    implements = virtual.Transport.implements.extend(exchange_type=frozenset(["direct", "topic", "fanout"]))

    @property
    def default_connection_params(self) -> dict[str, Any]:
        """Nothing: there is no host to connect to."""
        return {}

    @property
    def store(self) -> Store:
        """This process's store in the URL's directory."""
        return store_at(self._directory)

    @cached_property
    def _directory(self) -> Any:
        client: Any = self.client
        return directory_from(client.hostname, client.virtual_host)

    def driver_version(self) -> str:
        """See Kombu's."""
        return sqlite3.sqlite_version

    def drain_events(self, connection: Any, timeout: float | None = None, **kwargs: Any) -> None:
        """Deliver one message.

        Raises:
            TimeoutError: there was none for ``timeout`` seconds.
        """
        cycle: Any = self.cycle
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = FIRST_PAUSE
        while True:
            mark = self.store.mark
            try:
                cycle.get(self._deliver, timeout=timeout)
                return
            except Empty:
                pass
            left = LOOK_EVERY if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self.store.wait(mark, left, pause)
            pause = min(pause * 1.3, LONGEST_PAUSE)
