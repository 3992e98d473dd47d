"""Sending on RabbitMQ: the messages of many sends and threads are written and confirmed together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from kombu import Queue

from channelsq.core import names
from channelsq.exceptions import BrokerUnavailable, ChannelFull
from channelsq.layers.amqp.amqp_capacity import Admission, Publications
from channelsq.layers.amqp.message_encoder import MessageEncoder
from channelsq.layers.amqp.publication import DEADLINE, Batch, Destination, Publication
from channelsq.layers.contract.broker_urls import shown
from channelsq.layers.contract.layer_values import Send
from channelsq.layers.contract.outbox import Outbox, collected_here
from channelsq.layers.kombu_broker.broker_access import KombuBroker
from channelsq.layers.kombu_broker.kombu_sender import KombuSender
from channelsq.layers.wire.wire_forms import Entry, pack_envelopes


class AmqpOutbox(Outbox):
    """The messages of one consumer, to be confirmed before its message is acknowledged."""

    __slots__ = ("envelopes", "messages")

    def __init__(self, layer: object) -> None:
        super().__init__(layer)
        self.envelopes: dict[str, list[Entry]] = {}
        self.messages: list[tuple[str, Send]] = []

    def __bool__(self) -> bool:
        return bool(self.envelopes or self.messages)


class AmqpSender(KombuSender):
    """The sender of a layer on RabbitMQ; rare operations use Kombu, as on other brokers.

    Args:
        layer: the layer.
        connections: the most connections of Kombu that may be in use at once.
    """

    def __init__(self, layer: KombuBroker, connections: int) -> None:
        super().__init__(layer, connections)
        self._encoder = MessageEncoder(layer)
        self._admission = Admission(layer, self._encoder.destination)

    # -- sending

    def dispatch(self, envelopes: Mapping[str, list[Entry]], messages: Sequence[tuple[str, Send]]) -> None:
        batch = Batch()
        outgoing = Publications(self._admission.publisher)
        full = self._encode(envelopes, messages, batch, outgoing)
        self._admission.publish(outgoing)
        batch.close()
        if not batch.wait(DEADLINE * 2):
            raise BrokerUnavailable(shown(self._layer.url), f"nothing was confirmed for {DEADLINE * 2:g} s")
        if isinstance(batch.error, ChannelFull):  # RabbitMQ itself has refused the message
            raise self._layer.tally.count_full(batch.error)
        if batch.error is not None:
            raise batch.error
        if full is not None:
            raise self._layer.tally.count_full(full)

    def submit(self, sends: Sequence[Send], told: Callable[[int, Exception | None], None]) -> None:
        """Send each message by itself, without waiting for confirmations; see :meth:`BaseChannelLayer.submit`."""

        def tell(place: int, error: Exception | None) -> None:
            if isinstance(error, ChannelFull):
                self._layer.tally.count_full(error)
            told(place, error)

        outgoing = Publications(self._admission.publisher)
        batches: list[Batch] = []
        for place, send in enumerate(sends):
            batch: Batch = _SendBatch(place, tell)
            batches.append(batch)
            try:
                full = self._encode(*self._layer.sort((send,)), batch, outgoing)
                if full is not None:
                    batch.error = full
            except Exception as error:
                batch.error = error
        self._admission.publish(outgoing)
        for batch in batches:
            batch.close()

    def settle(self, sends: Sequence[Send]) -> None:
        """Send before the current consumer's message is acknowledged; now, if it came from elsewhere."""
        envelopes, messages = self._layer.sort(sends)
        outbox = collected_here.get()
        if not isinstance(outbox, AmqpOutbox) or outbox.layer is not self._layer:
            self.dispatch(envelopes, messages)
            return
        full: ChannelFull | None = None
        for prefix, entries in envelopes.items():
            try:
                self._admission.admit_later(prefix, self._layer.reply_capacity(prefix))
            except ChannelFull as error:
                full = self._layer.refuse_envelope(entries, error.capacity) or full
            else:
                outbox.envelopes.setdefault(prefix, []).extend(entries)
        for channel, send in messages:
            try:
                self._admission.admit_later(channel, self._layer.capacity_of(channel))
            except ChannelFull as error:
                if send.group:
                    self._layer.note_dropped(send.target, channel)
                else:
                    full = full or error
            else:
                outbox.messages.append((channel, send))
        if full is not None:
            raise self._layer.tally.count_full(full)

    def send_outboxes(self, outboxes: Sequence[AmqpOutbox], done: Callable[[Exception | None], None]) -> None:
        """Send the messages of consumers; those for one process share envelopes.

        Args:
            outboxes: the consumers' outboxes.
            done: called, in any thread, when all messages are confirmed, or one could not be sent.
        """
        envelopes: dict[str, list[Entry]] = {}
        messages: list[tuple[str, Send]] = []
        for outbox in outboxes:
            for prefix, entries in outbox.envelopes.items():
                envelopes.setdefault(prefix, []).extend(entries)
            messages += outbox.messages
        batch = Batch(lambda: done(batch.error))
        outgoing: list[Publication] = []
        for prefix, entries in envelopes.items():
            destination = self._admission.place_of(prefix)
            outgoing += [self._encoder.bare(destination, body, batch.add()) for _, body in pack_envelopes(entries)]
        for channel, send in messages:
            destination = self._admission.place_of(channel)
            if names.is_single_reader(channel):
                outgoing.append(self._encoder.bare(destination, send.body, batch.add()))
            else:
                outgoing.append(self._encoder.task(destination, send, batch.add()))
                self._layer.tally.count_sent(channel)
        self._admission.publisher.publish(outgoing)
        batch.close()

    def place_of(self, channel: str) -> Destination:
        """Return the destination of messages to a channel."""
        return self._admission.place_of(channel)

    def publish_copy(
        self, queue: str, header: bytes, body: bytes, identity: str, done: Callable[[Exception | None], None]
    ) -> None:
        """Publish a message from a queue again, unchanged.

        Args:
            queue: the queue.
            header: the payload of the header frame.
            body: the body.
            identity: the message's id.
            done: called, in any thread, with the error, or None.
        """
        channel = queue.removeprefix(self._layer.queue_prefix)
        self._admission.publisher.publish(
            (Publication(self._admission.place_of(channel), identity, header[12:], body, done),)
        )

    def _encode(
        self,
        envelopes: Mapping[str, list[Entry]],
        messages: Sequence[tuple[str, Send]],
        batch: Batch,
        outgoing: Publications,
    ) -> ChannelFull | None:
        """Add the messages whose channels are not full; return ChannelFull for the first other one."""
        full: ChannelFull | None = None
        for prefix, entries in envelopes.items():
            for part, body in pack_envelopes(entries):
                try:
                    window = self._admission.admit(prefix, self._layer.reply_capacity(prefix), outgoing)
                except ChannelFull as error:
                    full = self._layer.refuse_envelope(part, error.capacity) or full
                    continue
                outgoing.messages.append(
                    self._encoder.bare(window.destination, body, self._admission.callback_of(window, batch))
                )
        for channel, send in messages:
            try:
                window = self._admission.admit(channel, self._layer.capacity_of(channel), outgoing)
            except ChannelFull as error:
                if send.group:
                    self._layer.note_dropped(send.target, channel)
                else:
                    full = full or error
                continue
            callback = self._admission.callback_of(window, batch)
            if names.is_single_reader(channel):
                outgoing.messages.append(self._encoder.bare(window.destination, send.body, callback))
            else:
                outgoing.messages.append(self._encoder.task(window.destination, send, callback))
                self._layer.tally.count_sent(channel)
        return full

    def depth(self, queue: Queue) -> int:
        return self._admission.depth_of(self._encoder.destination(queue, queue.name))

    def forget(self) -> None:
        super().forget()
        self._admission.forget()

    def forget_depths(self) -> None:
        super().forget_depths()
        self._admission.forget()

    def close(self) -> None:
        super().close()
        self._admission.publisher.close()


class _SendBatch(Batch):
    """The messages of one send.

    Args:
        place: the index of the send.
        callback: called with the index, and the error or None.
    """

    def __init__(self, place: int, callback: Callable[[int, Exception | None], None]) -> None:
        super().__init__(lambda: callback(place, self.error))
