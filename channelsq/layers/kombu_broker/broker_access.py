"""The broker of a layer through Kombu: its URL, connections, queues and clock, and the destinations of messages."""

from __future__ import annotations

import re
import secrets
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from typing import Any, ClassVar

from kombu import Connection, Exchange, Producer, Queue
from kombu.exceptions import KombuError

from channelsq import conf
from channelsq.core import names
from channelsq.exceptions import BrokerUnavailable, ChannelFull, InvalidChannelLayerError
from channelsq.ipc import SCHEME as IPC_SCHEME
from channelsq.layers.contract.broker_urls import check_broker_url, check_sentinel_url, same_broker, shown
from channelsq.layers.contract.layer_contract import BaseChannelLayer
from channelsq.layers.contract.layer_values import Send
from channelsq.layers.groups.group_stores import GroupStore, RedisGroups
from channelsq.layers.kombu_broker import patience
from channelsq.layers.kombu_broker.amqp_internals import Blocked
from channelsq.layers.wire import decompression
from channelsq.layers.wire.encryption import Encryption, checked_keys
from channelsq.layers.wire.protection import Protection
from channelsq.layers.wire.shared_clock import Clock
from channelsq.layers.wire.signing import Signing, is_required
from channelsq.layers.wire.wire_forms import Entry
from channelsq.redis_io.sentinel_urls import is_sentinel_url, read_sentinel_url
from channelsq.transport import SCHEMES
from channelsq.transport.sentinel_channel import StockSentinelTransport

#: The prefix with which queues have the names of their channels.
DEFAULT_PREFIX = "channelsq"

#: Seconds after which a broker deletes an unused ``?`` or ``!`` queue.  Not a setting: AMQP brokers refuse to
#: declare a queue again with another value, and processes with old and new settings share queues in a deploy.
QUEUE_EXPIRES = 300.0

_PREFIX = re.compile(r"[A-Za-z0-9_.:-]{1,64}")

_NO_EXCHANGE = Exchange("")

#: This machine's clock.
_OWN_CLOCK = Clock()

#: Creates a named tuple from a tuple that has all of its fields, in a third of the time of calling its class.
_tuple = tuple.__new__

#: The longest part of a layer's prefix in that of a separate layer; a layer accepts 64 characters.
_LONGEST_PREFIX = 40


class KombuBroker(BaseChannelLayer):
    """A layer's broker, without sending, receiving and groups.

    Args:
        url: see :class:`channelsq.layers.KombuChannelLayer`, also for the others.
        prefix: see there.
        transport_options: see there.
        signing: see there.
        symmetric_encryption_keys: see there.
        queue_type: see there.
        exact_capacity: see there.
        config: see :class:`BaseChannelLayer`.
    """

    #: Schemes of servers that hold both channels and groups.
    redis_schemes: ClassVar[frozenset[str]] = frozenset(
        {"redis", "rediss", "redis+socket", "sentinel", *SCHEMES, "redis-streams+socket"}
    )

    def __init__(
        self,
        *,
        url: str | None,
        prefix: str,
        transport_options: Mapping[str, Any] | None,
        signing: bool | str,
        symmetric_encryption_keys: Sequence[str | bytes] | None = None,
        queue_type: str = "classic",
        exact_capacity: bool = False,
        **config: Any,
    ) -> None:
        super().__init__(**config)
        if queue_type not in ("classic", "quorum"):
            raise InvalidChannelLayerError(
                f"CHANNEL_LAYERS CONFIG['queue_type'] must be 'classic' or 'quorum', not {queue_type!r}"
            )
        self.queue_type = queue_type
        self.exact_capacity = exact_capacity
        self._signing_required = is_required(signing)
        self._encryption_keys = checked_keys(symmetric_encryption_keys)
        if not isinstance(url, (str, type(None))):
            raise InvalidChannelLayerError(f"CHANNEL_LAYERS CONFIG['url'] must be a URL in a str, not {url!r}")
        self._url = url
        self._readable_url = ""
        if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
            raise InvalidChannelLayerError(
                f"CHANNEL_LAYERS CONFIG['prefix'] must be 1 to 64 ASCII letters, digits, '-', '_', '.' and ':', "
                f"not {prefix!r}"
            )
        self.prefix = prefix
        #: The prefix of queue names before channel names.
        self.queue_prefix = "" if prefix == DEFAULT_PREFIX else f"{prefix}:"
        self._transport_options = dict(transport_options or {})
        #: The queues that this process has sent to or received from, for flush().
        self.used: dict[str, Queue] = {}
        #: How often close() was called: code that was running then need not report errors.
        self.closed = 0

    # -- the broker

    @property
    def url(self) -> str:
        """The broker's URL.

        Raises:
            InvalidChannelLayerError: there is neither ``CONFIG["url"]`` nor a Celery broker, or Kombu cannot parse the
                URL.
        """
        url = self._url or self._celerys_url()
        if not url:
            raise InvalidChannelLayerError(
                'the channel layer knows no broker: set CHANNEL_LAYERS["default"]["CONFIG"]["url"], '
                "or broker_url in the Celery app"
            )
        if url != self._readable_url:
            self._readable_url = url  # the check reads it
            try:
                self._check_url(url)
            except BaseException:
                self._readable_url = ""
                raise
        return url

    def _check_url(self, url: str) -> None:
        if is_sentinel_url(url):
            check_sentinel_url("CHANNEL_LAYERS CONFIG['url']", url, lambda: self.transport_options)
            return
        for each in url.split(";"):
            check_broker_url(each, is_redis=each.partition("://")[0] in self.redis_schemes)

    def _celerys_url(self) -> str:
        """Return the URL of the Celery app's broker in the layer's form; empty if it names none."""
        return conf.celery_broker_url()

    @property
    def scheme(self) -> str:
        """The transport's name in the URL, such as ``redis`` or ``amqp``."""
        return self.url.partition("://")[0]

    @property
    def in_process(self) -> bool:
        return self.scheme == "memory"

    @property
    def is_one_redis(self) -> bool:
        """True if the channels are in one Redis: a server, or the primary that Sentinel names."""
        return self.scheme in self.redis_schemes and (";" not in self.url or is_sentinel_url(self.url))

    @property
    def has_source(self) -> bool:
        return not self.in_process

    @property
    def kombu_url(self) -> str:
        """The URL at which other Kombu programs can use the layer's queues."""
        return self.url

    @cached_property
    def signing(self) -> Signing | None:  # type: ignore[override]
        """Signs messages and verifies signatures; None without signing, or if messages stay in the process."""
        required = self._signing_required
        return None if required is None or self.in_process else Signing(self.prefix, required=required)

    @cached_property
    def protection(self) -> Protection:  # type: ignore[override]
        """Encrypts and signs messages, decrypts and verifies them; off if messages stay in the process."""
        keys = () if self.in_process else self._encryption_keys
        return Protection(self.signing, Encryption(self.prefix, keys))

    @property
    def own_url(self) -> str | None:
        """The broker's URL if the layer was given one; None if it uses the Celery app's."""
        return self._url

    def is_on(self, url: str) -> bool:
        return same_broker(self.url, url)

    @property
    def _is_celerys(self) -> bool:
        """True if Celery's broker is the layer's."""
        return self.is_on(conf.celery_broker_url())

    @property
    def transport_options(self) -> dict[str, Any]:
        """The options of ``CONFIG``; on top of ``broker_transport_options`` if Celery has the same broker."""
        celerys = conf.celery_app().conf.broker_transport_options if self._is_celerys else None
        return {**(celerys or {}), **self._transport_options}

    def broker_connection(self) -> Connection:
        return self.open_connection()

    @contextmanager
    def separate_config(self) -> Iterator[dict[str, Any]]:
        yield {} if self.in_process else {"prefix": f"{self.prefix[:_LONGEST_PREFIX]}.{secrets.token_hex(6)}"}

    def open_connection(self, kind: type[Connection] = Connection, *, listens: bool = False) -> Connection:
        """Return a new connection to the broker, which connects when it is used.

        Args:
            kind: the class of the connection.
            listens: whether its user waits for messages and calls ``heartbeat_check()`` every second; otherwise it
                sends requests and waits for answers.
        """
        decompression.bound()
        app = conf.celery_app()
        options = patience.layer_options(self.url, self.transport_options, listens=listens)
        heartbeat = patience.heartbeat(app) if listens and self.is_amqp else 0.0
        ssl = app.conf.broker_use_ssl if self._url is None or self._is_celerys else None
        url = self.url
        if is_sentinel_url(url):
            place = read_sentinel_url(url)
            url, options, ssl = place.kombu_url, place.options(options), ssl or dict(place.tls or {})
        return kind(
            url,
            transport=StockSentinelTransport if self.scheme == "sentinel" else None,
            ssl=ssl or False,
            transport_options=options,
            connect_timeout=patience.CONNECT_TIMEOUT,
            heartbeat=heartbeat,
        )

    def queue(self, channel: str) -> Queue:
        """Return the Kombu queue of ``channel``."""
        if names.is_process_channel(channel):
            return self.reply_queue(names.process_part(channel)[:-1])
        name = self.queue_prefix + channel
        if names.is_single_reader(channel):
            return Queue(name, _NO_EXCHANGE, routing_key=name, expires=QUEUE_EXPIRES)
        return Queue(name, _NO_EXCHANGE, routing_key=name, queue_arguments=self._queue_arguments(channel))

    def _queue_arguments(self, channel: str) -> dict[str, Any] | None:
        """Return the arguments of a worker's queue on RabbitMQ."""
        arguments: dict[str, Any] = {}
        if self.queue_type == "quorum":
            arguments["x-queue-type"] = self.queue_type
        if self.exact_capacity:
            arguments |= {"x-max-length": self.capacity_of(channel), "x-overflow": "reject-publish"}
        return arguments or None

    def reply_queue(self, process: str) -> Queue:
        """Return the queue of a process's clients, for the part of their names before the ``!``."""
        name = self.queue_prefix + process
        return Queue(name, _NO_EXCHANGE, routing_key=name, expires=QUEUE_EXPIRES)

    @contextmanager
    def broker_errors(self) -> Iterator[None]:
        """Turn the transport's exceptions in the block into BrokerUnavailable."""
        try:
            yield
        except self._transport_errors() as error:
            if isinstance(error, BrokerUnavailable):
                raise
            self.forget_queues()
            raise BrokerUnavailable(shown(self.url), error) from error

    def _transport_errors(self) -> tuple[type[BaseException], ...]:
        transport = Connection(self.url).get_transport_cls()
        return (KombuError, OSError, Blocked, *transport.connection_errors, *transport.channel_errors)

    @property
    def is_amqp(self) -> bool:
        """True if the broker's protocol is AMQP."""
        return patience.is_amqp(self.url)

    @property
    def shares_prefetch(self) -> bool:
        """True if the consumers of an AMQP channel share one prefetch limit, which quorum queues do not support."""
        return self.queue_type != "quorum"

    @abstractmethod
    def producer(self) -> AbstractContextManager[Producer]:
        """Return a Kombu producer on the layer's broker; errors in its block are raised as BrokerUnavailable."""

    @contextmanager
    def opened(self, queue: Queue) -> Iterator[Queue]:
        """Yield the queue, declared and ready to be read."""
        with self.producer() as producer:
            self.use(queue)
            bound = queue(channel_of(producer))
            bound.queue_declare()
            yield bound

    @abstractmethod
    def forget_queues(self) -> None:
        """Invalidate all that was known of queues, because the connection is a new one."""

    @property
    @abstractmethod
    def groups_url(self) -> str | None:
        """The URL of the Redis with the groups; None if they are in no Redis."""

    @property
    @abstractmethod
    def has_other_groups(self) -> bool:
        """True if the groups have a separate URL."""

    @property
    @abstractmethod
    def group_store(self) -> GroupStore | None:
        """Return the store of the groups; None if the layer has none."""

    # -- destinations

    def sort(self, sends: Sequence[Send]) -> tuple[dict[str, list[Entry]], list[tuple[str, Send]]]:
        """Return entries by reply queue (``"name.process!"``), and the messages to other channels."""
        envelopes: dict[str, list[Entry]] = {}
        messages: list[tuple[str, Send]] = []
        for send in sends:
            target, body, group, _, done, _, _ = send
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
                        # The report of a message is sent with the reply to it.
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
        """Count refused messages to groups in an envelope; return ChannelFull if it contained any other."""
        refused: ChannelFull | None = None
        for entry in entries:
            if entry.group is None:
                refused = refused or ChannelFull(next(iter(entry.channels)), capacity)
            else:
                for channel in entry.channels:
                    self.note_dropped(entry.group, channel)
        return refused

    def reply_capacity(self, prefix: str) -> int:
        """Return a hundred times a channel's capacity, because a process's queue serves all of its clients."""
        capacity = self.capacity_of(prefix)
        return capacity * 100 if capacity == self.capacity else capacity

    def use(self, queue: Queue) -> None:
        """Remember a queue for :meth:`flush`."""
        if len(self.used) > 10_000:
            self.used = {name: used for name, used in self.used.items() if not is_temporary(used)}
        self.used[queue.name] = queue

    def known_channels(self) -> set[str]:
        used = [name for name, queue in list(self.used.items()) if not is_temporary(queue)]
        return {name.removeprefix(self.queue_prefix) for name in used}

    # -- time

    @property
    def clock(self) -> Clock:
        """The clock that all processes share: that of the Redis with the groups, if there is one."""
        groups = self.group_store
        return groups.clock if isinstance(groups, RedisGroups) else _OWN_CLOCK

    @property
    def expiry_clock(self) -> Clock | None:  # type: ignore[override]  # it depends on the broker
        return None if self.is_amqp or "-streams" in self.scheme or self.scheme == IPC_SCHEME else self.clock

    def expires(self, delay: float = 0.0) -> float | None:
        """Return when a message that is sent now expires, by :attr:`expiry_clock`."""
        clock = self.expiry_clock
        return None if clock is None else clock.now() + delay + self.expiry


def is_temporary(queue: Queue) -> bool:
    """Return whether the broker may delete the queue when it is unused."""
    return getattr(queue, "expires", None) is not None


def channel_of(producer: Producer) -> Any:
    """Return the broker channel of a producer."""
    return producer.channel
