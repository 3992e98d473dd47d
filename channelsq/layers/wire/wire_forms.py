"""What a Kombu channel layer puts on the broker.

* A channel without a type character is a queue of the same name, behind the layer's prefix if it has one.  A
  message on it is a Celery task message (protocol 2) whose task is called as the queue and whose arguments are
  ``[channel, content]``, so that a Celery worker consumes it as it stands.
* A ``?`` channel is such a queue that expires when unused; a message on it is its msgpack.
* All ``!`` channels of a process share one such queue, named by what stands before the ``!``.  A message on
  it is an *envelope*: a msgpack list of ``[channels, packed message, group or None, order or None]``.  What one
  consumer sends to one process travels in one envelope, and so does a group's message to all its members there.  The
  order, if there is one, stands for another message to the same channel behind this one, ``{"done": order}``.
  Readers take an entry without it, and ignore what a newer process has put behind it.
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
from channelsq.layers.wire.signing import without_signature

if TYPE_CHECKING:
    from channelsq.layers.wire.shared_clock import Clock
    from channelsq.layers.wire.signing import Signing

CONTENT_TYPE = "application/x-msgpack"

#: The header that holds the time after which a message is not handled any more, by the clock of the layer.  It is there
#: only where the broker does not drop such a message itself.
EXPIRES_HEADER = "channelsq_expires"

#: Envelopes are cut at about this many bytes, so that no single broker message grows without bound.
ENVELOPE_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True)
class PackedNames:
    """Names of channels as a msgpack list, of which only the process that has them needs one by one."""

    packed: bytes

    def __iter__(self) -> Iterator[str]:
        return iter(codec.loads(self.packed))

    def __len__(self) -> int:
        return len(codec.loads(self.packed))


#: Names of channels of one process.
Names = list[str] | PackedNames


class Entry(NamedTuple):
    """What an envelope holds for one send."""

    channels: Names
    #: The packed message.
    packed: bytes
    #: The group that it was sent to; None if it was sent to the one channel itself.
    group: str | None = None
    #: The WebSocket message of the one channel that is reported done behind this one.
    done: int | None = None


#: Message key: the report that this WebSocket's message is done with is to say how long its consumer took.
#: Consumers do not see it.
TIMED_KEY = "channelsq.timed"


@functools.lru_cache(maxsize=1024)  # the messages of each socket are numbered from 0
def done_message(order: int) -> bytes:
    """The packed report that a WebSocket's message is done with: ``{"done": order}``."""
    return b"\x81\xa4done" + codec.dumps(order)


def timed_done_message(order: int, seconds: float) -> bytes:
    """The same report, with the ``seconds`` that the consumer took: ``{"done": order, "took": seconds}``."""
    return codec.dumps({"done": order, "took": seconds})


#: The report that the consumer of a WebSocket's connect failed: nothing will accept the socket.
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
    signing: Signing | None = None,
) -> tuple[dict[str, Any], bytes]:
    """Headers and body of the Celery task message for ``body``, a packed message for ``channel``, on its ``queue``.

    Celery's message protocol, version 2: https://docs.celeryq.dev, "Message Protocol".

    Args:
        channel: its name.
        queue: that of its queue.
        body: the packed message.
        delay: seconds to hold it back.
        expiry: seconds that it lives after that.
        expires: when that is, by the clock of the layer; None where brokers expire messages themselves.
        identity: its id; a new one if left out.
        signing: the layer's.
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
    return headers, task_body(channel, queue, body, identity, delay + expiry, signing)


def task_body(
    channel: str, queue: str, body: bytes, identity: str, lifetime: float, signing: Signing | None = None
) -> bytes:
    """Return the body of the Celery task message for ``body``; see :func:`task_message`.

    Args:
        lifetime: the seconds for which a signature is good.
    """
    # [[channel, content], {}, {}], with the content spliced in as it was packed.
    head = b"\x93\x92" + codec.dumps(channel) + body + b"\x80"
    return head + b"\x80" if signing is None else signing.task(queue, identity, head, lifetime * 1000)


def open_task_body(body: bytes) -> dict[str, Any]:
    """The content in a channel's task message; raises ValueError if it is none."""
    parts = codec.loads(body)
    try:
        (_, content), _, _ = parts
    except (TypeError, ValueError):
        raise ValueError("not a channel's message") from None
    if not isinstance(content, dict):
        raise ValueError("not a channel's message")
    return content


def open_plain_task(body: bytes) -> tuple[str, dict[str, Any]] | None:
    """Return the channel and the content in a task message's body; None if it is not as layers send it."""
    try:
        (channel, content), kwargs, embed = codec.loads(body)
    except (TypeError, ValueError):
        return None
    if type(channel) is not str or type(content) is not dict or kwargs or type(embed) is not dict:
        return None
    return channel, content


def expiry_headers(expires: float | None) -> dict[str, float]:
    """The header of a message that expires, which :func:`is_expired` reads."""
    return {} if expires is None else {EXPIRES_HEADER: expires}


def is_expired(headers: Mapping[str, Any] | None, clock: Clock | None) -> bool:
    """Whether the message with these headers is too old to be handled.

    Args:
        headers: the message's.
        clock: that of the layer; None where brokers expire messages themselves.
    """
    if clock is None:
        return False
    expires = (headers or {}).get(EXPIRES_HEADER)
    return isinstance(expires, (int, float)) and expires <= clock.now()


def pack_envelopes(entries: list[Entry]) -> Iterator[tuple[list[Entry], bytes]]:
    """Envelopes for what goes to one process, each with the entries that are in it."""
    packed = _dumps(entries)
    if len(packed) <= ENVELOPE_BYTES or len(entries) == 1:  # nearly always
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
    # The list of four that msgpack would make, with the names as they are.
    return b"\x94" + channels.packed + b"".join(map(codec.dumps, rest))


def open_envelope(body: bytes) -> list[Entry]:
    """The entries in an envelope, reports as entries of their own; raises ValueError if it is none."""
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
    """A message's body as it came; transports give bytes, memoryview or, for text, str."""
    body = message.body
    return body.encode() if isinstance(body, str) else bytes(body)


def open_body(message: Any, queue: str, signing: Signing | None) -> bytes:
    """The body of an envelope or of a ``?`` channel's message, without its signature.

    Raises:
        Refused: the signature is not what it must be.
    """
    body = raw_body(message)
    return without_signature(body) if signing is None else signing.open_bare(queue, body)


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
