"""Listening on Redis: every reply queue of the process is read by one command on one connection."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from typing import Any

from channelsq.core.wire_version import teller
from channelsq.exceptions import BrokerUnavailable
from channelsq.interface.basis.log_fields import extra
from channelsq.interface.link.redis_address import Address
from channelsq.interface.link.redis_connection import SILENCE, RedisConnection, ReplyError
from channelsq.interface.link.replies import Replies
from channelsq.layers.wire.stream_commands import StreamCommands, open_replies
from channelsq.redis_core.commands import Command, pack
from channelsq.redis_core.compact import NewerPayload
from channelsq.redis_core.server_clock import TIME, ServerClock

logger = logging.getLogger("channelsq.interface.link")

#: How long (ms) the server waits for news before it answers that there are none.
_BLOCK_MS = 2000

#: Seconds after which the server's clock is looked at again, and the queues' time to live is renewed.
_RENEWED = 10.0

#: Seconds, and messages, after which what was read is deleted.  That costs an answer of its own, which would wake
#: this process once more for each message of a quiet server.
_TRIMMED, _TRIMMED_AFTER = 0.1, 100

#: Envelopes that one read brings at most of each queue, and with how many it begins.  An envelope may be as large as a
#: message, so there are fewer once a read has brought more than so many bytes.
_MOST, _FIRST = 256, 32
_MOST_BYTES = 8 * 1024 * 1024

_BEGINNING = "0-0"


class Listening:
    """Reads reply queues and hands what is in them to ``replies``.

    Nothing is lost or read twice when the connection is cut: what was read is deleted with a later read, and a
    new connection reads on behind it.

    Args:
        address: the server.
        commands: the layer's.
        queues: the names of the queues.
        replies: where replies go.
        capacity: how much the smallest of the queues may hold; what is read and not deleted counts.
    """

    def __init__(
        self, address: Address, commands: StreamCommands, queues: list[str], replies: Replies, capacity: int
    ) -> None:
        self._commands = commands
        self._most = max(1, min(_TRIMMED_AFTER, capacity // 10))
        self._replies = replies
        self._queues = {commands.key(queue): queue for queue in queues}
        #: The function that verifies and decrypts envelopes, for each queue.
        self._openers: dict[str, Callable[[bytes], bytes]] = {
            key: functools.partial(commands.protection.open_bare, commands.queue_prefix + queue)
            for key, queue in self._queues.items()
        }
        #: Where each queue has been read to.
        self._last = dict.fromkeys(self._queues, _BEGINNING)
        self.connection = RedisConnection(address, self, "listening")
        self._loop: asyncio.AbstractEventLoop
        #: Queues with messages that were read and not deleted yet, the number of these messages, and the time to delete
        #: them.
        self._news: set[str] = set()
        self._read_since = 0
        self._trim_at = 0.0
        #: Keep, with the next read, what this process is too old to read.
        self._kept: list[Command] = []
        self._count = _FIRST
        self._left = 0
        self._looking = False
        self._looked: list[Any] = []
        self._reading = False
        self._clock = ServerClock()
        self._renew_at = 0.0

    @property
    def keys(self) -> list[str]:
        """Return the keys of the queues."""
        return list(self._queues)

    def start(self) -> None:
        """Connect, and listen from now on."""
        self._loop = asyncio.get_running_loop()
        self.connection.start()

    async def stop(self) -> None:
        """Listen no more."""
        await self.connection.stop()

    def on_tick(self, now: float) -> None:
        """Give up a server that does not answer, although it was told for how long to wait."""
        if self._reading and now - self.connection.heard > SILENCE + _BLOCK_MS / 1000:
            self.connection.fail(f"no answer for {SILENCE:g} s")

    # -- the connection ---------------------------------------------------------------------

    def opened(self) -> None:
        """See :class:`channelsq.interface.link.redis_connection.User`: find out where to read on."""
        self._looking, self._looked, self._renew_at = True, [], 0.0
        self._write([TIME, *(("XINFO", "STREAM", key) for key in self._queues)])

    def lost(self, error: BrokerUnavailable) -> None:
        """See :class:`channelsq.interface.link.redis_connection.User`."""
        self._reading = False

    def replied(self, reply: Any) -> None:
        """See :class:`channelsq.interface.link.redis_connection.User`."""
        self._left -= 1
        if self._looking:
            self._looked.append(reply)
            if not self._left:
                self._look()
        elif isinstance(reply, ReplyError):
            self.connection.fail(reply)
        elif not self._left:
            self._read(reply)
        elif type(reply) is list:
            self._clock.set(reply, self._loop.time())

    def _write(self, commands: list[Command]) -> None:
        self._left = len(commands)
        self._reading = True
        self.connection.heard = self._loop.time()
        self.connection.write(pack(commands))

    def _look(self) -> None:
        """Find where to read on: the streams of a restarted server may count from earlier ids."""
        self._looking = self._reading = False
        time, *streams = self._looked
        if isinstance(time, ReplyError):
            self.connection.fail(time)
            return
        self._clock.set(time, self._loop.time())
        for key, info in zip(self._queues, streams, strict=True):
            if isinstance(info, ReplyError):
                if "no such key" not in str(info):
                    self.connection.fail(info)
                    return
                self._last[key] = _BEGINNING
            elif _number(_field(info, b"last-generated-id")) < _number(self._last[key]):
                self._last[key] = _BEGINNING
        self._read_on()

    # -- reading ----------------------------------------------------------------------------

    def _read(self, reply: Any) -> None:
        self._reading = False
        if reply:
            now_ms = self._clock.milliseconds(self._loop.time())
            self._count = next_count(self._count, [found for _, found in reply])
            for name, found in reply:
                key = name.decode()
                foreign = functools.partial(self._log_foreign, key)
                self._last[key] = found[-1][0].decode()
                self._news.add(key)
                self._read_since += len(found)
                newer = functools.partial(self._keep_newer, key)
                self._replies.hand_out(open_replies(found, now_ms, foreign, self._openers[key], newer), foreign)
        # Not more than the clients' turn can take: the rest waits in Redis.
        self._replies.when_handed_out(self._read_on)

    def _read_on(self) -> None:
        if not self.connection.is_open or self._reading:
            return
        now = self._loop.time()
        renew = now >= self._renew_at
        trimmed: set[str] = set()
        if self._news and (now >= self._trim_at or self._read_since >= self._most):
            trimmed, self._news = self._news, trimmed
            self._read_since, self._trim_at = 0, now + _TRIMMED
        commands = self._commands.read(self._last, self._count, _BLOCK_MS, trimmed, renew=renew)
        if renew:
            self._renew_at = now + _RENEWED
            commands.insert(0, TIME)
        if self._kept:
            kept, self._kept = self._kept, []
            commands = [*kept, *commands]
        self._write(commands)

    def _keep_newer(self, key: str, data: bytes, error: NewerPayload) -> None:
        self._replies.note_foreign()
        self._kept += self._commands.keep_newer(key, data, error)
        teller.tell(self._queues[key], error, "for clients of this process is kept as a dead letter")

    def _log_foreign(self, key: str, error: str) -> None:
        self._replies.note_foreign()
        logger.error(
            "queue %s: a message that is not channelsq's was dropped: %s",
            self._queues[key],
            error,
            extra=extra("foreign_message_dropped"),
        )


def next_count(count: int, read: list[list[Any]]) -> int:
    """Return how many envelopes the next read asks for.

    Args:
        count: how many were asked for last.
        read: what that brought of each queue, as XREAD gives it.
    """
    size = sum(len(part) for found in read for _, fields in found for part in fields)
    if size > _MOST_BYTES:
        return max(1, count * _MOST_BYTES // size)
    if size * 2 < _MOST_BYTES and any(len(found) >= count for found in read):
        return min(_MOST, count * 2)
    return count


def _field(info: Any, name: bytes) -> str:
    """Return a field of XINFO's reply."""
    pairs = dict(zip(info[::2], info[1::2], strict=True))
    return str(pairs[name].decode())


def _number(identity: str) -> tuple[int, int]:
    milliseconds, _, number = identity.partition("-")
    return int(milliseconds), int(number)
