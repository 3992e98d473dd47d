"""The size of queues on RabbitMQ, as far as a process knows, and the check of capacity before a send."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from kombu import Queue

from channelsq.exceptions import BrokerUnavailable, ChannelFull
from channelsq.layers.amqp.amqp_publisher import AmqpPublisher
from channelsq.layers.amqp.publication import DEADLINE, Batch, Destination, Publication
from channelsq.layers.contract.broker_urls import shown
from channelsq.layers.contract.capacity_window import TRUSTED, CapacityWindow
from channelsq.layers.kombu_broker.broker_access import KombuBroker

#: Seconds between requests about a queue that may be full while not all messages to it are confirmed; after the last
#: one RabbitMQ's answer is final.
_PAUSES = 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.3, 0.0

#: The most queues that are remembered.
_MOST_QUEUES = 10_000


class Window(CapacityWindow):
    """The capacity window of one queue, which is renewed before it is used up.

    RabbitMQ counts a message at the latest when it confirms it.  Unconfirmed messages are added to its answers, so that
    a single process never exceeds a capacity.
    """

    __slots__ = ("_before", "_sent", "destination", "is_asking", "unconfirmed")

    def __init__(self, capacity: int, destination: Destination) -> None:
        super().__init__(capacity)
        self.destination = destination
        self.is_asking = False
        self.unconfirmed = 0
        self._before = 0  # unconfirmed messages at the time of the request
        self._sent = 0  # messages since then

    def take(self, now: float) -> bool:
        """Reserve space for one message; return False if none is known to be free."""
        if self.left <= 0 or not self.is_fresh(now):
            return False
        self.left -= 1
        self._sent += 1
        self.unconfirmed += 1
        return True

    def wants_answer(self, now: float) -> bool:
        """Return whether to send a request now, so that the answer comes before the window is used up or old."""
        return not self.is_asking and (self.left * 2 < self.capacity or now - self._asked > TRUSTED / 2)

    def ask(self) -> None:
        """Record a request for the size of the queue."""
        self.is_asking = True
        self._before = self.unconfirmed
        self._sent = 0

    def answer(self, size: int, now: float) -> None:
        """Record the size of the queue."""
        self.is_asking = False
        self.open(size + self._before + self._sent, now)

    def count_as_confirmed(self, size: int, now: float) -> None:
        """Use an answer although it may not include messages that RabbitMQ takes long to confirm."""
        self.open(size + self._sent, now)

    def forget(self) -> None:
        """Invalidate the window."""
        self.is_asking = False
        self.close()


class Publications:
    """Messages that are written together.

    Args:
        publisher: the publisher of the process.
    """

    def __init__(self, publisher: AmqpPublisher) -> None:
        self._publisher = publisher
        self.messages: list[Publication] = []
        #: The windows to renew when these messages are written.
        self.wanting: list[Window] = []

    def publish(self) -> None:
        """Publish the messages that are not published yet."""
        if self.messages:
            messages, self.messages = self.messages, []
            self._publisher.publish(messages)


class Admission:
    """The check of capacity for messages to queues.

    Args:
        layer: the layer.
        destination: returns a queue's description, with its name for errors.
    """

    def __init__(self, layer: KombuBroker, destination: Callable[[Queue, str], Destination]) -> None:
        self._layer = layer
        self._destination = destination
        self._windows: dict[str, Window] = {}
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self.publisher = AmqpPublisher(layer, self.forget)

    def admit(self, channel: str, capacity: int, outgoing: Publications) -> Window:
        """Reserve space in the window of a channel, or of a process (``"name.process!"``), and return the window.

        Raises:
            ChannelFull: the queue is full.
        """
        now = time.monotonic()
        with self._lock:
            window = self._windows.get(channel)
            taken = window is not None and window.take(now)
            if window is not None and taken and window.wants_answer(now):
                window.ask()
                outgoing.wanting.append(window)
        if window is None:
            window = self._new_window(channel, capacity)
        if not taken:
            outgoing.publish()  # so that they are confirmed soon
            self._wait_for_room(window, channel)
        return window

    def admit_later(self, channel: str, capacity: int) -> None:
        """Reserve space for a message of an outbox; if RabbitMQ is away, the message waits with the outbox.

        Raises:
            ChannelFull: the queue is full.
        """
        outgoing = Publications(self.publisher)
        try:
            window = self.admit(channel, capacity, outgoing)
        except BrokerUnavailable:
            return
        with self._lock:
            window.unconfirmed -= 1
        self.publish(outgoing)

    def _wait_for_room(self, window: Window, channel: str) -> None:
        """Reserve space for one message; raise ChannelFull if the queue is full."""
        for pause in _PAUSES:
            with self._lock:
                window.ask()
            depth = self.depth_of(window.destination)
            now = time.monotonic()
            with self._lock:
                window.answer(depth, now)
                if not pause and depth < window.capacity:
                    window.count_as_confirmed(depth, now)
                if window.take(now):
                    return
            if depth >= window.capacity:
                break
            time.sleep(pause)  # unconfirmed messages may be waiting in the queue, or be consumed already
        raise ChannelFull(channel, window.capacity)

    def _new_window(self, channel: str, capacity: int) -> Window:
        layer = self._layer
        queue = layer.reply_queue(channel[:-1]) if channel[-1] == "!" else layer.queue(channel)
        layer.use(queue)
        window = Window(capacity, self._destination(queue, channel))
        with self._lock:
            if len(self._windows) > _MOST_QUEUES:
                self._windows.clear()
            self._windows[channel] = window
        return window

    def publish(self, outgoing: Publications) -> None:
        """Publish messages, and request the size of queues that may soon be full."""
        outgoing.publish()
        for window in outgoing.wanting:
            self._ask_ahead(window)

    def _ask_ahead(self, window: Window) -> None:
        def answer(depth: int, error: Exception | None) -> None:
            with self._lock:
                if error is None:
                    window.answer(depth, time.monotonic())
                else:
                    window.forget()

        self.publisher.ask(window.destination, answer)

    def depth_of(self, destination: Destination) -> int:
        """Declare a queue, and return how many messages wait there.

        Raises:
            BrokerUnavailable: RabbitMQ does not answer, or refuses.
        """
        answered = threading.Event()
        found: list[tuple[int, Exception | None]] = []

        def answer(depth: int, error: Exception | None) -> None:
            found.append((depth, error))
            answered.set()

        self.publisher.ask(destination, answer)
        if not answered.wait(DEADLINE):
            raise BrokerUnavailable(shown(self._layer.url), f"it did not answer for {DEADLINE:g} s")
        depth, error = found[0]
        if error is not None:
            raise error
        return depth

    def callback_of(self, window: Window, batch: Batch) -> Callable[[Exception | None], None]:
        """Return the callback for the result of one more message of a batch."""
        callback = batch.add()

        def tell(error: Exception | None) -> None:
            with self._lock:
                window.unconfirmed -= 1
            callback(error)

        return tell

    def place_of(self, channel: str) -> Destination:
        """Return the destination of messages to a channel, or to a process (``"name.process!"``)."""
        with self._lock:
            window = self._windows.get(channel)
        if window is None:
            process = channel[-1] == "!"
            capacity = self._layer.reply_capacity(channel) if process else self._layer.capacity_of(channel)
            window = self._new_window(channel, capacity)
        return window.destination

    def forget(self) -> None:
        """Invalidate all windows, because the connection is a new one."""
        if self._pid != os.getpid():
            # The unconfirmed messages are the parent's.
            self._pid, self._lock, self._windows = os.getpid(), threading.Lock(), {}
        with self._lock:
            for window in self._windows.values():
                window.forget()
