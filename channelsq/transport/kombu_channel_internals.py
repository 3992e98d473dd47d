"""Kombu's Redis channel as the transport on streams extends it: its polls, and what differs between Kombu's versions.

Kombu's poller calls a channel by private names; here they have public ones.  The channel behaves as that of Kombu 5.7
on Kombu 5.5, 5.6 and 5.7: only this module and the poller's contain what differs between them.  Private parts of
Kombu; ``tests/unit/transport/test_kombu_channel_internals.py`` and ``tests/transport/test_versions.py`` pin them.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

from kombu.transport import redis as kombu_redis
from kombu.transport.base import to_rabbitmq_queue_arguments  # type: ignore[attr-defined]  # not in its stubs

from channelsq.transport.kombu_pool_internals import PooledChannel

#: Name formats of the sets of bindings; Kombu 5.7 keeps a second set of those that never expire.
_BINDINGS = [
    getattr(kombu_redis.Channel, name)
    for name in ("keyprefix_queue", "keyprefix_binding_permanent")
    if hasattr(kombu_redis.Channel, name)
]


def raw_payload(message: Any) -> dict[str, Any]:
    """Return the payload from which Kombu has made a message; its body may be compressed."""
    payload: dict[str, Any] = message._raw
    return payload


class KombuChannel(PooledChannel):
    """The base of the transport's channel."""

    #: Seconds that a poll waits; Kombu sets it for each channel since 5.6.
    brpop_timeout: int = 1

    #: When the current poll was sent; Kombu's since 5.7.
    _brpop_sent_at: float | None = None

    _in_poll: Any
    _queue_cycle: Any
    _qos: Any
    _fanout_queues: dict[str, tuple[str, str]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: ``x-expires`` in ms of the queues that this channel has declared.
        self.queue_expires: dict[str, int] = {}
        super().__init__(*args, **kwargs)

    # -- Polls: Kombu's poller calls the private names

    def send_poll(self, timeout: float | None = None) -> None:
        """Send a poll and call :meth:`poll_sent`; do nothing if the channel needs no messages.

        Args:
            timeout: seconds that the server waits for messages; None for ``brpop_timeout``.
        """
        raise NotImplementedError

    def deliver_poll(self) -> None:
        """Read the answer to a poll and deliver its messages.

        Raises:
            queue.Empty: there are none.
        """
        raise NotImplementedError

    def connection_lost(self, connection: Any) -> None:
        """Take note that one of the channel's connections is closed."""

    def _brpop_start(self, timeout: float | None = None) -> None:
        self.send_poll(timeout)

    def _brpop_read(self, **options: Any) -> bool:
        self.deliver_poll()
        return True

    def _on_connection_disconnect(self, connection: Any) -> None:
        self.connection_lost(connection)
        super()._on_connection_disconnect(connection)  # type: ignore[misc]

    def poll_sent(self, connection: Any) -> None:
        """Record that a poll is sent on a connection: Kombu's poller reads the answer there."""
        self._in_poll, self._brpop_sent_at = connection, monotonic()

    def poll_ended(self) -> None:
        """Record that no answer to a poll is expected: Kombu's poller sends the next one."""
        self._in_poll = None

    @property
    def polled_on(self) -> Any:
        """The connection on which the answer to a poll is expected; a false value without one."""
        return self._in_poll

    @property
    def poll_sent_at(self) -> float | None:
        """The :func:`time.monotonic` of the last poll; None before the first."""
        return self._brpop_sent_at

    def flush_reauth(self) -> None:
        """Send new credentials from the credential provider, if there are any (since Kombu 5.7)."""
        flush = getattr(super(), "_flush_brpop_reauth", None)
        if flush is not None:
            flush()

    # -- Queues

    @property
    def active_queues(self) -> list[str]:  # type: ignore[override]
        """The consumed queues except those of fanout exchanges, in their order (before 5.7: in any)."""
        fanout = self.active_fanout_queues
        return list(dict.fromkeys(queue for queue in self._active_queues if queue not in fanout))

    def next_queues(self) -> list[str]:
        """Return the consumed queues in the order in which the next poll serves them."""
        queues: list[str] = self._queue_cycle.consume(len(self.active_queues))
        return queues

    def serve_last(self, queue: str | None) -> None:
        """Have a queue that has brought messages served after the others, if the order of queues allows it."""
        self._queue_cycle.rotate(queue)

    def is_fanout(self, queue: str) -> bool:
        """Return whether a queue is bound to a fanout exchange, whose messages never reach a stream."""
        return queue in self._fanout_queues

    def prepare_queue_arguments(self, arguments: Any, **kwargs: Any) -> Any:
        """Set ``x-expires`` from a queue's ``expires``, as for RabbitMQ (Kombu's since 5.7)."""
        return to_rabbitmq_queue_arguments(arguments, **kwargs)

    def _new_queue(self, queue: str, **kwargs: Any) -> None:
        super()._new_queue(queue, **kwargs)
        try:
            self.queue_expires[queue] = int(kwargs["arguments"]["x-expires"])
        except (KeyError, TypeError, ValueError):
            self.queue_expires.pop(queue, None)

    def unbind(self, client: Any, exchange: str, member: str) -> None:
        """Remove the binding of a queue, as Kombu writes it, from an exchange."""
        for name in _BINDINGS:
            client.srem(name % (exchange,), member)

    # -- Consumers

    def consumer_cancelled(self, queue: str, consumer_tag: str) -> None:
        """Take note that a queue has one consumer less; Kombu puts this off while it delivers a message."""

    def _basic_cancel(self, consumer_tag: str) -> Any:
        queue = self._tag_to_queue.get(consumer_tag, "")
        result = super()._basic_cancel(consumer_tag)  # type: ignore[misc]
        self.consumer_cancelled(queue, consumer_tag)
        return result

    @property
    def existing_qos(self) -> Any:
        """The channel's QoS; None before its first use, where ``qos`` would create it."""
        return self._qos
