"""A channel layer on any broker that Kombu knows; groups in Redis.

What travels is described in :mod:`channelsq.layers.wire`.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property
from typing import Any, ClassVar

from kombu import Connection, Exchange, Producer, Queue
from kombu.exceptions import KombuError

from channelsq import conf, names
from channelsq.exceptions import BrokerUnavailable, ChannelFull, InvalidChannelLayerError
from channelsq.ipc import SCHEME as IPC_SCHEME
from channelsq.layers import decompression, patience
from channelsq.layers.amqp_internals import Blocked
from channelsq.layers.base import BaseChannelLayer, Deliver, Listener, Received, Send
from channelsq.layers.begun import KEPT_AFTER, BegunStore, MemoryBegun, RedisBegun
from channelsq.layers.clock import Clock
from channelsq.layers.groups import GroupStore, MemoryGroups, RedisGroups
from channelsq.layers.listener import KombuListener
from channelsq.layers.memberships import Change, note
from channelsq.layers.params import redis_params
from channelsq.layers.presence import Presence
from channelsq.layers.receiver import KombuReceiver
from channelsq.layers.sender import QUEUE_EXPIRES, KombuSender, channel_of, is_temporary
from channelsq.layers.signing import Signing, is_required
from channelsq.layers.urls import check_broker_url, check_groups_url, same_broker, shown
from channelsq.layers.wire import Entry
from channelsq.transport import SCHEMES
from channelsq.transport.away import is_unreachable

#: The prefix with which queues are called as their channels.
DEFAULT_PREFIX = "channelsq"

#: Seconds that a consumer's outcome waits for a Redis that is away, and between two attempts.
OUTCOME_WAITS, _OUTCOME_EVERY = 30.0, 0.25

_PREFIX = re.compile(r"[A-Za-z0-9_.:-]{1,64}")

_NO_EXCHANGE = Exchange("")

#: This machine's.
_OWN_CLOCK = Clock()

#: Makes a named tuple of a tuple that has all of its fields: a third of what calling its class takes.
_tuple = tuple.__new__


def _number(name: str, value: object, least: int) -> int | None:
    """Return a whole number of ``CONFIG``; raises InvalidChannelLayerError."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and least <= value <= 1000):
        return value
    raise InvalidChannelLayerError(
        f"CHANNEL_LAYERS CONFIG[{name!r}] must be a whole number from {least} to 1000, not {value!r}"
    )


class KombuChannelLayer(BaseChannelLayer):
    """Channels on a Kombu broker, groups in Redis.

    Args:
        url: the broker, as Kombu writes it (``amqp://``, ``redis://``, ``rediss://``, ``memory://``, …);
            the Celery app's ``broker_url`` if left out.
        groups_url: the Redis that holds the groups; ``url`` itself if that is a Redis.
        prefix: put before the keys of groups and, unless it is the default one, with a colon before the names of
            queues: layers and sites with different prefixes can share a broker.
        transport_options: for Kombu's transport, on top of Celery's ``broker_transport_options``.
        connections: how many connections this process publishes on at most.
        threads: how many consumers run at once in a worker, or in each of its channel processes; None for as many as
            the worker's pool has threads, 1 with ``-P solo``, 8 with ``-P prefork``.
        processes: how many processes of their own a worker's consumers run in, 0 for threads of the worker; None for
            one with ``-P prefork``, else none.
        signing: whether messages are signed: True if what is not is refused, ``"sign"`` if it is only told of.
        config: see :class:`BaseChannelLayer`.
    """

    #: Schemes that hold both channels and groups.
    redis_schemes: ClassVar[frozenset[str]] = frozenset(
        {"redis", "rediss", "redis+socket", *SCHEMES, "redis-streams+socket"} - {"sentinel-streams"}
    )

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
        super().__init__(**config)
        self._signing_required = is_required(signing)
        for name, value in (("url", url), ("groups_url", groups_url)):
            if not isinstance(value, (str, type(None))):
                raise InvalidChannelLayerError(f"CHANNEL_LAYERS CONFIG[{name!r}] must be a URL in a str, not {value!r}")
        if groups_url:
            check_groups_url(groups_url)
        self._url = url
        self._readable_url = ""
        self._groups_url = groups_url
        if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
            raise InvalidChannelLayerError(
                f"CHANNEL_LAYERS CONFIG['prefix'] must be 1 to 64 ASCII letters, digits, '-', '_', '.' and ':', "
                f"not {prefix!r}"
            )
        self.prefix = prefix
        #: What the names of queues have in front of those of channels.
        self.queue_prefix = "" if prefix == DEFAULT_PREFIX else f"{prefix}:"
        self._transport_options = dict(transport_options or {})
        self._connections = connections
        self.threads = _number("threads", threads, 1)
        self.processes = _number("processes", processes, 0)
        self._lock = threading.RLock()
        self._group_store: GroupStore | None = None
        self._marks = MemoryBegun()
        self._redis_marks: RedisBegun | None = None
        self._sender = KombuSender(self, connections)
        self._receiver = KombuReceiver(self)
        #: The queues that this process has sent to or received from, for flush().
        self.used: dict[str, Queue] = {}
        #: Is called, in any thread, for each message on a reply queue that is none of channelsq's.
        self.foreign_listener: Callable[[], None] | None = None
        #: How often close() was called: who was at work then need not say how that failed.
        self.closed = 0

    # -- the broker -------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The broker's URL.

        Raises:
            InvalidChannelLayerError: there is neither ``CONFIG["url"]`` nor a Celery broker, or Kombu cannot read it.
        """
        url = self._url or self._celerys_url()
        if not url:
            raise InvalidChannelLayerError(
                'the channel layer knows no broker: set CHANNEL_LAYERS["default"]["CONFIG"]["url"], '
                "or broker_url in the Celery app"
            )
        if url != self._readable_url:
            for each in url.split(";"):
                check_broker_url(each, is_redis=each.partition("://")[0] in self.redis_schemes)
            self._readable_url = url
        return url

    def _celerys_url(self) -> str:
        """Return the Celery app's broker, as the layer spells it; empty if it names none."""
        return conf.celery_broker_url()

    @property
    def scheme(self) -> str:
        """The transport's name in the URL, such as ``redis`` or ``amqp``."""
        return self.url.partition("://")[0]

    @property
    def in_process(self) -> bool:
        return self.scheme == "memory"

    @property
    def has_source(self) -> bool:
        return not self.in_process

    @property
    def kombu_url(self) -> str:
        """The URL at which another Kombu program reaches the layer's queues."""
        return self.url

    @cached_property
    def signing(self) -> Signing | None:  # type: ignore[override]
        """What signs messages, and looks at signatures; None for nothing, as for what leaves no process."""
        required = self._signing_required
        return None if required is None or self.in_process else Signing(self.prefix, required=required)

    @property
    def own_url(self) -> str | None:
        """The broker's URL if the layer was given one; None if it uses the Celery app's."""
        return self._url

    def is_on(self, url: str) -> bool:
        return same_broker(self.url, url)

    @property
    def _is_celerys(self) -> bool:
        """Whether Celery's broker is the layer's."""
        return self.is_on(conf.celery_broker_url())

    @property
    def transport_options(self) -> dict[str, Any]:
        """Those of ``CONFIG``, on top of Celery's ``broker_transport_options`` if its broker is the layer's."""
        celerys = conf.celery_app().conf.broker_transport_options if self._is_celerys else None
        return {**(celerys or {}), **self._transport_options}

    def open_connection(self, kind: type[Connection] = Connection, *, listens: bool = False) -> Connection:
        """A new connection to the broker; nothing is sent before it is used.

        Args:
            kind: of connection.
            listens: whether its user waits for what comes, calling ``heartbeat_check()`` every second meanwhile; else
                it asks and waits for answers.
        """
        decompression.bound()
        app = conf.celery_app()
        options = patience.layer_options(self.url, self.transport_options, listens=listens)
        heartbeat = patience.heartbeat(app) if listens and self.is_amqp else 0.0
        ssl = app.conf.broker_use_ssl if self._url is None or self._is_celerys else None
        return kind(
            self.url,
            ssl=ssl or False,
            transport_options=options,
            connect_timeout=patience.CONNECT_TIMEOUT,
            heartbeat=heartbeat,
        )

    def queue(self, channel: str) -> Queue:
        """The Kombu queue that carries ``channel``."""
        if names.is_process_channel(channel):
            return self.reply_queue(names.process_part(channel)[:-1])
        name = self.queue_prefix + channel
        if names.is_single_reader(channel):
            return Queue(name, _NO_EXCHANGE, routing_key=name, expires=QUEUE_EXPIRES)
        return Queue(name, _NO_EXCHANGE, routing_key=name)

    def reply_queue(self, process: str) -> Queue:
        """The queue of a process's clients, by what stands before the ``!``."""
        name = self.queue_prefix + process
        return Queue(name, _NO_EXCHANGE, routing_key=name, expires=QUEUE_EXPIRES)

    @contextmanager
    def broker_errors(self) -> Iterator[None]:
        """Turn what the transport raises in the block into BrokerUnavailable."""
        try:
            yield
        except self._transport_errors() as error:
            if isinstance(error, BrokerUnavailable):
                raise
            self._sender.forget()
            raise BrokerUnavailable(shown(self.url), error) from error

    def _transport_errors(self) -> tuple[type[BaseException], ...]:
        transport = Connection(self.url).get_transport_cls()
        return (KombuError, OSError, Blocked, *transport.connection_errors, *transport.channel_errors)

    # -- sending ----------------------------------------------------------------------------

    def producer(self) -> AbstractContextManager[Producer]:
        """Return a Kombu producer on the layer's broker; what fails in its block is a BrokerUnavailable."""
        return self._sender.producer()

    def dispatch(self, sends: Sequence[Send]) -> None:
        self._sender.dispatch(*self.sort(sends))

    def settle(self, sends: Sequence[Send]) -> None:
        """Send the outcome of a consumer; a Redis that is away is waited for, :data:`OUTCOME_WAITS` seconds.

        Else the outcome would be lost, as the consumer's message is acknowledged when it has failed, too.
        """
        until = time.monotonic() + OUTCOME_WAITS
        while True:
            try:
                return self.dispatch(sends)
            except BrokerUnavailable as error:
                is_redis = self.scheme in self.redis_schemes
                if not is_redis or not is_unreachable(error.__cause__) or time.monotonic() > until:
                    raise
            time.sleep(_OUTCOME_EVERY)

    def sort(self, sends: Sequence[Send]) -> tuple[dict[str, list[Entry]], list[tuple[str, Send]]]:
        """What goes to the reply queue of each process (``"name.process!"``), and what to other channels."""
        envelopes: dict[str, list[Entry]] = {}
        messages: list[tuple[str, Send]] = []
        for send in sends:
            target, body, group, _, done, _ = send
            if group:
                self._sort_group(send, envelopes, messages)
            elif (cut := target.find("!")) >= 0:
                prefix = target[: cut + 1]
                entries = envelopes.get(prefix)
                if entries is None:
                    envelopes[prefix] = [_tuple(Entry, ([target], body, None, None))]
                    continue
                if done is not None:
                    channels, packed, of_group, reports = entries[-1]
                    if of_group is None and reports is None and channels == [target]:
                        # The report of a message travels with the reply to it.
                        entries[-1] = _tuple(Entry, (channels, packed, None, done))
                        continue
                entries.append(_tuple(Entry, ([target], body, None, None)))
            else:
                messages.append((target, send))
        return envelopes, messages

    def _sort_group(self, send: Send, envelopes: dict[str, list[Entry]], messages: list[tuple[str, Send]]) -> None:
        addresses, others = self._groups.addresses(send.target)
        for prefix, channels in addresses:
            envelopes.setdefault(prefix, []).append(Entry(channels, send.body, send.target))
        messages += [(channel, send) for channel in others]

    def refuse_envelope(self, entries: list[Entry], capacity: int | None) -> ChannelFull | None:
        """Count what of an envelope without room was a group's; gives ChannelFull if something was not."""
        refused: ChannelFull | None = None
        for entry in entries:
            if entry.group is None:
                refused = refused or ChannelFull(next(iter(entry.channels)), capacity)
            else:
                for channel in entry.channels:
                    self.note_dropped(entry.group, channel)
        return refused

    def reply_capacity(self, prefix: str) -> int:
        """A process's queue serves all of its clients, so it holds a hundred times what a channel does."""
        capacity = self.capacity_of(prefix)
        return capacity * 100 if capacity == self.capacity else capacity

    def use(self, queue: Queue) -> None:
        """Remember a queue for :meth:`flush`."""
        if len(self.used) > 10_000:
            self.used = {name: used for name, used in self.used.items() if not is_temporary(used)}
        self.used[queue.name] = queue

    def depth(self, channel: str) -> int:
        return self._sender.depth(self.queue(channel))

    def probe(self, channel: str) -> None:
        super().probe(channel)
        if self.scheme in self.redis_schemes:
            self._sender.check_writable(self.queue(channel))

    @property
    def is_amqp(self) -> bool:
        """Whether the broker speaks AMQP."""
        return patience.is_amqp(self.url)

    # -- time -------------------------------------------------------------------------------

    @property
    def clock(self) -> Clock:
        """The clock that all processes share: that of the Redis with the groups, if there is one."""
        groups = self.group_store
        return groups.clock if isinstance(groups, RedisGroups) else _OWN_CLOCK

    @property
    def expiry_clock(self) -> Clock | None:
        """The clock by which messages expire; None where the broker itself drops those that have."""
        return None if self.is_amqp or "-streams" in self.scheme or self.scheme == IPC_SCHEME else self.clock

    def expires(self, delay: float = 0.0) -> float | None:
        """When a message that is sent now expires, by :attr:`expiry_clock`."""
        clock = self.expiry_clock
        return None if clock is None else clock.now() + delay + self.expiry

    # -- receiving --------------------------------------------------------------------------

    def receive(self, channels: Iterable[str], block: bool = False) -> Received:
        return self._receiver.receive(self.check_wanted(channels), self.block_timeout if block else 0)

    @contextmanager
    def opened(self, queue: Queue) -> Iterator[Queue]:
        """The queue, declared and ready to be read from."""
        with self._sender.producer() as producer:
            self.use(queue)
            bound = queue(channel_of(producer))
            bound.queue_declare()
            yield bound

    def listen(self, prefix: str, deliver: Deliver) -> Listener:
        self.check_wanted([prefix])
        return KombuListener(self, self.queue(prefix), deliver)

    # -- groups -----------------------------------------------------------------------------

    @property
    def groups_url(self) -> str | None:
        """The URL of the Redis that holds the groups; None if they are in this process.

        Raises:
            InvalidChannelLayerError: the broker is no Redis and ``CONFIG["groups_url"]`` is missing.
        """
        if self._groups_url:
            return self._groups_url
        if self._is_one_redis:
            scheme, _, rest = self.url.partition("://")
            scheme = scheme.replace("-streams", "")
            return f"{'unix' if scheme == 'redis+socket' else scheme}://{rest}"
        if self.scheme == "memory":
            return None
        raise InvalidChannelLayerError(
            f"groups are kept in one Redis, which the broker {shown(self.url)} is not: set "
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
                        # Unless told otherwise, redis-py's five seconds: the heart is to notice soon.
                        params["socket_timeout"] = self.transport_options.get("socket_timeout")
                    self._group_store = RedisGroups(url, self.prefix, self.group_expiry, params)
            return self._group_store

    @property
    def group_store(self) -> GroupStore | None:
        """Where the groups are; None if the layer has none."""
        return self._groups if self._has_groups else None

    @property
    def presence(self) -> Presence | None:
        """Which interface processes live; None if that is not known, as the groups are in no Redis."""
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

    @cached_property
    def _kept_after(self) -> float:  # type: ignore[override]
        """A message whose acknowledgement is lost comes again after ``visibility_timeout``, where there is one."""
        return KEPT_AFTER + float(self.transport_options.get("visibility_timeout") or 3600 * self._is_one_redis)

    def delete_reply_queues(self, process: str) -> None:
        """Delete what waits for the clients of a process that is dead.

        Raises:
            BrokerUnavailable: the broker does not answer.
        """
        with self.broker_errors(), self.open_connection() as connection, connection.channel() as channel:
            for kind in ("websocket.send", "http.response"):
                self.reply_queue(f"{kind}.{process}")(channel).delete()

    @property
    def has_other_groups(self) -> bool:
        """Whether the groups have a URL of their own."""
        return bool(self._groups_url)

    @property
    def _has_groups(self) -> bool:
        return bool(self._groups_url) or self._is_one_redis or self.in_process

    @property
    def _is_one_redis(self) -> bool:
        return self.scheme in self.redis_schemes and ";" not in self.url

    def group_add(self, group: str, channel: str) -> None:
        super().group_add(group, channel)
        self._tell_owner(Change(group, channel, joined=True))

    def group_discard(self, group: str, channel: str) -> None:
        super().group_discard(group, channel)
        self._tell_owner(Change(group, channel, joined=False))

    def _tell_owner(self, change: Change) -> None:
        """Tell the process that has the socket.  The change is made: that it is not told, it need not fail for."""
        told = note(change)
        if told is not None and isinstance(self._groups, RedisGroups):
            with suppress(ChannelFull, BrokerUnavailable):
                self.dispatch((told,))

    def restore_memberships(
        self, memberships: Iterable[tuple[str, str, float]], ended: Iterable[tuple[str, str]] = ()
    ) -> None:
        """Write memberships down that Redis has lost, and end such as it should not have; nobody is told of either.

        Args:
            memberships: each a group, a channel, and the seconds until it ends.
            ended: each a group and a channel.

        Raises:
            BrokerUnavailable: Redis does not answer; some of it may be done.
        """
        groups = self._groups
        assert isinstance(groups, RedisGroups)
        groups.add_all(memberships)
        for group, channel in ended:
            groups.discard(group, channel)

    def forget_channel(self, channel: str) -> None:
        if self._has_groups:
            super().forget_channel(channel)

    def forget_channels(self, channels: Sequence[str]) -> None:
        """:meth:`forget_channel` for many at once, of a layer with groups in Redis."""
        groups = self._groups
        assert isinstance(groups, RedisGroups)
        groups.forget_all(channels)

    # -- housekeeping -----------------------------------------------------------------------

    def flush(self) -> None:
        """Purge the queues that this process has used, and forget every group under the prefix."""
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

    def close(self) -> None:
        self.closed += 1
        with self._lock:
            store = self._group_store
            if self._groups_url or not self.in_process:
                self._group_store = None
        self._sender.close()
        if store is not None:
            store.close()
