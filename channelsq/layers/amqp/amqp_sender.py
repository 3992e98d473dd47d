"""Sending on RabbitMQ: messages of many sends, and of many threads, travel and are confirmed together."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from kombu import Queue

from channelsq.core import names
from channelsq.exceptions import BrokerUnavailable, ChannelFull
from channelsq.layers.amqp.amqp_publisher import DEADLINE, AmqpPublisher, Batch, Destination, Outgoing
from channelsq.layers.amqp.message_encoder import MessageEncoder
from channelsq.layers.contract.broker_urls import shown
from channelsq.layers.contract.capacity_window import TRUSTED, CapacityWindow
from channelsq.layers.contract.layer_contract import Send
from channelsq.layers.kombu_broker.broker_access import KombuBroker
from channelsq.layers.kombu_broker.sender import KombuSender
from channelsq.layers.wire.wire_forms import Entry, pack_envelopes

#: Seconds between questions about a queue that may be full, as not all that was sent to it is confirmed; then RabbitMQ
#: is believed.
_PAUSES = 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.3, 0.0

#: How many queues are remembered.
_MOST_QUEUES = 10_000


class _Window(CapacityWindow):
    """The capacity window of one queue, which is asked about before it is used up.

    RabbitMQ counts a message at the latest when it confirms it.  What is not confirmed is added to its answers, so that
    a process never passes a capacity by itself.
    """

    __slots__ = ("_before", "_sent", "destination", "is_asking", "unconfirmed")

    def __init__(self, capacity: int, destination: Destination) -> None:
        super().__init__(capacity)
        self.destination = destination
        self.is_asking = False
        self.unconfirmed = 0
        self._before = 0  # what was not confirmed when it was asked
        self._sent = 0  # since

    def take(self, now: float) -> bool:
        """Take room for one message, if it is known to be there."""
        if self.left <= 0 or not self.is_fresh(now):
            return False
        self.left -= 1
        self._sent += 1
        self.unconfirmed += 1
        return True

    def wants_answer(self, now: float) -> bool:
        """Return whether to ask now, so that there is an answer before this one is used up or old."""
        return not self.is_asking and (self.left * 2 < self.capacity or now - self._asked > TRUSTED / 2)

    def ask(self) -> None:
        """Note that it is asked how many messages the queue holds."""
        self.is_asking = True
        self._before = self.unconfirmed
        self._sent = 0

    def answer(self, size: int, now: float) -> None:
        """Note how many messages the queue held."""
        self.is_asking = False
        self.open(size + self._before + self._sent, now)

    def count_as_confirmed(self, size: int, now: float) -> None:
        """Rely on an answer although it may not count what RabbitMQ takes long to confirm."""
        self.open(size + self._sent, now)

    def forget(self) -> None:
        """Rely on nothing any more."""
        self.is_asking = False
        self.close()


class AmqpSender(KombuSender):
    """Sends for a layer on RabbitMQ; what is rare goes through Kombu, as elsewhere.

    Args:
        layer: the layer.
        connections: how many connections of Kombu's may be in use at once.
    """

    def __init__(self, layer: KombuBroker, connections: int) -> None:
        super().__init__(layer, connections)
        self._encoder = MessageEncoder(layer)
        self._windows: dict[str, _Window] = {}
        self._windows_lock = threading.Lock()
        self._windows_pid = os.getpid()
        self._publisher = AmqpPublisher(layer, self._forget_windows)

    # -- sending ----------------------------------------------------------------------------

    def dispatch(self, envelopes: Mapping[str, list[Entry]], messages: Sequence[tuple[str, Send]]) -> None:
        batch = Batch()
        outgoing = _Outgoings(self._publisher)
        full = self._encode(envelopes, messages, batch, outgoing)
        self._send(outgoing)
        batch.close()
        if not batch.wait(DEADLINE * 2):
            raise BrokerUnavailable(shown(self._layer.url), f"nothing was confirmed for {DEADLINE * 2:g} s")
        if batch.error is not None:
            raise batch.error
        if full is not None:
            raise full

    def submit(self, sends: Sequence[Send], told: Callable[[int, Exception | None], None]) -> None:
        """Send each by itself, without waiting for confirmations; see :meth:`BaseChannelLayer.submit`."""
        outgoing = _Outgoings(self._publisher)
        batches: list[Batch] = []
        for place, send in enumerate(sends):
            batch: Batch = _Told(place, told)
            batches.append(batch)
            try:
                full = self._encode(*self._layer.sort((send,)), batch, outgoing)
                if full is not None:
                    batch.error = full
            except Exception as error:
                batch.error = error
        self._send(outgoing)
        for batch in batches:
            batch.close()

    def _send(self, outgoing: _Outgoings) -> None:
        outgoing.publish()
        for window in outgoing.wanting:
            self._ask_ahead(window)

    def _encode(
        self,
        envelopes: Mapping[str, list[Entry]],
        messages: Sequence[tuple[str, Send]],
        batch: Batch,
        outgoing: _Outgoings,
    ) -> ChannelFull | None:
        """Add the messages for which there is room; return ChannelFull for the first that has none."""
        full: ChannelFull | None = None
        for prefix, entries in envelopes.items():
            for part, body in pack_envelopes(entries):
                try:
                    window = self._admit_to(prefix, self._layer.reply_capacity(prefix), outgoing)
                except ChannelFull as error:
                    full = self._layer.refuse_envelope(part, error.capacity) or full
                    continue
                outgoing.messages.append(self._encoder.bare(window.destination, body, self._told_of(window, batch)))
        for channel, send in messages:
            try:
                window = self._admit_to(channel, self._layer.capacity_of(channel), outgoing)
            except ChannelFull as error:
                if send.group:
                    self._layer.note_dropped(send.target, channel)
                else:
                    full = full or error
                continue
            told = self._told_of(window, batch)
            if names.is_single_reader(channel):
                outgoing.messages.append(self._encoder.bare(window.destination, send.body, told))
            else:
                outgoing.messages.append(self._encoder.task(window.destination, send, told))
        return full

    def _told_of(self, window: _Window, batch: Batch) -> Callable[[Exception | None], None]:
        """Return what is to be told of one more message of a batch."""
        told = batch.add()

        def tell(error: Exception | None) -> None:
            with self._windows_lock:
                window.unconfirmed -= 1
            told(error)

        return tell

    # -- capacity ---------------------------------------------------------------------------

    def _admit_to(self, channel: str, capacity: int, outgoing: _Outgoings) -> _Window:
        """Return the window of a channel, or of a process's (``"name.process!"``), in which room is taken.

        Raises:
            ChannelFull: there is none.
        """
        now = time.monotonic()
        with self._windows_lock:
            window = self._windows.get(channel)
            taken = window is not None and window.take(now)
            if window is not None and taken and window.wants_answer(now):
                window.ask()
                outgoing.wanting.append(window)
        if window is None:
            window = self._new_window(channel, capacity)
        if not taken:
            outgoing.publish()  # so that it is confirmed soon
            self._wait_for_room(window, channel)
        return window

    def _wait_for_room(self, window: _Window, channel: str) -> None:
        """Take room for one message; raise ChannelFull if the queue has none."""
        for pause in _PAUSES:
            with self._windows_lock:
                window.ask()
            depth = self._depth_of(window.destination)
            now = time.monotonic()
            with self._windows_lock:
                window.answer(depth, now)
                if not pause and depth < window.capacity:
                    window.count_as_confirmed(depth, now)
                if window.take(now):
                    return
            if depth >= window.capacity:
                break
            time.sleep(pause)  # what is not confirmed may be waiting there, or be read already
        raise ChannelFull(channel, window.capacity)

    def _new_window(self, channel: str, capacity: int) -> _Window:
        layer = self._layer
        queue = layer.reply_queue(channel[:-1]) if channel[-1] == "!" else layer.queue(channel)
        layer.use(queue)
        window = _Window(capacity, self._encoder.destination(queue, channel))
        with self._windows_lock:
            if len(self._windows) > _MOST_QUEUES:
                self._windows.clear()
            self._windows[channel] = window
        return window

    def _ask_ahead(self, window: _Window) -> None:
        def answer(depth: int, error: Exception | None) -> None:
            with self._windows_lock:
                if error is None:
                    window.answer(depth, time.monotonic())
                else:
                    window.forget()

        self._publisher.ask(window.destination, answer)

    def _depth_of(self, destination: Destination) -> int:
        """Declare a queue, and return how many messages wait there.

        Raises:
            BrokerUnavailable: RabbitMQ does not answer, or does not do that.
        """
        answered = threading.Event()
        found: list[tuple[int, Exception | None]] = []

        def answer(depth: int, error: Exception | None) -> None:
            found.append((depth, error))
            answered.set()

        self._publisher.ask(destination, answer)
        if not answered.wait(DEADLINE):
            raise BrokerUnavailable(shown(self._layer.url), f"it did not answer for {DEADLINE:g} s")
        depth, error = found[0]
        if error is not None:
            raise error
        return depth

    def depth(self, queue: Queue) -> int:
        return self._depth_of(self._encoder.destination(queue, queue.name))

    def _forget_windows(self) -> None:
        if self._windows_pid != os.getpid():
            # What is not confirmed there is the parent's.
            self._windows_pid, self._windows_lock, self._windows = os.getpid(), threading.Lock(), {}
        with self._windows_lock:
            for window in self._windows.values():
                window.forget()

    def forget(self) -> None:
        super().forget()
        self._forget_windows()

    def forget_depths(self) -> None:
        super().forget_depths()
        self._forget_windows()

    def close(self) -> None:
        super().close()
        self._publisher.close()


class _Outgoings:
    """Messages that are written together.

    Args:
        publisher: the process's.
    """

    def __init__(self, publisher: AmqpPublisher) -> None:
        self._publisher = publisher
        self.messages: list[Outgoing] = []
        #: The windows that are to be asked about when these are written.
        self.wanting: list[_Window] = []

    def publish(self) -> None:
        """Have those published that were not."""
        if self.messages:
            messages, self.messages = self.messages, []
            self._publisher.publish(messages)


class _Told(Batch):
    """What one send is made of.

    Args:
        place: the send's among others.
        told: called with the place, and what became of it.
    """

    def __init__(self, place: int, told: Callable[[int, Exception | None], None]) -> None:
        super().__init__(lambda: told(place, self.error))
