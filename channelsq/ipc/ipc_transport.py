"""The store as a Kombu transport, for Celery's workers.

Exchanges and the interface of channels come from Kombu's virtual transports.  Queues, bindings and unacknowledged
messages are in the store, where every process sees them.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from functools import cached_property
from queue import Empty
from typing import Any

from kombu.transport import virtual
from kombu.transport.base import to_rabbitmq_queue_arguments  # type: ignore[attr-defined]  # not in its stubs

from channelsq.ipc.directory import directory_from
from channelsq.ipc.messages import LEASE, Key, Message, Taken
from channelsq.ipc.store import Store, store_at
from channelsq.ipc.store_dead_letters import dead_letter
from channelsq.ipc.waiter import LOOK_EVERY, Waiter
from channelsq.redis_core.compact import ForeignPayload
from channelsq.redis_core.suspects import MOST_DEATHS, Suspects
from channelsq.transport import payloads
from channelsq.transport.recording_qos import RecordingQoS

logger = logging.getLogger("channelsq.ipc")


class QoS(RecordingQoS):
    """The messages that a channel holds; the store records them, so they are given back if this process dies."""

    channel: Any

    def ack(self, delivery_tag: str) -> None:
        """Extend Kombu's method."""
        self.channel.store.remove(key_of(delivery_tag))
        super().ack(delivery_tag)
        self.channel.interrupt()  # there is space in the prefetch window

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Extend Kombu's method."""
        if requeue:
            self.channel.store.release(key_of(delivery_tag))
        else:
            self.channel.store.remove(key_of(delivery_tag))
        super().ack(delivery_tag)
        self.channel.interrupt()

    def restore_unacked(self) -> None:
        """Give back all held messages, each to its place."""
        for tag in list(self._unacked):
            self.channel.store.release(key_of(tag))
        self._unacked.clear()


class Channel(virtual.Channel):
    """A channel of the transport; see Kombu's virtual channel."""

    QoS = QoS
    qos: Any
    supports_fanout = True
    #: Bodies are bytes in the file.
    body_encoding: Any = None

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)
        #: The consumed queue of each consumer tag.
        self.consumed: dict[str, str] = {}
        self._unacknowledged: set[str] = set()
        self._suspects = Suspects(MOST_DEATHS, LEASE)

    @property
    def store(self) -> Store:
        """The store of the messages."""
        store: Store = self._transport.store
        return store

    @cached_property
    def _transport(self) -> Any:
        return self.connection  # None once the channel is closed

    def interrupt(self) -> None:
        """Make the connection check for messages again."""
        self._transport.interrupt()

    # -- messages ---------------------------------------------------------------------------

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        self.store.put(queue, self._message(message))

    def _message(self, message: dict[str, Any]) -> Message:
        lifetime, rank = payloads.lifetime(message), payloads.priority(message)
        return Message(payloads.encode(message), None if lifetime is None else lifetime / 1000, rank)

    def _put_fanout(self, exchange: str, message: dict[str, Any], routing_key: str, **kwargs: Any) -> None:
        queues, made = {queue for _, _, queue in self.get_table(exchange)}, self._message(message)
        if queues:
            self.store.write(lambda tx: [tx.put(queue, [made]) for queue in queues], adds=True)

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:
        return self._take([queue])[1]

    def _take(self, queues: list[str], unacknowledged: set[str] | None = None) -> tuple[str, dict[str, Any]]:
        """Take one message from any of the queues.

        Raises:
            Empty: there is none.
        """
        gone = self._unacknowledged if unacknowledged is None else unacknowledged
        for held, some in (
            (True, [queue for queue in queues if queue not in gone]),
            (False, [queue for queue in queues if queue in gone]),
        ):
            while some and (found := self.store.take(some, held=held, admits=self._admits)):
                payload = self._open(found[0], held=held)
                if payload is not None:
                    return found[0].queue, payload
        raise Empty

    def _admits(self, deaths: int) -> bool:
        return self._suspects.cost(deaths) <= self._suspects.room(self.qos.holds, time.monotonic())

    def _open(self, taken: Taken, *, held: bool) -> dict[str, Any] | None:
        """Return the payload of a message; None if it was expired, unreadable or deadly, and is settled."""
        if taken.deaths >= MOST_DEATHS and held:
            dead_letter(self.store, taken)
            return None
        try:
            if not taken.is_expired:
                payload = _payload(taken)
                self._suspects.admit(payload["properties"]["delivery_tag"], taken.deaths, time.monotonic())
                return payload
        except ForeignPayload as error:
            logger.error(
                "queue %s: a message that is not Kombu's was dropped: %s", taken.queue, error,
                extra={"action": "foreign_message_dropped"},
            )  # fmt: skip
        if held:
            self.store.remove(taken.key)
        return None

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        """Extend Kombu's method."""
        try:
            _, payload = self._take([queue], {queue} if no_ack else set())
        except Empty:
            return None
        message = self.Message(payload, channel=self)
        if not no_ack:
            self.qos.append(message, str(message.delivery_tag))
        return message

    def basic_consume(self, queue: str, no_ack: bool, callback: Any, consumer_tag: Any, **kwargs: Any) -> Any:
        """Extend Kombu's method."""
        if no_ack:
            self._unacknowledged.add(queue)
        else:
            self._unacknowledged.discard(queue)
        self.consumed[consumer_tag] = queue
        return super().basic_consume(queue, no_ack, callback, consumer_tag, **kwargs)

    def basic_cancel(self, consumer_tag: Any) -> Any:
        """Extend Kombu's method."""
        self.consumed.pop(consumer_tag, None)
        return super().basic_cancel(consumer_tag)

    def _poll(self, cycle: Any, callback: Callable[..., Any], timeout: float | None = None) -> None:
        queue, payload = self._take([*self.consumed.values()])
        callback(payload, queue)

    # -- queues -----------------------------------------------------------------------------

    def prepare_queue_arguments(self, arguments: Any, **kwargs: Any) -> Any:
        """Add a queue's expiry to its arguments."""
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
        """Return an exchange's bindings."""
        return self.store.bindings(exchange)


def key_of(tag: str) -> Key:
    """Return the key in a delivery tag."""
    queue, _, identity = tag.partition(" ")
    return Key(int(queue), int(identity))


def _payload(taken: Taken) -> dict[str, Any]:
    payload = payloads.decode(taken.payload)
    payload["properties"]["delivery_tag"] = f"{taken.key.queue} {taken.key.id}"
    if taken.again:
        payloads.mark_redelivered(payload)
    payloads.set_deaths(payload, taken.deaths)
    return payload


class Transport(virtual.Transport):
    """The transport; see Kombu's virtual transport."""

    Channel = Channel
    driver_type = "ipc"
    driver_name = "sqlite"
    connection_errors = (*virtual.Transport.connection_errors, sqlite3.Error)
    implements = virtual.Transport.implements.extend(exchange_type=frozenset(["direct", "topic", "fanout"]))

    _waiter: Waiter | None = None

    @property
    def default_connection_params(self) -> dict[str, Any]:
        """Empty, because there is no host to connect to."""
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
        """Return the version of SQLite."""
        return sqlite3.sqlite_version

    def interrupt(self) -> None:
        """End a wait in :meth:`drain_events`.  From any thread."""
        waiter = self._waiter
        if waiter is not None:
            waiter.interrupt()

    def drain_events(self, connection: Any, timeout: float | None = None, **kwargs: Any) -> None:
        """Deliver one message.

        Raises:
            TimeoutError: no message came for ``timeout`` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if self._deliver_one(timeout):
            return
        waiter = self._waiter = self._waiter or self.store.waiter()
        channels: Any = self.channels
        while True:
            waiter.watch(queue for channel in channels for queue in channel.consumed.values())
            waiter.arm()
            if self._deliver_one(timeout):
                waiter.disarm()
                return
            left = LOOK_EVERY if deadline is None else deadline - time.monotonic()
            if left <= 0:
                waiter.disarm()
                raise TimeoutError
            waiter.sleep(left)

    def _deliver_one(self, timeout: float | None) -> bool:
        cycle: Any = self.cycle
        try:
            cycle.get(None, timeout=timeout)  # each channel calls the callbacks of its queues
        except Empty:
            return False
        return True

    def close_connection(self, connection: Any) -> None:
        """Extend Kombu's method."""
        super().close_connection(connection)
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.close()
