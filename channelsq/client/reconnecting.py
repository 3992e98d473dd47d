"""The client: a connection that comes back, and the messages on it."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, InvalidURI, WebSocketException
from websockets.typing import Subprotocol

from channelsq.client.client_errors import ClientClosed, QueueFull
from channelsq.client.client_tasks import ClientTask, ClientTasks, Request
from channelsq.client.inboxes import Inbox

logger = logging.getLogger("channelsq.client")

#: The stream of live tasks.
TASK_STREAM = "channelsq.task"

#: The most tickets in a frame, as the server allows.
_MOST_TICKETS = 50

#: Statuses of a handshake's answer after which another attempt may succeed, below 500.
_PASSING = frozenset({408, 425, 429})


class ClientStream:
    """A stream of a client's socket, as :meth:`Client.stream` returns it; ``async for`` yields its payloads."""

    def __init__(self, client: Client, name: str, inbox: Inbox) -> None:
        self.name = name
        self._client = client
        self._inbox = inbox

    async def send(self, payload: Any) -> None:
        """Send a payload; errors as :meth:`Client.send`."""
        await self._client.send({"stream": self.name, "payload": payload})

    async def receive(self) -> Any:
        """Return the next payload.

        Raises:
            ClientClosed: the client is closed for good.
        """
        return await self._inbox.take()

    def __aiter__(self) -> AsyncIterator[Any]:
        """Yield payloads until the client is closed with 1000; raises ClientClosed if it is closed otherwise."""
        return self._inbox.iterate()


class Client:
    """A WebSocket that connects again when its connection ends, with JSON, streams and live tasks.

    ``async with`` connects and closes it; ``async for content in client`` yields messages until it is closed with 1000.
    Waits between attempts are random, up to a longest wait that grows with each attempt.

    Args:
        url: ``ws://`` or ``wss://``; or a function that returns one for each attempt.
        min_delay: the longest first wait before it connects again, in seconds.
        max_delay: the longest wait, in seconds.
        factor: growth of the longest wait with each attempt.
        max_retries: attempts in a row after which it gives up; None: no limit.
        min_uptime: seconds that a connection must last for the waits to start again at ``min_delay``.
        connection_timeout: seconds that an attempt may take.
        max_queue: messages that are kept while there is no connection.
        max_inbox: received messages that are kept until they are read, of each stream; then the oldest is dropped.
        stop_codes: close codes after which it does not connect again.
        token: a function that returns a token for each attempt, or an awaitable of one; an empty token means none.
        options: for ``connect()`` of websockets, such as ``additional_headers``, ``ssl`` and ``max_size``.
    """

    def __init__(
        self,
        url: str | Callable[[], str],
        *,
        min_delay: float = 0.5,
        max_delay: float = 30.0,
        factor: float = 2.0,
        max_retries: int | None = None,
        min_uptime: float = 5.0,
        connection_timeout: float = 10.0,
        max_queue: int = 100,
        max_inbox: int = 1000,
        stop_codes: Iterable[int] = (1000, 1008),
        token: Callable[[], str | Awaitable[str]] | None = None,
        **options: Any,
    ) -> None:
        self._url = url if callable(url) else lambda: url
        self._min_delay, self._max_delay, self._factor = min_delay, max_delay, factor
        self._max_retries = max_retries
        self._min_uptime = min_uptime
        self._connection_timeout = connection_timeout
        self._max_queue, self._max_inbox = max_queue, max_inbox
        self._stop_codes = frozenset(stop_codes)
        self._token = token
        self._options = options
        #: Attempts since a connection that lasted.
        self.retries = 0
        #: ``"idle"``, ``"connecting"``, ``"open"``, ``"waiting"`` for the next attempt, or ``"closed"`` for good.
        self.state = "idle"
        #: Called without arguments after each connection but the first; may be a coroutine function.
        self.on_reconnect: Callable[[], Any] | None = None
        #: Called with each task that the server has told of first.
        self.on_task: Callable[[ClientTask], None] | None = None
        self._connections = 0
        self._socket: ClientConnection | None = None
        self._queue: deque[str | bytes] = deque()
        #: Held while a message is sent, so that messages which waited come first.
        self._sending = asyncio.Lock()
        self._inbox = Inbox(max_inbox, "the client")
        self._streams: dict[str, tuple[ClientStream, Inbox]] = {}
        self._tasks = ClientTasks(self._request)
        self._requests: list[tuple[Request, str]] = []
        self._runner: asyncio.Task[None] | None = None
        self._helpers: set[asyncio.Task[Any]] = set()
        self._first = asyncio.Event()
        self._error: ClientClosed | None = None
        self._closing = 1000, ""

    # -- the connection

    async def connect(self) -> None:
        """Connect, and wait for the first connection.

        Raises:
            ClientClosed: it was refused, or the attempts are used up.
        """
        if self._runner is None:
            self.state = "connecting"
            self._runner = asyncio.create_task(self._run())
        await self._first.wait()
        if self._error is not None:
            raise self._error

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection for good."""
        self._closing = code, reason
        for task in (*self._helpers, *([] if self._runner is None else [self._runner])):
            task.cancel()
            await asyncio.wait([task])
        self._end(ClientClosed(code, reason or "close()"))

    async def __aenter__(self) -> Client:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self) -> None:
        """Connect again and again, until it is closed for good."""
        problem: Exception | None = None
        try:
            while True:
                self.state = "connecting"
                try:
                    await self._attempt()
                except (OSError, EOFError, TimeoutError, WebSocketException) as error:
                    problem = error
                    text = str(error) or type(error).__name__
                    logger.warning("no connection: %s", text, extra={"action": "client_away"})
                if self._max_retries is not None and self.retries >= self._max_retries:
                    raise ClientClosed(None, f"no connection after {self.retries + 1} attempts")
                # A random part of the longest wait: the clients of a server that was away do not come back at once.
                longest = min(self._max_delay, self._min_delay * self._factor**self.retries)
                self.retries += 1
                self.state = "waiting"
                await asyncio.sleep(random.uniform(0, longest))  # noqa: S311 - not a secret
        except ClientClosed as error:
            error.__cause__ = error.__cause__ or problem
            self._end(error)
        except Exception as error:  # a mistake in the arguments, or of a function that returns the URL
            closed = ClientClosed(None, str(error))
            closed.__cause__ = error
            self._end(closed)

    async def _attempt(self) -> None:
        """Connect, and read until the end of the connection.

        Raises:
            ClientClosed: another attempt is useless.
            OSError, EOFError, TimeoutError, WebSocketException: there was no connection.
        """
        try:
            async with asyncio.timeout(self._connection_timeout):
                socket = await self._open()
        except InvalidURI as error:
            raise ClientClosed(None, str(error)) from error
        except InvalidStatus as error:
            status = error.response.status_code
            if 400 <= status < 500 and status not in _PASSING:
                raise ClientClosed(None, f"the server answered {status}") from error
            raise
        begun = time.monotonic()
        try:
            await self._read(socket)
        except ConnectionClosed:
            pass
        finally:
            self._socket = None
            await socket.close(*self._closing)
        if time.monotonic() - begun >= self._min_uptime:
            self.retries = 0
        if socket.close_code in self._stop_codes:
            raise ClientClosed(socket.close_code, socket.close_reason or "")

    async def _open(self) -> ClientConnection:
        subprotocols = [*self._options.get("subprotocols", ())]
        if self._token is not None:
            try:
                token = self._token()
                if inspect.isawaitable(token):
                    token = await token
            except Exception as error:
                raise ConnectionError(f"no token: {error}") from error
            if token:
                subprotocols += [Subprotocol("channelsq"), Subprotocol(f"channelsq.token.{token}")]
        options = {**self._options, "subprotocols": subprotocols or None}
        return await connect(self._url(), open_timeout=None, **options)

    async def _read(self, socket: ClientConnection) -> None:
        """Send what waited, and handle frames until the connection ends."""
        async with self._sending:
            while self._queue:
                await socket.send(self._queue[0])
                self._queue.popleft()
            self._socket = socket
        self.state = "open"
        self._connections += 1
        self._requests.clear()
        self._tasks.resume()
        self._first.set()
        if self._connections > 1:
            self._call(self.on_reconnect)
        async for frame in socket:
            self._receive(frame)

    def _call(self, callback: Callable[..., Any] | None, *args: Any) -> None:
        """Call a function of the program; log its error."""
        try:
            done = callback(*args) if callback is not None else None
        except Exception:
            logger.exception("a callback of the client failed", extra={"action": "client_callback_failed"})
        else:
            if inspect.iscoroutine(done):
                self._help(done)

    def _end(self, error: ClientClosed) -> None:
        if self._error is None:
            self._error = error
        self.state = "closed"
        self._first.set()
        for inbox in (self._inbox, *(inbox for _, inbox in self._streams.values())):
            inbox.close(self._error)
        self._tasks.close(self._error)

    def _help(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine beside the reading."""
        helper = asyncio.create_task(work)
        self._helpers.add(helper)
        helper.add_done_callback(self._helpers.discard)

    # -- messages

    async def send(self, content: Any) -> None:
        """Send a message: bytes as they are, all else as JSON; without a connection it is kept until the next one.

        Raises:
            ClientClosed: the client is closed for good.
            QueueFull: ``max_queue`` messages wait for a connection.
            TypeError: JSON does not support the content.
        """
        data = content if isinstance(content, bytes) else json.dumps(content, separators=(",", ":"), ensure_ascii=False)
        async with self._sending:
            if self._error is not None:
                raise self._error
            if self._socket is not None:
                try:
                    await self._socket.send(data)
                except ConnectionClosed:
                    self._socket = None
                else:
                    return
            if len(self._queue) >= self._max_queue:
                raise QueueFull(f"{len(self._queue)} messages wait for a connection, which is max_queue")
            self._queue.append(data)

    @property
    def queued(self) -> int:
        """The number of messages that wait for a connection."""
        return len(self._queue)

    @property
    def dropped(self) -> int:
        """The number of received messages that were dropped because the program did not read them."""
        return sum(inbox.dropped for inbox in (self._inbox, *(inbox for _, inbox in self._streams.values())))

    async def receive(self) -> Any:
        """Return the next message: content from JSON, or the bytes of a binary frame.

        A message of a stream comes here, whole, unless :meth:`stream` was called with its name.

        Raises:
            ClientClosed: the client is closed for good.
        """
        return await self._inbox.take()

    def __aiter__(self) -> AsyncIterator[Any]:
        """Yield messages until the client is closed with 1000; raises ClientClosed if it is closed otherwise."""
        return self._inbox.iterate()

    def stream(self, name: str) -> ClientStream:
        """Return a stream; from now on its messages come there."""
        if name not in self._streams:
            inbox = Inbox(self._max_inbox, f"the stream {name}")
            inbox.close(self._error)
            self._streams[name] = ClientStream(self, name, inbox), inbox
        return self._streams[name][0]

    def task(self, ticket_or_id: str) -> ClientTask:
        """Return a live task, and watch it; the same object for the same id.

        Args:
            ticket_or_id: its ticket; with its id alone the task waits for the first message, which has the ticket.

        Raises:
            ValueError: there is no id in it.
        """
        task = self._tasks.get(ticket_or_id)
        if self._error is not None:
            self._tasks.close(self._error)
        return task

    def _receive(self, frame: str | bytes) -> None:
        if isinstance(frame, bytes):
            self._inbox.add(frame)
            return
        try:
            content = json.loads(frame)
            name = content.get("stream") if isinstance(content, dict) else None
            task = self._tasks.receive(content.get("payload")) if name == TASK_STREAM else None
        except (ValueError, KeyError, TypeError):
            logger.warning("a frame could not be read: %.100s", frame, extra={"action": "client_bad_frame"})
            return
        if name == TASK_STREAM:
            if task is not None:
                self._call(self.on_task, task)
        elif isinstance(name, str) and name in self._streams:
            self._streams[name][1].add(content.get("payload"))
        else:
            self._inbox.add(content)

    def _request(self, request: Request, ticket: str) -> None:
        """Send a request together with others of this moment; without a connection it is made again on the next."""
        self._requests.append((request, ticket))
        if len(self._requests) == 1:
            asyncio.get_running_loop().call_soon(lambda: self._help(self._send_requests()))

    async def _send_requests(self) -> None:
        requests, self._requests = self._requests, []
        async with self._sending:
            while requests and self._socket is not None:
                request = requests[0][0]
                tickets: list[str] = []
                while requests and requests[0][0] == request and len(tickets) < _MOST_TICKETS:
                    tickets.append(requests.pop(0)[1])
                frame = {"stream": TASK_STREAM, "payload": {request: tickets}}
                try:
                    await self._socket.send(json.dumps(frame, separators=(",", ":")))
                except ConnectionClosed:
                    return
