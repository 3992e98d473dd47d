"""The link to IPCChannelLayer: transactions of the site's file in the event loop, and no thread.

One transaction writes what clients have sent since the last one, and takes the replies that wait.  It is over within
some ten microseconds; while another process writes, the loop goes on and tries again.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import secrets
import socket
import sqlite3
from collections.abc import Callable
from typing import Any

from channelsq.asgi import ChannelLayerWrapper
from channelsq.core import names
from channelsq.core.wire_version import NewerWire
from channelsq.exceptions import ChannelFull
from channelsq.interface.basis.counters import Counters
from channelsq.interface.basis.log_fields import extra
from channelsq.interface.link.link_contract import Publication
from channelsq.interface.link.replies import Replies
from channelsq.interface.link.retrying_link import RetryingLink
from channelsq.interface.link.threaded_link import ThreadedLink
from channelsq.ipc.database import BUSY_TIMEOUT, Database, is_busy
from channelsq.ipc.messages import Message, Taken, Transaction
from channelsq.ipc.room import is_full
from channelsq.ipc.store import News, has_messages, readers_of
from channelsq.layers.ipc import IPCChannelLayer
from channelsq.layers.ipc_broker.store_errors import ERRORS, unavailable
from channelsq.layers.ipc_broker.store_incoming import keep_newer, log_foreign, open_bare
from channelsq.layers.kombu_broker.broker_access import QUEUE_EXPIRES
from channelsq.layers.wire import codec
from channelsq.layers.wire.signing import Refused

logger = logging.getLogger("channelsq.interface.link")

#: Seconds between two rounds of what is not urgent.
_TICK = 1.0

#: The seconds between two attempts while another process writes: the first, and the longest.
_PAUSES = 0.0002, 0.005

#: The seconds between two attempts to send to a full channel: the first, and the longest.
_ROOM_PAUSES = 0.002, 0.05

#: Envelopes that one transaction takes at most.
_BATCH = 256

_Callback = Callable[[Exception | None], None]


class StoreLink(RetryingLink):
    """See :class:`channelsq.interface.link.link_contract.Link`.

    Args:
        limit, limit_bytes: how many publications, and how much of them, may wait; more are refused with ChannelFull.
    """

    def __init__(
        self,
        layer: ChannelLayerWrapper,
        stats: Counters,
        channel_layer: IPCChannelLayer,
        *,
        limit: int = 10_000,
        limit_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        super().__init__(layer, stats)
        self._inner = channel_layer
        self._store = channel_layer.store
        self._database = Database(self._store.directory)
        self._me = 0
        self._limit, self._limit_bytes = limit, limit_bytes
        self._out: list[tuple[Publication, float]] = []
        self._bytes = 0
        self._left_groups: list[tuple[str, _Callback]] = []
        self._replies: Replies | None = None
        self._queues: list[str] = []
        self._waiter = self._store.waiter()
        self._reading: int | None = None  # the descriptor that the loop watches
        self._hands_out = False  # replies that were taken wait for their clients' turn
        self._is_due = False  # a transaction is scheduled
        self._is_woken = False  # a wake-up has come, and nothing was taken since
        self._listens = False  # the waiter is armed, and there was nothing when it was
        self._pause = _PAUSES[0]
        self._busy_since = 0.0
        self._away = False
        self._stopping = False
        self._ids = secrets.token_hex(6)
        self._numbers = itertools.count()
        #: For what is rare; made when it is needed.
        self._other: ThreadedLink | None = None
        self._house: asyncio.Task[None] | None = None

    # -- its life

    async def _start(self, prefixes: list[str], replies: Replies) -> None:
        self._replies = replies
        self._queues = [self._inner.queue(prefix).name for prefix in prefixes]
        self._waiter.watch(self._queues)
        with contextlib.suppress(*ERRORS):
            await asyncio.to_thread(self._database.open)
        await self._keep_house()
        self._house = asyncio.create_task(self._keep_house_on())
        self._schedule()

    async def _stop(self) -> int:
        self._stopping = True
        if self._house is not None:
            self._house.cancel()
        self._watch(None)
        left = len(self._out)
        self._out.clear()
        await asyncio.to_thread(self._end)
        if self._other is not None:
            await self._other.stop()
        return left

    def _end(self) -> None:
        with contextlib.suppress(*ERRORS):  # then others tidy up after this process
            for queue in self._queues:  # which have no reader any more
                self._store.delete(queue)
            self._waiter.close()
        self._database.close()

    async def _keep_house_on(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            await self._keep_house()

    async def _keep_house(self) -> None:
        """Do what is not urgent, in a thread; find out whether the file can be used."""
        try:
            await asyncio.to_thread(self._sweep)
        except ERRORS as error:
            self._lost(error)
            return
        if self._database.is_gone:
            self._database.close()
        else:
            with contextlib.suppress(*ERRORS):
                self._database.measure()
        bound = self._waiter.socket
        self._watch(None if bound is None else bound.fileno())
        self._came_back()
        self._listens = False  # for what no wake-up told of
        self._schedule()

    def _sweep(self) -> None:
        store = self._store
        store.sweep()
        store.write(lambda tx: None, adds=True)  # is there room for messages?
        self._me = store.me
        for queue in self._queues:
            store.declare(queue, QUEUE_EXPIRES)
        store.say_reading(self._queues)
        self._waiter.arm()

    def _watch(self, reading: int | None) -> None:
        if reading == self._reading:
            return
        if self._reading is not None:
            self._loop.remove_reader(self._reading)
        self._reading = reading
        if reading is not None:
            self._loop.add_reader(reading, self._woken)

    def _lost(self, error: Exception) -> None:
        if not self._away:
            self._away = True
            logger.error("%s", unavailable(self._store.path, error), extra=extra("broker_lost"))

    def _came_back(self) -> None:
        if self._away:
            self._away = False
            logger.info("%s: can be used again", self._store.path, extra=extra("broker_back"))
            if self.on_back is not None:
                self.on_back()

    @property
    def reachable(self) -> bool:
        return not self._away

    @property
    def idle(self) -> bool:
        return not self._out and not self._left_groups and (self._other is None or self._other.idle)

    # -- sending

    def submit(self, publication: Publication) -> None:
        send = publication.send
        if send.group or send.delay or names.is_process_channel(send.target):
            self._through_threads().submit(publication)
        else:
            self._try(publication, _ROOM_PAUSES[0])

    def _try_again(self, publication: Publication, pause: float) -> None:
        if not publication.cancelled:  # meanwhile
            self._try(publication, min(pause * 1.5, _ROOM_PAUSES[1]))

    def _try(self, publication: Publication, pause: float) -> None:
        if self._out and (len(self._out) >= self._limit or self._bytes + publication.size > self._limit_bytes):
            self._stats.count("link.refused")
            error = ChannelFull(publication.send.target, self._limit)
            self._loop.call_soon(self._tried, publication, pause, error)
            return
        self._out.append((publication, pause))
        self._bytes += publication.size
        self._schedule()

    def _forget(self, channel: str) -> None:
        self._left_groups.append((channel, functools.partial(self._forgotten, channel)))
        self._schedule()

    def _through_threads(self) -> ThreadedLink:
        if self._other is None:
            self._other = ThreadedLink(self.layer, self._stats)
            self._other.start_publishing()
        return self._other

    # -- a transaction

    def _woken(self) -> None:
        bound = self._waiter.socket
        if bound is not None:
            with contextlib.suppress(OSError):
                bound.recv(1, socket.MSG_DONTWAIT)
        self._is_woken, self._listens = True, False
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_due and not self._stopping:
            self._is_due = True
            self._loop.call_soon(self._run_transaction)

    def _run_transaction(self) -> None:
        """Write the waiting messages, and take replies, in one transaction."""
        self._is_due = False
        if self._stopping:
            return
        out, left_groups = self._out, self._left_groups
        takes = bool(self._queues) and not self._hands_out
        try:
            if not (out or left_groups or (takes and self._is_woken)):
                # After this look a reply brings a wake-up.
                self._waiter.rearm()
                if not takes or not self._database.read(lambda connection: has_messages(connection, self._queues)):
                    self._listens = takes
                    return
            counts, taken, news, problem = self._database.write(functools.partial(self._exchange, takes), 0.0)
        except ERRORS as error:
            self._unwritten(error)
            return
        self._pause, self._busy_since, self._is_woken = _PAUSES[0], 0.0, self._is_woken and not takes
        self._out, self._left_groups, self._bytes = [], [], 0
        self._store.tell(news)
        if problem is not None:
            self._lost(problem)
            self._refuse(out, problem)
        elif self._away and out:
            self._came_back()
        for (publication, pause), is_sent in zip(out if problem is None else (), counts, strict=True):
            full = None if is_sent else self._full(publication)
            if publication.publisher is not None or full is not None:
                self._tried(publication, pause, full)
        for _, callback in left_groups:
            callback(None)
        if taken:
            self._hand_out(taken)
        elif takes and not self._listens:
            self._schedule()  # which arms the waiter

    def _exchange(
        self, takes: bool, connection: sqlite3.Connection
    ) -> tuple[list[bool], list[Taken], News, sqlite3.OperationalError | None]:
        """Write and take; the last result says why no publication was written, if the file is full."""
        tx = Transaction(connection, self._me)
        counts, problem = [], None
        if self._out:
            try:
                self._database.check_room(connection)
                counts = self._put(tx)
            except sqlite3.OperationalError as error:
                if not is_full(error) or not connection.in_transaction:
                    raise
                problem = error  # replies must be read nevertheless
        for channel, _ in self._left_groups:
            connection.execute("DELETE FROM members WHERE channel = ?", (channel,))
        taken = tx.take(self._queues, _BATCH, held=False) if takes else []
        return counts, taken, readers_of(tx), problem

    def _put(self, tx: Transaction) -> list[bool]:
        """Write the publications; return of each whether there was room for it."""
        layer, compact = self._inner, self._inner.store_sender.compact
        by_target: dict[str, list[int]] = {}
        for place, (publication, _) in enumerate(self._out):
            by_target.setdefault(publication.send.target, []).append(place)
        sent = [False] * len(self._out)
        for target, places in by_target.items():
            bare = names.is_single_reader(target)
            messages = []
            for place in places:
                publication, _ = self._out[place]
                send = publication.send
                if bare:
                    messages.append(Message(compact.bare(target, send.body), layer.expiry))
                    continue
                if publication.identity is None:
                    publication.identity = f"{self._ids}-{next(self._numbers):x}"
                messages.append(Message(compact.task(target, send.body, publication.identity), layer.expiry))
            lifetime = QUEUE_EXPIRES if bare else None
            room = tx.put(layer.queue_prefix + target, messages, layer.capacity_of(target), lifetime)
            for place in places[:room]:
                sent[place] = True
        return sent

    def _full(self, publication: Publication) -> ChannelFull:
        target = publication.send.target
        full = ChannelFull(target, self._inner.capacity_of(target))
        self._note(full, target, quiet=publication.publisher is not None)
        return full

    def _unwritten(self, error: Exception) -> None:
        """Try again soon if another process writes; else tell those that wait."""
        now = self._loop.time()
        if isinstance(error, sqlite3.Error) and is_busy(error):
            self._busy_since = self._busy_since or now
            if now - self._busy_since < BUSY_TIMEOUT:
                self._is_due = True
                self._loop.call_later(self._pause, self._run_transaction)
                self._pause = min(self._pause * 1.5, _PAUSES[1])
                return
        self._lost(error)
        problem = unavailable(self._store.path, error)
        out, self._out, self._bytes = self._out, [], 0
        left_groups, self._left_groups = self._left_groups, []
        self._refuse(out, error)
        for channel, callback in left_groups:
            self._note(problem, channel, quiet=True)
            callback(problem)

    def _refuse(self, out: list[tuple[Publication, float]], error: Exception) -> None:
        """Tell the publishers that their publications were not written."""
        problem = unavailable(self._store.path, error)
        for publication, pause in out:
            self._note(problem, publication.send.target, quiet=publication.publisher is not None)
            self._tried(publication, pause, problem)

    # -- replies

    def _hand_out(self, taken: list[Taken]) -> None:
        assert self._replies is not None
        newer: list[tuple[Taken, NewerWire]] = []
        entries: list[Any] = []
        for each in taken:
            if each.is_expired:
                continue
            try:
                opened = codec.loads(open_bare(each.payload, each, self._inner.protection))
                if type(opened) is not list:
                    raise ValueError("not an envelope")
                entries += opened
            except Refused:
                continue
            except NewerWire as error:
                newer.append((each, error))
                self._replies.note_foreign()
            except ValueError as error:
                self._bad(each.queue, str(error))
        if newer:
            self._loop.run_in_executor(None, self._keep_newer, newer)
        self._hands_out = True
        self._replies.hand_out(entries, functools.partial(self._bad, taken[0].queue))
        # Not more than the clients' turn can take: the rest waits in the file.
        self._replies.when_handed_out(self._handed_out)

    def _handed_out(self) -> None:
        self._hands_out = False
        self._schedule()

    def _bad(self, queue: str, problem: str) -> None:
        assert self._replies is not None
        self._replies.note_foreign()
        log_foreign(queue, ValueError(problem))

    def _keep_newer(self, newer: list[tuple[Taken, NewerWire]]) -> None:
        try:
            keep_newer(self._store, newer)
        except ERRORS as error:
            logger.warning("%d messages could not be kept: %s", len(newer), error, extra=extra("not_kept"))
