"""Publishing to Redis: messages leave while their channels have room, and the others wait for it."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Callable
from typing import Any

from channelsq.core import names
from channelsq.exceptions import BrokerUnavailable, ChannelFull
from channelsq.interface.link.channel_window import ChannelWindow
from channelsq.interface.link.link_contract import Publication
from channelsq.interface.link.redis_address import Address
from channelsq.interface.link.redis_connection import ReplyError
from channelsq.interface.link.redis_pipeline import Pipeline, Running
from channelsq.interface.link.server_health import ServerHealth
from channelsq.layers import RedisChannelLayer
from channelsq.layers.wire.stream_commands import StreamCommands
from channelsq.redis_core.channel_state import length, waiting_below
from channelsq.redis_core.commands import Command, Reply
from channelsq.redis_core.groups import GroupCommands
from channelsq.redis_core.operations import Operation, ask
from channelsq.redis_core.server_errors import MAY_WRITE

#: Seconds between two questions whether the server would write: without traffic nothing else would tell.
_ASKED_EVERY = 1.0

#: Channels whose room is remembered.
_MOST_WINDOWS = 1000

#: Called with the error of an operation, or None.
Callback = Callable[[Exception | None], None]

#: Called with the reason why a message was not sent, before its publisher learns of it.
Refused = Callable[[Publication, Exception], None]


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
        layer: RedisChannelLayer,
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
        self._groups = GroupCommands(layer.prefix)
        self._refused = refused
        self._opened = opened
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._shown = address.shown
        self._pipeline = Pipeline(address, self, "publishing")
        self.connection = self._pipeline.connection
        self._loop: asyncio.AbstractEventLoop
        self._windows: dict[str, ChannelWindow] = {}
        self._full: dict[str, ChannelWindow] = {}
        self._count = 0
        self._bytes = 0
        self._health = ServerHealth(address.shown)
        #: Whether commands may be sent: there is a connection, and its server has not refused to write.
        self._open = False
        self._ask_at = 0.0
        self._asking: Running[Any] | None = None
        # Message ids: this link's own, and numbers behind it.
        self._ids = secrets.token_hex(6)
        self._numbers = itertools.count()

    def start(self) -> None:
        """Connect, and publish from now on."""
        self._loop = asyncio.get_running_loop()
        self._pipeline.start()

    async def stop(self, last: list[Command]) -> int:
        """Send ``last`` and close; return how many publications were given up."""
        left = sum(len(window.waiting) for window in self._windows.values()) + sum(
            isinstance(each, Publication) for each in self._pipeline.due()
        )
        await self._pipeline.stop(last)
        return left

    @property
    def idle(self) -> bool:
        """Return whether no message waits and every command has its reply."""
        return not self._count and self._pipeline.awaits_only(self._asking)

    @property
    def takes(self) -> bool:
        """Return whether the server takes messages, as far as this process knows."""
        return self._open and not self._health.is_full

    # -- sending ----------------------------------------------------------------------------

    def submit(self, publication: Publication) -> None:
        """Send a message to a channel that has no process; a publisher is told later, in the loop."""
        target = publication.send.target
        window = self._windows.get(target) or self._new_window(target)
        if self._count and (self._count >= self._limit or self._bytes + publication.size > self._limit_bytes):
            self._later(publication, ChannelFull(target, self._limit))
            return
        self._count += 1
        self._bytes += publication.size
        if window.left > 0 and not window.waiting and self._open:
            now = self._loop.time()
            if window.is_fresh(now):
                self._send(publication, window)
                if window.wants_answer(now):
                    self._ask(window)
                return
            if not window.asking:
                self._ask(window)
                window.let_one_through()
            self._send(publication, window)
            return
        window.waiting.append(publication)
        self._full[target] = window
        if self._open:
            if not window.asking:
                self._ask(window)
        elif not (publication.deadline and publication.waits_for_broker):
            window.waiting.pop()
            self._drop(publication)
            self._later(publication, self._problem)

    def command(self, command: Command) -> None:
        """Send a command before the next message, if there is a connection."""
        if self._open:
            self._pipeline.add(command, None)

    def forget(self, channel: str, callback: Callback) -> None:
        """Take a channel out of every group."""

        def done(_: None, error: Exception | None) -> None:
            callback(None if error is None else self._unavailable(error))

        if self._open:
            self._pipeline.carry_out(self._groups.forget(channel), done)
        else:
            self._loop.call_soon(callback, self._problem)

    @property
    def _problem(self) -> BrokerUnavailable:
        """Return the reason why no message can be sent."""
        refusal = self._health.refusal
        return self.connection.error if refusal is None else BrokerUnavailable(self._shown, refusal)

    def _new_window(self, target: str) -> ChannelWindow:
        if len(self._windows) >= _MOST_WINDOWS:
            self._windows = {name: window for name, window in self._windows.items() if window.in_use}
        bare = names.is_single_reader(target)
        window = self._windows[target] = ChannelWindow(target, self._layer.capacity_of(target), bare=bare)
        return window

    def _send(self, publication: Publication, window: ChannelWindow) -> None:
        window.take()
        send = publication.send
        if window.bare:
            add, keep = self._commands.bare(send.target, send.body)
            self._pipeline.add(add, publication)
            self._pipeline.add(keep, None)
            return
        if publication.identity is None:
            publication.identity = f"{self._ids}-{next(self._numbers):x}"
        self._pipeline.write(self._packed_task(send.target, send.body, publication.identity), publication)

    def _later(self, publication: Publication, error: Exception) -> None:
        self._loop.call_soon(self._fail, publication, error)

    def _fail(self, publication: Publication, error: Exception) -> None:
        self._refused(publication, error)
        publication.tell(error)

    def _drop(self, publication: Publication) -> None:
        self._count -= 1
        self._bytes -= publication.size

    # -- room in channels -------------------------------------------------------------------

    def _ask(self, window: ChannelWindow) -> None:
        self._pipeline.carry_out(self._question(window), lambda size, error: self._answered(window, size, error))

    def _question(self, window: ChannelWindow) -> Operation[int]:
        key = self._commands.key(window.target)
        if not window.bare:
            return (yield from waiting_below(key, window.capacity, window.ask))
        window.ask()
        return int((yield from ask(length(key)))[0])

    def _answered(self, window: ChannelWindow, size: int | None, error: Exception | None) -> None:
        if size is not None and self._open:
            window.answer(size, self._loop.time())
            self._fill(window)
            return
        window.forget()
        if self._open and error is not None:  # else what waits does so until there is a connection
            self._refuse(window, self._unavailable(error))
            self._ask_later(window)

    def _fill(self, window: ChannelWindow) -> None:
        """Send what there is room for; those that may not wait for more are refused."""
        waiting = window.waiting
        while waiting and window.left > 0:
            publication = waiting.popleft()
            if publication.cancelled:
                self._drop(publication)
            else:
                self._send(publication, window)
        if waiting:
            self._refuse(window, ChannelFull(window.target, window.capacity))
            self._ask_later(window)
        else:
            self._full.pop(window.target, None)

    def _refuse(self, window: ChannelWindow, error: Exception) -> None:
        over = window.expired(self._loop.time())
        for publication in over:
            self._drop(publication)
            self._fail(publication, error)

    def _ask_later(self, window: ChannelWindow) -> None:
        if window.waiting and not window.pausing:
            window.pausing = True
            self._loop.call_later(window.next_pause(), self._ask_again, window)

    def _ask_again(self, window: ChannelWindow) -> None:
        window.pausing = False
        if window.waiting and not window.asking and self._open:
            self._ask(window)

    # -- for the pipeline -------------------------------------------------------------------

    def replied(self, due: Publication | None, reply: Reply) -> None:
        """See :class:`channelsq.interface.link.redis_pipeline.User`."""
        if due is None:
            if isinstance(reply, ReplyError):
                self._heed(reply)
            return
        self._count -= 1
        self._bytes -= due.size
        if type(reply) is not bytes:
            self._fail(due, self._unavailable(reply))
        elif due.publisher is not None:
            due.publisher.published(due.order, None)

    def emptied(self) -> None:
        """See :class:`channelsq.interface.link.redis_pipeline.User`."""
        if self._health.refusal is not None:
            self.connection.fail(self._health.refusal)

    def _heed(self, error: ReplyError) -> None:
        self._health.heed(error)
        if self._health.refusal is not None:
            self._open = False

    def _unavailable(self, reply: object) -> BrokerUnavailable:
        if isinstance(reply, BrokerUnavailable):
            return reply
        if isinstance(reply, ReplyError):
            self._heed(reply)
        return BrokerUnavailable(self._shown, reply)

    def opened(self) -> None:
        """See :class:`channelsq.interface.link.redis_pipeline.User`."""
        self._open, self._ask_at = True, 0.0
        self._opened()
        for window in list(self._full.values()):
            if window.waiting and not window.asking:
                self._ask(window)

    def lost(self, error: BrokerUnavailable, due: list[Any]) -> None:
        """See :class:`channelsq.interface.link.redis_pipeline.User`."""
        self._open = False
        self._health.begin()
        for window in self._windows.values():
            window.forget()
        for publication in due:
            if publication is not None:
                self._drop(publication)
                self._fail(publication, error)
        self._look_at_windows(error)

    def _asked(self, _: object, error: Exception | None) -> None:
        self._asking = None
        if error is None:
            self._health.heed_write()
        elif isinstance(error, ReplyError):
            self._heed(error)

    def on_tick(self, now: float) -> None:
        """Give up a server that answers nothing, and what has waited for as long as it may."""
        self._pipeline.on_tick(now)
        if self._open and now >= self._ask_at and self._asking is None:
            self._ask_at = now + _ASKED_EVERY
            self._asking = self._pipeline.carry_out(ask(MAY_WRITE), self._asked)
        self._look_at_windows(None)

    def _look_at_windows(self, error: BrokerUnavailable | None) -> None:
        for window in list(self._full.values()):
            if self._open and not window.asking and not window.pausing:
                self._ask_later(window)
            if not (self._open and window.asking):
                problem = ChannelFull(window.target, window.capacity) if self._open else self._problem
                self._refuse(window, error or problem)
            if not window.waiting:
                self._full.pop(window.target, None)
