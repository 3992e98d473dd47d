"""The frames of AMQP 0-9-1 for the messages of a layer.  No I/O.

py-amqp opens connections and handles rare methods.  The frames of each message are encoded and decoded here; py-amqp
takes some 100 us for a message, in either direction.  The specification is
https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf; names are those of its methods.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

from amqp.basic_message import Message
from amqp.exceptions import UnexpectedFrame

#: The types of frames.
METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8

#: Methods: their class and number.
CONNECTION_CLOSE = (10, 50)
CHANNEL_OPEN, CHANNEL_OPEN_OK = (20, 10), (20, 11)
CHANNEL_CLOSE, CHANNEL_CLOSE_OK = (20, 40), (20, 41)
CONFIRM_SELECT, CONFIRM_SELECT_OK = (85, 10), (85, 11)
QUEUE_DECLARE, QUEUE_DECLARE_OK = (50, 10), (50, 11)
BASIC_PUBLISH, BASIC_RETURN, BASIC_DELIVER = (60, 40), (60, 50), (60, 60)
BASIC_QOS, BASIC_QOS_OK = (60, 10), (60, 11)
BASIC_CONSUME, BASIC_CONSUME_OK, BASIC_CANCEL = (60, 20), (60, 21), (60, 30)
BASIC_ACK, BASIC_REJECT, BASIC_NACK = (60, 80), (60, 90), (60, 120)

#: The size of a frame without its payload, in bytes.
_AROUND = 8

_END = 0xCE
_start = struct.Struct(">BHI")
_signature = struct.Struct(">HH")
_content = struct.Struct(">BHIHHQ")
_tag = struct.Struct(">QB")


class Frame(NamedTuple):
    """A received frame."""

    type: int
    channel: int
    payload: bytes

    @property
    def method(self) -> tuple[int, int]:
        """The method's class and number; for frames of the type METHOD."""
        first, second = _signature.unpack_from(self.payload)
        return first, second


class FrameReader:
    """Splits received bytes into frames.

    Args:
        frame_max: the negotiated size of the largest frame.
    """

    def __init__(self, frame_max: int) -> None:
        self._frame_max = frame_max
        self._rest = b""

    def feed(self, data: bytes) -> list[Frame]:
        """Add received bytes, and return the frames that are complete now.

        Raises:
            UnexpectedFrame: the bytes are not valid frames.
        """
        if self._rest:
            data = self._rest + data
        frames, at, size = [], 0, len(data)
        while size - at >= _AROUND:
            kind, channel, length = _start.unpack_from(data, at)
            end = at + 7 + length
            if length + _AROUND > self._frame_max:
                raise UnexpectedFrame(f"a frame of {length} bytes, where {self._frame_max} were agreed on")
            if end >= size:
                break
            if data[end] != _END:
                raise UnexpectedFrame(f"a frame ends with {data[end]:#04x}")
            frames.append(Frame(kind, channel, data[at + 7 : end]))
            at = end + 1
        self._rest = data[at:]
        return frames


# -- values


def short_string(text: str) -> bytes:
    """Encode a string of at most 255 bytes.

    Raises:
        ValueError: it is longer.
    """
    data = text.encode()
    if len(data) > 255:
        raise ValueError(f"AMQP takes names of at most 255 bytes, not {text!r:.80}")
    return b"%c%b" % (len(data), data)


def table(values: Mapping[str, Any]) -> bytes:
    """Encode a table of None, bool, int, float, str, bytes, lists and dicts."""
    fields = b"".join([_key(key) + _value(value) for key, value in values.items()])
    return len(fields).to_bytes(4, "big") + fields


_keys: dict[str, bytes] = {}


def _key(key: str) -> bytes:
    found = _keys.get(key)
    if found is None:
        found = short_string(key)
        if len(_keys) < 1000:
            _keys[key] = found
    return found


def _value(value: Any) -> bytes:
    if isinstance(value, str):
        data = value.encode()
        return b"S%b%b" % (len(data).to_bytes(4, "big"), data)
    if value is None:
        return b"V"
    if isinstance(value, bool):
        return b"t\x01" if value else b"t\x00"
    if isinstance(value, int):
        return b"I" + value.to_bytes(4, "big", signed=True) if abs(value) < 2**31 else struct.pack(">cq", b"l", value)
    if isinstance(value, float):
        return struct.pack(">cd", b"d", value)
    if isinstance(value, bytes):
        return b"S%b%b" % (len(value).to_bytes(4, "big"), value)
    if isinstance(value, Mapping):
        return b"F" + table(value)
    items = b"".join(map(_value, value))
    return b"A%b%b" % (len(items).to_bytes(4, "big"), items)


# -- methods


def method(channel: int, signature: tuple[int, int], arguments: bytes = b"") -> bytes:
    """Encode the frame of a method."""
    payload = _signature.pack(*signature) + arguments
    return b"%b%b\xce" % (_start.pack(METHOD, channel, len(payload)), payload)


def declare(channel: int, queue: str, arguments: Mapping[str, Any]) -> bytes:
    """Encode ``queue.declare`` for a durable queue; the answer contains the number of waiting messages."""
    return method(channel, QUEUE_DECLARE, b"\0\0" + short_string(queue) + b"\x02" + table(arguments))


def consume(channel: int, queue: str, consumer_tag: str, *, no_wait: bool = False) -> bytes:
    """Encode ``basic.consume`` for messages that need acknowledgement."""
    bits = b"\x08" if no_wait else b"\0"
    return method(
        channel, BASIC_CONSUME, b"\0\0" + short_string(queue) + short_string(consumer_tag) + bits + b"\0\0\0\0"
    )


def cancel(channel: int, consumer_tag: str) -> bytes:
    """Encode ``basic.cancel``, which has no answer."""
    return method(channel, BASIC_CANCEL, short_string(consumer_tag) + b"\x01")


def qos(channel: int, count: int, *, is_global: bool) -> bytes:
    """Encode ``basic.qos``, the prefetch limit.

    Args:
        channel: the AMQP channel.
        count: the number.
        is_global: whether the limit is for all consumers of the channel together; else for each later consumer.
    """
    return method(channel, BASIC_QOS, b"\0\0\0\0" + min(count, 65535).to_bytes(2, "big") + b"%c" % is_global)


def acknowledge(channel: int, delivery_tag: int, *, multiple: bool = False) -> bytes:
    """Encode ``basic.ack``."""
    return method(channel, BASIC_ACK, _tag.pack(delivery_tag, multiple))


def reject(channel: int, delivery_tag: int, *, requeue: bool) -> bytes:
    """Encode ``basic.reject``."""
    return method(channel, BASIC_REJECT, _tag.pack(delivery_tag, requeue))


def publish_method(channel: int, queue: str) -> bytes:
    """Encode ``basic.publish`` to a queue, which the broker must return if the queue does not exist."""
    return method(channel, BASIC_PUBLISH, b"\0\0\0" + short_string(queue) + b"\x01")


def properties(
    content_type: str,
    content_encoding: str,
    headers: Mapping[str, Any],
    *,
    delivery_mode: int,
    expiration: str,
    correlation_id: str = "",
    message_id: str = "",
) -> bytes:
    """Encode the properties of a message.

    Args:
        content_type: the body's type.
        content_encoding: the body's encoding.
        headers: the headers.
        delivery_mode: 2 for a message that survives a restart of the broker, 1 for others.
        expiration: ms.
        correlation_id, message_id: empty for none.
    """
    flags = 0x8000 | 0x4000 | 0x2000 | 0x1000 | 0x0100
    parts = [_key(content_type), _key(content_encoding), table(headers), b"%c" % delivery_mode]
    if correlation_id:
        flags |= 0x0400
        parts.append(short_string(correlation_id))
    parts.append(short_string(expiration))
    if message_id:
        flags |= 0x0080
        parts.append(short_string(message_id))
    return flags.to_bytes(2, "big") + b"".join(parts)


def content(channel: int, encoded: bytes, body: bytes, frame_max: int) -> bytes:
    """Encode the frames of a message's encoded properties and of its body."""
    header = _content.pack(HEADER, channel, 12 + len(encoded), 60, 0, len(body)) + encoded
    most = frame_max - _AROUND
    if 0 < len(body) <= most:
        return b"%b\xce%b%b\xce" % (header, _start.pack(BODY, channel, len(body)), body)
    parts = [header, b"\xce"]
    for at in range(0, len(body), most):
        part = body[at : at + most]
        parts += (_start.pack(BODY, channel, len(part)), part, b"\xce")
    return b"".join(parts)


# -- received frames


def read_tag(payload: bytes) -> tuple[int, bool]:
    """Return the tag of a ``basic.ack`` or ``basic.nack``, and whether it includes all earlier tags."""
    tag, bits = _tag.unpack_from(payload, 4)
    return tag, bool(bits & 1)


def read_declared(payload: bytes) -> int:
    """Return the number of waiting messages in a ``queue.declare-ok``."""
    end = 5 + payload[4]
    return int.from_bytes(payload[end : end + 4], "big")


def read_close(payload: bytes) -> tuple[int, str]:
    """Return the code and the text of a ``channel.close``."""
    return int.from_bytes(payload[4:6], "big"), payload[7 : 7 + payload[6]].decode("utf-8", "replace")


def read_delivery(payload: bytes) -> tuple[int, str, bool]:
    """Return the tag of a ``basic.deliver``, the queue, and whether the message was delivered before."""
    at = 5 + payload[4]
    tag, redelivered = _tag.unpack_from(payload, at)
    at += 10 + payload[at + 9]
    return tag, payload[at + 1 : at + 1 + payload[at]].decode("utf-8", "replace"), bool(redelivered & 1)


def message_identity(header: bytes) -> str:
    """Return the id in a message's header frame: its ``message_id``, or its ``correlation_id``."""
    message: Any = Message()
    message.inbound_header(header)
    return str(message.properties.get("message_id") or message.properties.get("correlation_id") or "")
