"""Publishing to Redis on one connection: everything of one turn of the event loop in one write."""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from collections import deque
from collections.abc import Callable
from typing import Any

from hiredis import pack_command

from channelsq.core import names
from channelsq.exceptions import BrokerUnavailable, ChannelFull
from channelsq.interface.basis.log_fields import extra
from channelsq.interface.link.channel_window import ChannelWindow
from channelsq.interface.link.link_contract import Publication
from channelsq.interface.link.redis_address import Address
from channelsq.interface.link.redis_connection import SILENCE, RedisConnection, ReplyError
from channelsq.layers.contract.layer_contract import BaseChannelLayer
from channelsq.layers.groups.group_stores import FORGET_SCRIPT, forget_command
from channelsq.layers.wire.stream_commands import StreamCommands
from channelsq.transport.away import FULL, MAY_WRITE, is_away
from channelsq.transport.commands import Command
from channelsq.transport.streams import SIZE

logger = logging.getLogger("channelsq.interface.link")

#: Seconds between two questions whether the server would write: without traffic nothing else would tell.
_ASKED_EVERY = 1.0

#: Channels whose room is remembered.
_MOST_ROOMS = 1000

#: Told how something went.
Told = Callable[[Exception | None], None]

#: Told why a message was not sent, before its publisher is.
Refused = Callable[[Publication, Exception], None]


class _Question:
    """A question for a channel's size, on its way."""

    __slots__ = ("room",)

    def __init__(self, room: ChannelWindow) -> None:
        self.room = room


class _QuickQuestion:
    """The same in two commands that cost the server next to nothing: how much there is, and how much workers hold.

    Expired messages are counted, so a channel that seems to be full is asked for properly.
    """

    __slots__ = ("room", "total")

    def __init__(self, room: ChannelWindow) -> None:
        self.room = room
        self.total: Any = None


class _Forgetting:
    """The end of a channel's memberships, on its way."""

    __slots__ = ("told",)

    def __init__(self, told: Told) -> None:
        self.told = told


class _MayWrite:
    """The question whether the server would write, on its way."""

    __slots__ = ()


#: What a reply is waited for.
_Due = Publication | _Question | _QuickQuestion | _Forgetting | _MayWrite | None


class Publishing:
    """Publications of one process.

    Args:
        address: the server.
        layer: whose channels they go to.
        commands: the layer's.
        refused: is called before a publisher is told of a failure.
        opened: is called when there is a connection, the first one and each later one.
        limit, limit_bytes: how many publications, and how much of them, may be under way or wait.
    """

    def __init__(
        self,
        address: Address,
        layer: BaseChannelLayer,
        commands: StreamCommands,
        refused: Refused,
        opened: Callable[[], None],
        *,
        limit: int,
        limit_bytes: int,
    ) -> None:
        self._layer = layer
        self._commands = commands
        self._packed_task = commands.packer
        self._refused = refused
        self._opened = opened
        self._limit = limit
        self._limit_bytes = limit_bytes
        self.line = RedisConnection(address, self, "publishing")
        self._loop: asyncio.AbstractEventLoop
        self._rooms: dict[str, ChannelWindow] = {}
        self._full: dict[str, ChannelWindow] = {}
        self._out: list[bytes] = []
        self._due: deque[_Due] = deque()
        self._count = 0
        self._bytes = 0
        #: Whether commands may be sent: there is a connection, and its server has not refused to write.
        self._open = False
        #: Why the server does nothing for now.  The connection is given up as soon as what was sent before is
        #: answered, since some of that may have been done.
        self._refusal: str | None = None
        #: Whether the server is full: it refuses messages, and does all else.
        self._is_full = False
        self._ask_at = 0.0
        # Message ids: this link's own, and numbers behind it.
        self._ids = secrets.token_hex(6)
        self._numbers = itertools.count()

    def start(self) -> None:
        """Connect, and publish from now on."""
        self._loop = asyncio.get_running_loop()
        self.line.start()

    async def stop(self, last: list[Command]) -> int:
        """Send ``last`` and close; gives how many publications were given up."""
        left = sum(len(room.waiting) for room in self._rooms.values()) + sum(
            isinstance(each, Publication) for each in self._due
        )
        if self.line.is_open:
            for command in last:
                self._add(command, None)
            self._flush()
        await self.line.stop()
        return left

    @property
    def idle(self) -> bool:
        """Whether nothing waits, and every command has its reply."""
        return not self._count and all(type(due) is _MayWrite for due in self._due)

    @property
    def takes(self) -> bool:
        """Whether the server takes messages, as far as is known."""
        return self._open and not self._is_full

    # -- what is to be sent -----------------------------------------------------------------

    def submit(self, publication: Publication) -> None:
        """Send a message to a channel that has no process; a publisher is told later, in the loop."""
        target = publication.send.target
        room = self._rooms.get(target) or self._new_room(target)
        if self._count and (self._count >= self._limit or self._bytes + publication.size > self._limit_bytes):
            self._later(publication, ChannelFull(target, self._limit))
            return
        self._count += 1
        self._bytes += publication.size
        if room.left > 0 and not room.waiting and self._open:
            now = self._loop.time()
            if room.is_fresh(now):
                self._send(publication, room)
                if room.wants_answer(now):
                    self._ask(room)
                return
            if not room.asking:
                self._ask(room)
                room.let_one_through()
            self._send(publication, room)
            return
        room.waiting.append(publication)
        self._full[target] = room
        if self._open:
            if not room.asking:
                self._ask(room)
        elif not (publication.deadline and publication.waits_for_broker):
            room.waiting.pop()
            self._drop(publication)
            self._later(publication, self._problem)

    def forget(self, channel: str, prefix: str, told: Told) -> None:
        """Take a channel out of every group under ``prefix``."""
        if self._open:
            self._add(forget_command(prefix, channel), _Forgetting(told))
        else:
            self._loop.call_soon(told, self._problem)

    @property
    def _problem(self) -> BrokerUnavailable:
        """Why nothing can be sent."""
        shown, refusal = self.line.address.shown, self._refusal
        return self.line.error if refusal is None else BrokerUnavailable(shown, refusal)

    def _new_room(self, target: str) -> ChannelWindow:
        if len(self._rooms) >= _MOST_ROOMS:
            self._rooms = {name: room for name, room in self._rooms.items() if room.in_use}
        bare = names.is_single_reader(target)
        room = self._rooms[target] = ChannelWindow(target, self._layer.capacity_of(target), bare=bare)
        return room

    def _send(self, publication: Publication, room: ChannelWindow) -> None:
        room.take()
        send = publication.send
        if room.bare:
            add, keep = self._commands.bare(send.target, send.body)
            self._add(add, publication)
            self._add(keep, None)
            return
        if publication.identity is None:
            publication.identity = f"{self._ids}-{next(self._numbers):x}"
        self._write(self._packed_task(send.target, send.body, publication.identity), publication)

    def _ask(self, room: ChannelWindow) -> None:
        room.ask()
        if room.bare:
            self._add(self._commands.bare_size(room.target), _Question(room))
            return
        question = _QuickQuestion(room)
        self._add(self._commands.bare_size(room.target), question)
        self._add(self._commands.held(room.target), question)

    def _ask_properly(self, room: ChannelWindow) -> None:
        room.ask()
        self._add(self._commands.size(room.target), _Question(room))

    def _add(self, command: Command, due: _Due) -> None:
        self._write(pack_command(command), due)  # type: ignore[arg-type]  # its stub: one item

    def _write(self, packed: bytes, due: _Due) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        if not self._due:
            # Nothing was due, so the server's silence begins now.
            self.line.heard = self._loop.time()
        self._out.append(packed)
        self._due.append(due)

    def _flush(self) -> None:
        out = self._out
        if out and self.line.is_open:
            self._out = []
            self.line.write(b"".join(out))

    def _later(self, publication: Publication, error: Exception) -> None:
        self._loop.call_soon(self._fail, publication, error)

    def _fail(self, publication: Publication, error: Exception) -> None:
        self._refused(publication, error)
        publication.tell(error)

    def _drop(self, publication: Publication) -> None:
        self._count -= 1
        self._bytes -= publication.size

    # -- what comes back --------------------------------------------------------------------

    def replied(self, reply: Any) -> None:
        """See :class:`channelsq.interface.link.redis_connection.User`."""
        due = self._due.popleft()
        if type(due) is Publication:
            self._count -= 1
            self._bytes -= due.size
            if type(reply) is bytes:
                if due.publisher is not None:
                    due.publisher.published(due.order, None)
            else:
                self._fail(due, self._unavailable(reply))
        elif type(due) is _Question:
            self._answered(due.room, reply)
        elif type(due) is _QuickQuestion:
            self._quickly_answered(due, reply)
        elif type(due) is _Forgetting:
            self._forgot(due, reply)
        elif isinstance(reply, ReplyError):
            self._heed(reply)
        elif type(due) is _MayWrite and self._is_full:
            self._is_full = False
            logger.info("%s: there is room again", self.line.address.shown, extra=extra("broker_has_room"))
        if self._refusal is not None and not self._due:
            self.line.fail(self._refusal)

    def _heed(self, error: ReplyError) -> None:
        """Note what an error says of the server, if it is no fault of the command."""
        text = str(error)
        if not is_away(text):
            return
        if not text.startswith(FULL):
            self._refusal = self._refusal or text
            self._open = False
        elif not self._is_full:
            self._is_full = True
            logger.error(
                "%s; messages are refused until it has room",
                BrokerUnavailable(self.line.address.shown, text),
                extra=extra("broker_full"),
            )

    def _unavailable(self, reply: Any) -> BrokerUnavailable:
        if isinstance(reply, ReplyError):
            self._heed(reply)
        return BrokerUnavailable(self.line.address.shown, reply)

    def _forgot(self, forgetting: _Forgetting, reply: Any) -> None:
        if not isinstance(reply, ReplyError):
            forgetting.told(None)
            return
        if str(reply).startswith("NOSCRIPT"):
            self._load(FORGET_SCRIPT)
        forgetting.told(self._unavailable(reply))

    def _load(self, script: str) -> None:
        self._add(("SCRIPT", "LOAD", script), None)

    def _quickly_answered(self, question: _QuickQuestion, reply: Any) -> None:
        if question.total is None:
            question.total = reply
            return
        room, size = question.room, question.total
        if isinstance(size, int) and (type(reply) is list or str(reply).startswith("NOGROUP")):
            size -= int(reply[0]) if type(reply) is list else 0
            if size >= room.capacity and self._open:
                self._ask_properly(room)
                return
            reply = size
        self._answered(room, size if isinstance(size, ReplyError) else reply)

    def _answered(self, room: ChannelWindow, reply: Any) -> None:
        if isinstance(reply, int) and self._open:
            room.answer(reply, self._loop.time())
            self._fill(room)
            return
        room.forget()
        if not self._open:
            return  # what waits does so until there is a connection
        if isinstance(reply, ReplyError) and str(reply).startswith("NOSCRIPT"):
            self._load(SIZE.text)
            self._ask_properly(room)
            return
        error = self._unavailable(reply)
        self._refuse(room, error)
        self._ask_later(room)

    def _fill(self, room: ChannelWindow) -> None:
        """Send what there is room for; those that may not wait for more are refused."""
        waiting = room.waiting
        while waiting and room.left > 0:
            publication = waiting.popleft()
            if publication.cancelled:
                self._drop(publication)
            else:
                self._send(publication, room)
        if waiting:
            self._refuse(room, ChannelFull(room.target, room.capacity))
            self._ask_later(room)
        else:
            self._full.pop(room.target, None)

    def _refuse(self, room: ChannelWindow, error: Exception) -> None:
        over = room.expired(self._loop.time())
        for publication in over:
            self._drop(publication)
            self._fail(publication, error)

    def _ask_later(self, room: ChannelWindow) -> None:
        if room.waiting and not room.pausing:
            room.pausing = True
            self._loop.call_later(room.next_pause(), self._ask_again, room)

    def _ask_again(self, room: ChannelWindow) -> None:
        room.pausing = False
        if room.waiting and not room.asking and self._open:
            self._ask(room)

    # -- the connection ---------------------------------------------------------------------

    def opened(self) -> None:
        """See :class:`channelsq.interface.link.redis_connection.User`."""
        self._open, self._ask_at = True, 0.0
        for script in (SIZE.text, FORGET_SCRIPT):
            self._load(script)
        self._opened()
        for room in list(self._full.values()):
            if room.waiting and not room.asking:
                self._ask(room)

    def lost(self, error: BrokerUnavailable) -> None:
        """See :class:`channelsq.interface.link.redis_connection.User`."""
        self._open, self._refusal = False, None
        due, self._due = self._due, deque()
        self._out = []
        for room in self._rooms.values():
            room.forget()
        for each in due:
            if isinstance(each, Publication):
                self._drop(each)
                self._fail(each, error)
            elif isinstance(each, _Forgetting):
                each.told(error)
        self.on_tick(self._loop.time(), error)

    def on_tick(self, now: float, error: BrokerUnavailable | None = None) -> None:
        """Give up a server that answers nothing, and what has waited for as long as it may."""
        if self._due and self.line.is_open and now - self.line.heard > SILENCE:
            self.line.fail(f"no answer for {SILENCE:g} s")
        if self._open and now >= self._ask_at:
            self._ask_at = now + _ASKED_EVERY
            self._add(MAY_WRITE, _MayWrite())
        for room in list(self._full.values()):
            if self._open and not room.asking and not room.pausing:
                self._ask_later(room)
            if not (self._open and room.asking):
                problem = ChannelFull(room.target, room.capacity) if self._open else self._problem
                self._refuse(room, error or problem)
            if not room.waiting:
                self._full.pop(room.target, None)
