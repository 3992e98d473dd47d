"""Kombu's own Redis transport for a worker with channels: it survives a Redis that refuses commands for a while.

Kombu takes a message off its list with BRPOP, and then records it as unacknowledged, so that it is restored if its
worker dies.  Between the two steps only the worker has the message.  If Redis refuses a step, or a lost connection
leaves it open, the worker keeps the message and repeats the step as soon as the server accepts it.

The whole module builds on private parts of Kombu; ``tests/transport/test_stock.py`` and
``tests/integration/faults/test_stock_redis_recovery.py`` pin them.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from time import monotonic, sleep, time
from typing import Any

from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from kombu.utils.json import dumps, loads

from channelsq.redis_core.commands import Command
from channelsq.redis_io.away import UNREACHABLE, ServerAway
from channelsq.transport.celery_end_internals import worker_is_ending
from channelsq.transport.enduring import EnduringChannel, EnduringTransport
from channelsq.transport.sentinel_channel import SentinelConnections, StockSentinelTransport

logger = logging.getLogger("channelsq.worker")

#: Seconds for which a server may refuse to record a message that was taken, and between two attempts.
_NOTED_WITHIN, _NOTED_EVERY = 30.0, 0.25

#: A broker: its address, and the prefix of its keys.
_Broker = tuple[Any, ...]


class QoS(kombu_redis.QoS):
    """Records taken and acknowledged messages also in a Redis with full memory.

    Otherwise they would be lost, or redelivered.
    """

    channel: Channel
    _delivered: Any
    _flush: Any
    _remove_from_indices: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Tags of messages that are not recorded, as far as is known.
        self._unnoted: set[str] = set()
        #: Tags of messages that are done and still recorded.
        self._done: set[str] = set()

    def append(self, message: Any, delivery_tag: str) -> None:
        """Record a taken message; wait for a server that does not answer, because only this worker has the message."""
        until = monotonic() + _NOTED_WITHIN
        while True:
            try:
                self._note(message, delivery_tag)
            except UNREACHABLE:
                if not (self.channel._closing or worker_is_ending()) and monotonic() < until:
                    sleep(_NOTED_EVERY)
                    continue
                self._unnoted.add(delivery_tag)
                virtual.QoS.append(self, message, delivery_tag)  # it is lost only with this worker
            return

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
        """Acknowledge a message; repeat it later if the server cannot be reached now."""
        virtual.QoS.ack(self, delivery_tag)
        self._done.add(delivery_tag)
        if not self.channel.closed:  # otherwise give_back() acknowledges it
            self._try_to_forget()

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Reject a message; with ``requeue`` it is redelivered."""
        if not requeue:
            self.ack(delivery_tag)
        elif delivery_tag in self._unnoted:
            self.push(self._delivered[delivery_tag])
            self._unnoted.discard(delivery_tag)
            virtual.QoS.ack(self, delivery_tag)
        else:
            super().reject(delivery_tag, requeue)

    def _try_to_forget(self) -> None:
        try:
            self._forget_done(self)
        except UNREACHABLE as error:
            logger.debug("messages that are done with are noted until Redis takes it: %r", error)

    def _forget_done(self, through: QoS) -> None:
        for tag in tuple(self._done):
            through.forget(tag)
            self._done.discard(tag)
            self._unnoted.discard(tag)

    def forget(self, delivery_tag: str) -> None:
        """Delete the record of a message; a Redis with full memory refuses all transactions."""
        try:
            self._remove_from_indices(delivery_tag).execute()
        except ServerAway as error:
            if not error.full:
                raise
            self.channel.write_if_full(*self._removal(delivery_tag))

    def _removal(self, delivery_tag: str) -> tuple[Command, Command]:
        prefix = self.channel.global_keyprefix
        return (
            ("ZREM", prefix + self.unacked_index_key, delivery_tag),
            ("HDEL", prefix + self.unacked_key, delivery_tag),
        )

    # -- restored messages

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        """Restore a recorded message, also in a Redis with full memory: it moves from one key to another."""
        try:
            super().restore_by_tag(tag, client, leftmost)
        except ServerAway as error:
            if not error.full:
                raise
            with self.channel.conn_or_acquire(client) as one:
                noted = one.hget(self.unacked_key, tag)
            back: list[Command] = []
            if noted:
                payload, exchange, routing_key = loads(noted)
                back = self._pushes(payload, exchange, routing_key, leftmost)
            self.channel.write_if_full(*self._removal(tag), *back)

    def push(self, message: Any) -> None:
        """Restore a message without a record, or one whose record's answer was lost."""
        info = message.delivery_info
        pushes = self._pushes(message._raw, info["exchange"], info["routing_key"])
        self.channel.write_if_full(*self._removal(message.delivery_tag), *pushes)

    def _pushes(self, payload: Any, exchange: str, routing_key: str, leftmost: bool = False) -> list[Command]:
        pushes = _Pushes(self.channel.global_keyprefix)
        self.channel._do_restore_message(payload, exchange, routing_key, pushes, leftmost)
        return pushes.commands

    def restore_unacked(self, client: Any = None) -> None:
        """Restore all messages that are not done; the next connection restores the rest."""
        try:
            self.give_back(self)
        except UNREACHABLE as error:
            logger.debug("%d messages are put back when Redis takes them: %r", len(self._delivered), error)
            _left[self.channel.broker].append(self)

    def give_back(self, through: QoS) -> None:
        """Restore all messages that are not done, and drop all records.

        Args:
            through: the QoS of an open channel at the same broker.
        """
        self._flush()
        self._forget_done(through)
        for tag, message in tuple(self._delivered.items()):
            if tag in self._unnoted:
                through.push(message)
            else:
                through.restore_by_tag(tag)
            self._delivered.pop(tag, None)

    def restore_visible(self, *args: Any, **kwargs: Any) -> None:
        """Restore the messages of dead workers; in a Redis with full memory that must wait."""
        self._try_to_forget()
        try:
            super().restore_visible(*args, **kwargs)
        except ServerAway as error:
            if not error.full:
                raise


#: The records that closed channels could not restore, by broker.
_left: defaultdict[_Broker, list[QoS]] = defaultdict(list)


class _Pushes:
    """A pipeline that collects commands instead of running them.

    Args:
        prefix: the global prefix of keys.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.commands: list[Command] = []

    def lpush(self, key: str, value: str) -> None:
        """Add to the end that is read last."""
        self.commands.append(("LPUSH", self.prefix + key, value))

    def rpush(self, key: str, value: str) -> None:
        """Add to the end that is read next."""
        self.commands.append(("RPUSH", self.prefix + key, value))


class Channel(EnduringChannel):
    """``redis://``."""

    QoS = QoS
    qos: Any
    _closing: bool
    _do_restore_message: Any
    _q_for_pri: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        client: Any = self.connection.client  # the transport, which forgets it when it is closed before its channels
        #: The broker where messages are restored.
        self.broker: _Broker = (client.hostname, client.port, client.virtual_host, self.global_keyprefix)

    def basic_consume(self, queue: str, no_ack: bool, callback: Any, consumer_tag: Any, **kwargs: Any) -> Any:
        """Extend Kombu's method: a message that is read while the channel is closed is restored and does not run."""

        def take(message: Any) -> Any:
            return None if self._closing else callback(message)

        return super().basic_consume(queue, no_ack, callback if no_ack else take, consumer_tag, **kwargs)

    def _size(self, queue: str) -> int:
        """Return a queue's size without a transaction, which a Redis with full memory refuses; declaring needs it."""
        with self.conn_or_acquire() as client, client.pipeline(transaction=False) as pipe:
            for priority in self.priority_steps:
                pipe.llen(self._q_for_pri(queue, priority))
            return sum(pipe.execute())

    def check(self) -> None:
        """See :meth:`EnduringChannel.check`; also restore the messages of earlier channels."""
        super().check()
        left = _left.pop(self.broker, [])
        while left:
            try:
                left[-1].give_back(self.qos)
            except UNREACHABLE:
                _left[self.broker] += left
                raise
            left.pop()


class Transport(EnduringTransport):
    """``redis://`` and ``rediss://``."""

    Channel = Channel


class SentinelChannel(SentinelConnections, Channel, kombu_redis.SentinelChannel):
    """``sentinel://``."""

    from_transport_options = kombu_redis.SentinelChannel.from_transport_options


class SentinelTransport(EnduringTransport, StockSentinelTransport):
    """``sentinel://``."""

    Channel = SentinelChannel


#: The replacement of each of Kombu's transports.
_INSTEAD: dict[Any, type[EnduringTransport]] = {
    kombu_redis.Transport: Transport,
    kombu_redis.SentinelTransport: SentinelTransport,
    StockSentinelTransport: SentinelTransport,
}


def instead_of(transport: Any) -> Any:
    """Return the replacement of one of Kombu's transports, or the transport itself if there is none."""
    return _INSTEAD.get(transport, transport)
