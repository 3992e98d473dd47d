"""Sends as Redis commands on the streams of :mod:`channelsq.transport`, without a Kombu producer.

The messages have the forms of :mod:`channelsq.layers.wire.wire_forms`, in the transport's compact form
(:mod:`channelsq.redis_core.compact`), so that every Kombu consumer of the transport can read them.
No connection is opened here: the caller sends the commands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from channelsq.core.names import new_id
from channelsq.layers.wire import codec
from channelsq.layers.wire.protection import NONE, Protection
from channelsq.layers.wire.signing import Refused, without_signature
from channelsq.redis_core.commands import Command, pack
from channelsq.redis_core.compact import ForeignPayload, NewerPayload, TaskFrame, decode_compact, encode_compact
from channelsq.redis_core.entries import DEAD_PREFIX

#: Milliseconds that an unused reply queue or ``?`` queue lives.
QUEUE_EXPIRES_MS = 300_000

#: How long, in ms, and how many envelopes are kept that their process cannot read because they are newer.
_NEWER_EXPIRES_MS, _MOST_NEWER = 86_400_000, 1000

#: A channel's key, the start of its bodies, the encoder of unprotected ones, and the bytes of an XADD around the data.
_Channel = tuple[str, bytes, TaskFrame, bytes, bytes]


class StreamCommands:
    """Commands for the messages of one layer.

    Args:
        prefix: the transport's global key prefix.
        expiry: seconds that an unread message lives.
        queue_prefix: the prefix of the layer's queue names before the channel names.
        protection: the layer's.
    """

    def __init__(self, prefix: str, expiry: float, queue_prefix: str = "", protection: Protection = NONE) -> None:
        self.prefix = prefix
        self.protection = protection
        self.queue_prefix = queue_prefix
        self.expiry_ms = max(1, int(expiry * 1000))
        self._channels: dict[str, _Channel] = {}

    def key(self, queue: str) -> str:
        """Return the key of a queue's stream."""
        return f"{self.prefix}stream:{self.queue_prefix}{queue}"

    def dead_key(self, queue: str) -> str:
        """Return the key of the stream of a queue's dead letters."""
        return f"{self.prefix}{DEAD_PREFIX}{self.queue_prefix}{queue}"

    # -- sending ----------------------------------------------------------------------------

    def task(self, channel: str, packed: bytes, identity: str | None = None) -> Command:
        """Return the command that adds a packed message to a channel that workers consume.

        Args:
            identity: the message's id, to send a message again with the same one; a new one if left out.
        """
        key, start, frame, _, _ = self._channels.get(channel) or self._channel(channel)
        identity = identity or new_id()
        if not self.protection.is_on:
            data = frame.encode(identity, packed)
        else:
            queue = self.queue_prefix + channel
            body = self.protection.task(queue, identity, start, packed, self.expiry_ms)
            data = encode_compact(queue, identity, body, self.expiry_ms)
        return self._add(key, data)

    @property
    def packer(self) -> Callable[[str, bytes, str], bytes]:
        """Return :meth:`packed_task`, or its equivalent for signed or encrypted messages."""
        return self._protected_task if self.protection.is_on else self.packed_task

    def _protected_task(self, channel: str, packed: bytes, identity: str) -> bytes:
        return pack([self.task(channel, packed, identity)])

    def packed_task(self, channel: str, packed: bytes, identity: str) -> bytes:
        """Return :meth:`task` as the bytes of its command, in one step."""
        _, _, frame, before, behind = self._channels.get(channel) or self._channel(channel)
        data = frame.encode(identity, packed)
        return b"%b%d\r\n%b%b" % (before, len(data), data, behind)

    def _channel(self, channel: str) -> _Channel:
        key, start = self.key(channel), b"\x93\x92" + codec.dumps(channel)
        frame = TaskFrame(self.queue_prefix + channel, start, b"\x80\x80", self.expiry_ms)
        before, _, behind = pack([self._add(key, b"")]).rpartition(b"$0\r\n")
        made = key, start, frame, before + b"$", behind
        if len(self._channels) < 1000:
            self._channels[channel] = made
        return made

    def bare(self, queue: str, body: bytes) -> list[Command]:
        """Return the commands that add an envelope to a reply queue, or a packed message to a ``?`` channel's queue."""
        if self.protection.is_on:
            body = self.protection.bare(self.queue_prefix + queue, body, self.expiry_ms)
        return self.bare_on(self.key(queue), body, self.expiry_ms)

    def bare_on(self, key: str, body: bytes, expiry_ms: int) -> list[Command]:
        """Return the commands of :meth:`bare` for a key, with the given expiry and without new protection."""
        return [
            ("XADD", key, "*", "m", encode_compact(None, None, body, expiry_ms), "x", expiry_ms),
            ("PEXPIRE", key, QUEUE_EXPIRES_MS, "NX"),
        ]

    def _add(self, key: str, data: bytes) -> Command:
        return ("XADD", key, "*", "m", data, "x", self.expiry_ms)

    # -- reading reply queues ---------------------------------------------------------------

    def read(
        self, last: dict[str, str], count: int, block_ms: int, trimmed: Iterable[str], *, renew: bool
    ) -> list[Command]:
        """Return commands that delete the read entries of reply queues and read on; the last reply has the new entries.

        Args:
            last: for each key the last id that was read; ``"0-0"`` for the beginning.
            count: the most envelopes of each queue.
            block_ms: how long the server waits for new entries, above 0.
            trimmed: the keys with entries that were read and not deleted yet.
            renew: whether to keep the queues alive for another :data:`QUEUE_EXPIRES_MS`.
        """
        commands: list[Command] = [("XTRIM", key, "MINID", _next_id(last[key])) for key in trimmed]
        if renew:
            commands += [("PEXPIRE", key, QUEUE_EXPIRES_MS) for key in last]
        commands.append(("XREAD", "COUNT", count, "BLOCK", block_ms, "STREAMS", *last, *last.values()))
        return commands

    def keep_newer(self, key: str, data: bytes, error: NewerPayload) -> list[Command]:
        """Return commands that keep an entry of a reply queue as a dead letter for a day; no other process reads it.

        Args:
            key: the queue's key.
            data: the entry's data.
            error: contains the wire version that the entry needs.
        """
        stream = key.removeprefix(f"{self.prefix}stream:")
        dead = f"{self.prefix}{DEAD_PREFIX}{stream}"
        fields = ("m", data, "s", stream, "d", 0, "r", str(error))
        return [("XADD", dead, "MAXLEN", _MOST_NEWER, "*", *fields), ("PEXPIRE", dead, _NEWER_EXPIRES_MS)]


def open_replies(
    found: list[Any],
    now_ms: int,
    foreign: Callable[[str], None],
    opened: Callable[[bytes], bytes] = without_signature,
    newer: Callable[[bytes, NewerPayload], None] | None = None,
) -> list[Any]:
    """Return the contents of the envelopes that XREAD found in a reply queue, except expired ones.

    Args:
        found: ``[id, fields]`` of each entry.
        now_ms: the server's time in ms since 1970.
        foreign: called with a description of each entry that is not channelsq's; the entry is left out.
        opened: verifies and decrypts a body; raises Refused if that fails.
        newer: called with the data of an entry that only a newer process can read; None to call ``foreign``.
    """
    entries: list[Any] = []
    for identity, fields in found:
        try:
            data = fields[1] if fields[0] == b"m" else fields[fields.index(b"m") + 1]
            body, lifetime = open_bare(data)
            if lifetime is None or int(identity.partition(b"-")[0]) + lifetime > now_ms:
                entries += codec.loads(opened(body))
        except Refused:
            continue
        except NewerPayload as error:
            if newer is None:
                foreign(str(error))
            else:
                newer(data, error)
        except (IndexError, TypeError, ValueError) as error:
            foreign(str(error))
    return entries


def open_bare(data: bytes) -> tuple[bytes, int | None]:
    """Return the body and the lifetime (ms) of an entry of :meth:`StreamCommands.bare`.

    Raises:
        NewerPayload: only a newer process can read the entry.
            ValueError: the entry is something else.
    """
    try:
        task, _, body, lifetime = decode_compact(data)
    except NewerPayload:
        raise
    except ForeignPayload as error:
        raise ValueError(str(error)) from error
    if task is not None:
        raise ValueError(f"a message of the task {task!r}")
    return body, lifetime


def _next_id(identity: str) -> str:
    milliseconds, _, number = identity.partition("-")
    return f"{milliseconds}-{int(number) + 1}"
