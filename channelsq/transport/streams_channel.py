"""A Kombu channel whose queues are Redis Streams; fanout, bindings and connections come from Kombu's Redis channel."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from queue import Empty
from typing import Any, NoReturn
from weakref import WeakSet

import redis
from kombu.transport import redis as kombu_redis
from kombu.transport.virtual import Message
from redis.exceptions import RedisError

from channelsq.redis_core.commands import Command
from channelsq.redis_core.entries import Entry, parse_tag
from channelsq.redis_core.poll_plan import PollPlan
from channelsq.redis_core.stream_consumer import StreamConsumer
from channelsq.redis_core.suspects import MOST_DEATHS, Suspects
from channelsq.transport import payloads, publishing
from channelsq.transport.consuming import SILENCE, ConsumingChannel
from channelsq.transport.kombu_pool_internals import new_pool
from channelsq.transport.leases import Leases
from channelsq.transport.qos import QoS

logger = logging.getLogger("channelsq.transport")

#: Every open channel of this process; a forked child drops what its parent's channels hold.
_channels: WeakSet[Channel] = WeakSet()

#: Consumers of this process that could not give back their messages, by server; the next channel ends them.
_lost_consumers: dict[tuple[Any, ...], set[str]] = {}

#: The transport options beside Kombu's.
_OPTIONS = ("lease", "batch_size", "max_deaths", "max_dead_letters")


class Channel(ConsumingChannel):
    """A channel of :class:`channelsq.transport.streams_transport.Transport`.

    Raises:
        ValueError: a transport option is out of range.
            redis.ConnectionError: Redis cannot be reached.
    """

    QoS = QoS  # type: ignore[assignment]  # Kombu's stubs ask for its Redis QoS

    #: Seconds that Redis may take to answer a command, and that connecting may take.  Kombu has no timeout, so that a
    #: worker would wait for ever on a half-open connection.
    socket_timeout = SILENCE
    socket_connect_timeout = 5.0

    #: Bodies travel as bytes.
    body_encoding = None  # type: ignore[assignment]

    #: Seconds without a renewal after which a consumer is taken for dead.
    lease = 30.0

    #: The most messages that one poll may bring.
    batch_size = 256

    #: The number of deaths that makes a message a dead letter; None for no limit.
    max_deaths: int | None = MOST_DEATHS

    #: The most dead letters that are kept for each queue; the oldest are dropped.
    max_dead_letters = 1000

    from_transport_options = (
        *kombu_redis.Channel.from_transport_options,
        *_OPTIONS,
    )

    #: Messages are not collected before Redis: an error would come after the publisher was told of success.
    supports_batch_publish = False

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        chosen = connection.client.transport_options
        _check_options(**{name: chosen.get(name, getattr(self, name)) for name in _OPTIONS})
        self._start_consuming()
        self._joined: dict[str, None] = {}  # queues that this channel consumes, or may consume
        self._leased = False
        self._touched: dict[str, int] = {}  # x-expires of the keys of consumed queues
        client = connection.client  # the transport forgets it if it is closed before its channels
        self._server = client.transport_cls, client.hostname, client.port, client.virtual_host
        super().__init__(connection, **kwargs)
        self.QoS = QoS  # Kombu has another class without ack_emulation; nothing is emulated here
        self.streams = StreamConsumer(self.global_keyprefix, self.lease)
        self._start_planning()
        _channels.add(self)

    def _start_planning(self) -> None:
        self.suspects = Suspects(self.max_deaths, self.lease)
        steps: list[int] = self.priority_steps
        self.plan = PollPlan(self.streams, self.suspects, len(steps), self.batch_size, self.max_deaths)

    # -- Publishing

    def _put(self, queue: str, message: payloads.Payload, **kwargs: Any) -> None:
        key = self.key_of(queue, payloads.priority(message))
        data, lifetime, expires = payloads.encode(message), payloads.lifetime(message), self._expiring(queue)
        publication = publishing.begin()
        try:
            self.carry_out(self.streams.put(key, data, lifetime, expires))
        finally:
            publishing.end(publication)

    def _put_fanout(self, exchange: str, message: payloads.Payload, routing_key: str, **kwargs: Any) -> None:
        body, encoding = self.encode_body(message["body"], "base64")  # Kombu's fanout messages are JSON
        properties = {**message["properties"], "body_encoding": encoding}
        message = {**message, "body": body, "properties": properties}
        super()._put_fanout(exchange, message, routing_key, **kwargs)  # type: ignore[misc]

    def create_publish_batch(self, max_size: int) -> NoReturn:
        """Raise NotImplementedError; see ``supports_batch_publish``."""
        raise NotImplementedError("redis-streams sends each message when it is published")

    # -- Queues

    def _expiring(self, queue: str) -> dict[str, int]:
        """Return the keys of a queue with x-expires, and the x-expires in ms."""
        expires = self.queue_expires.get(queue)
        return dict.fromkeys(self.keys_of(queue), expires) if expires else {}

    def _new_queue(self, queue: str, **kwargs: Any) -> None:
        super()._new_queue(queue, **kwargs)
        self.carry_out(self.streams.touch(self._expiring(queue)))

    def _has_queue(self, queue: str, **kwargs: Any) -> bool:
        return self.carry_out(self.streams.exist(self.keys_of(queue)))

    def _size(self, queue: str) -> int:
        return self.carry_out(self.streams.size(self.keys_of(queue)))

    def _purge(self, queue: str) -> int:
        return self.carry_out(self.streams.purge(self.keys_of(queue)))

    def _delete(self, queue: str, *args: Any, **kwargs: Any) -> None:
        exchange, routing_key, pattern = args[:3]
        self.auto_delete_queues.discard(queue)
        member = self.sep.join([routing_key or "", pattern or "", queue or ""])
        with self.conn_or_acquire(kwargs.get("client")) as client:
            self.unbind(client, exchange, member)
        self.carry_out(self.streams.delete(self.keys_of(queue)))

    def queue_delete(self, queue: str, if_unused: bool = False, if_empty: bool = False, **kwargs: Any) -> None:
        """Delete a queue with its waiting messages and those that consumers hold, whether or not it is bound."""
        if if_empty and self._size(queue):
            return
        super().queue_delete(queue, if_unused=if_unused, **kwargs)
        if not self.is_fanout(queue):
            self.carry_out(self.streams.delete(self.keys_of(queue)))

    # -- Consuming

    def join(self, queues: list[str]) -> None:
        """Become a consumer of queues, with a lease; an empty list sets only the lease."""
        self._joined.update(dict.fromkeys(queues))
        expires = {key: self.queue_expires.get(queue, 0) for queue in queues for key in self.keys_of(queue)}
        self.carry_out(self.streams.join(expires))
        self._leased = True
        self._renew()

    def before_take_over(self, keys: list[str]) -> None:
        """Release the messages of this process's consumers whose connection was lost."""
        lost = _lost_consumers.get(self._server)
        if lost:
            self.carry_out(self.streams.end_consumers(keys, lost))
            del _lost_consumers[self._server]

    def _renew(self) -> None:
        """Start to renew the lease and the x-expires of consumed queues."""
        touched: dict[str, int] = {}
        for queue in self._joined:
            touched.update(self._expiring(queue))
        self._touched = touched
        self.connection.leases.hold(self)

    def renewals(self) -> list[Command]:
        """Return the commands for the thread that renews leases."""
        return [self.streams.lease_command(), *(("PEXPIRE", key, ms) for key, ms in self._touched.items())]

    def renew_every(self) -> float:
        """Return the seconds between two renewals."""
        return min([self.lease, *(ms / 1000 for ms in self._touched.values())]) / 3

    def private_pool(self) -> Any:
        """Return a pool for the thread that renews leases, which must not wait long for a silent server."""
        pool = new_pool(self)
        pool.connection_kwargs["socket_timeout"] = max(1.0, self.lease / 3)
        return pool

    def basic_consume(
        self,
        queue: str,
        no_ack: bool = False,
        callback: Callable[..., Any] | None = None,
        consumer_tag: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Consume a queue; with ``no_ack`` a message is acknowledged when it is delivered."""
        fanout = self.is_fanout(queue)
        if not fanout:
            self.join([queue])
        result = super().basic_consume(queue, no_ack=no_ack, callback=callback, consumer_tag=consumer_tag, **kwargs)
        if not fanout:
            # Kombu keeps one callback for each queue, for all channels of a connection.  A channel must deliver its
            # messages to its own consumers, because credit and acknowledgements are counted for each channel.
            receive = self._receiver(callback, no_ack=no_ack)
            self._subscribers.setdefault(queue, {})[consumer_tag or ""] = (receive, no_ack)
            self.plan.begin()
        return result

    def _receiver(self, callback: Any, *, no_ack: bool) -> Callable[[payloads.Payload], Any]:
        """Return a function that records a message, and passes it to a consumer's callback."""

        def receive(payload: payloads.Payload) -> Any:
            message: Any = self.Message(payload, channel=self)
            if not no_ack:
                self.qos.append(message, message.delivery_tag)
            return callback(message)

        return receive

    def consumer_cancelled(self, queue: str, consumer_tag: str) -> None:
        """Stop consuming a queue that has no consumers any more."""
        subscribers = self._subscribers.get(queue)
        if subscribers is None:
            return
        subscribers.pop(consumer_tag, None)
        if not subscribers:
            del self._subscribers[queue]
            self._stop(queue)

    def _stop(self, queue: str) -> None:
        """Stop consuming a queue without consumers: give back the messages that were fetched and not delivered."""
        self.end_poll()
        self.flush_acks()
        returned = [entry for entry in self._buffer if self._queues.get(entry.key) == queue]
        if returned:
            kept = [entry for entry in self._buffer if self._queues.get(entry.key) != queue]
            self._buffer.clear()
            self._buffer.extend(kept)
            self.give_back_fetched(returned)
        if not self.carry_out(self.streams.leave(self.keys_of(queue))):
            self._joined.pop(queue, None)
        if self._joined:
            self._renew()
        else:  # a client that reads a reply occasionally needs no lease between reads
            self._end_lease()

    def _get(self, queue: str, timeout: float | None = None) -> payloads.Payload:
        if not self._leased:
            self.join([])
        keys = self.keys_of(queue)
        self._joined[queue] = None
        self.carry_out(self.streams.touch(self._expiring(queue)))
        while entries := self.carry_out(self.streams.take(keys, 1)):
            payload = self.open(entries[0])
            if payload is not None:
                return payload
            self.flush_acks()
        raise Empty

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Message | None:
        """Return the next message of a queue, or None."""
        message = super().basic_get(queue, no_ack=no_ack, **kwargs)
        if message is not None and no_ack:
            held = parse_tag(str(message.delivery_tag))
            if held is not None:
                self.stream_qos.drop(Entry(*held, b""))
                self.flush_acks()
        return message

    # -- Closing

    def close(self) -> None:
        """Give back the held messages, end the lease, and close.

        If Redis cannot be reached, another consumer takes the messages over when the lease ends.
        """
        if not self.closed:
            try:
                self._hand_back()
            except (OSError, RedisError) as error:
                logger.warning(
                    "closed without giving back the held messages; the next consumer of this process takes them over, "
                    "or any other in %g s: %s", self.lease, error,
                    extra={"action": "close_failed"},
                )  # fmt: skip
                if self._leased:
                    _lost_consumers.setdefault(self._server, set()).add(self.streams.consumer)
            finally:
                if self.connection is not None:
                    self.connection.leases.release(self)
                self._forget()
                _channels.discard(self)
        super().close()

    def _hand_back(self) -> None:
        if not self._leased:
            return
        self.end_poll()
        self.flush_acks()
        if self.existing_qos is not None:
            self.existing_qos.restore_unacked_once()
        self.give_back_fetched(list(self._buffer))
        self._buffer.clear()
        self.carry_out(self.streams.leave([key for queue in self._joined for key in self.keys_of(queue)]))
        self._end_lease()

    def _end_lease(self) -> None:
        self.connection.leases.release(self)  # before the key is deleted, because a renewal would restore it
        self.carry_out(self.streams.drop_lease())
        self._leased = False

    def _forget(self) -> None:
        """Drop everything that is held, without telling Redis."""
        poll, self._asked = self._asked, None
        if poll is not None and self.polled_on is not None:
            self.polled_on.disconnect()  # otherwise Kombu would wait for its answer
        self.poll_ended()
        self._buffer.clear()
        self._returning.clear()
        self._subscribers.clear()
        self._joined.clear()
        self._touched = {}
        self._leased = False
        self.suspects.forget()
        if self.existing_qos is not None:
            self.existing_qos.forget()

    def forget_after_fork(self) -> None:
        """Reset the channel in a child process: its messages belong to the parent's channel."""
        self.poll_ended()
        self._forget()
        self._start_consuming()  # its locks may be held by a thread that does not exist here
        self.streams.renew_consumer()
        self._start_planning()
        if self.connection is not None:
            self.connection.leases = Leases()

    # -- Connections

    def pool_params(self, params: dict[str, Any]) -> dict[str, Any]:
        """Refuse parameters that leave out the TLS that was requested."""
        params = super().pool_params(params)
        client: Any = self.connection.client
        if client.ssl and not issubclass(params["connection_class"], redis.SSLConnection):
            raise ValueError(
                "TLS was requested (ssl, broker_use_ssl) but this connection would not use it; "
                "use a rediss-streams:// URL, and a dictionary for the options"
            )
        return params


def _check_options(lease: Any, batch_size: Any, max_deaths: Any, max_dead_letters: Any) -> None:
    """Raise ValueError for a transport option that is out of range."""
    problem = None
    if not isinstance(lease, int | float) or not 0.1 <= lease <= 86400:
        problem = f"lease is {lease!r}; it is a number of seconds from 0.1 to 86400"
    elif not isinstance(batch_size, int) or not 1 <= batch_size <= 10_000:
        problem = f"batch_size is {batch_size!r}; it is a whole number from 1 to 10000"
    elif max_deaths is not None and not (type(max_deaths) is int and 2 <= max_deaths <= 1000):
        problem = (
            f"max_deaths is {max_deaths!r}; it is a whole number from 2 to 1000, or None for no dead letters "
            "(1 would make dead letters of all that a consumer held when it died)"
        )
    elif type(max_dead_letters) is not int or not 1 <= max_dead_letters <= 1_000_000:
        problem = f"max_dead_letters is {max_dead_letters!r}; it is a whole number from 1 to 1000000"
    if problem:
        raise ValueError(f"transport option {problem}")


def _after_fork() -> None:
    for channel in list(_channels):
        channel.forget_after_fork()


os.register_at_fork(after_in_child=_after_fork)
