"""Kombu's Redis channel with the behaviour of Kombu 5.7, on Kombu 5.5, 5.6 and 5.7.

The transport uses private parts of Kombu's own.  Only this module contains those that differ between the versions;
``tests/transport/test_versions.py`` pins them.
"""

from __future__ import annotations

from typing import Any

import kombu
from kombu.transport import redis as kombu_redis
from kombu.transport.base import to_rabbitmq_queue_arguments  # type: ignore[attr-defined]  # not in its stubs

#: Name formats of the sets of bindings; Kombu 5.7 keeps a second set of those that never expire.
_BINDINGS = [
    getattr(kombu_redis.Channel, name)
    for name in ("keyprefix_queue", "keyprefix_binding_permanent")
    if hasattr(kombu_redis.Channel, name)
]


def keep_polling(cycle: Any, hub: Any) -> None:
    """Make an event loop continue to poll the other connections when one ends, and that one when it is back.

    Before 5.7, Kombu stops polling all of them, and leaves the descriptor registered in the event loop.  The loop then
    watches the next connection with the same number, without a callback for it.

    Args:
        cycle: the transport's poller, registered with the event loop.
    """
    if kombu.VERSION >= (5, 7):  # type: ignore[attr-defined]  # not in its stubs
        return

    def on_disconnect(connection: Any) -> None:
        ended = {key for key in cycle._chan_to_sock if key[1].connection is connection}
        for key in ended:
            del cycle._chan_to_sock[key]
        polled = {(channel, kind) for channel, _, kind in ended}
        for fd in [fd for fd, channel in cycle._fd_to_chan.items() if channel in polled]:
            hub.remove(fd)
            del cycle._fd_to_chan[fd]

    cycle._on_connection_disconnect = on_disconnect


class KombuChannel(kombu_redis.Channel):
    """The base of the transport's channel."""

    #: Seconds that a poll waits; Kombu sets it for each channel since 5.6.
    brpop_timeout: int = 1

    #: When the current poll was sent; Kombu's since 5.7.
    _brpop_sent_at: float | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: ``x-expires`` in ms of the queues that this channel has declared.
        self.queue_expires: dict[str, int] = {}
        super().__init__(*args, **kwargs)

    @property
    def active_queues(self) -> list[str]:  # type: ignore[override]
        """The consumed queues except those of fanout exchanges, in their order (before 5.7: in any)."""
        fanout = self.active_fanout_queues
        return list(dict.fromkeys(queue for queue in self._active_queues if queue not in fanout))

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

    def flush_reauth(self) -> None:
        """Send new credentials from the credential provider, if there are any (since Kombu 5.7)."""
        flush = getattr(super(), "_flush_brpop_reauth", None)
        if flush is not None:
            flush()
