"""The connection on which a process publishes to RabbitMQ: all of its threads share one.

Messages that several threads publish at the same time are written together, without waiting for each confirmation.
A message counts as sent when RabbitMQ has confirmed it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

from amqp.exceptions import RecoverableConnectionError

from channelsq.exceptions import BrokerUnavailable, ChannelFull
from channelsq.layers.amqp import amqp_frames
from channelsq.layers.amqp.amqp_connection import AmqpConnection, ChannelClosed
from channelsq.layers.amqp.amqp_frames import Frame
from channelsq.layers.amqp.publication import Destination, Publication, Question
from channelsq.layers.contract.broker_urls import shown
from channelsq.layers.kombu_broker.amqp_internals import Blocked
from channelsq.layers.kombu_broker.broker_access import KombuBroker

logger = logging.getLogger("channelsq.layers.amqp")

#: The AMQP channels: one for messages, and one for requests, which RabbitMQ closes if a request fails.
_PUBLISH, _ASK = 1, 2

#: Seconds that a message may wait while RabbitMQ is short of memory or disk.
BLOCKED_WAIT = 1.0

#: The attempts to connect, and seconds before each further attempt.
_ATTEMPTS, _PAUSE = 3, 0.1

#: Seconds until a message is published again that a quorum queue has refused: it elects a leader when it is declared,
#: and when RabbitMQ starts.
_WITHOUT_LEADER = 0.2

#: The most bytes of one write.
_MOST_BYTES = 256 * 1024

#: Seconds that the reader waits for frames; and while it must check deadlines.
_QUIET, _BUSY = 1.0, 0.1

_BLOCKED = (
    "RabbitMQ takes no messages now, as it is short of memory or disk (see its log): free some, or raise "
    "vm_memory_high_watermark or disk_free_limit"
)


class _Session:
    """The state of one connection."""

    def __init__(self, connection: AmqpConnection) -> None:
        self.connection = connection
        self.number = 0
        self.methods: dict[str, bytes] = {}
        #: The written and unconfirmed messages, by their numbers on the AMQP channel.
        self.pending: dict[int, Publication] = {}
        #: The unanswered requests.
        self.questions: deque[Question] = deque()
        self.lost: BaseException | None = None

    def add(self, item: Publication | Question) -> bytes:
        """Record a message or request that is written next, and return its frames."""
        if isinstance(item, Publication):
            self.number += 1
            self.pending[self.number] = item
            item.written = time.monotonic()
            return self._encode(item)
        self.questions.append(item)
        return amqp_frames.declare(_ASK, item.destination.queue, item.destination.arguments)

    def unanswered(self) -> list[Publication | Question]:
        """Return all written items without an answer from RabbitMQ."""
        messages = [message for message in self.pending.values() if message.done is not None]
        return [*messages, *self.questions]

    def _encode(self, outgoing: Publication) -> bytes:
        queue = outgoing.destination.queue
        method = self.methods.get(queue)
        if method is None:
            if len(self.methods) > 10_000:
                self.methods.clear()
            method = self.methods[queue] = amqp_frames.publish_method(_PUBLISH, queue)
        return method + amqp_frames.content(_PUBLISH, outgoing.properties, outgoing.body, self.connection.frame_max)


class AmqpPublisher:
    """The publisher of one process.  Thread-safe, also after a fork.

    Args:
        layer: the layer.
        forget_queues: called after each reconnection.
    """

    def __init__(self, layer: KombuBroker, forget_queues: Callable[[], None]) -> None:
        self._layer = layer
        self._forget_queues = forget_queues
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._writing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._session: _Session | None = None
        self._unsent: deque[Publication | Question] = deque()
        #: Refused messages, and when they are written again; the reader's alone.
        self._put_off: deque[tuple[float, Publication]] = deque()
        self._blocked_since: float | None = None
        self._closing = False

    # -- for senders

    def publish(self, messages: Iterable[Publication]) -> None:
        """Write messages, in order; the result of each is reported to it."""
        self._be_whole()
        with self._lock:
            self._be_there()
            self._unsent.extend(messages)
        self._write()

    def ask(self, destination: Destination, answer: Callable[[int, Exception | None], None]) -> None:
        """Declare a queue, and report its size.

        RabbitMQ may answer before it has counted unconfirmed messages.

        Args:
            destination: the queue.
            answer: called, in any thread, with the number of waiting messages, and the error if there is one.
        """
        self._be_whole()
        if self._is_blocked():
            answer(0, self._unavailable(Blocked(_BLOCKED)))
            return
        with self._lock:
            self._be_there()
            self._unsent.append(Question(destination, answer))
        self._write()

    def close(self) -> None:
        """Close the connection after all published messages are confirmed or refused, or soon after that."""
        self._be_whole()
        with self._lock:
            thread, session = self._thread, self._session
            if thread is None:
                return
            self._closing = True
        if session is not None:
            session.connection.say_goodbye()
        if thread is not threading.current_thread():
            thread.join(5)
        self._closing = False

    def _be_whole(self) -> None:
        """Reset after a fork: the parent's connection must not be used or closed, and its thread is missing."""
        if self._pid != os.getpid():
            self._begin()
            self._forget_queues()

    def _be_there(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="channelsq-amqp-publish", daemon=True)
            self._thread.start()

    def _unavailable(self, error: BaseException) -> BrokerUnavailable:
        return BrokerUnavailable(shown(self._layer.url), error)

    def _is_blocked(self) -> bool:
        """Return whether RabbitMQ has refused messages for some time."""
        since = self._blocked_since
        return since is not None and time.monotonic() - since > BLOCKED_WAIT

    # -- writing

    def _write(self) -> None:
        """Write the waiting messages; the writing thread also writes those that others add meanwhile."""
        while self._unsent and self._can_write() and self._writing.acquire(blocking=False):
            try:
                while self._write_some():
                    pass
            finally:
                self._writing.release()

    def _can_write(self) -> bool:
        """Return whether the connection accepts messages; otherwise its reader writes them later."""
        session = self._session
        return session is not None and session.lost is None and self._blocked_since is None

    def _write_some(self) -> bool:
        with self._lock:
            session = self._session
            if session is None or not self._can_write():
                return False
            parts: list[bytes] = []
            size = 0
            while self._unsent and size < _MOST_BYTES:
                parts.append(session.add(self._unsent.popleft()))
                size += len(parts[-1])
        return bool(parts) and self._put(session, b"".join(parts))

    def _put(self, session: _Session, data: bytes) -> bool:
        try:
            session.connection.write(data)
        except Exception as error:
            session.lost = session.lost or error
            session.connection.abort()  # the reader handles the error
            return False
        return True

    # -- the thread

    def _run(self) -> None:
        failures = 0
        while True:
            try:
                session = self._connect()
            except Exception as error:
                failures += 1
                if failures >= _ATTEMPTS or self._closing or self._are_overdue():
                    if self._end(error):
                        return
                    failures = 0
                else:
                    time.sleep(_PAUSE * failures)
                continue
            failures = 0
            if self._lose(session, self._serve(session)):
                return

    def _connect(self) -> _Session:
        connection = AmqpConnection(self._layer)
        try:
            connection.open_channel(_PUBLISH, confirms=True)
            connection.open_channel(_ASK)
        except BaseException:
            connection.collect()
            raise
        session = _Session(connection)
        connection.on_blocked = self._on_blocked
        self._forget_queues()
        with self._lock:
            self._blocked_since = None
            self._session = session
        self._write()
        return session

    def _are_overdue(self) -> bool:
        with self._lock:
            first = next((item for item in self._unsent if isinstance(item, Publication)), None)
        return first is not None and first.deadline < time.monotonic()

    def _serve(self, session: _Session) -> BaseException:
        """Read until the connection is lost; return why."""
        try:
            while session.lost is None:
                waits = self._blocked_since is not None or bool(session.pending or self._put_off)
                for frame in session.connection.read(_BUSY if waits else _QUIET):
                    self._on_frame(session, frame)
                if self._closing:
                    return RecoverableConnectionError("the layer was closed")
                if self._put_off:
                    self._take_up()
                self._check_deadlines(session)
            return session.lost
        except Exception as error:
            return session.lost or error

    def _on_frame(self, session: _Session, frame: Frame) -> None:
        if frame.type != amqp_frames.METHOD:
            if frame.type == amqp_frames.HEADER:
                self._on_returned(session, frame)
            return
        method = frame.method
        if method in (amqp_frames.BASIC_ACK, amqp_frames.BASIC_NACK):
            self._on_confirm(session, *amqp_frames.read_tag(frame.payload), method == amqp_frames.BASIC_ACK)
        elif method == amqp_frames.QUEUE_DECLARE_OK:
            session.questions.popleft().answer(amqp_frames.read_declared(frame.payload), None)
        elif method == amqp_frames.CHANNEL_CLOSE:
            self._on_closed(session, frame)

    def _on_confirm(self, session: _Session, tag: int, multiple: bool, taken: bool) -> None:
        with self._lock:
            pending = session.pending
            if multiple:
                confirmed = []
                for number in pending:
                    if number > tag:
                        break
                    confirmed.append(number)
                messages = [pending.pop(number) for number in confirmed]
            else:
                message = pending.pop(tag, None)
                messages = [] if message is None else [message]
        for message in messages:
            if message.returned:
                self._publish_again(message)
            elif taken:
                message.tell(None)
            elif message.destination.may_lack_leader:
                self._put_off.append((time.monotonic() + _WITHOUT_LEADER, message))
            else:
                # A queue that has a limit of its own, or cannot store the message, refuses it.
                message.tell(ChannelFull(message.destination.channel))

    def _take_up(self) -> None:
        """Write the messages again that a queue without a leader has refused, until their deadline."""
        now = time.monotonic()
        while self._put_off and self._put_off[0][0] <= now:
            _, message = self._put_off.popleft()
            if message.deadline < now:
                error = RecoverableConnectionError(f"the queue {message.destination.queue} takes no messages")
                message.tell(self._unavailable(error))
            else:
                with self._lock:
                    self._unsent.append(message)
        self._write()

    # -- queues that do not exist

    def _on_returned(self, session: _Session, header: Frame) -> None:
        """Mark a message as returned by RabbitMQ; its confirmation follows."""
        identity = amqp_frames.message_identity(header.payload)
        with self._lock:
            for message in session.pending.values():
                if message.identity == identity:
                    message.returned = True
                    return

    def _publish_again(self, message: Publication) -> None:
        """Declare the deleted queue of a message, and publish the message again, until its deadline."""
        if message.deadline < time.monotonic():
            error = RecoverableConnectionError(f"the queue {message.destination.queue} is deleted again and again")
            message.tell(self._unavailable(error))
            return
        message.returned = False

        def answer(depth: int, error: Exception | None) -> None:
            if error is None:
                self.publish((message,))
            else:
                message.tell(error)

        self.ask(message.destination, answer)

    # -- errors

    def _on_closed(self, session: _Session, frame: Frame) -> None:
        error = ChannelClosed(*amqp_frames.read_close(frame.payload))
        if frame.channel != _ASK:
            raise error
        with self._writing:
            # RabbitMQ ignores all requests on the channel until it is open again: those after the failed one, too.
            with self._lock:
                question = session.questions.popleft()
                self._unsent.extendleft(reversed(session.questions))
                session.questions.clear()
            again = amqp_frames.method(_ASK, amqp_frames.CHANNEL_CLOSE_OK)
            self._put(session, again + amqp_frames.method(_ASK, amqp_frames.CHANNEL_OPEN, b"\0"))
        question.answer(0, self._unavailable(error))
        self._write()

    def _on_blocked(self, is_blocked: bool) -> None:
        logger.warning(
            _BLOCKED if is_blocked else "RabbitMQ takes messages again",
            extra={"action": "broker_blocked" if is_blocked else "broker_unblocked"},
        )
        self._blocked_since = time.monotonic() if is_blocked else None
        if not is_blocked:
            self._write()

    def _check_deadlines(self, session: _Session) -> None:
        now = time.monotonic()
        if self._is_blocked():
            with self._lock:
                waiting = [*self._unsent, *session.unanswered()]
                self._unsent.clear()
                asked = bool(session.questions)
            self._tell(waiting, self._unavailable(Blocked(_BLOCKED)))  # written messages may still arrive
            if asked:
                raise RecoverableConnectionError("RabbitMQ was blocked before it answered")
            return
        with self._lock:
            oldest = next(iter(session.pending.values()), None)
        if oldest is not None and oldest.written + session.connection.silence < now:
            raise RecoverableConnectionError(f"RabbitMQ confirmed nothing for {session.connection.silence:g} s")

    def _lose(self, session: _Session, error: BaseException) -> bool:
        """Handle the loss of the connection; return True if no message or request needs another one."""
        session.connection.collect()
        now = time.monotonic()
        with self._lock:
            self._session = None
            self._blocked_since = None
            # RabbitMQ may have these messages already: their readers recognise duplicates by the ids.
            overdue: list[Publication | Question] = []
            for item in reversed(session.unanswered()):
                if isinstance(item, Publication) and item.deadline < now:
                    overdue.append(item)
                else:
                    self._unsent.appendleft(item)
            self._unsent.extend(message for _, message in self._put_off)
            self._put_off.clear()
        self._tell(overdue, self._unavailable(error))
        self._forget_queues()
        if self._closing or isinstance(error, ChannelClosed):
            return self._end(error)
        logger.warning(
            "%s: the connection for publishing was lost: %s", shown(self._layer.url), error,
            extra={"action": "publisher_lost"},
        )  # fmt: skip
        with self._lock:
            if self._unsent:
                return False
            self._thread = None  # the next message starts another
            return True

    def _end(self, error: BaseException) -> bool:
        """Report to all waiting items that the broker is away; return whether the thread must end."""
        unavailable = self._unavailable(error)
        with self._lock:
            waiting = [*self._unsent]
            self._unsent.clear()
        self._tell(waiting, unavailable)
        with self._lock:
            if self._unsent:
                return False
            if self._thread is threading.current_thread():
                self._thread = None
            return True

    @staticmethod
    def _tell(items: Iterable[Publication | Question], error: Exception) -> None:
        for item in items:
            if isinstance(item, Publication):
                item.tell(error)
            else:
                item.answer(0, error)
