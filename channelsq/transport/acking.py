"""Acknowledgements and the commands that are sent with them, from any thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol

from channelsq.redis_core.commands import Command, Reply
from channelsq.redis_core.entries import Copy, Entry, ack_commands, parse_tag
from channelsq.redis_core.operations import ask, exchange
from channelsq.redis_core.scripts import SETTLE, settle_args
from channelsq.redis_core.server_errors import is_error, is_missing_script
from channelsq.redis_core.stream_consumer import StreamConsumer
from channelsq.redis_io.blocking import read, send, take_connection
from channelsq.transport import payloads
from channelsq.transport.enduring import EnduringChannel
from channelsq.transport.kombu_channel_internals import KombuChannel
from channelsq.transport.leases import Leases
from channelsq.transport.qos import Ack, QoS

logger = logging.getLogger("channelsq.transport")

#: The most messages that one command acknowledges: Lua limits the number of arguments.
_CHUNK = 1000

#: Seconds without use after which a connection is checked before it is used again.
_IDLE = 1.0

#: The smallest pool size with which one connection is kept for acknowledgements.
_ENOUGH = 3


class Driven(Protocol):
    """The transport as its channels use it."""

    client: Any
    default_port: int
    leases: Leases
    #: The event loop that drives the transport, if there is one.
    hub: Any


class AcknowledgingChannel(EnduringChannel, KombuChannel):
    """Sends the acknowledgements that its QoS collects: with the next poll, or on a connection of its own."""

    connection: Driven  # type: ignore[assignment]  # Kombu's own type is less precise
    connection_errors: tuple[type[Exception], ...]
    streams: StreamConsumer

    #: Consumers of each queue by their tag: the callback, and whether it is ``no_ack``.
    _subscribers: dict[str, dict[str, tuple[Callable[[payloads.Payload], Any], bool]]]

    #: Returns the commands for the outboxes given to :meth:`QoS.settle`; they run with the acknowledgements.
    render: Callable[[list[Any]], list[Command]] | None = None

    def _start_acknowledging(self) -> None:
        self._ack_lock = threading.Lock()
        self._ack_connection: Any = None  # kept from the pool: taking one costs more than a transaction
        self._ack_used = 0.0
        self._unanswered: list[Ack] = []  # sent on the connection, and the answer not read
        self._waking = False

    @property
    def stream_qos(self) -> QoS:
        """The channel's QoS."""
        qos = self.qos
        assert isinstance(qos, QoS)
        return qos

    def server_time(self) -> int:
        """Return the server's time in ms since 1970."""
        raise NotImplementedError

    # -- When to send

    def acks_wait(self) -> None:
        """Have acknowledgements sent by the event loop, or send them now without one."""
        hub = self.connection.hub if self.connection is not None else None
        if hub is None or not self._subscribers:
            self.flush_acks()
        else:
            self._wake(hub)

    def _wake(self, hub: Any) -> None:
        if not self._waking:
            self._waking = True
            hub.call_soon(self._woken)

    def _woken(self) -> None:
        self._waking = False  # the poller runs after this callback

    # -- Content

    def sending(self) -> threading.Lock:
        """Return the lock under which acknowledgements are taken and sent."""
        return self._ack_lock

    def _take_acks(self, qos: QoS) -> list[Ack]:
        """Return the waiting acknowledgements, without those that were carried out before a connection was lost.

        The commands of an outbox must not run twice.  They ran together with the acknowledgement, or not at all.  So
        the acknowledgement is done if this consumer does not hold the message any more.
        """
        acks = qos.take_acks()
        doubtful = [ack for ack in acks if ack.doubtful]
        if not doubtful:
            return acks
        try:
            asked = [self.streams.holds_command(ack.key, ack.id) for ack in doubtful]
            replies = self.carry_out(exchange(*asked))
        except BaseException:
            qos.put_back(acks)
            raise
        done = {ack[:2] for ack, reply in zip(doubtful, replies, strict=True) if reply == []}
        return [ack for ack in acks if not ack.doubtful or ack[:2] not in done]

    def _transaction(self, acks: list[Ack]) -> list[Command]:
        """Return the command for acknowledgements and their outboxes; an empty list if there are none."""
        if not acks:
            return []
        commands: list[Command] = []
        if self.render is not None:
            outboxes = [ack.outbox for ack in acks if ack.outbox is not None]
            commands += self.render(outboxes) if outboxes else []
        for start in range(0, len(acks), _CHUNK):
            commands += ack_commands((ack.key, ack.id) for ack in acks[start : start + _CHUNK])
        return [SETTLE.command((), settle_args(commands))]

    def _confirm(self, acks: list[Ack], reply: Reply) -> bool:
        """Evaluate the answer to a transaction; return False if the server refused it, and queue it again."""
        if is_missing_script(reply):
            self.stream_qos.put_back(acks, doubtful=False)
            self.carry_out(ask(SETTLE.load_command))
            return True  # sent again with the next transaction
        if is_error(reply):  # for example out of memory
            self._log_errors([str(reply)])
            self.stream_qos.put_back(acks, doubtful=False)
            return False
        self._log_errors([error.decode(errors="replace") for error in reply])
        return True

    def _log_errors(self, errors: list[str]) -> None:
        for error in errors:
            logger.error(
                "Redis refused an acknowledgement or what goes with it: %s", error, extra={"action": "ack_refused"}
            )

    # -- Sending

    def open_ack_connection(self) -> None:
        """Connect for acknowledgements now that the server answers: later it may be frozen, and connecting would block.

        An event loop sends acknowledgements with its polls, and needs no connection for them.

        Raises:
            redis.ConnectionError: the connection is lost.
        """
        if self._ack_connection is not None or self.connection.hub is not None or not self._keeps_connection:
            return
        if self._ack_lock.acquire(blocking=False):
            try:
                if self._ack_connection is None:
                    self._ack_connection, self._ack_used = take_connection(self.pool), monotonic()
            finally:
                self._ack_lock.release()

    @property
    def _keeps_connection(self) -> bool:
        return bool(self.pool.max_connections >= _ENOUGH)

    def flush_acks(self, *, wait: bool = True) -> None:
        """Send the waiting acknowledgements, on a connection of their own.  From any thread.

        Args:
            wait: whether to wait for Redis's answer.  Otherwise the answer is read before the next send; if another
                thread is sending, that thread sends these acknowledgements as well.

        Raises:
            redis.ConnectionError: the connection is lost; the acknowledgements are kept for the next attempt.
        """
        qos = self.existing_qos
        if not isinstance(qos, QoS):
            return
        while (qos.waiting or (wait and self._unanswered)) and not self.closed:
            if not self._ack_lock.acquire(blocking=wait):
                return  # the thread with the lock checks again before it returns
            try:
                done = self._send_next(qos, wait)
            finally:
                self._ack_lock.release()
            if not done:
                return  # the next call tries again

    def _send_next(self, qos: QoS, wait: bool) -> bool:
        """Read the last answer and send the waiting acknowledgements; return False if Redis refused them."""
        if not self._read_answer(qos):
            return False
        acks = self._take_acks(qos)
        if not acks:
            return True
        try:
            if self._ack_connection is None:
                self._ack_connection = take_connection(self.pool)
            elif monotonic() - self._ack_used > _IDLE and self._ack_connection.can_read(timeout=0):
                self._ack_connection.disconnect()  # the only thing to read here is the end of the connection
            send(self._ack_connection, self._transaction(acks))
        except BaseException:
            qos.put_back(acks)
            self._drop_connection()
            raise
        self._unanswered, self._ack_used = acks, monotonic()
        if wait or not self._keeps_connection:
            return self._read_answer(qos)
        return True

    def _read_answer(self, qos: QoS) -> bool:
        """Read the answer to the last transaction, unless it is read; return False if the server refused it."""
        acks, self._unanswered = self._unanswered, []
        if not acks:
            return True
        try:
            reply = read(self._ack_connection)
        except BaseException:
            qos.put_back(acks)
            self._drop_connection()
            raise
        if not self._keeps_connection:
            connection, self._ack_connection = self._ack_connection, None
            self.pool.release(connection)
        return self._confirm(acks, reply)

    def flush_acks_soon(self) -> bool:
        """Send the waiting acknowledgements, if that cannot block.

        It would block without a connection, and while the answer to earlier ones is out.

        Returns:
            True if none is left.

        Raises:
            redis.ConnectionError: as :meth:`flush_acks`.
        """
        qos = self.existing_qos
        if not isinstance(qos, QoS):
            return True
        while qos.waiting and not self.closed:
            if not self._ack_lock.acquire(blocking=False):
                return False
            try:
                # Asked before each send: another thread may add an acknowledgement after one.
                if self._would_block() or not self._send_next(qos, wait=False):
                    return False
            finally:
                self._ack_lock.release()
        return not qos.waiting

    def _would_block(self) -> bool:
        if self._ack_connection is None:
            return self._keeps_connection
        return bool(self._unanswered) and not self._ack_connection.can_read(timeout=0)

    def look_for_answer(self) -> None:
        """Read an answer that no later send has read; this notices a lost connection."""
        qos = self.existing_qos
        if not self._unanswered or not isinstance(qos, QoS) or not self._ack_lock.acquire(blocking=False):
            return
        try:
            if self._unanswered and self._ack_connection.can_read(timeout=0):
                self._read_answer(qos)
        except self.connection_errors as error:
            logger.warning("acknowledgements are sent again: %s", error, extra={"action": "acks_wait"})
        finally:
            self._ack_lock.release()

    def doubt_answer(self) -> None:
        """Stop waiting for an answer: the connection may be half open.  Its acknowledgements are sent again."""
        qos = self.existing_qos
        if not self._unanswered or not isinstance(qos, QoS) or not self._ack_lock.acquire(blocking=False):
            return
        try:
            acks, self._unanswered = self._unanswered, []
            qos.put_back(acks)
            self._drop_connection()
        finally:
            self._ack_lock.release()

    def _drop_connection(self) -> None:
        connection, self._ack_connection = self._ack_connection, None
        if connection is not None:
            connection.disconnect()
            self.pool.release(connection)

    def acknowledge_now(self, delivery_tag: str) -> bool:
        """Acknowledge a message before its consumer runs, for runs that must not be repeated.

        For this channel the message stays delivered until it is acknowledged as usual.  From any thread.

        Returns:
            True if it was not acknowledged before; False if another consumer has taken it over.

        Raises:
            redis.ConnectionError: the message may or may not be acknowledged.
        """
        held = parse_tag(delivery_tag)
        if held is None:
            return True
        return self.carry_out(self.streams.acknowledge(*held))

    def give_back(self, copies: list[Copy]) -> None:
        """Put held messages at the end of their queues.  From any thread."""
        with self._ack_lock:
            self.carry_out(self.streams.give_back(copies))

    def give_back_fetched(self, entries: list[Entry]) -> None:
        """Put entries that were not delivered at the end of their queues."""
        if entries:
            now = self.server_time()
            self.give_back(
                [Copy(e.key, e.id, *payloads.untouched(e.data, e.id, now, e.redelivered), e.deaths) for e in entries]
            )
