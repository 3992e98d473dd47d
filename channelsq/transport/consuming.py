"""The polling part of a channel: one poll at a time, whose reply goes through a local buffer.

A poll is one write: the waiting acknowledgements, in a transaction, and the command that requests messages.  The
buffer never holds more than one poll's answer.
"""

from __future__ import annotations

import logging
from queue import Empty
from time import monotonic
from typing import Any

from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from channelsq.redis_core.entries import Entry
from channelsq.redis_core.operations import ask, exchange
from channelsq.redis_core.poll_plan import WAKE, Poll
from channelsq.redis_core.scripts import SETTLE
from channelsq.redis_core.server_clock import TIME
from channelsq.redis_core.server_errors import is_error, is_missing_group, is_missing_script
from channelsq.redis_core.suspects import Suspects
from channelsq.redis_io.blocking import read, send, take_connection
from channelsq.redis_io.redis_internals import socket_of
from channelsq.transport import payloads, publishing
from channelsq.transport.delivering import DeliveringChannel
from channelsq.transport.qos import Ack

logger = logging.getLogger("channelsq.transport")

#: Seconds between two attempts to end a poll that has not reached the server yet.
UNBLOCK_EVERY = 0.05

#: Seconds that the server has to answer a poll after it was told to end it.
UNBLOCKED = 3.0

#: Seconds without an answer after which a server counts as lost.  More than a server is usually paused: when it
#: resumes, it carries out everything that was sent.
SILENCE = 15.0


class ConsumingChannel(DeliveringChannel):
    """Polls streams."""

    lease: float
    suspects: Suspects

    def _start_consuming(self) -> None:
        self._start_delivering()
        self._asked: Poll | None = None
        self._asked_on: Any = None  # the connection of the poll
        self._sent_acks: list[Ack] = []  # sent with the poll, and not confirmed
        self._polled = 0  # the number of messages that the last poll() returned
        self._greeted: Any = None  # the socket on which the client id was requested
        self._client_id = 0

    def join(self, queues: list[str]) -> None:
        """Become a consumer of queues."""
        raise NotImplementedError

    def before_take_over(self, keys: list[str]) -> None:
        """Prepare for a poll that takes over entries of dead consumers from streams."""
        raise NotImplementedError

    # -- Polls

    def send_poll(self, timeout: float | None = None) -> None:
        """Send the waiting acknowledgements with a command that requests messages.

        Args:
            timeout: seconds that the server waits for messages; None for ``brpop_timeout``.
        """
        timeout = self.brpop_timeout if timeout is None else timeout
        queues = self.next_queues()
        if not queues:
            return
        connection = self.client.connection
        self._greet(connection)
        if self._buffer and self.connection.hub is None:
            return  # the poller delivers from it first
        poll = self._ask(queues, timeout)
        acks = self._take_acks(self.stream_qos)
        commands = [*self._transaction(acks), poll.command]
        self._asked, self._sent_acks = poll, acks
        self._asked_on = connection
        self.poll_sent(connection)
        try:
            send(connection, commands)
        except BaseException:
            connection.disconnect()  # which also puts the acknowledgements back
            raise

    def _ask(self, queues: list[str], timeout: float | None) -> Poll:
        if self._buffer:  # the event loop must return at once for the rest of the batch
            return WAKE
        keys = self._in_order(queues)
        wanted = self._wanted()
        now = monotonic()
        plan, suspects = self.plan, self.suspects
        if now >= plan.take_over_at or suspects.may_go_on(self._holds, now):
            self.before_take_over(keys)
            return plan.claim(keys, wanted, suspects.room(self._holds, now), now, self.lease / 3)
        return plan.next(keys, wanted, timeout, now)

    def _wanted(self) -> int:
        """Return how many messages to ask for."""
        qos = self.qos
        replaced = vars(qos)
        if "can_consume" in replaced and "can_consume_max_estimate" not in replaced:
            return 1  # another component decides after each message whether to request the next
        return self.plan.wanted(qos.can_consume_max_estimate())

    def _greet(self, connection: Any) -> None:
        """Request what polls need on a new connection: its id, to end a poll, and the server's clock.

        The server may be a new one.  It learns the script of acknowledgements here: no thread waits for the answer to
        the first of them, and what goes with it would be sent again only after the next poll.
        """
        sock = socket_of(connection)
        if sock is self._greeted and sock is not None:
            return
        send(connection, [("CLIENT", "ID"), TIME, SETTLE.load_command])
        client_id, time, _ = read(connection), read(connection), read(connection)
        self._client_id = 0 if is_error(client_id) else int(client_id)
        if not is_error(time):
            self._clock.set(time, monotonic())
        if self._greeted is not None:
            self._recover()
        self.open_ack_connection()
        self._greeted = socket_of(connection)  # the first command creates it

    def _recover(self) -> None:
        """Find the messages that the server delivered to this consumer in an answer that was lost."""
        self.pool.disconnect(inuse_connections=False)  # these connections are probably lost, too
        known = self.stream_qos.delivered_tags()  # includes tags that other threads settle from now on
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

    def deliver_poll(self) -> None:
        """Read the answer to a poll and deliver from it.

        Raises:
            queue.Empty: nothing was delivered.
        """
        self._read_poll()
        limit = 1 if self.connection.hub is None else None
        if not self.deliver(limit):
            raise Empty

    def _read_poll(self, *, wait: bool = False) -> None:
        """Read the poll's answer into the buffer.

        Args:
            wait: whether to wait for the messages if so far only the acknowledgements are confirmed.

        Raises:
            queue.Empty: the answer has not come yet.
        """
        poll = self._asked
        connection = self._asked_on
        if poll is None or connection is not self.polled_on:
            self.poll_ended()
            raise Empty
        try:
            if self._sent_acks:
                confirmation = read(connection)
                acks, self._sent_acks = self._sent_acks, []
                self._confirm(acks, confirmation)
                if not wait and not connection.can_read(timeout=0):
                    raise Empty
            reply = read(connection)
        except self.connection_errors:
            connection.disconnect()
            raise
        self._asked = None
        self.poll_ended()
        self.flush_reauth()
        self._absorb(poll, reply)
        self.open_ack_connection()

    def _absorb(self, poll: Poll, reply: Any) -> None:
        if poll.kind == "wake":
            return
        if is_missing_script(reply):
            self.carry_out(ask(*self.plan.on_missing_script(poll)))
            return
        if is_error(reply):
            if not is_missing_group(reply):
                raise reply
            logger.warning("Redis lost its consumer groups: %s", reply, extra={"action": "groups_lost"})
            self.join(self.active_queues)
            return
        if poll.kind == "claim":
            self._taken_over(self.plan.read_claim(poll, reply))
            return
        found = self.plan.read(poll, reply)
        for key, entries in found:
            self.serve_last(self._queues.get(key))
            self._buffer.extend(entries)
        if found:
            publishing.wait()

    def _taken_over(self, entries: list[Entry]) -> None:
        early = [entry for entry in entries if payloads.is_early(entry.data, self.server_time())]
        if early:  # no consumer can have died of a task whose ETA has not come
            self.carry_out(exchange(*self.streams.reset_deaths_commands(early)))
        now = monotonic()
        for entry in entries:
            innocent = entry in early
            self._buffer.append(entry._replace(deaths=0) if innocent else entry)
            if not innocent:
                self.suspects.admit(entry.tag, entry.deaths, now)
        if entries:
            count = len(entries)
            logger.warning("took over %d messages that dead consumers held", count, extra={"action": "taken_over"})

    def _holds(self, tag: str) -> bool:
        return self.stream_qos.holds(tag) or any(entry.tag == tag for entry in self._buffer)

    def end_poll(self) -> None:
        """End a poll that waits, and read its messages into the buffer, so that none are lost with it.

        Raises:
            redis.TimeoutError: no answer came; the connection is half open.
        """
        until = monotonic() + SILENCE
        while self._asked is not None and self.polled_on is not None:
            connection = self.polled_on
            if monotonic() > until:
                connection.disconnect()
                raise RedisTimeoutError("no answer to a poll that was to end")
            if not self._sent_acks and not connection.can_read(timeout=0) and self._client_id:
                # The poll may not have begun to wait; then this has no effect and the next attempt will.
                self.carry_out(exchange(("CLIENT", "UNBLOCK", self._client_id)))
                until = min(until, monotonic() + UNBLOCKED)  # the server answers, so the poll's answer cannot take long
            if connection.can_read(timeout=UNBLOCK_EVERY):
                try:
                    self._read_poll()
                except Empty:
                    continue

    def look_for_silence(self) -> None:
        """Close a connection whose poll is long overdue: it is half open, and will never be readable."""
        connection, sent_at = self.polled_on, self.poll_sent_at
        if connection is None or sent_at is None or monotonic() - sent_at < SILENCE + (self.brpop_timeout or 0):
            return
        try:
            if connection.can_read(timeout=0):
                return
        except self.connection_errors:
            pass
        logger.warning("no answer to a poll for %g s: connecting again", SILENCE, extra={"action": "poll_overdue"})
        connection.disconnect()

    def connection_lost(self, connection: Any) -> None:
        """Have the acknowledgements of a poll sent again whose connection is closed."""
        if self._asked is not None and self._asked_on is connection:
            acks, self._sent_acks, self._asked = self._sent_acks, [], None
            self.stream_qos.put_back(acks)

    def poll(self, seconds: float) -> list[Entry]:
        """Send the waiting acknowledgements, wait for messages, and return them; without an event loop.

        With ``seconds`` of 0 it does not wait.

        The caller must make the QoS hold each entry, or give it back.  Other threads may acknowledge meanwhile, and end
        the wait with :meth:`interrupt`.

        Raises:
            redis.ConnectionError: the connection is lost; the next poll opens another.
        """
        self.start_poll(seconds)
        if self._asked is not None:
            self._read_poll(wait=True)
        return self._received()

    def start_poll(self, seconds: float) -> None:
        """Begin a :meth:`poll` without waiting for its answer; do nothing if one is under way."""
        client = self.client
        if getattr(client, "connection", None) is None:  # with an event loop, Kombu's poller does this
            client.connection = take_connection(client.connection_pool)
        if self._asked is not None:
            return
        if self._delivered_at is not None and self._polled:
            self.plan.measure((monotonic() - self._delivered_at) / self._polled)
        self.send_poll(seconds)

    def answer_socket(self) -> int | None:
        """Return the socket on which the answer to a poll arrives; None without a poll.

        Raises:
            redis.TimeoutError: the answer is long overdue.
        """
        if self._asked is None:
            return None
        self.look_for_silence()
        if self._asked is None:
            raise RedisTimeoutError(f"no answer to a poll for {SILENCE:g} s")
        return int(socket_of(self._asked_on).fileno())

    def take_answer(self) -> list[Entry] | None:
        """Return the entries of a poll whose answer has begun to arrive; None if there is more to wait for."""
        if self._asked is not None:
            try:
                self._read_poll()
            except Empty:
                return None
        return self._received()

    def _received(self) -> list[Entry]:
        entries = list(self._buffer)
        self._buffer.clear()
        self._delivered_at, self._polled = monotonic(), len(entries)
        return entries

    def put_off_take_over(self, seconds: float) -> None:
        """Take over no entries of dead consumers for so many seconds; other consumers may."""
        self.plan.take_over_at = monotonic() + seconds

    def interrupt(self) -> None:
        """End a poll that waits in another thread."""
        if self._client_id and self._asked is not None:
            self.carry_out(exchange(("CLIENT", "UNBLOCK", self._client_id)))
