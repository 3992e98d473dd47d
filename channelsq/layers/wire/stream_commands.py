"""Sends as Redis commands on the streams of :mod:`channelsq.transport`, without a Kombu producer between.

What travels is what :mod:`channelsq.layers.wire.wire_forms` describes, in the transport's compact form
(:func:`channelsq.transport.payloads.encode_compact`), so that every Kombu consumer of the transport reads it too.
No connection is opened here: whoever has one sends the commands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from channelsq.core.names import new_id
from channelsq.layers.wire import codec
from channelsq.layers.wire.signing import Refused, Signing, without_signature
from channelsq.transport.commands import Command, pack
from channelsq.transport.dead_letters import PREFIX as DEAD_PREFIX
from channelsq.transport.payloads import ForeignPayload, NewerPayload, decode_compact, encode_compact
from channelsq.transport.streams import GROUP, SIZE

#: Milliseconds that an unused reply queue or ``?`` queue lives.
QUEUE_EXPIRES_MS = 300_000

#: Milliseconds for which, and number in which, envelopes of one process are kept that it is too old to read.
_NEWER_EXPIRES_MS, _MOST_NEWER = 86_400_000, 1000

#: What a channel's messages have in common in the bytes of an XADD: what stands before the data, what the data begins
#: with, what its body begins with, all that stands behind the message; then the length of the data but for the id and
#: the message, and that of the body but for the message.
_Frame = tuple[bytes, bytes, bytes, bytes, int, int]


class StreamCommands:
    """Makes the commands of one layer.

    Args:
        prefix: the transport's global key prefix.
        expiry: seconds that an unread message lives.
        queue_prefix: what the names of the layer's queues have in front of those of its channels.
        signing: the layer's.
    """

    def __init__(self, prefix: str, expiry: float, queue_prefix: str = "", signing: Signing | None = None) -> None:
        self.prefix = prefix
        self.signing = signing
        self.queue_prefix = queue_prefix
        self.expiry_ms = max(1, int(expiry * 1000))
        self._tasks: dict[str, tuple[str, bytes]] = {}
        self._frames: dict[str, _Frame] = {}
        self._lifetime: bytes = codec.dumps(self.expiry_ms)

    def key(self, queue: str) -> str:
        """The key of a queue's stream."""
        return f"{self.prefix}stream:{self.queue_prefix}{queue}"

    def dead_key(self, queue: str) -> str:
        """The key of the stream of a queue's dead letters."""
        return f"{self.prefix}{DEAD_PREFIX}{self.queue_prefix}{queue}"

    # -- sending ----------------------------------------------------------------------------

    def task(self, channel: str, packed: bytes, identity: str | None = None) -> Command:
        """Adds a packed message to a channel that workers consume.

        Args:
            identity: its id, to send a message again under the same one; a new one if left out.
        """
        key, start = self._tasks.get(channel) or self._task(channel)
        identity = identity or new_id()
        head = start + packed + b"\x80"
        queue = self.queue_prefix + channel
        body = head + b"\x80" if self.signing is None else self.signing.task(queue, identity, head, self.expiry_ms)
        return self._add(key, encode_compact(queue, identity, body, self.expiry_ms))

    @property
    def packer(self) -> Callable[[str, bytes, str], bytes]:
        """:meth:`packed_task`, or what does the same where messages are signed."""
        return self.packed_task if self.signing is None else self._signed_task

    def _signed_task(self, channel: str, packed: bytes, identity: str) -> bytes:
        return pack([self.task(channel, packed, identity)])

    def packed_task(self, channel: str, packed: bytes, identity: str) -> bytes:
        """What :meth:`task` gives, as the bytes of its command: in one step, for who sends nothing else all day.

        Args:
            identity: shorter than 32 ASCII characters.
        """
        head, name, start, tail, around, beside = self._frames.get(channel) or self._frame(channel)
        # The compact form: a list of four, the third of which is binary with a length of four bytes.
        size = len(packed)
        return b"%b%d\r\n%b%c%b\xc6%b%b%b%b" % (
            head,
            around + len(identity) + size,
            name,
            0xA0 | len(identity),
            identity.encode(),
            (beside + size).to_bytes(4, "big"),
            start,
            packed,
            tail,
        )

    def _frame(self, channel: str) -> _Frame:
        key, start = self._tasks.get(channel) or self._task(channel)
        before, _, behind = pack([self._add(key, b"")]).rpartition(b"$0\r\n")
        name = b"\x94" + codec.dumps(self.queue_prefix + channel)
        end = b"\x80\x80" + self._lifetime
        # Beside all that, the data has a byte before the id, and five before the body.
        around = len(name) + 1 + 5 + len(start) + len(end)
        made = before + b"$", name, start, end + behind, around, len(start) + 2
        if len(self._frames) < 1000:
            self._frames[channel] = made
        return made

    def _task(self, channel: str) -> tuple[str, bytes]:
        """The key of a channel's stream, and what the bodies of its messages begin with."""
        made = self.key(channel), b"\x93\x92" + codec.dumps(channel)
        if len(self._tasks) < 1000:
            self._tasks[channel] = made
        return made

    def bare(self, queue: str, body: bytes) -> list[Command]:
        """Adds an envelope to a process's reply queue, or a packed message to a ``?`` channel's queue."""
        if self.signing is not None:
            body = self.signing.bare(self.queue_prefix + queue, body, self.expiry_ms)
        return self.bare_on(self.key(queue), body, self.expiry_ms)

    def bare_on(self, key: str, body: bytes, expiry_ms: int) -> list[Command]:
        """The same for who has the queue's key, perhaps another expiry, and has signed."""
        return [
            ("XADD", key, "*", "m", encode_compact(None, None, body, expiry_ms), "x", expiry_ms),
            ("PEXPIRE", key, QUEUE_EXPIRES_MS, "NX"),
        ]

    def _add(self, key: str, data: bytes) -> Command:
        return ("XADD", key, "*", "m", data, "x", self.expiry_ms)

    def size(self, queue: str) -> Command:
        """Gives how many messages wait in a queue that workers consume; see ``size.lua`` of the transport.

        The server answers NOSCRIPT if it has to be given the script first (``SCRIPT LOAD``, :data:`SIZE`).
        """
        return SIZE.command([self.key(queue)], (GROUP, 1000))

    def bare_size(self, queue: str) -> Command:
        """Gives how many envelopes or messages wait in a queue that :meth:`bare` adds to; of one that workers
        consume, how many wait or are held."""
        return ("XLEN", self.key(queue))

    def held(self, queue: str) -> Command:
        """Gives a list that begins with how many messages of a queue workers hold; NOGROUP for one without any."""
        return ("XPENDING", self.key(queue), GROUP)

    # -- reading reply queues ---------------------------------------------------------------

    def read(
        self, last: dict[str, str], count: int, block_ms: int, trimmed: Iterable[str], *, renew: bool
    ) -> list[Command]:
        """Deletes what was read of reply queues and reads on; the last command's reply is the news.

        Args:
            last: of each key the id to read on from; ``"0-0"`` for the beginning.
            count: how many envelopes of each queue at most.
            block_ms: how long the server waits for news, above 0.
            trimmed: the keys that something was read of, and not deleted yet.
            renew: whether to keep the queues alive for another :data:`QUEUE_EXPIRES_MS`.
        """
        commands: list[Command] = [("XTRIM", key, "MINID", _next_id(last[key])) for key in trimmed]
        if renew:
            commands += [("PEXPIRE", key, QUEUE_EXPIRES_MS) for key in last]
        commands.append(("XREAD", "COUNT", count, "BLOCK", block_ms, "STREAMS", *last, *last.values()))
        return commands

    def keep_newer(self, key: str, data: bytes, error: NewerPayload) -> list[Command]:
        """Keep an entry of a reply queue as a dead letter for a day, as nobody else reads the queue.

        Args:
            key: the queue's.
            data: the entry's.
            error: says which version of the wire it needs.
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
    """What XREAD found in a reply queue: what envelopes hold, as it is, but for those whose time is over.

    Args:
        found: ``[id, fields]`` of each entry.
        now_ms: the server's time in ms since 1970.
        foreign: is told what is wrong with an entry that is left out, since it is none of channelsq's.
        opened: takes off signatures, and raises Refused for one that is not what it must be.
        newer: is given the data of an entry that only a newer process can read; None for ``foreign`` to be told.
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
    """The body and the lifetime (ms) of an entry that :meth:`StreamCommands.bare` made.

    Raises:
        NewerPayload: only a newer process can read it.
        ValueError: it is something else.
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
