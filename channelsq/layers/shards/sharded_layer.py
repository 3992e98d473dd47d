"""A layer of several Redis servers, composed of a layer for each.

A message travels through one server only, so that a consumer's sends and its acknowledgement are one write where they
are on one server:

* A client (its ``!`` channel) has a server of its own.  Its messages, the answers and the reports that one is done go
  there.
* A group and a ``?`` channel are on the server of their name.
* Other messages go where their sender's last ones to this channel went, so they keep their order.

Workers and interface servers read all servers.  So a client's messages may use another server while its own is away; a
group cannot, because its members are known there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from kombu import Queue

from channelsq.exceptions import BrokerUnavailable, ChannelFull, InvalidChannelLayerError
from channelsq.layers.contract.layer_contract import BaseChannelLayer
from channelsq.layers.contract.layer_values import ChannelState, Deliver, Listener, Received, Send
from channelsq.layers.contract.outbox import collected_here
from channelsq.layers.contract.source_contract import Source, SourceOptions, WaitableSource
from channelsq.layers.kombu_broker.broker_access import KombuBroker
from channelsq.layers.shards.homes import Homes
from channelsq.layers.shards.placement import Placement, server_name
from channelsq.layers.shards.shard_health import ShardHealth
from channelsq.layers.shards.sharded_groups import ShardedGroups, names_group
from channelsq.layers.shards.sharded_listener import ShardedListener
from channelsq.layers.shards.sharded_presence import ShardedPresence
from channelsq.layers.shards.sharded_records import ShardedRecords
from channelsq.layers.shards.sharded_source import ShardedSource
from channelsq.layers.wire.protection import Protection
from channelsq.layers.wire.signing import Signing

T = TypeVar("T")

#: The most names that are tried for a new channel while servers are away.
_TRIED_NAMES = 20

#: Seconds between two rounds over servers without a message: the first, and the longest.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.02


class ShardedChannelLayer(BaseChannelLayer):
    """The layer that :class:`channelsq.layers.RedisChannelLayer` makes of several ``hosts``.

    Args:
        shards: a layer for each server, in the order of ``hosts``, with the same settings.
        standby: the URLs of the servers that are read and given nothing new.
        threads, processes: see :class:`channelsq.layers.KombuChannelLayer`.
        settings: see :class:`BaseChannelLayer`.

    Raises:
        InvalidChannelLayerError: a server is named twice, or every one is on standby.
    """

    def __init__(
        self,
        shards: Sequence[KombuBroker],
        *,
        standby: Iterable[str] = (),
        threads: int | None = None,
        processes: int | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.shards = tuple(shards)
        self.threads = threads
        self.processes = processes
        servers = [server_name(shard.url) for shard in shards]
        idle = [server_name(url) for url in standby]
        _check(servers, idle)
        #: The servers of names.
        self.placement = Placement(servers, idle)
        #: The servers of clients.
        self.homes = Homes(self.placement)
        #: The servers that are away.
        self.health = ShardHealth()
        for shard in shards:
            shard.join(self)
        self._store = ShardedGroups(self)

    # -- the servers

    @property
    def parts(self) -> Sequence[BaseChannelLayer]:
        return self.shards

    @property
    def url(self) -> str:
        """The URLs of the servers, joined by ``;``."""
        return ";".join(shard.url for shard in self.shards)

    @property
    def own_url(self) -> str:
        """The URL of the first server that is given something, for a Celery app that names no broker."""
        return self.shards[min(self.placement.order(""))].url

    @property
    def prefix(self) -> str:
        """The prefix of the keys of groups and of the names of queues."""
        return self.shards[0].prefix

    @property
    def queue_prefix(self) -> str:  # type: ignore[override]  # as the shards' own
        return self.shards[0].queue_prefix

    @property
    def signing(self) -> Signing | None:  # type: ignore[override]  # as the shards' own
        return self.shards[0].signing

    @property
    def protection(self) -> Protection:  # type: ignore[override]  # as the shards' own
        return self.shards[0].protection

    @property
    def has_source(self) -> bool:
        return True

    def is_on(self, url: str) -> bool:
        return any(shard.is_on(each) for shard in self.shards for each in {url, *url.split(";")})

    def queue(self, channel: str) -> Queue:
        """Return the Kombu queue of ``channel``, which every server has."""
        return self.shards[0].queue(channel)

    @contextmanager
    def separate_config(self) -> Iterator[dict[str, Any]]:
        with self.shards[0].separate_config() as config:
            yield config

    def delete_queues(self, channels: Iterable[str]) -> None:
        names = list(channels)
        self.each(lambda shard: shard.delete_queues(names))

    def new_channel(self, pattern: str) -> str:
        """See :meth:`LayerSettings.new_channel`; the channel's server is one that is not away, if there is one."""
        name = super().new_channel(pattern)
        for _ in range(_TRIED_NAMES):
            if not self.health.is_away(self.placement.first(name)):
                break
            name = super().new_channel(pattern)
        return name

    def on(self, place: int, call: Callable[[KombuBroker], T]) -> T:
        """Return the result of a call of the layer at ``place``; remember whether its server answered.

        Raises:
            BrokerUnavailable: the server does not answer, or has not just now.
        """
        problem = self.health.problem(place)
        if problem is not None:
            raise problem
        try:
            result = call(self.shards[place])
        except BrokerUnavailable as error:
            self.health.failed(place, error)
            raise
        self.health.answered(place)
        return result

    def each(self, call: Callable[[KombuBroker], T]) -> list[T]:
        """Return the results of a call of every layer; raise BrokerUnavailable after all if a server is away."""
        found, lost = self.those(call)
        if lost is not None:
            raise lost
        return found

    def some(self, call: Callable[[KombuBroker], T]) -> list[T]:
        """Return the results of the servers that answer; raise BrokerUnavailable if none does."""
        found, lost = self.those(call)
        if lost is not None and not found:
            raise lost
        return found

    def those(self, call: Callable[[KombuBroker], T]) -> tuple[list[T], BrokerUnavailable | None]:
        """Return the results of the servers that answer, and the first error of the others."""
        found: list[T] = []
        lost: BrokerUnavailable | None = None
        for place in range(len(self.shards)):
            try:
                found.append(self.on(place, call))
            except BrokerUnavailable as error:
                lost = lost or error
        return found, lost

    # -- sending

    def prepare(self, channel: str, message: dict[str, Any], *, delay: float = 0.0) -> Send:
        send = super().prepare(channel, message, delay=delay)
        client = message.get("reply_channel")
        return send._replace(home=client) if isinstance(client, str) and "!" in client else send

    def places(self, send: Send, here: int | None = None) -> Sequence[int]:
        """Return the places of the servers that may carry a message, the best first.

        Args:
            send: the message.
            here: the server of the consumer's own message.
        """
        target = send.target
        if send.group or "?" in target:
            return self.placement.order(target)[:1]
        if "!" in target:
            return self.homes.order(target)
        if send.home is not None:
            return self.homes.order(send.home)
        order = self.placement.order(f"{self.process}:{target}")
        return order if here is None else (here, *(place for place in order if place != here))

    def dispatch(self, sends: Sequence[Send]) -> None:
        self._dispatch(sends, None)

    def _dispatch(self, sends: Sequence[Send], here: int | None) -> None:
        """Send; each message on the first of its servers that is there."""
        full: ChannelFull | None = None
        lost: BrokerUnavailable | None = None
        left = [(send, self.places(send, here)) for send in sends]
        for attempt in range(len(self.shards)):
            batches: dict[int, list[tuple[Send, Sequence[int]]]] = {}
            for each in left:
                if attempt < len(each[1]):
                    batches.setdefault(each[1][attempt], []).append(each)
            left = []
            for place, batch in batches.items():
                try:
                    self.on(place, lambda shard, batch=batch: shard.dispatch([send for send, _ in batch]))  # type: ignore[misc]
                except ChannelFull as error:
                    full = full or error
                except BrokerUnavailable as error:
                    left += [each for each in batch if attempt + 1 < len(each[1])]
                    refused = [send for send, places in batch if attempt + 1 >= len(places)]
                    if refused and lost is None:
                        group = next((send.target for send in refused if send.group), None)
                        lost = error if group is None else names_group(error, group)
            if not left:
                break
        if lost is not None:
            raise lost
        if full is not None:
            raise self.tally.count_full(full)

    def settle(self, sends: Sequence[Send]) -> None:
        """Send the messages of a consumer: those for its own server with its acknowledgement, the others before."""
        here = self.place_here()
        if here is None:
            self._dispatch(sends, None)
            return
        mine: list[Send] = []
        others: list[Send] = []
        for send in sends:
            (mine if self.places(send, here)[0] == here else others).append(send)
        full: ChannelFull | None = None
        if others:
            try:
                self._dispatch(others, here)
            except ChannelFull as error:
                full = error
        if mine:
            self.shards[here].settle(mine)
        if full is not None:
            raise self.tally.count_full(full)

    def place_here(self) -> int | None:
        """Return the place of the server that the running consumer's message came from; None if there is none."""
        outbox = collected_here.get()
        if outbox is None:
            return None
        for place, shard in enumerate(self.shards):
            if outbox.layer is shard:
                return place
        return None

    # -- receiving

    def receive(self, channels: Iterable[str], block: bool = False) -> Received:
        wanted = self.check_wanted(channels)
        until = time.monotonic() + (self.block_timeout if block else 0.0)
        pause = _FIRST_PAUSE
        while True:
            for found in self._round(wanted):
                if found[0] is not None:
                    return found
            left = until - time.monotonic()
            if left <= 0:
                return None, None
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    def _round(self, wanted: list[str]) -> Iterator[Received]:
        """Yield what each server has; raise BrokerUnavailable if none answers."""
        lost: BrokerUnavailable | None = None
        answers = 0
        for place in range(len(self.shards)):
            try:
                yield self.on(place, lambda shard: shard.receive(wanted))
                answers += 1
            except BrokerUnavailable as error:
                lost = lost or error
        if lost is not None and not answers:
            raise lost

    def listen(self, prefix: str, deliver: Deliver) -> Listener:
        self.check_wanted([prefix])
        return ShardedListener(self.shards, prefix, deliver)

    @contextmanager
    def task_publisher(self, channel: str) -> Iterator[tuple[Any, Any]]:
        here = self.place_here()
        order = self.places(Send(channel, b""), here)
        place = next((place for place in order if self.health.problem(place) is None), order[0])
        with self.shards[place].task_publisher(channel) as publisher:
            yield publisher

    def source(self, options: SourceOptions) -> Source[Any]:
        sources = [shard.source(options) for shard in self.shards]
        assert all(isinstance(source, WaitableSource) for source in sources)
        return ShardedSource(self, sources)  # type: ignore[arg-type]  # as the assertion says

    # -- groups, processes and marks

    @property
    def _groups(self) -> ShardedGroups:
        return self._store

    @property
    def presence(self) -> ShardedPresence:
        return ShardedPresence(self)

    def restore_memberships(
        self, memberships: Iterable[tuple[str, str, float]], ended: Iterable[tuple[str, str]] = ()
    ) -> None:
        added, gone = list(memberships), list(ended)
        for place, shard in enumerate(self.shards):
            here = [each for each in added if self.placement.first(each[0]) == place]
            left = [each for each in gone if self.placement.first(each[0]) == place]
            if here or left:
                shard.restore_memberships(here, left)

    def end_reply_queues(self, process: str) -> None:
        self.each(lambda shard: shard.end_reply_queues(process))

    def warn_operator(self) -> None:
        for shard in self.shards:
            shard.warn_operator()

    @property
    def records(self) -> ShardedRecords:
        return ShardedRecords(self)

    def begin(self, mark: str) -> bool | None:
        return self._marks_of(mark).begin(mark)

    def has_begun(self, mark: str) -> bool | None:
        return self._marks_of(mark).has_begun(mark)

    def end(self, mark: str, *, at_once: bool = False) -> None:
        self._marks_of(mark).end(mark, at_once=at_once)

    def _marks_of(self, mark: str) -> KombuBroker:
        """Return the layer that keeps a mark: that of the consumer's message, which is redelivered there, too."""
        here = self.place_here()
        return self.shards[self.placement.first(mark) if here is None else here]

    # -- housekeeping

    def depth(self, channel: str) -> int | None:
        known = [depth for depth in self.some(lambda shard: shard.depth(channel)) if depth is not None]
        return sum(known) if known else None

    def channel_state(self, channel: str) -> ChannelState:
        states = self.some(lambda shard: shard.channel_state(channel))
        waiting, held, oldest, dead, sent = (
            [value for value in values if value is not None] for values in zip(*states, strict=True)
        )
        return ChannelState(
            sum(waiting) if waiting else None,
            sum(held) if held else None,
            max(oldest, default=None),
            sum(dead) if dead else None,
            sum(sent) if sent else None,
        )

    def known_channels(self) -> set[str]:
        return {channel for shard in self.shards for channel in shard.known_channels()}

    def purge(self, channel: str) -> int:
        return sum(self.each(lambda shard: shard.purge(channel)))

    def probe(self, channel: str) -> None:
        self.some(lambda shard: shard.probe(channel))

    def flush(self) -> None:
        for shard in self.shards:
            shard.flush()

    def close(self) -> None:
        for shard in self.shards:
            shard.close()


def _check(servers: Sequence[str], standby: Sequence[str]) -> None:
    twice = [server for place, server in enumerate(servers) if server in servers[:place]]
    if twice:
        raise InvalidChannelLayerError(f"RedisChannelLayer's CONFIG['hosts'] names the server {twice[0]} twice")
    unknown = [server for server in standby if server not in servers]
    if unknown:
        raise InvalidChannelLayerError(
            f"RedisChannelLayer's CONFIG['standby'] names the server {unknown[0]}, which is not in CONFIG['hosts']"
        )
    if len(set(standby)) == len(servers):
        raise InvalidChannelLayerError(
            "RedisChannelLayer's CONFIG['standby'] names every server of CONFIG['hosts']; leave one out"
        )
