"""Messages as RabbitMQ delivers them: put together from frames, and read as far as somebody asks.  No I/O."""

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

#: A message's id, and how often it was retried: another try has the same id.
Key = tuple[Any, Any]

#: Headers in front of those that are the same for many messages; the id's length, and the id, follow.
_ID, _ROOT = b"\x02idS\0\0\0", b"\x07root_idS\0\0\0"

#: Property flags of a channel's message: content type and encoding, headers, delivery mode, correlation id, expiration.
_TASK = b"\xf5\0"

#: What the properties begin with.
_BODY_IS = amqp_frames.short_string(CONTENT_TYPE) + amqp_frames.short_string("binary")

#: How many kinds of headers are remembered.
_MOST_SHAPES = 1000


class AmqpDelivery:
    """A message that a source holds.

    Args:
        tag: its delivery tag.
        queue: the queue that it came from.
        redelivered: whether it was delivered before.
        header: the payload of its header frame.
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
        #: The number of the connection that it came by.
        self.number = 0
        #: Its id, if it has the headers of a channel's message and no others; else None.
        self.identity: str | None = None
        self.key: Key = (None, 0)
        #: The header ``eta``.
        self.eta: Any = None
        #: When it came, by the monotonic clock.
        self.since = 0.0
        #: Whether its consumer is done, or it is not run.
        self.is_settled = False
        #: What is to be sent before it is acknowledged, whether that is under way, and whether it is confirmed.
        self.outbox: AmqpOutbox | None = None
        self.is_sending = self.is_sent = False
        self.is_acknowledged = False
        #: See :mod:`channelsq.layers.contract.death_marks`.
        self.marks: tuple[str, ...] = ()
        self.to_come = 0  # bytes of its body


class Assembler:
    """Puts deliveries together from the frames of an AMQP channel."""

    def __init__(self) -> None:
        self._next: AmqpDelivery | None = None
        self._parts: list[bytes] = []
        self._shapes: dict[tuple[bytes, bytes], bool] = {}

    def add(self, frame: Frame) -> AmqpDelivery | None:
        """Take a frame of a delivery, and return the delivery if that is complete."""
        delivery = self._next
        if frame.type == amqp_frames.METHOD:
            self._next = AmqpDelivery(*amqp_frames.read_delivery(frame.payload), b"", b"")
            return None
        assert delivery is not None  # after its first frame come the others
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
        """Note the id of a delivery, and whether it has the headers of a channel's message and no others."""
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
    """Return the id in a header frame, and what stands before and behind it; None for other forms."""
    if header[12:14] != _TASK or not header.startswith(_BODY_IS, 14):
        return None
    start = 14 + len(_BODY_IS)
    end = start + 4 + int.from_bytes(header[start : start + 4], "big")
    at = header.find(_ID, start, end)
    if at < 0:
        return None
    first = at + len(_ID)
    behind = first + 1 + header[first]
    identity = header[first:behind]  # with its length
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
    """Return the headers of a message, by its header frame; none if they cannot be read."""
    try:
        headers = _message(header).properties.get("application_headers")
    except Exception:  # whatever py-amqp raises for what is no table
        return {}
    return headers if isinstance(headers, dict) else {}


def kombu_message(delivery: AmqpDelivery, accept: Collection[str]) -> KombuMessage:
    """Return a delivery as Kombu's message.

    Raises:
        ValueError: it cannot be unpacked.
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
    except Exception as error:  # whatever py-amqp, or a way of compression, raises
        raise ValueError(f"it cannot be unpacked: {error!r}") from None
    if not isinstance(found.headers, dict):
        raise ValueError("its headers are no table")
    return found
