"""Kombu's own Redis transport as a worker with channels uses it: it outlives a Redis that refuses for now."""

from __future__ import annotations

from time import monotonic, sleep, time
from typing import Any

from celery.worker import state
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from kombu.utils.json import dumps

from channelsq.transport.away import ServerAway
from channelsq.transport.enduring import EnduringChannel, EnduringTransport

#: Seconds that a server may refuse to note a message that was taken, and between two attempts.
_NOTED_WITHIN, _NOTED_EVERY = 30.0, 0.25


class QoS(kombu_redis.QoS):
    """Notes which messages were taken, and are done with, also in a Redis that is full: else they would be lost, or
    come again.
    """

    channel: EnduringChannel

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note that a message is taken; a server that refuses that is waited for, as the message is nowhere else."""
        until = monotonic() + _NOTED_WITHIN
        while monotonic() < until and state.should_stop is None and state.should_terminate is None:
            try:
                self._note(message, delivery_tag)
            except ServerAway:
                sleep(_NOTED_EVERY)
            else:
                return
        virtual.QoS.append(self, message, delivery_tag)  # it is run all the same, and lost only with this worker

    def _note(self, message: Any, delivery_tag: str) -> None:
        try:
            super().append(message, delivery_tag)
        except ServerAway as error:
            if not error.full:
                raise
            info = message.delivery_info
            noted = dumps([message._raw, info["exchange"], info["routing_key"]])
            prefix = self.channel.global_keyprefix
            self.channel.write_if_full(
                ("ZADD", prefix + self.unacked_index_key, str(time()), delivery_tag),
                ("HSET", prefix + self.unacked_key, delivery_tag, noted),
            )
            virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """The message is done with."""
        try:
            super().ack(delivery_tag)
        except ServerAway as error:
            self._forget(delivery_tag, error)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """The message is not wanted; with ``requeue`` it comes again."""
        try:
            super().reject(delivery_tag, requeue)
        except ServerAway as error:
            if requeue:
                raise
            self._forget(delivery_tag, error)

    def _forget(self, delivery_tag: str, error: ServerAway) -> None:
        """Note in a Redis that is full that a message is done with; it refuses transactions, whatever is in them."""
        if not error.full:
            raise error
        prefix = self.channel.global_keyprefix
        self.channel.write_if_full(
            ("ZREM", prefix + self.unacked_index_key, delivery_tag), ("HDEL", prefix + self.unacked_key, delivery_tag)
        )
        virtual.QoS.ack(self, delivery_tag)

    def restore_visible(self, *args: Any, **kwargs: Any) -> None:
        """Give back what dead workers held; in a Redis that is full that has to wait."""
        try:
            super().restore_visible(*args, **kwargs)
        except ServerAway as error:
            if not error.full:
                raise


class Channel(EnduringChannel):
    """``redis://``."""

    QoS = QoS


class Transport(EnduringTransport):
    """``redis://`` and ``rediss://``."""

    Channel = Channel


class SentinelChannel(EnduringChannel, kombu_redis.SentinelChannel):
    """``sentinel://``."""

    QoS = QoS


class SentinelTransport(EnduringTransport, kombu_redis.SentinelTransport):
    """``sentinel://``."""

    Channel = SentinelChannel


#: The replacement of each of Kombu's transports.
_INSTEAD: dict[Any, type[EnduringTransport]] = {
    kombu_redis.Transport: Transport,
    kombu_redis.SentinelTransport: SentinelTransport,
}


def instead_of(transport: Any) -> Any:
    """The transport that a worker uses instead of one of Kombu's: mostly that very one."""
    return _INSTEAD.get(transport, transport)
