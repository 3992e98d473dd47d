"""Commands on one connection: those of one turn of the event loop in one write, and their replies in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from hiredis import pack_command

from channelsq.exceptions import BrokerUnavailable
from channelsq.interface.link.redis_address import Address
from channelsq.interface.link.redis_connection import SILENCE, RedisConnection
from channelsq.redis_core.commands import Command, Reply
from channelsq.redis_core.operations import Operation

T = TypeVar("T")


class Running(Generic[T]):
    """An operation that is being carried out.

    Args:
        operation: the operation.
        done: is called with its result and None, or with None and the error that ended it.
    """

    __slots__ = ("_done", "_left", "_operation", "_replies")

    def __init__(self, operation: Operation[T], done: Callable[[T | None, Exception | None], None]) -> None:
        self._operation = operation
        self._done = done
        self._replies: list[Reply] = []
        self._left = 0

    def begin(self, pipeline: Pipeline) -> None:
        """Send the first commands."""
        self._go_on(pipeline, lambda: next(self._operation))

    def answered(self, pipeline: Pipeline, reply: Reply) -> None:
        """Take the reply to a command, and go on after the last one."""
        self._replies.append(reply)
        self._left -= 1
        if not self._left:
            replies, self._replies = self._replies, []
            self._go_on(pipeline, lambda: self._operation.send(replies))

    def fail(self, error: Exception) -> None:
        """End because of an error."""
        self._operation.close()
        self._done(None, error)

    def _go_on(self, pipeline: Pipeline, step: Callable[[], Any]) -> None:
        try:
            commands = step()
        except StopIteration as end:
            self._done(end.value, None)
        except Exception as error:
            self._done(None, error)
        else:
            self._left = len(commands)
            for command in commands:
                pipeline.add(command, self)


class User(Protocol):
    """The sender of commands; its methods are called in the event loop."""

    def opened(self) -> None:
        """There is a connection: nothing has been sent on it."""

    def replied(self, due: Any, reply: Reply) -> None:
        """Handle the reply to a command, which is named by the value it was sent with."""

    def emptied(self) -> None:
        """Every command has its reply."""

    def lost(self, error: BrokerUnavailable, due: list[Any]) -> None:
        """Handle the loss of the connection and of replies; the values of their commands name them."""


class Pipeline:
    """Sends commands for ``user`` on a connection of its own.

    Args:
        address: the server.
        user: whose commands they are.
        role: what it does, for the log.
    """

    def __init__(self, address: Address, user: User, role: str) -> None:
        self._user = user
        self.connection = RedisConnection(address, self, role)
        self._loop: asyncio.AbstractEventLoop
        self._out: list[bytes] = []
        self._due: deque[Any] = deque()

    def start(self) -> None:
        """Connect, now and after each loss."""
        self._loop = asyncio.get_running_loop()
        self.connection.start()

    async def stop(self, last: list[Command]) -> None:
        """Send ``last`` and close."""
        if self.connection.is_open:
            for command in last:
                self.add(command, None)
            self._flush()
        await self.connection.stop()

    def due(self) -> list[Any]:
        """Return what the commands that have no reply yet were sent with."""
        return list(self._due)

    def awaits_only(self, running: Running[Any] | None) -> bool:
        """Return whether every command has its reply, but for those of one operation."""
        return not self._due or (running is not None and all(due is running for due in self._due))

    def add(self, command: Command, due: Any) -> None:
        """Send a command; see :meth:`write`."""
        self.write(pack_command(command), due)  # type: ignore[arg-type]  # its stub: one item

    def write(self, packed: bytes, due: Any) -> None:
        """Send a packed command with the others of this turn.

        Args:
            packed: the command.
            due: what the user is given with the reply; None for a reply of which it need not be told.
        """
        if not self._out:
            self._loop.call_soon(self._flush)
        if not self._due:
            # No reply was due, so the server's silence begins now.
            self.connection.heard = self._loop.time()
        self._out.append(packed)
        self._due.append(due)

    def carry_out(self, operation: Operation[T], done: Callable[[T | None, Exception | None], None]) -> Running[T]:
        """Carry out an operation; see :class:`Running`.  Return what its commands are sent with."""
        running = Running(operation, done)
        running.begin(self)
        return running

    def _flush(self) -> None:
        out = self._out
        if out and self.connection.is_open:
            self._out = []
            self.connection.write(b"".join(out))

    def on_tick(self, now: float) -> None:
        """Give up a server that answers nothing."""
        if self._due and self.connection.is_open and now - self.connection.heard > SILENCE:
            self.connection.fail(f"no answer for {SILENCE:g} s")

    # -- for the connection

    def opened(self) -> None:
        """See :class:`channelsq.interface.link.redis_connection.User`."""
        self._user.opened()

    def replied(self, reply: Reply) -> None:
        """See :class:`channelsq.interface.link.redis_connection.User`."""
        due = self._due.popleft()
        if type(due) is Running:
            due.answered(self, reply)
        else:
            self._user.replied(due, reply)
        if not self._due:
            self._user.emptied()

    def lost(self, error: BrokerUnavailable) -> None:
        """See :class:`channelsq.interface.link.redis_connection.User`."""
        due, self._due = self._due, deque()
        self._out = []
        self._user.lost(error, [each for each in due if type(each) is not Running])
        for running in dict.fromkeys(each for each in due if type(each) is Running):
            running.fail(error)
