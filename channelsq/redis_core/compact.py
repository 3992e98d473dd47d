"""The compact form of a message, for producers that know the transport.

It is a msgpack list of the Celery task's name, its id, the body (msgpack) and the expiration in ms; nil stands for a
missing part.  A reader ignores items after these four.  An int in front of them is the wire version that a reader
needs, see :mod:`channelsq.core.wire_version`; lists of version 1 have none.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgpack

from channelsq.core.wire_version import WIRE_VERSION, NewerWire

#: A task's name, its id, the body and the expiration in ms.
Parts: TypeAlias = tuple[str | None, str | None, bytes, int | None]

_unpack = msgpack.unpackb

_NIL = b"\xc0"

#: Initial size of a packer's buffer, in bytes; to allocate msgpack's default of 256 KiB takes longer than to fill it.
_BUFFER = 256


class ForeignPayload(ValueError):
    """An entry that is not a message of Kombu's; the text says why."""


class NewerPayload(ForeignPayload, NewerWire):
    """An entry that only a newer process can read."""


def _scalar(value: str | int | None) -> bytes:
    return _NIL if value is None else msgpack.Packer(buf_size=_BUFFER).pack(value)


def encode_compact(task: str | None, identity: str | None, body: bytes, expiration: int | None) -> bytes:
    """Return a message in the compact form.

    The length of the body always takes four bytes, see :class:`TaskFrame`.

    Args:
        task: None for a message that is not a Celery task.
        identity: the task's id.
        body: msgpack, of a Celery task message (protocol 2) if ``task`` is set.
        expiration: ms; None if the message does not expire.
    """
    size = len(body).to_bytes(4, "big")
    return b"\x94%b%b\xc6%b%b%b" % (_scalar(task), _scalar(identity), size, body, _scalar(expiration))


class TaskFrame:
    """The common parts of many messages of one task, so that each is encoded in one step.

    Args:
        task: the task's name.
        start, end: the bytes of a body before and after its content.
        expiration: ms.
    """

    __slots__ = ("_around", "_end", "_name", "_start")

    def __init__(self, task: str, start: bytes, end: bytes, expiration: int) -> None:
        self._name = b"\x94" + _scalar(task)
        self._start = start
        self._end = end + _scalar(expiration)
        self._around = len(start) + len(end)

    def encode(self, identity: str, content: bytes) -> bytes:
        """Return the result of :func:`encode_compact` for a message with this content."""
        size = (self._around + len(content)).to_bytes(4, "big")
        return b"%b%b\xc6%b%b%b%b" % (self._name, _identity(identity), size, self._start, content, self._end)


def _identity(identity: str) -> bytes:
    encoded = identity.encode()
    return b"%c%b" % (0xA0 | len(encoded), encoded) if len(encoded) < 32 else _scalar(identity)


def decode_compact(data: bytes) -> Parts:
    """Return the arguments that :func:`encode_compact` was called with.

    Raises:
        NewerPayload: only a newer process can read the data.
            ForeignPayload: the data is not a message in the compact form.
    """
    try:
        parts = _unpack(data)
    except Exception as error:  # msgpack's own errors share no base
        raise ForeignPayload(f"not msgpack: {error}") from error
    if type(parts) is not list:
        raise ForeignPayload(f"a {type(parts).__name__} instead of a list")
    return checked_parts(parts)


def checked_parts(parts: list[Any]) -> Parts:
    """Return the parts of a compact message that is unpacked already; errors as :func:`decode_compact`."""
    if len(parts) == 4:
        task, identity, body, expiration = parts
        if (
            type(body) is bytes
            and (type(task) is str or task is None)
            and (type(identity) is str or identity is None)
            and (type(expiration) is int or expiration is None)
        ):
            return task, identity, body, expiration
    if parts and type(parts[0]) is int and parts[0] > WIRE_VERSION:
        raise NewerPayload(parts[0])
    if len(parts) > 4:
        return checked_parts(parts[:4])
    raise ForeignPayload("a list, but not of a task, an id, a body and an expiration")
