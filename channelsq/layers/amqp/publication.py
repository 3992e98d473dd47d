"""Messages and requests on their way to RabbitMQ, and batches to wait for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

#: Seconds after which an unconfirmed message counts as not sent.
DEADLINE = 20.0


class Destination(NamedTuple):
    """A queue to publish to."""

    queue: str
    #: The name in errors.
    channel: str
    #: The queue's arguments in RabbitMQ's form.
    arguments: Mapping[str, Any]

    @property
    def may_lack_leader(self) -> bool:
        """True if RabbitMQ refuses a message for want of a leader: a quorum queue that begins, without a limit."""
        return self.arguments.get("x-queue-type") == "quorum" and "x-overflow" not in self.arguments


class Publication:
    """A message on its way to a queue.

    Args:
        destination: the queue.
        identity: the message's id, which is part of the properties.
        properties: the encoded properties.
        body: the message.
        done: called, in any thread, with the error, or None when RabbitMQ has confirmed the message.
    """

    __slots__ = ("body", "deadline", "destination", "done", "identity", "properties", "returned", "written")

    def __init__(
        self,
        destination: Destination,
        identity: str,
        properties: bytes,
        body: bytes,
        done: Callable[[Exception | None], None],
    ) -> None:
        self.destination = destination
        self.identity = identity
        self.properties = properties
        self.body = body
        self.done: Callable[[Exception | None], None] | None = done
        #: When it was written to the connection, for the last time.
        self.written = 0.0
        #: When the attempts end.
        self.deadline = time.monotonic() + DEADLINE
        #: Whether RabbitMQ has returned it because the queue does not exist.
        self.returned = False

    def tell(self, error: Exception | None) -> None:
        """Report the result, once."""
        done, self.done = self.done, None
        if done is not None:
            done(error)


class Question:
    """A ``queue.declare`` that waits for its answer.

    Args:
        destination: the queue.
        answer: called, in any thread, with the number of waiting messages, and the error if there is one.
    """

    __slots__ = ("answer", "destination")

    def __init__(self, destination: Destination, answer: Callable[[int, Exception | None], None]) -> None:
        self.destination = destination
        self.answer = answer


class Batch:
    """Messages with a common wait for their results.

    Args:
        done: called when all results are known, in any thread; None for no callback.
    """

    def __init__(self, done: Callable[[], None] | None = None) -> None:
        self._lock = threading.Lock()
        self._left = 1  # one more until it is closed
        self._done = done
        self._event = threading.Event() if done is None else None
        #: The first error.
        self.error: Exception | None = None

    def add(self) -> Callable[[Exception | None], None]:
        """Return the callback for the result of one more message."""
        with self._lock:
            self._left += 1
        return self.record

    def record(self, error: Exception | None) -> None:
        """Record the result of a message."""
        with self._lock:
            self.error = self.error or error
            self._left -= 1
            if self._left:
                return
        if self._done is not None:
            self._done()
        elif self._event is not None:
            self._event.set()

    def close(self) -> None:
        """Record that no more messages are added."""
        self.record(None)

    def wait(self, seconds: float) -> bool:
        """Wait for all results; return False if some are missing after ``seconds``."""
        return self._event is None or self._event.wait(seconds)
