"""HTTP requests: an ASGI application that uvicorn runs, which publishes each request for a worker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope

from channelsq.core import names
from channelsq.exceptions import BrokerUnavailable, ChannelFull, MessageTooLarge
from channelsq.interface.context.server_context import ServerContext
from channelsq.interface.http.lineage import BrokenLineage, Lineage
from channelsq.interface.http.request_body import Body, ClientLeft
from channelsq.interface.http.request_message import ABORT, LAST, Refused, RequestMessage
from channelsq.interface.http.response_messages import BadResponse, Part, Start, read_part, read_start
from channelsq.interface.http.single_response import SingleResponse
from channelsq.interface.http.upload_bounds import Upload
from channelsq.interface.link.replies import Delivery

logger = logging.getLogger("channelsq.interface.http")

#: The scope's key for the single response with which a request began, if any.
BEGUN = "channelsq.single_response"


class HttpApp:
    """The ASGI application; every call is one request.

    Args:
        context: the state that all connections share.
    """

    def __init__(self, context: ServerContext) -> None:
        self._context = context

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer one request; errors of a client or an application never raise."""
        assert scope["type"] == "http"
        await _Request(self._context, scope, receive, send).run()


class _Aborted(Exception):
    """The response cannot be completed; the connection is dropped."""

    def __init__(self, action: str, reason: object) -> None:
        self.action = action
        super().__init__(str(reason))


class _Request:
    """One request, from its first byte to the last byte of its response."""

    def __init__(
        self, context: ServerContext, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        self._context = context
        self._scope = scope
        self._send = send
        begun = cast("dict[str, Any]", scope).pop(BEGUN, None)
        self._single: SingleResponse | None = begun
        self._reader: asyncio.Task[None]
        self._request = RequestMessage(context, scope) if begun is None else begun.request
        self._channel = self._request.channel
        self._body = Body(context, Upload(context, scope, receive))
        # Replies that wait to be written.
        self._replies: deque[Delivery] = deque()
        self._waiting_bytes = 0
        self._overflow = False
        self._wake = asyncio.Event()
        # The runs from which the response comes, and the number of its numbered parts so far.
        self._lineage = Lineage()
        # The time from which no run may be left to continue the response.
        self._doubted: float | None = None
        # The progress of the response.
        self._start: Start | None = None
        self._sent = 0
        self._complete = False
        self._streams = False
        self._told_worker = False
        self._progress = context.loop.time()

    async def run(self) -> None:
        stats = self._context.stats
        try:
            if self._single is None:
                stats.count("http.requests")
                await self._ask()
            await self._answer()
        except ClientLeft:
            stats.count("http.clients_left")
            self._request.log(logging.INFO, "client_left", "the client left before its answer was complete")
            if self._told_worker:
                self._request.say_disconnect()
        except Refused as refused:
            await self._refuse(refused)
        except _Aborted as aborted:
            self._request.abort(aborted.action, aborted)
            self._request.say_disconnect()
            await self._abort()
        except asyncio.CancelledError:
            # The server shuts down and has waited long enough.
            if self._told_worker and not self._complete:
                self._request.say_disconnect()
            self._drop()
            raise
        finally:
            self._context.streaming -= self._streams
            self._context.replies.unregister(self._channel)
            self._body.close()
            for delivery in self._replies:
                self._context.say_gone(delivery.message)
            self._request.note_end(self._start.status if self._start is not None else None, self._sent)

    # -- the request ------------------------------------------------------------------------

    async def _ask(self) -> None:
        if self._context.ending:
            raise Refused(503, "ending", "the server is shutting down")
        self._context.replies.register(self._channel, self)
        timeout = self._context.config.http_timeout
        try:
            async with asyncio.timeout(timeout):
                body = await self._body.beginning(self._request.room())
        except TimeoutError:
            raise Refused(408, "body_timeout", f"no further part of its body for {timeout:g} s", ends=True) from None
        begun = self._request.handed_out = self._context.loop.time()
        try:
            message = self._request.message(body, self._body.channel)
            await self._context.link.published(names.HTTP_REQUEST, message, self._context.room_patience)
        except (ChannelFull, BrokerUnavailable) as error:
            if isinstance(error, ChannelFull):  # the broker may have the request in spite of an error
                self._body.keep()
            raise Refused(503, "unavailable", error) from None
        except MessageTooLarge as error:
            self._body.keep()
            raise Refused(413, "too_large", error) from None
        self._told_worker = True
        self._progress = self._context.loop.time()
        if self._context.measures is not None:
            self._context.measures.publish[names.HTTP_REQUEST].observe(self._progress - begun)

    async def _read_on(self) -> None:
        """Pass the rest of the body on, then wait for the client to leave; raise ClientLeft when it does."""
        await self._body.send_rest()
        await self._body.client_left()

    # -- the response -----------------------------------------------------------------------

    def on_reply(self, delivery: Delivery) -> None:
        """See :class:`channelsq.interface.link.replies.Receiver`."""
        if self._complete or self._overflow:
            self._context.say_gone(delivery.message)
            return
        self._context.unconsumed.answers[names.HTTP_REQUEST] += 1
        self._request.note_reply()
        self._replies.append(delivery)
        self._waiting_bytes += delivery.size
        if self._waiting_bytes > self._context.config.response_queue:
            self._overflow = True
            self._drop()
        self._wake.set()

    def on_done(self, order: int) -> None:
        """See :class:`channelsq.interface.link.replies.Receiver`; requests have no order."""

    async def _answer(self) -> None:
        if self._single is not None:
            self._told_worker = True
            self._context.replies.register(self._channel, self)
            for delivery in self._single.replies:
                self.on_reply(delivery)
        self._start_reader()
        try:
            while not self._complete:
                delivery = await self._next_reply()
                try:
                    await self._pass_on(delivery.message)
                except BaseException:
                    self._context.say_gone(delivery.message)
                    raise
                self._waiting_bytes -= delivery.size
        finally:
            self._reader.cancel()
            # The reader always ends with an exception: cancelled, the client left, or the body was refused.
            with contextlib.suppress(asyncio.CancelledError, ClientLeft, Refused):
                await self._reader

    def _start_reader(self) -> None:
        self._reader = self._context.loop.create_task(self._read_on())
        self._reader.add_done_callback(lambda _: self._wake.set())

    async def _next_reply(self) -> Delivery:
        while True:
            self._wake.clear()
            if self._overflow:
                limit = self._context.config.response_queue
                raise _Aborted("response_overflow", f"more than {limit} bytes of it wait for the client")
            if self._reader.done():
                self._raise_what_ended(self._reader)
            if self._replies:
                return self._replies.popleft()
            last = max(self._progress, self._body.heard)
            left = last + self._context.config.http_timeout - self._context.loop.time()
            if self._doubted is not None:
                left = min(left, self._doubted + self._context.limits.doubt - self._context.loop.time())
            if left <= 0:
                self._raise_timeout()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._wake.wait()

    def _raise_what_ended(self, reader: asyncio.Task[None]) -> None:
        try:
            reader.result()  # raises ClientLeft, or Refused
        except Refused as refused:
            if self._start is None:
                raise
            raise _Aborted(refused.action, refused) from None

    def _raise_timeout(self) -> None:
        timeout = self._context.config.http_timeout
        if self._start is None:
            raise Refused(504, "timeout", f"no answer within {timeout:g} s")
        if self._doubted is not None:
            raise _Aborted("run_lost", "its run has died, and no other run continues it")
        raise _Aborted("response_stalled", f"no further part for {timeout:g} s")

    async def _on_again(self, message: dict[str, Any]) -> None:
        """Handle a worker's question whether another run of the request may answer it."""
        if self._start is not None:
            # The first run may live and continue; so its response is cut off only if it does not.
            self._context.say_gone(message)
            self._doubted = self._doubted or self._context.loop.time()
            return
        self._lineage.grant(message)
        body_channel = self._body.restart()
        if body_channel is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])
            if not self._reader.cancelled():
                self._raise_what_ended(self._reader)
            self._start_reader()
        self._context.say_go(message.get("credit_channel", ""), body_channel)
        self._progress = self._context.loop.time()

    async def _pass_on(self, message: dict[str, Any]) -> None:
        if message.get("again"):
            await self._on_again(message)
            return
        try:
            if self._lineage.is_stale(message, begun=self._start is not None):
                self._context.say_gone(message)
                return
            if not self._lineage.is_next(message):
                return
        except BrokenLineage as error:
            if self._start is None:
                raise Refused(502, error.action, error) from None
            raise _Aborted(error.action, error) from None
        if message.get("abort") and self._start is None:
            if message.get("status") == 502:
                raise Refused(502, "run_lost", "its worker has died, and it is not run again")
            raise Refused(500, "response_failed", "the application failed before it answered")
        if message.get("abort"):
            raise _Aborted("response_failed", "the application failed during the response")
        try:
            part = read_part(message)
            start = read_start(message, self._scope["method"]) if self._start is None else None
        except BadResponse as error:
            if self._start is None:
                raise Refused(502, "bad_response", error) from None
            raise _Aborted("bad_response", error) from None
        timeout = self._context.config.http_timeout
        credit = message.get("credit_channel")
        try:
            async with asyncio.timeout(timeout):
                if start is not None:
                    self._start = start
                    self._streams = part.more
                    self._context.streaming += part.more
                    self._body.forget()
                    await self._begin(start)
                await self._write(part)
                if credit is not None and part.more:
                    # uvicorn waits before a write, not after it: this returns when the client has taken the rest.
                    await self._write(Part(b"", True))
        except TimeoutError:
            raise _Aborted("client_stalled", f"the client read nothing for {timeout:g} s") from None
        if start is not None or part.content or not part.more:  # else a worker asks whether the client is there
            self._progress = self._context.loop.time()
        self._doubted = None
        if credit is not None:
            self._context.say_written(credit)

    async def _begin(self, start: Start) -> None:
        await self._send(
            {"type": "http.response.start", "status": start.status, "headers": start.headers, "trailers": False}
        )

    async def _write(self, part: Part) -> None:
        assert self._start is not None
        content = b"" if self._start.bodiless else part.content
        self._sent += len(content)
        length = self._start.length
        if self._start.bodiless:
            length = None
        if length is not None and (self._sent > length or (not part.more and self._sent < length)):
            raise _Aborted("bad_response", f"'content-length' is {length}, but {self._sent} bytes were sent")
        if not part.more:
            self._complete = True
        await self._send({"type": "http.response.body", "body": content, "more_body": part.more})

    # -- other endings ----------------------------------------------------------------------

    async def _refuse(self, refused: Refused) -> None:
        self._start, content = self._request.refuse(refused)
        self._complete = True
        self._sent = len(content)
        if refused.ends:
            cast("dict[str, Callable[[Start, bytes], None]]", self._scope)[LAST](self._start, content)
            return
        await self._begin(self._start)
        await self._send({"type": "http.response.body", "body": content, "more_body": False})

    async def _abort(self) -> None:
        self._drop()
        with contextlib.suppress(ClientLeft):
            await self._body.client_left()

    def _drop(self) -> None:
        """Close the connection without a further byte."""
        cast("dict[str, Callable[[], None]]", self._scope)[ABORT]()
