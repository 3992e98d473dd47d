"""The end of a server that is told to stop: what is under way is finished, and not everybody is sent away at once.

====================  ================================================================================
from the beginning    ``/-/health/ready`` says 503
``--drain-delay``     later nobody is let in any more: the listening sockets are closed
two seconds           later at most, who was let in before must have asked for something: idle
                      connections are closed, handshakes that a worker has not answered get 503
``--drain-window``    in which WebSockets are closed with 1012, one after another in no order, and go
                      on working until it is their turn; HTTP requests are answered
then                  what is left is waited for, as :class:`channelsq.interface.basis.config.Limits` says:
                      clients' close frames and answers, the order of sockets' messages, the broker
====================  ================================================================================
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any

from channelsq.interface.basis.log_fields import extra
from channelsq.interface.basis.uvicorn_state_internals import ServerState, connections_of, tasks_of
from channelsq.interface.context.server_context import ServerContext
from channelsq.interface.websocket.websocket_protocol import WebSocketProtocol

logger = logging.getLogger("channelsq.interface")

#: WebSockets that are closed in a second, at least: few of them need not take the whole window.
LEAST_RATE = 50

_LOOK = 0.02


class Drain:
    """Ends one server.

    Args:
        context: what all connections share.
        state: uvicorn's, with its connections and tasks.
        is_forced: whether nothing is to be waited for any more.
    """

    def __init__(self, context: ServerContext, state: ServerState, is_forced: Callable[[], bool]) -> None:
        self._context = context
        self._connections, self._tasks = connections_of(state), tasks_of(state)
        self._is_forced = is_forced
        self._delay = context.config.drain_delay
        self._window = context.config.drain_window

    def hurry(self) -> None:
        """Close all WebSockets at once."""
        self._delay = self._window = 0.0

    async def run(self, stop_listening: Callable[[], None]) -> None:
        """Do all of it; returns when there is nothing left.

        Args:
            stop_listening: called when nobody is to be let in any more.
        """
        context, limits = self._context, self._context.limits
        began = context.loop.time()
        context.draining = True
        logger.info(
            "stopping: %d connections, %d WebSockets",
            context.connections,
            len(context.sockets),
            extra=extra("stopping"),
        )
        await self._wait(lambda: False, began + self._delay)
        stop_listening()
        # Who has come in by the door that was open is not sent away, if it says soon what it wants.
        await self._wait(self._is_nobody_beginning, context.loop.time() + limits.end_begun)
        context.ending = True
        ended = context.loop.time()
        await self._close_sockets(self._refuse_the_rest())
        await self._wait(lambda: not self._connections, ended + self._window + limits.end_answers)
        for task in list(self._tasks):
            task.cancel()
        for connection in list(self._connections):
            _abort(connection)
        await self._wait(
            lambda: not self._connections and not self._tasks,
            ended + self._window + limits.end_answers + 1,
        )
        await self._wait(lambda: not context.untold(), ended + self._window + limits.end_ordered)
        if left := context.untold():
            logger.warning("%d WebSockets end without waiting for their workers", left, extra=extra("let_go"))
        for socket in list(context.sockets):
            socket.let_go()
        await self._wait(lambda: context.link.idle, ended + self._window + limits.end_all)
        await context.stop()
        logger.info("stopped after %.1f s", context.loop.time() - began, extra=extra("stopped"))

    def _is_nobody_beginning(self) -> bool:
        return not any(each.is_beginning for each in self._connections)  # HttpProtocol and WebSocketProtocol

    def _refuse_the_rest(self) -> list[WebSocketProtocol]:
        """End what is idle or only begins, and have HTTP connections end with their answers; gives open WebSockets."""
        opened: list[WebSocketProtocol] = []
        for connection in list(self._connections):
            if isinstance(connection, WebSocketProtocol) and connection.is_open:
                opened.append(connection)
            else:
                connection.shutdown()
        return opened

    async def _close_sockets(self, opened: list[WebSocketProtocol]) -> None:
        if not self._window:
            for socket in opened:
                socket.shutdown()
            return
        random.shuffle(opened)
        rate = max(LEAST_RATE, len(opened) / self._window)
        begun = self._context.loop.time()
        for number, socket in enumerate(opened):
            if begun + number / rate > self._context.loop.time():
                await self._wait(lambda: False, begun + number / rate)
            socket.shutdown()  # nothing, if it is closed by now

    async def _wait(self, condition: Callable[[], bool], until: float) -> None:
        while not condition() and not self._is_forced() and (left := until - self._context.loop.time()) > 0:
            await asyncio.sleep(min(_LOOK, left))


def _abort(connection: Any) -> None:
    if isinstance(connection, WebSocketProtocol):
        connection.abort()
    else:
        connection.transport.abort()
