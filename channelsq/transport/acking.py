"""Sending acknowledgements, and what is to be done with them, from any thread."""

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
from channelsq.transport.kombu_channel import KombuChannel
from channelsq.transport.leases import Leases
from channelsq.transport.qos import Ack, QoS

logger = logging.getLogger("channelsq.transport")

#: Messages that one command acknowledges at most: Lua can hand on only so many words.
_CHUNK = 1000

#: Seconds after which a connection that was not used is looked at before it is trusted.
_IDLE = 1.0

#: Connections that a pool must be allowed for one of them to be kept for acknowledgements.
_ENOUGH = 3


class Driven(Protocol):
    """The transport as its channels know it."""

    client: Any
    default_port: int
    leases: Leases
    #: The event loop, if one drives the transport.
    hub: Any
    _callbacks: Any


class AcknowledgingChannel(EnduringChannel, KombuChannel):
    """Sends what its QoS collects: with the next poll, or on a connection of its own."""

    connection: Driven  # type: ignore[assignment]  # Kombu's own type says less
    connection_errors: tuple[type[Exception], ...]
    streams: StreamConsumer

    #: Makes the commands of what was given to :meth:`QoS.settle`, for a transaction with the acknowledgements.
    render: Callable[[list[Any]], list[Command]] | None = None

    def _start_acknowledging(self) -> None:
        self._ack_lock = threading.Lock()
        self._ack_connection: Any = None  # of the pool, kept: taking one costs more than a transaction
        self._ack_used = 0.0
        self._unanswered: list[Ack] = []  # what was sent on it, and the answer not read
        self._waking = False

    @property
    def stream_qos(self) -> QoS:
        """The channel's QoS."""
        qos = self.qos
        assert isinstance(qos, QoS)
        return qos

    def server_time(self) -> int:
        """The server's time in ms since 1970."""
        raise NotImplementedError

    # -- when

    def acks_wait(self) -> None:
        """Have acknowledgements sent: by the event loop, or now if none is going to."""
        hub = self.connection.hub if self.connection is not None else None
        if hub is None or not self._active_queues:
            self.flush_acks()
        else:
            self._wake(hub)

    def _wake(self, hub: Any) -> None:
        if not self._waking:
            self._waking = True
            hub.call_soon(self._woken)

    def _woken(self) -> None:
        self._waking = False  # the poller's turn comes after this one

    # -- what

    def sending(self) -> threading.Lock:
        """The lock under which acknowledgements are taken and sent."""
        return self._ack_lock

    def _take_acks(self, qos: QoS) -> list[Ack]:
        """The acknowledgements that wait, without those that a lost connection had carried out after all.

        What goes with an acknowledgement must not be done twice.  Both were done together, or neither was, so
        whether this consumer still holds the message tells.
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
        """The command that sends acknowledgements with what goes with them; none for nothing."""
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
        """Look at the answer to a transaction; false if nothing of it was done, and it waits again."""
        if is_missing_script(reply):
            self.stream_qos.put_back(acks, doubtful=False)
            self.carry_out(ask(SETTLE.load_command))
            return True  # next time
        if is_error(reply):  # out of memory, say
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

    # -- now

    def flush_acks(self, *, wait: bool = True) -> None:
        """Send the acknowledgements that wait, on a connection of their own.  From any thread.

        Args:
            wait: whether to wait for Redis to have them.  Without it the answer is read when the next ones are
                sent, and where another thread is sending, that one sends these as well.

        Raises:
            redis.ConnectionError: they wait on.
        """
        qos = self._qos
        if not isinstance(qos, QoS):
            return
        while (qos.waiting or (wait and self._unanswered)) and not self.closed:
            if not self._ack_lock.acquire(blocking=wait):
                return  # its holder comes back here once more
            try:
                done = self._send_next(qos, wait)
            finally:
                self._ack_lock.release()
            if not done:
                return  # again another time

    def _send_next(self, qos: QoS, wait: bool) -> bool:
        """Read the last answer, and send what waits; false if Redis would not have it."""
        if not self._read_answer(qos):
            return False
        acks = self._take_acks(qos)
        if not acks:
            return True
        try:
            if self._ack_connection is None:
                self._ack_connection = take_connection(self.pool)
            elif monotonic() - self._ack_used > _IDLE and self._ack_connection.can_read(timeout=0):
                self._ack_connection.disconnect()  # what there is to read can only be its end
            send(self._ack_connection, self._transaction(acks))
        except BaseException:
            qos.put_back(acks)
            self._drop_connection()
            raise
        self._unanswered, self._ack_used = acks, monotonic()
        if wait or self.pool.max_connections < _ENOUGH:
            return self._read_answer(qos)
        return True

    def _read_answer(self, qos: QoS) -> bool:
        """Read the answer to the last transaction, if it is not read; false if nothing of that was done."""
        acks, self._unanswered = self._unanswered, []
        if not acks:
            return True
        try:
            reply = read(self._ack_connection)
        except BaseException:
            qos.put_back(acks)
            self._drop_connection()
            raise
        if self.pool.max_connections < _ENOUGH:
            connection, self._ack_connection = self._ack_connection, None
            self.pool.release(connection)
        return self._confirm(acks, reply)

    def look_for_answer(self) -> None:
        """Read an answer that nothing was sent after; a connection that was lost meanwhile is noticed so."""
        qos = self._qos
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
        """Wait for no answer that has not come yet: its connection may be lost without anybody having been told."""
        qos = self._qos
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
        """Acknowledge a message before anything else is done with it, for what must not be done twice.

        Here it stays delivered until it is acknowledged as ever.  From any thread.

        Returns:
            whether it was not acknowledged before; if not, another consumer has had it.

        Raises:
            redis.ConnectionError: it is not known whether it is acknowledged.
        """
        held = parse_tag(delivery_tag)
        if held is None:
            return True
        return self.carry_out(self.streams.acknowledge(*held))

    def give_back(self, copies: list[Copy]) -> None:
        """Put what is held at the end of its queue.  From any thread."""
        with self._ack_lock:
            self.carry_out(self.streams.give_back(copies))

    def give_back_fetched(self, entries: list[Entry]) -> None:
        """The same for entries that were not delivered."""
        if entries:
            now = self.server_time()
            self.give_back(
                [Copy(e.key, e.id, *payloads.untouched(e.data, e.id, now, e.redelivered), e.deaths) for e in entries]
            )
