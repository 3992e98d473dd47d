"""Messages as RabbitMQ delivers them: assembled from frames, and decoded on demand.  No I/O."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from amqp.basic_message import Message as AmqpMessage
from kombu.transport.pyamqp import Message as KombuMessage

from channelsq.core.wire_version import NEEDS_HEADER
from channelsq.layers.amqp import amqp_frames
from channelsq.layers.amqp.amqp_frames import Frame
from channelsq.layers.amqp.amqp_sender import AmqpOutbox
from channelsq.layers.wire.wire_forms import CONTENT_TYPE

#: A message's id, and the number of its retries: a retry has the same id.
Key = tuple[Any, Any]

#: The start of the headers that many messages share; the id's length, and the id, follow.
_ID, _ROOT = b"\x02idS\0\0\0", b"\x07root_idS\0\0\0"

#: Property flags of a channel's message: content type and encoding, headers, delivery mode, correlation id, expiration.
_TASK = b"\xf5\0"

#: The start of the properties.
_BODY_IS = amqp_frames.short_string(CONTENT_TYPE) + amqp_frames.short_string("binary")

#: The most forms of headers that are remembered.
_MOST_SHAPES = 1000


class AmqpDelivery:
    """A message that a source holds.

    Args:
        tag: the delivery tag.
        queue: the queue of the message.
        redelivered: whether it was delivered before.
        header: the payload of the header frame.
        body: the body.
    """

    __slots__ = (
        "body", "eta", "header", "identity", "is_acknowledged", "is_sending", "is_sent", "is_settled", "key", "marks",
        "number", "outbox", "queue", "redelivered", "since", "tag", "to_come",
    )  # fmt: skip

    def __init__(self, tag: int, queue: str, redelivered: bool, header: bytes, body: bytes) -> None:
        self.tag = tag
        self.queue = queue
        self.redelivered = redelivered
        self.header = header
        self.body = body
        #: The number of the connection of the delivery.
        self.number = 0
        #: The message's id, if it has exactly the headers of a channel's message; else None.
        self.identity: str | None = None
        self.key: Key = (None, 0)
        #: The header ``eta``.
        self.eta: Any = None
        #: The time of arrival, by the monotonic clock.
        self.since = 0.0
        #: Whether its consumer is done, or it does not run.
        self.is_settled = False
        #: The messages to send before it is acknowledged, whether they are being sent, and whether they are confirmed.
        self.outbox: AmqpOutbox | None = None
        self.is_sending = self.is_sent = False
        self.is_acknowledged = False
        #: See :mod:`channelsq.layers.contract.death_marks`.
        self.marks: tuple[str, ...] = ()
        self.to_come = 0  # the missing bytes of its body


class Assembler:
    """Assembles deliveries from the frames of an AMQP channel."""

    def __init__(self) -> None:
        self._next: AmqpDelivery | None = None
        self._parts: list[bytes] = []
        self._shapes: dict[tuple[bytes, bytes], bool] = {}

    def add(self, frame: Frame) -> AmqpDelivery | None:
        """Add a frame of a delivery, and return the delivery if it is complete."""
        delivery = self._next
        if frame.type == amqp_frames.METHOD:
            self._next = AmqpDelivery(*amqp_frames.read_delivery(frame.payload), b"", b"")
            return None
        assert delivery is not None  # the other frames follow the first one
        if frame.type == amqp_frames.HEADER:
            delivery.header = frame.payload
            delivery.to_come = int.from_bytes(frame.payload[4:12], "big")
            if delivery.to_come:
                return None
        else:
            delivery.to_come -= len(frame.payload)
            if delivery.to_come > 0 or self._parts:
                self._parts.append(frame.payload)
                if delivery.to_come > 0:
                    return None
                delivery.body = b"".join(self._parts)
                self._parts.clear()
            else:
                delivery.body = frame.payload
        self._next = None
        self._identify(delivery)
        return delivery

    def _identify(self, delivery: AmqpDelivery) -> None:
        """Set the id of a delivery that has exactly the headers of a channel's message."""
        found = _split(delivery.header)
        if found is None:
            headers = read_headers(delivery.header)
            delivery.key = headers.get("id"), headers.get("retries") or 0
            delivery.eta = headers.get("eta")
            return
        identity, before, after = found
        shape = before, after
        is_plain = self._shapes.get(shape)
        if is_plain is None:
            headers = read_headers(delivery.header)
            is_plain = (
                headers.get("task") == delivery.queue
                and not (headers.get("retries") or headers.get("eta") or headers.get("expires"))
                and not headers.get("redelivered")
                and NEEDS_HEADER not in headers
                and "compression" not in headers
            )
            if len(self._shapes) < _MOST_SHAPES:
                self._shapes[shape] = is_plain
        if is_plain:
            delivery.identity = identity
            delivery.key = identity, 0
        else:
            headers = read_headers(delivery.header)
            delivery.key = headers.get("id"), headers.get("retries") or 0
            delivery.eta = headers.get("eta")


def _split(header: bytes) -> tuple[str, bytes, bytes] | None:
    """Return the id in a header frame, and the bytes before and after it; None for other forms."""
    if header[12:14] != _TASK or not header.startswith(_BODY_IS, 14):
        return None
    start = 14 + len(_BODY_IS)
    end = start + 4 + int.from_bytes(header[start : start + 4], "big")
    at = header.find(_ID, start, end)
    if at < 0:
        return None
    first = at + len(_ID)
    behind = first + 1 + header[first]
    identity = header[first:behind]  # including its length
    if header[behind : behind + len(_ROOT) + len(identity)] != _ROOT + identity:
        return None
    try:
        return identity[1:].decode(), header[start + 4 : at], header[behind + len(_ROOT) + len(identity) : end]
    except UnicodeDecodeError:
        return None


def _message(header: bytes) -> Any:
    message: Any = AmqpMessage()
    message.inbound_header(header)
    return message


def read_headers(header: bytes) -> dict[str, Any]:
    """Return the headers in a message's header frame; an empty dict if they cannot be decoded."""
    try:
        headers = _message(header).properties.get("application_headers")
    except Exception:  # py-amqp raises various errors for an invalid table
        return {}
    return headers if isinstance(headers, dict) else {}


def kombu_message(delivery: AmqpDelivery, accept: Collection[str]) -> KombuMessage:
    """Return a delivery as Kombu's message.

    Raises:
        ValueError: it cannot be decoded.
    """
    try:
        message = _message(delivery.header)
        message.body = delivery.body
        message.delivery_info = {
            "delivery_tag": delivery.tag,
            "exchange": "",
            "redelivered": delivery.redelivered,
            "routing_key": delivery.queue,
        }
        found: KombuMessage = KombuMessage(message, channel=None, accept=set(accept))
    except Exception as error:  # py-amqp and the compression may raise any error
        raise ValueError(f"it cannot be unpacked: {error!r}") from None
    if not isinstance(found.headers, dict):
        raise ValueError("its headers are no table")
    return found
