"""A channel layer on any broker that Kombu supports; groups in Redis.

:mod:`channelsq.layers.wire.wire_forms` describes the messages.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property
from typing import Any

from kombu import Producer

from channelsq.core import names
from channelsq.exceptions import BrokerUnavailable, ChannelFull, InvalidChannelLayerError
from channelsq.layers.amqp.amqp_sender import AmqpSender
from channelsq.layers.contract.broker_urls import check_groups_url, shown
from channelsq.layers.contract.layer_values import ChannelState, Deliver, Listener, Received, Send
from channelsq.layers.contract.membership_notes import Change, note
from channelsq.layers.contract.source_contract import Source, SourceOptions
from channelsq.layers.eviction import warn_of_eviction
from channelsq.layers.groups.begun_marks import KEPT_AFTER, BegunStore, MemoryBegun, RedisBegun
from channelsq.layers.groups.group_stores import GroupStore, MemoryGroups, RedisGroups
from channelsq.layers.groups.presence import Presence
from channelsq.layers.groups.records import MemoryRecords, RecordStore, RedisRecords
from channelsq.layers.kombu_broker.broker_access import DEFAULT_PREFIX, QUEUE_EXPIRES, KombuBroker, channel_of
from channelsq.layers.kombu_broker.kombu_listener import KombuListener
from channelsq.layers.kombu_broker.kombu_receiver import KombuReceiver
from channelsq.layers.kombu_broker.kombu_sender import KombuSender
from channelsq.layers.kombu_broker.params import redis_params
from channelsq.redis_io.away import is_unreachable

#: Seconds for which a consumer's sends wait for a Redis that is away, and between two attempts.
OUTCOME_WAITS, _OUTCOME_EVERY = 30.0, 0.25


def _number(name: str, value: object, least: int) -> int | None:
    """Return a whole number of ``CONFIG``; raise InvalidChannelLayerError for anything else."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and least <= value <= 1000):
        return value
    raise InvalidChannelLayerError(
        f"CHANNEL_LAYERS CONFIG[{name!r}] must be a whole number from {least} to 1000, not {value!r}"
    )


def _groups_form(url: str) -> str:
    """Return the URL of a broker in the form of ``CONFIG["groups_url"]``."""
    scheme, _, rest = url.partition("://")
    scheme = scheme.replace("-streams", "")
    return f"{'unix' if scheme == 'redis+socket' else scheme}://{rest}"


class KombuChannelLayer(KombuBroker):
    """Channels on a Kombu broker, groups in Redis.

    Args:
        url: the broker's URL in Kombu's form (``amqp://``, ``redis://``, ``rediss://``, ``memory://``, …);
            the Celery app's ``broker_url`` if left out.
        groups_url: the Redis for the groups (``redis://``, ``rediss://``, ``unix://``, ``sentinel://``); by default
            ``url`` if that is a Redis.
        prefix: the prefix of the keys of groups and, unless it is the default one, with a colon, of the names of
            queues. Layers and sites with different prefixes can share a broker.
        transport_options: for Kombu's transport; they override Celery's ``broker_transport_options``.
        connections: the most connections on which this process publishes.
        threads: how many consumers run at once in a worker, or in each of its channel processes; None for the
            number of threads of the worker's pool, 1 with ``-P solo``, 8 with ``-P prefork``.
        processes: how many separate processes run a worker's consumers, 0 for threads of the worker; None for one
            with ``-P prefork``, else none.
        queue_type: ``"quorum"`` for queues that RabbitMQ replicates on several nodes; reply queues stay classic.
        exact_capacity: whether RabbitMQ itself refuses messages beyond the capacity of a channel that workers
            consume.
        signing: whether messages are signed: True to refuse unsigned ones, ``"sign"`` to log them only.
        symmetric_encryption_keys: a list of keys with which messages are encrypted, each of at least 32 characters: the
            first encrypts, all decrypt. It needs the package ``cryptography``.
        config: see :class:`BaseChannelLayer`.
    """

    def __init__(
        self,
        *,
        url: str | None = None,
        groups_url: str | None = None,
        prefix: str = DEFAULT_PREFIX,
        transport_options: Mapping[str, Any] | None = None,
        connections: int = 10,
        threads: int | None = None,
        processes: int | None = None,
        signing: bool | str = False,
        **config: Any,
    ) -> None:
        super().__init__(url=url, prefix=prefix, transport_options=transport_options, signing=signing, **config)
        if not isinstance(groups_url, (str, type(None))):
            raise InvalidChannelLayerError(
                f"CHANNEL_LAYERS CONFIG['groups_url'] must be a URL in a str, not {groups_url!r}"
            )
        if groups_url:
            check_groups_url(groups_url)
        self._groups_url = groups_url
        self._connections = connections
        self.threads = _number("threads", threads, 1)
        self.processes = _number("processes", processes, 0)
        self._lock = threading.RLock()
        self._group_store: GroupStore | None = None
        self._marks = MemoryBegun()
        self._redis_marks: RedisBegun | None = None
        self._memory_records = MemoryRecords()
        self._redis_records: RedisRecords | None = None
        self._receiver = KombuReceiver(self)

    # -- sending

    @cached_property
    def _sender(self) -> KombuSender:
        return (AmqpSender if self.is_amqp else KombuSender)(self, self._connections)

    def producer(self) -> AbstractContextManager[Producer]:
        return self._sender.producer()

    def forget_queues(self) -> None:
        self._sender.forget()

    def dispatch(self, sends: Sequence[Send]) -> None:
        self._sender.dispatch(*self.sort(sends))

    def submit(self, sends: Sequence[Send], told: Callable[[int, Exception | None], None]) -> None:
        if isinstance(self._sender, AmqpSender):
            self._sender.submit(sends, told)
        else:
            super().submit(sends, told)

    def settle(self, sends: Sequence[Send]) -> None:
        """Send the messages of a consumer; wait up to :data:`OUTCOME_WAITS` seconds for a Redis that is away.

        Otherwise they would be lost, because a consumer's message is acknowledged also after a failure.
        """
        if isinstance(self._sender, AmqpSender):
            return self._sender.settle(sends)
        until = time.monotonic() + OUTCOME_WAITS
        while True:
            try:
                return self.dispatch(sends)
            except BrokerUnavailable as error:
                is_redis = self.scheme in self.redis_schemes
                if not is_redis or not is_unreachable(error.__cause__) or time.monotonic() > until:
                    raise
            time.sleep(_OUTCOME_EVERY)

    def depth(self, channel: str) -> int:
        return self._sender.depth(self.queue(channel))

    def channel_state(self, channel: str) -> ChannelState:
        return self._sender.state(self.queue(channel))

    def delete_queues(self, channels: Iterable[str]) -> None:
        queues = {queue.name: queue for queue in (*self.used.values(), *map(self.queue, channels))}
        with self.broker_errors(), self.open_connection() as connection, connection.channel() as channel:
            for queue in queues.values():
                queue(channel).delete()

    def purge(self, channel: str) -> int:
        return self._sender.purge(self.queue(channel))

    def probe(self, channel: str) -> None:
        super().probe(channel)
        if self.scheme in self.redis_schemes:
            self._sender.check_writable(self.queue(channel))

    # -- receiving

    def receive(self, channels: Iterable[str], block: bool = False) -> Received:
        return self._receiver.receive(self.check_wanted(channels), self.block_timeout if block else 0)

    @contextmanager
    def task_publisher(self, channel: str) -> Iterator[tuple[Any, Any]]:
        with self.producer() as producer:
            yield producer, self.queue(channel)

    def source(self, options: SourceOptions) -> Source[Any]:
        if isinstance(self._sender, AmqpSender):
            from channelsq.layers.amqp.amqp_source import AmqpSource  # not at the top: only workers need it

            return AmqpSource(self, self._sender, options)
        from channelsq.layers.kombu_broker.kombu_source import KombuSource  # not at the top: only workers need it

        return KombuSource(self, options)

    def listen(self, prefix: str, deliver: Deliver) -> Listener:
        self.check_wanted([prefix])
        return KombuListener(self, self.queue(prefix), deliver)

    # -- groups

    @property
    def groups_url(self) -> str | None:
        """The URL of the Redis with the groups; None if they are in this process.

        Raises:
            InvalidChannelLayerError: the broker is not a Redis and ``CONFIG["groups_url"]`` is missing.
        """
        if self._groups_url:
            return self._groups_url
        if self.is_one_redis:
            return ";".join(map(_groups_form, self.url.split(";")))
        if self.scheme == "memory":
            return None
        raise InvalidChannelLayerError(
            f"groups are kept in one Redis, and the broker {shown(self.url)} is not one: set "
            'CHANNEL_LAYERS["default"]["CONFIG"]["groups_url"] to a Redis URL'
        )

    @property
    def _groups(self) -> GroupStore:
        with self._lock:
            if self._group_store is None:
                url = self.groups_url
                if url is None:
                    self._group_store = MemoryGroups(self.group_expiry)
                else:
                    params = None if self.has_other_groups else redis_params(self)
                    if params is not None:
                        # By default redis-py's five seconds: heartbeats must notice a lost server soon.
                        params["socket_timeout"] = self.transport_options.get("socket_timeout")
                    self._group_store = RedisGroups(url, self.prefix, self.group_expiry, params)
            return self._group_store

    @property
    def group_store(self) -> GroupStore | None:
        return self._groups if self._has_groups else None

    @property
    def presence(self) -> Presence | None:
        groups = self.group_store
        return Presence(groups) if isinstance(groups, RedisGroups) else None

    @property
    def _begun(self) -> BegunStore | None:
        groups = self.group_store
        if not isinstance(groups, RedisGroups):
            return self._marks if self.in_process else None
        if self._redis_marks is None or self._redis_marks.groups is not groups:
            self._redis_marks = RedisBegun(groups)
        return self._redis_marks

    @property
    def records(self) -> RecordStore | None:
        groups = self.group_store
        if not isinstance(groups, RedisGroups):
            return self._memory_records if self.in_process else None
        if self._redis_records is None or self._redis_records.groups is not groups:
            self._redis_records = RedisRecords(groups, self.protection)
        return self._redis_records

    @cached_property
    def _kept_after(self) -> float:  # type: ignore[override]
        """The ``visibility_timeout``, if there is one: a message without acknowledgement is redelivered after it."""
        return KEPT_AFTER + float(self.transport_options.get("visibility_timeout") or 3600 * self.is_one_redis)

    def end_reply_queues(self, process: str) -> None:
        if self.is_amqp:
            return  # RabbitMQ deletes a queue that is not read for QUEUE_EXPIRES
        with self.broker_errors(), self.open_connection() as connection, connection.channel() as channel:
            in_redis: Any = channel if self.is_one_redis else None
            for kind in ("websocket.send", "http.response", names.GATEWAY_SEND):
                queue = self.reply_queue(f"{kind}.{process}")
                if in_redis is None:
                    queue(channel).delete()
                else:
                    in_redis.client.expire(in_redis.global_keyprefix + queue.name, int(QUEUE_EXPIRES))

    @property
    def has_other_groups(self) -> bool:
        return bool(self._groups_url)

    @property
    def _has_groups(self) -> bool:
        return bool(self._groups_url) or self.is_one_redis or self.in_process

    def group_add(self, group: str, channel: str) -> None:
        super().group_add(group, channel)
        self._tell_owner(Change(group, channel, joined=True))

    def group_discard(self, group: str, channel: str) -> None:
        super().group_discard(group, channel)
        self._tell_owner(Change(group, channel, joined=False))

    def _tell_owner(self, change: Change) -> None:
        """Send a note to the process with the socket; a failure is not raised, because the change is made."""
        send = note(change)
        if send is not None and isinstance(self._groups, RedisGroups):
            with suppress(ChannelFull, BrokerUnavailable):
                self.dispatch((send,))

    def restore_memberships(
        self, memberships: Iterable[tuple[str, str, float]], ended: Iterable[tuple[str, str]] = ()
    ) -> None:
        groups = self._groups
        assert isinstance(groups, RedisGroups)
        groups.add_all(memberships)
        for group, channel in ended:
            groups.discard(group, channel)

    def warn_operator(self) -> None:
        warn_of_eviction(self)

    def forget_channel(self, channel: str) -> None:
        if self._has_groups:
            super().forget_channel(channel)

    def forget_channels(self, channels: Sequence[str]) -> None:
        groups = self._groups
        assert isinstance(groups, RedisGroups)
        groups.forget_all(channels)

    # -- housekeeping

    def flush(self) -> None:
        """Purge the queues that this process has used, and delete every group under the prefix."""
        with self._sender.producer() as producer:
            for queue in list(self.used.values()):
                bound = queue(channel_of(producer))
                bound.queue_declare()
                bound.purge()
        self._sender.forget_depths()
        self._receiver.clear()
        if self._has_groups:
            self._groups.flush()
        if self._begun is not None:
            self._begun.flush()
        if self.records is not None:
            self.records.flush()

    def close(self) -> None:
        self.closed += 1
        with self._lock:
            store = self._group_store
            if self._groups_url or not self.in_process:
                self._group_store = None
        if "_sender" in vars(self):
            self._sender.close()
        if store is not None:
            store.close()
