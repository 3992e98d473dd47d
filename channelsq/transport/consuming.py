"""The consuming side of a channel: one poll at a time, a local batch, and acknowledgements.

A poll is one write: the acknowledgements that wait, in a transaction, and the command that asks for messages.
What it brings goes through a local buffer, which is never longer than one poll's answer.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from queue import Empty
from time import monotonic
from typing import Any

from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from channelsq.redis_core.commands import Command, pack
from channelsq.redis_core.compact import ForeignPayload, NewerPayload
from channelsq.redis_core.entries import Entry, read_streams
from channelsq.redis_core.operations import ask, exchange
from channelsq.redis_core.scripts import TAKE, TAKE_OVER
from channelsq.redis_core.server_clock import TIME, ServerClock
from channelsq.redis_core.server_errors import is_error, is_missing_group, is_missing_script
from channelsq.redis_core.stream_consumer import CHUNK
from channelsq.redis_io.blocking import read, send, take_connection
from channelsq.transport import dead_letters, payloads, publishing
from channelsq.transport.acking import AcknowledgingChannel
from channelsq.transport.poll import Poll, rounded
from channelsq.transport.suspects import Suspects

logger = logging.getLogger("channelsq.transport")

#: Seconds of work to ask for in one poll, and to deliver before the event loop serves other things.
SLICE = 0.010

#: Seconds that an acknowledgement may wait for the rest of its batch.
HOLD = 0.005

#: Seconds that a poll waits while suspects wait for room in quarantine.
SUSPECTS_EVERY = 0.05

#: Seconds between two attempts to end a poll that has not reached the server yet.
UNBLOCK_EVERY = 0.05

#: Seconds that the answer to a poll may take which the server was told to end.
UNBLOCKED = 3.0

#: Seconds after which a server that answers nothing counts as lost.  Longer than one that is merely stopped for a
#: while: it does all that it was sent when it goes on.
SILENCE = 15.0

#: How many orders of queues, and commands, are kept made.
_MOST_CACHED = 256


class ConsumingChannel(AcknowledgingChannel):
    """Polls streams and delivers what they hold."""

    batch_size: int
    lease: float
    max_deaths: int | None
    max_dead_letters: int
    quarantine: Suspects
    priority_steps: list[int]
    _in_poll: Any
    _queue_cycle: Any

    def _start_consuming(self) -> None:
        self._start_acknowledging()
        self._asked: Poll | None = None
        self._buffer: deque[Entry] = deque()
        self._returning: deque[str] = deque()  # tags of what is to be given back
        #: Consumers of each queue by their tag: the callback, and whether it needs no acknowledgements.
        self._subscribers: dict[str, dict[str, tuple[Callable[[payloads.Payload], Any], bool]]] = {}
        self._queues: dict[str, str] = {}  # of each stream's key
        self._orders: dict[tuple[str, ...], list[str]] = {}
        self._reads: dict[tuple[str | int | None, ...], bytes] = {}
        #: Whether a stream may hold more than the last poll brought.
        self._backlog = True
        #: The one stream that had anything when all were asked last, and when those in front of it were.
        self._busy: str | None = None
        self._looked_at = 0.0
        self._looked_last = False  # whether the last poll looked in front of the busy stream
        self._ramp = 1
        self._pace = 0.0  # seconds a message took, on average
        self._delivered_at: float | None = None
        self._polled = 0  # how many messages poll() has returned last
        self._take_over_at = 0.0
        self._greeted: Any = None  # the socket that these two were asked on
        self._client_id = 0
        self._clock = ServerClock()

    def keys_of(self, queue: str) -> list[str]:
        """A queue's streams, the most urgent first."""
        keys = [self.streams.key(self._q_for_pri(queue, step)) for step in self.priority_steps]  # type: ignore[attr-defined]
        self._queues.update(dict.fromkeys(keys, queue))
        return keys

    def _in_order(self, queues: list[str]) -> list[str]:
        """The streams of queues, in the order in which they are served."""
        order = tuple(queues)
        keys = self._orders.get(order)
        if keys is None:
            if len(self._orders) >= _MOST_CACHED:
                self._orders.clear()
            by_queue = [self.keys_of(queue) for queue in queues]
            keys = self._orders[order] = [key for step in zip(*by_queue, strict=True) for key in step]
        return keys

    def _read_command(self, keys: list[str], count: int, block: int | None) -> bytes:
        """Asks for messages; made once for each of the few ways in which it differs from poll to poll."""
        way: tuple[str | int | None, ...] = (self.streams.consumer, count, block, *keys)
        packed = self._reads.get(way)
        if packed is None:
            if len(self._reads) >= _MOST_CACHED:
                self._reads.clear()
            packed = self._reads[way] = pack([self.streams.read_command(keys, count, block)])
        return packed

    def queue_of(self, key: str) -> str:
        """The queue that a stream of it belongs to."""
        return self._queues[key]

    def join(self, queues: list[str]) -> None:
        """Become a consumer of queues."""
        raise NotImplementedError

    def before_take_over(self, keys: list[str]) -> None:
        """Called when what dead consumers hold of streams is to be asked for."""
        raise NotImplementedError

    def server_time(self) -> int:
        """The server's time in ms since 1970."""
        if not self._clock.is_set:
            (reply,) = self.carry_out(ask(TIME))
            self._clock.set(reply, monotonic())
        return self._clock.milliseconds(monotonic())

    # -- Polls; the names are those that Kombu's poller calls

    def _brpop_start(self, timeout: float | None = None) -> None:
        timeout = self.brpop_timeout if timeout is None else timeout
        queues: list[str] = self._queue_cycle.consume(len(self.active_queues))
        if not queues:
            return
        connection = self.client.connection
        self._greet(connection)
        if self._buffer and self.connection.hub is None:
            return  # the poller delivers from it first
        poll, command = self._ask(connection, queues, timeout)
        qos = self.stream_qos
        poll.acks = self._take_acks(qos)
        acks = self._transaction(poll.acks)
        self._asked, self._in_poll = poll, connection
        self._brpop_sent_at = monotonic()
        try:
            send(connection, [*acks, command])
        except BaseException:
            connection.disconnect()  # which puts the acknowledgements back
            raise

    def _ask(self, connection: Any, queues: list[str], timeout: float | None) -> tuple[Poll, Command | bytes]:
        if self._buffer:  # the event loop shall come back at once for what is left of the batch
            return Poll(connection, "wake", 0), ("PING",)
        keys = self._in_order(queues)
        wanted = self._wanted()
        now = monotonic()
        # At once when consuming begins.
        if now >= self._take_over_at or self.quarantine.may_go_on(self._holds, now):
            self._take_over_at = now + self.lease / 3
            wanted = min(wanted, CHUNK)
            room = self.quarantine.room(self._holds, now)
            self.before_take_over(keys)
            claim = self.streams.take_over_command(keys, wanted, self.max_deaths, room)
            return Poll(connection, "claim", wanted, room=room), claim
        if timeout == 0 or (len(keys) > 1 and self._backlog):
            return self._ask_at_once(connection, keys, wanted, now)
        # COUNT is for each stream.  With less credit than streams, several that get a message at the same
        # moment can bring more than there is credit for; it waits in the buffer.
        # More than one where that is wanted: a poll that brought all it asked for is followed by another at once.
        count = max(1, min(wanted, 2), wanted // len(keys))
        if self.quarantine.waited_for:
            timeout = min(timeout or SUSPECTS_EVERY, SUSPECTS_EVERY)
        count = rounded(count)
        return Poll(connection, "read", count), self._read_command(keys, count, int((timeout or 0) * 1000))

    def _ask_at_once(self, connection: Any, keys: list[str], wanted: int, now: float) -> tuple[Poll, Command | bytes]:
        """Ask for what is there, in the order of ``keys``.

        Lua, which can look at one stream after the other, reads each message and writes it again.  So where one
        stream is busy it is asked past Lua, and now and then it is looked whether anything is in front of it.
        """
        busy = self._busy
        if busy not in keys:
            return Poll(connection, "take", wanted, keys), self.streams.take_command(keys, wanted)
        # Never twice in a row: where polls are slow to follow each other, the busy stream would never be read.
        may_look = now - self._looked_at >= SLICE and not self._looked_last
        if may_look and (ahead := keys[: keys.index(busy)]):
            self._looked_at, self._looked_last = now, True
            return Poll(connection, "look", wanted), self.streams.take_command(ahead, wanted)
        self._looked_last = False
        wanted = rounded(wanted)
        return Poll(connection, "more", wanted), self._read_command([busy], wanted, None)

    def _wanted(self) -> int:
        """How many messages to ask for."""
        qos = self.qos
        replaced = vars(qos)
        if "can_consume" in replaced and "can_consume_max_estimate" not in replaced:
            return 1  # somebody else decides after each message whether there may be another
        free: int | None = qos.can_consume_max_estimate()
        wanted = min(self.batch_size, self._ramp)
        if free is not None:
            wanted = min(wanted, free)
        if self._pace:
            wanted = min(wanted, int(SLICE / self._pace))
        return max(1, wanted)

    def _greet(self, connection: Any) -> None:
        """Learn about a new connection what polls need: its id, to end one, and the server's clock."""
        if connection._sock is self._greeted and connection._sock is not None:
            return
        send(connection, [("CLIENT", "ID"), TIME])
        client_id, time = read(connection), read(connection)
        self._client_id = 0 if is_error(client_id) else int(client_id)
        if not is_error(time):
            self._clock.set(time, monotonic())
        if self._greeted is not None:
            self._recover()
        self._greeted = connection._sock

    def _recover(self) -> None:
        """After a lost connection, find what the server gave to this consumer and the answer never brought."""
        self.pool.disconnect(inuse_connections=False)  # whatever broke the one may have broken these
        known = self.stream_qos.delivered_tags()  # also what other threads settle from now on
        self.doubt_answer()
        self.flush_acks()
        known |= self.stream_qos.delivered_tags() | {entry.tag for entry in self._buffer}
        for queue in self.active_queues:
            for key in self.keys_of(queue):
                try:
                    held = self.carry_out(self.streams.held(key))
                except ResponseError as error:
                    if not is_missing_group(error):
                        raise
                else:
                    self._buffer.extend(entry for entry in held if entry.tag not in known)

    def _brpop_read(self, **options: Any) -> bool:
        self._read_poll()
        limit = 1 if self.connection.hub is None else None
        if not self.deliver(limit):
            raise Empty
        return True

    def _read_poll(self, *, wait: bool = False) -> None:
        """Read the poll's answer into the buffer.

        Args:
            wait: whether to wait for it, if only the acknowledgements are confirmed yet.

        Raises:
            queue.Empty: it has not come yet, but may be waited for.
        """
        poll = self._asked
        if poll is None or poll.connection is not self._in_poll:
            self._in_poll = None
            raise Empty
        connection = poll.connection
        try:
            if poll.acks:
                confirmation = read(connection)
                acks, poll.acks = poll.acks, []
                self._confirm(acks, confirmation)
                if not wait and not connection.can_read(timeout=0):
                    raise Empty
            reply = read(connection)
        except self.connection_errors:
            connection.disconnect()
            raise
        self._asked = self._in_poll = None
        self.flush_reauth()
        self._absorb(poll, reply)

    def _absorb(self, poll: Poll, reply: Any) -> None:
        if poll.kind == "wake":
            return
        if is_missing_script(reply):
            self.carry_out(ask(TAKE.load_command, TAKE_OVER.load_command))
            if poll.kind == "claim":
                self._take_over_at = 0.0
            return
        if is_error(reply):
            if not is_missing_group(reply):
                raise reply
            logger.warning("Redis lost its consumer groups: %s", reply, extra={"action": "groups_lost"})
            self.join(self.active_queues)
            return
        if poll.kind == "claim":
            self._taken_over(reply, poll)
            return
        total = most = 0
        busy: list[str] = []
        for key, entries in read_streams(reply):
            self._queue_cycle.rotate(self._queues.get(key))
            self._buffer.extend(entries)
            total += len(entries)
            most = max(most, len(entries))
            busy.append(key)
        if busy:
            publishing.wait()
        if poll.kind == "look":
            if busy:
                self._busy = None  # nor the only one any more
            return
        if poll.kind != "more":
            self._busy = (
                busy[0] if len(busy) == 1 and poll.found_others_empty(busy[0], len(self.priority_steps)) else None
            )
        self._backlog = (total if poll.kind == "take" else most) >= poll.asked
        if self._backlog:
            self._ramp = min(self._ramp * 2, self.batch_size)

    def _taken_over(self, reply: Any, poll: Poll) -> None:
        stopped, streams = reply
        entries = [entry for _, found in read_streams(streams, claimed=True) for entry in found]
        now = monotonic()
        early = [entry for entry in entries if payloads.is_early(entry.data, self.server_time())]
        if early:  # no consumer can have died of what waits for its time
            self.carry_out(exchange(*self.streams.forgive_commands(early)))
        for entry in entries:
            innocent = entry in early
            self._buffer.append(entry._replace(deaths=0) if innocent else entry)
            if not innocent:
                self.quarantine.admit(entry.tag, entry.deaths, now)
        if entries:
            count = len(entries)
            logger.warning("took over %d messages that dead consumers held", count, extra={"action": "taken_over"})
        # Use the room that the server saw, not the free one: another thread may have finished a suspect meanwhile.
        left = poll.room - sum(self.quarantine.cost(entry.deaths) for entry in entries)
        self.quarantine.stopped(left if stopped else None)
        if len(entries) >= poll.asked:
            self._take_over_at = 0.0  # there may be more

    def _holds(self, tag: str) -> bool:
        return self.stream_qos.holds(tag) or any(entry.tag == tag for entry in self._buffer)

    def end_poll(self) -> None:
        """End a poll that waits, and read what it brings into the buffer, so that nothing is left with it.

        Raises:
            redis.TimeoutError: no answer came, as the connection is lost without anybody having been told.
        """
        until = monotonic() + SILENCE
        while self._asked is not None and self._in_poll is not None:
            connection = self._in_poll
            if monotonic() > until:
                connection.disconnect()
                raise RedisTimeoutError("no answer to a poll that was to end")
            if not self._asked.acks and not connection.can_read(timeout=0) and self._client_id:
                # It may not have begun to wait; then this is in vain and the next time will not be.
                self.carry_out(exchange(("CLIENT", "UNBLOCK", self._client_id)))
                until = min(until, monotonic() + UNBLOCKED)  # the server is there, so its answer cannot be long
            if connection.can_read(timeout=UNBLOCK_EVERY):
                try:
                    self._read_poll()
                except Empty:
                    continue

    def look_for_silence(self) -> None:
        """Give a connection up whose poll is long overdue: it is half open, and will never be readable."""
        connection, sent_at = self._in_poll, self._brpop_sent_at
        if connection is None or sent_at is None or monotonic() - sent_at < SILENCE + (self.brpop_timeout or 0):
            return
        try:
            if connection.can_read(timeout=0):
                return
        except self.connection_errors:
            pass
        logger.warning("no answer to a poll for %g s: connecting again", SILENCE, extra={"action": "poll_overdue"})
        connection.disconnect()

    def _on_connection_disconnect(self, connection: Any) -> None:
        poll = self._asked
        if poll is not None and poll.connection is connection:
            self._asked = None
            self.stream_qos.put_back(poll.acks)
        super()._on_connection_disconnect(connection)  # type: ignore[misc]

    def poll(self, seconds: float) -> list[Entry]:
        """Send the acknowledgements that wait, wait for messages, and return them; without an event loop.

        With no ``seconds`` it asks for what is there, and does not wait.

        The caller has the QoS hold each entry, or gives it back.  Other threads may acknowledge meanwhile, and end the
        wait with :meth:`interrupt`.

        Raises:
            redis.ConnectionError: the connection is lost; the next poll makes another.
        """
        client = self.client
        if getattr(client, "connection", None) is None:  # Kombu's poller does this for an event loop
            client.connection = take_connection(client.connection_pool)
        if self._delivered_at is not None and self._polled:
            self._measure((monotonic() - self._delivered_at) / self._polled)
        self._brpop_start(seconds)
        if self._asked is not None:
            self._read_poll(wait=True)
        entries = list(self._buffer)
        self._buffer.clear()
        self._delivered_at, self._polled = monotonic(), len(entries)
        return entries

    def give_back_waiting(self) -> None:
        """Give back what :meth:`give_back_later` has noted.

        Raises:
            redis.ConnectionError: the connection is still lost; the rest waits on.
        """
        while self._returning:
            tag = self._returning[0]
            try:
                self.stream_qos.reject(tag, requeue=True)
            except ResponseError as error:  # Redis was emptied meanwhile
                logger.warning("%s cannot be given back: %s", tag, error, extra={"action": "give_back_failed"})
                self.stream_qos.discard(tag)
            self._returning.popleft()

    def give_back_later(self, delivery_tag: str) -> None:
        """Note that a delivered message is to be given back when there is a connection; from any thread."""
        self._returning.append(delivery_tag)

    def unread(self, entries: Iterable[Entry]) -> None:
        """Have the next :meth:`poll` return entries of the last one again, in front of others."""
        self._buffer.extendleft(reversed([*entries]))

    def put_off_take_over(self, seconds: float) -> None:
        """Leave what dead consumers hold to others for so many seconds."""
        self._take_over_at = monotonic() + seconds

    def interrupt(self) -> None:
        """End a poll that waits in another thread."""
        if self._client_id and self._asked is not None:
            self.carry_out(exchange(("CLIENT", "UNBLOCK", self._client_id)))

    # -- Delivery

    def can_deliver(self) -> bool:
        """Whether a message is in the buffer and there is credit for it."""
        return bool(self._buffer) and self.qos.can_consume()

    def deliver(self, limit: int | None = None) -> int:
        """Deliver from the buffer what there is credit and time for; gives how many messages that were.

        Args:
            limit: at most so many; None for as many as one turn of the event loop should take.
        """
        delivered = 0
        started = flushed = monotonic()
        if limit is not None and self._delivered_at is not None:
            self._measure(started - self._delivered_at)
        buffer, qos = self._buffer, self.qos
        while buffer and not self.closed and qos.can_consume():
            delivered += self._deliver_entry(buffer.popleft())
            now = monotonic()
            if limit is not None:
                if delivered >= limit:
                    break
                continue
            if now - flushed > HOLD:
                self.flush_acks(wait=False)
                flushed = now
            if now - started > SLICE:
                break
        if limit is None and delivered:
            self._measure((monotonic() - started) / delivered)
        # Without a loop a message takes the time from one call to the next, if one is waiting for it.
        self._delivered_at = monotonic() if limit is not None and self._buffer else None
        return delivered

    def _measure(self, seconds: float) -> None:
        self._pace = seconds if not self._pace else self._pace * 0.7 + seconds * 0.3

    def _deliver_entry(self, entry: Entry) -> bool:
        """Hand a message to its consumer; false if it had none, was expired or could not be read."""
        subscribers = self._subscribers.get(self._queues.get(entry.key, ""))
        if not subscribers:
            self.give_back_fetched([entry])
            return False
        payload = self.open(entry)
        if payload is None:
            return False
        callback, no_ack = next(reversed(subscribers.values()))
        if no_ack:
            self.stream_qos.drop(entry)
        callback(payload)
        return True

    def open(self, entry: Entry) -> payloads.Payload | None:
        """Return an entry's payload, with its delivery tag; None if it is not to be delivered, which is dealt with."""
        try:
            payload = self.unpack(entry)
        except NewerPayload as error:
            dead_letters.keep_newer(self, entry, error)
            return None
        if payload is not None:
            end = payloads.expires(payload, entry.id)
            # What a consumer was given in time does not expire with it.
            if end is not None and end <= self.server_time() and not entry.redelivered:
                self.stream_qos.drop(entry)
                return None
        return payload

    def unpack(self, entry: Entry) -> payloads.Payload | None:
        """Return an entry's payload, with its delivery tag; None if it is none of Kombu's, or too many died with it.

        It may have expired.

        Raises:
            NewerPayload: only a newer process can read it.
        """
        try:
            payload = payloads.decode(entry.data)
        except NewerPayload:
            raise
        except ForeignPayload as error:
            logger.error(
                "%s %s is no message of Kombu's and was dropped: %s", entry.key, entry.id, error,
                extra={"action": "foreign_payload"},
            )  # fmt: skip
            self.stream_qos.drop(entry)
            return None
        if self.max_deaths and entry.deaths >= self.max_deaths:
            dead_letters.bury(self, entry, payload, "its last consumer let its lease end")
            return None
        return payloads.delivered(payload, entry)
