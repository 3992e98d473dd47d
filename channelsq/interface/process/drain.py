"""The shutdown of a server: it finishes open work, and closes WebSockets over a window of time.

====================  ================================================================================
from the beginning    ``/-/health/ready`` returns 503
``--drain-delay``     later the listening sockets are closed, so that no client connects any more
two seconds           later at most, clients that are already connected must have sent a request: idle
                      connections are closed, handshakes that a worker has not answered get 503
``--drain-window``    in which WebSockets are closed with 1012, one after another in random order, and
                      work until then; HTTP requests are answered
then                  the server waits for the rest, within :class:`channelsq.interface.basis.config.Limits`:
                      clients' close frames and responses, the order of sockets' messages, the broker
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

#: The least number of WebSockets that are closed in a second: a few of them need not take the whole window.
LEAST_RATE = 50

_LOOK = 0.02


class Drain:
    """The shutdown of one server.

    Args:
        context: the state that all connections share.
        state: uvicorn's state, with its connections and tasks.
        is_forced: returns whether the server must stop without waiting.
    """

    def __init__(self, context: ServerContext, state: ServerState, is_forced: Callable[[], bool]) -> None:
        self._context = context
        self._connections, self._tasks = connections_of(state), tasks_of(state)
        self._is_forced = is_forced
        self._delay = context.config.drain_delay
        self._window = context.config.drain_window

    def skip_waits(self) -> None:
        """Close all WebSockets at once."""
        self._delay = self._window = 0.0

    async def run(self, stop_listening: Callable[[], None]) -> None:
        """Run the shutdown; return when no work is left.

        Args:
            stop_listening: called when no more clients may connect.
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
        # Let clients that are already connected send a request within `end_begun`.
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
        await self._wait(lambda: not context.unpublished_disconnects(), ended + self._window + limits.end_ordered)
        if left := context.unpublished_disconnects():
            logger.warning("%d WebSockets close without waiting for their workers", left, extra=extra("let_go"))
        for socket in list(context.sockets):
            socket.publish_rest()
        await self._wait(lambda: context.link.idle, ended + self._window + limits.end_all)
        await context.stop()
        logger.info("stopped after %.1f s", context.loop.time() - began, extra=extra("stopped"))

    def _is_nobody_beginning(self) -> bool:
        return not any(each.is_beginning for each in self._connections)  # HttpProtocol and WebSocketProtocol

    def _refuse_the_rest(self) -> list[WebSocketProtocol]:
        """Close idle and new connections, end HTTP connections after their responses; return the open WebSockets."""
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
            socket.shutdown()  # no effect if it is closed by now

    async def _wait(self, condition: Callable[[], bool], until: float) -> None:
        while not condition() and not self._is_forced() and (left := until - self._context.loop.time()) > 0:
            await asyncio.sleep(min(_LOOK, left))


def _abort(connection: Any) -> None:
    if isinstance(connection, WebSocketProtocol):
        connection.abort()
    else:
        connection.transport.abort()
