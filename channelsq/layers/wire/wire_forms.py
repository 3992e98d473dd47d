"""The forms of a Kombu channel layer's messages on the broker.

* A channel without a type character is a queue of the same name, after the layer's prefix if there is one.  A
  message on it is a Celery task message (protocol 2).  Its task has the name of the queue and the arguments
  ``[channel, content]``, so that a Celery worker can consume it unchanged.
* A ``?`` channel is such a queue that expires when unused; a message on it is msgpack.
* All ``!`` channels of a process share one such queue; its name is the part before the ``!``.  A message on it is
  an *envelope*: a msgpack list of ``[channels, packed message, group or None, order or None]``.  One envelope holds all
  messages that one consumer sends to one process, or a group's message to all its members there.  An order stands for
  a further message to the same channel after this one, ``{"done": order}``.  Readers accept an entry without an order,
  and ignore items that a newer process has added after it.
"""

from __future__ import annotations

import datetime
import functools
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from channelsq.layers.wire import codec
from channelsq.layers.wire.protection import NONE, Protection

if TYPE_CHECKING:
    from channelsq.layers.wire.shared_clock import Clock

CONTENT_TYPE = "application/x-msgpack"

#: The header with the expiry of a message, by the layer's clock.  It is set only if the broker does not expire such
#: messages itself.
EXPIRES_HEADER = "channelsq_expires"

#: Envelopes are split at about this many bytes, so that the size of a broker message is bounded.
ENVELOPE_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True)
class PackedNames:
    """Names of channels as a msgpack list, which only the process that has them unpacks."""

    packed: bytes

    def __iter__(self) -> Iterator[str]:
        return iter(codec.loads(self.packed))

    def __len__(self) -> int:
        return len(codec.loads(self.packed))


#: Names of channels of one process.
Names = list[str] | PackedNames


class Entry(NamedTuple):
    """The part of an envelope for one send."""

    channels: Names
    #: The packed message.
    packed: bytes
    #: The group that it was sent to; None if it was sent to one channel.
    group: str | None = None
    #: The order of the channel's WebSocket message that is reported as done after this one.
    done: int | None = None


#: Message key: the report that this WebSocket message is done must include the duration of its consumer.
#: Consumers do not see it.
TIMED_KEY = "channelsq.timed"


@functools.lru_cache(maxsize=1024)  # the messages of each socket are numbered from 0
def done_message(order: int) -> bytes:
    """Return the packed report that a WebSocket's message is done: ``{"done": order}``."""
    return b"\x81\xa4done" + codec.dumps(order)


def timed_done_message(order: int, seconds: float) -> bytes:
    """Return the same report with the duration of the consumer: ``{"done": order, "took": seconds}``."""
    return codec.dumps({"done": order, "took": seconds})


#: The report that the consumer of a WebSocket's connect failed, so that no consumer will accept the socket.
FAILED_CONNECT = codec.dumps({"done": 0, "failed": True})


def task_message(
    channel: str,
    queue: str,
    body: bytes,
    *,
    delay: float,
    expiry: float,
    expires: float | None = None,
    identity: str | None = None,
    protection: Protection = NONE,
) -> tuple[dict[str, Any], bytes]:
    """Return the headers and the body of the Celery task message for ``body`` on the channel's queue.

    Celery's message protocol, version 2: https://docs.celeryq.dev, "Message Protocol".

    Args:
        channel: the channel's name.
        queue: the name of its queue.
        body: the packed message.
        delay: seconds before workers may run it.
        expiry: seconds that it lives after the delay.
        expires: the end of that time, by the layer's clock; None if the broker expires messages itself.
        identity: the message's id; a new one if left out.
        protection: the layer's.
    """
    identity = identity or str(uuid.uuid4())
    eta = datetime.datetime.fromtimestamp(time.time() + delay, datetime.UTC).isoformat() if delay else None
    headers = {
        "lang": "py",
        "task": queue,
        "id": identity,
        "root_id": identity,
        "parent_id": None,
        "group": None,
        "retries": 0,
        "eta": eta,
        "expires": None,
        "timelimit": [None, None],
        "argsrepr": f"({channel!r}, …)",
        "kwargsrepr": "{}",
        "origin": f"channelsq@{socket.gethostname()}",
        "ignore_result": True,
        **expiry_headers(expires),
    }
    return headers, task_body(channel, queue, body, identity, delay + expiry, protection)


def task_body(
    channel: str, queue: str, body: bytes, identity: str, lifetime: float, protection: Protection = NONE
) -> bytes:
    """Return the body of the Celery task message for ``body``; see :func:`task_message`.

    Args:
        lifetime: the seconds for which a signature is valid.
    """
    # [[channel, content], {}, {}]; the packed content is inserted unchanged.
    start = b"\x93\x92" + codec.dumps(channel)
    if not protection.is_on:
        return start + body + b"\x80\x80"
    return protection.task(queue, identity, start, body, lifetime * 1000)


def open_task_body(body: bytes) -> dict[str, Any]:
    """Return the content of a channel's task message; raise ValueError for anything else."""
    parts = codec.loads(body)
    try:
        (_, content), _, _ = parts
    except (TypeError, ValueError):
        raise ValueError("not a channel's message") from None
    if not isinstance(content, dict):
        raise ValueError("not a channel's message")
    return content


def open_plain_task(body: bytes) -> tuple[str, dict[str, Any]] | None:
    """Return the channel and the content of a task message's body; None if no layer sent it."""
    try:
        (channel, content), kwargs, embed = codec.loads(body)
    except (TypeError, ValueError):
        return None
    if type(channel) is not str or type(content) is not dict or kwargs or type(embed) is not dict:
        return None
    return channel, content


def expiry_headers(expires: float | None) -> dict[str, float]:
    """Return the header of a message that expires, for :func:`is_expired`."""
    return {} if expires is None else {EXPIRES_HEADER: expires}


def is_expired(headers: Mapping[str, Any] | None, clock: Clock | None) -> bool:
    """Return whether the message with these headers has expired.

    Args:
        headers: the message's.
        clock: the layer's; None if the broker expires messages itself.
    """
    if clock is None:
        return False
    expires = (headers or {}).get(EXPIRES_HEADER)
    return isinstance(expires, (int, float)) and expires <= clock.now()


def pack_envelopes(entries: list[Entry]) -> Iterator[tuple[list[Entry], bytes]]:
    """Yield envelopes of entries for one process, each with its entries."""
    packed = _dumps(entries)
    if len(packed) <= ENVELOPE_BYTES or len(entries) == 1:  # the usual case
        yield entries, packed
        return
    for part in _cut(entries):
        yield part, _dumps(part)


def _dumps(entries: list[Entry]) -> bytes:
    for entry in entries:
        if type(entry[0]) is PackedNames:
            break
    else:
        return codec.dumps(entries)
    header = b"%c" % (0x90 | len(entries)) if len(entries) < 16 else b"\xdd" + len(entries).to_bytes(4, "big")
    return header + b"".join(map(_dump, entries))


def _dump(entry: Entry) -> bytes:
    channels, *rest = entry
    if not isinstance(channels, PackedNames):
        return codec.dumps(entry)
    # The list of four that msgpack would create, with the packed names inserted unchanged.
    return b"\x94" + channels.packed + b"".join(map(codec.dumps, rest))


def open_envelope(body: bytes) -> list[Entry]:
    """Return the entries of an envelope, with reports as separate entries; raise ValueError for anything else."""
    parts = codec.loads(body)
    if not isinstance(parts, list):
        raise ValueError("not an envelope")
    entries: list[Entry] = []
    for part in parts:
        if not (
            isinstance(part, list)
            and len(part) >= 3
            and isinstance(part[0], list)
            and all(isinstance(channel, str) for channel in part[0])
            and isinstance(part[1], bytes)
            and isinstance(part[2], (str, type(None)))
        ):
            raise ValueError("not an envelope")
        entries.append(Entry(*part[:3]))
        if len(part) >= 4 and part[3] is not None:
            if type(part[3]) is not int:
                raise ValueError("not an envelope")
            entries.append(Entry(part[0], done_message(part[3])))
    return entries


def raw_body(message: Any) -> bytes:
    """Return a message's body as received; transports pass bytes, memoryview or, for text, str."""
    body = message.body
    return body.encode() if isinstance(body, str) else bytes(body)


def open_body(message: Any, queue: str, protection: Protection) -> bytes:
    """Return the body of an envelope or of a ``?`` channel's message, verified and decrypted.

    Raises:
        Refused: the signature is not valid, or the body is not encrypted as the layer asks for.
    """
    return protection.open_bare(queue, raw_body(message))


def _cut(entries: list[Entry]) -> Iterator[list[Entry]]:
    sizes = [len(_dump(entry)) for entry in entries]
    part: list[Entry] = []
    total = 0
    for entry, size in zip(entries, sizes, strict=True):
        if part and total + size > ENVELOPE_BYTES:
            yield part
            part, total = [], 0
        part.append(entry)
        total += size
    yield part
