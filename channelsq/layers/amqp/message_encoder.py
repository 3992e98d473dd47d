"""A layer's messages for RabbitMQ: the forms of :mod:`channelsq.layers.wire.wire_forms`, encoded for AMQP.

Other Kombu programs read them as if Kombu had published them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from kombu import Queue
from kombu.transport.base import to_rabbitmq_queue_arguments  # type: ignore[attr-defined]  # not in its stubs

from channelsq.core.names import new_id
from channelsq.layers.amqp import amqp_frames
from channelsq.layers.amqp.publication import Destination, Publication
from channelsq.layers.contract.layer_values import Send
from channelsq.layers.kombu_broker.broker_access import KombuBroker
from channelsq.layers.wire.wire_forms import CONTENT_TYPE, task_body, task_message

#: Kombu's name for the content encoding of bytes.
_BINARY = "binary"

#: Delivery modes: for a message that survives a restart of the broker, and for others.
_PERSISTENT, _TRANSIENT = 2, 1

#: The placeholder of a message's id while the rest of its headers is encoded.
_ANY = "\0"

Callback = Callable[[Exception | None], None]


class _Form(NamedTuple):
    """The encoded properties that all messages of a channel share: the parts around the ids."""

    before: bytes
    between: bytes
    after: bytes
    expiration: bytes


class MessageEncoder:
    """Encodes the messages of a layer.

    Args:
        layer: the layer.
    """

    def __init__(self, layer: KombuBroker) -> None:
        self._layer = layer
        self._forms: dict[str, _Form] = {}
        self._start = amqp_frames.short_string(CONTENT_TYPE) + amqp_frames.short_string(_BINARY)

    def destination(self, queue: Queue, channel: str) -> Destination:
        """Return the destination for the messages of a queue."""
        described: Any = queue  # its stub lacks "expires"
        arguments = to_rabbitmq_queue_arguments(described.queue_arguments or {}, expires=described.expires)
        return Destination(queue.name, channel, arguments)

    def task(self, destination: Destination, send: Send, callback: Callback) -> Publication:
        """Return the message for a channel that workers consume."""
        layer, channel, queue = self._layer, destination.channel, destination.queue
        identity = send.identity or new_id()
        if send.delay:
            headers, body = task_message(
                channel, queue, send.body,
                delay=send.delay, expiry=layer.expiry, identity=identity, protection=layer.protection,
            )  # fmt: skip
            encoded = amqp_frames.properties(
                CONTENT_TYPE, _BINARY, headers,
                delivery_mode=_PERSISTENT, expiration=_ms(layer.expiry + send.delay), correlation_id=identity,
            )  # fmt: skip
            return Publication(destination, identity, encoded, body, callback)
        form = self._forms.get(queue) or self._new_form(channel, queue)
        short = amqp_frames.short_string(identity)
        long = b"S\0\0\0" + short
        table = b"%b%b%b%b%b" % (form.before, long, form.between, long, form.after)
        # 0xf500: content type, content encoding, headers, delivery mode, correlation id, expiration.
        encoded = b"\xf5\x00%b%b%b%c%b%b" % (
            self._start, len(table).to_bytes(4, "big"), table, _PERSISTENT, short, form.expiration
        )  # fmt: skip
        body = task_body(channel, queue, send.body, identity, layer.expiry, layer.protection)
        return Publication(destination, identity, encoded, body, callback)

    def bare(self, destination: Destination, body: bytes, callback: Callback) -> Publication:
        """Return the message for a ``?`` channel, or a process's reply queue."""
        layer = self._layer
        if layer.protection.is_on:
            body = layer.protection.bare(destination.queue, body, layer.expiry * 1000)
        identity = new_id()  # identifies duplicates
        encoded = amqp_frames.properties(
            CONTENT_TYPE, _BINARY, {},
            delivery_mode=_TRANSIENT, expiration=_ms(layer.expiry), message_id=identity,
        )  # fmt: skip
        return Publication(destination, identity, encoded, body, callback)

    def _new_form(self, channel: str, queue: str) -> _Form:
        layer = self._layer
        headers, _ = task_message(channel, queue, b"\x80", delay=0, expiry=layer.expiry, identity=_ANY)
        before, between, after = amqp_frames.table(headers)[4:].split(b"S\0\0\0\x01" + _ANY.encode())
        if len(self._forms) > 1000:
            self._forms.clear()
        form = _Form(before, between, after, amqp_frames.short_string(_ms(layer.expiry)))
        self._forms[queue] = form
        return form


def _ms(seconds: float) -> str:
    return str(int(seconds * 1000))
