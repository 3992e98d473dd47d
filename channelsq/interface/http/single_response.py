"""A request and its response when each is one message, as most are: no task, no timer, one write.

If the response turns out to be more (several parts, a client that does not read),
:class:`channelsq.interface.http.http_app.HttpApp` continues.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from channelsq.core import names
from channelsq.exceptions import MessageTooLarge
from channelsq.interface.context.server_context import ServerContext
from channelsq.interface.http.answer_bytes import written
from channelsq.interface.http.request_message import Refused, RequestMessage
from channelsq.interface.http.response_messages import BadResponse, Start, read_part, read_start
from channelsq.interface.http.uvicorn_http_internals import RequestResponseCycle
from channelsq.interface.link import Publication
from channelsq.interface.link.replies import Delivery


class SingleResponse:
    """One request whose body is complete.

    Args:
        context: the state that all connections share.
        cycle: uvicorn's cycle.
        go_on: called when the response is more than one message, or cannot be written at once; its successor reads
            :attr:`replies` first, and then registers for further ones.
    """

    __slots__ = ("_context", "_cycle", "_go_on", "_over", "_publication", "replies", "request", "told_worker")

    def __init__(
        self, context: ServerContext, cycle: RequestResponseCycle, go_on: Callable[[SingleResponse], None]
    ) -> None:
        self._context = context
        self._cycle = cycle
        self._go_on = go_on
        self._over = False
        self._publication: Publication | None = None
        self.request = RequestMessage(context, cycle.scope)  # type: ignore[arg-type]  # the same, in uvicorn's words
        #: The replies so far, for the successor.
        self.replies: list[Delivery] = []
        #: Whether the broker has the request.
        self.told_worker = False

    def begin(self) -> None:
        """Publish the request for the workers."""
        context, request = self._context, self.request
        context.stats.count("http.requests")
        if context.ending:
            self._refuse(Refused(503, "ending", "the server is shutting down"))
            return
        try:
            send = context.prepare(names.HTTP_REQUEST, request.message(bytes(self._cycle.body), None))
        except MessageTooLarge as error:
            self._refuse(Refused(413, "too_large", error))
            return
        context.replies.register(request.channel, self)
        context.single_responses[self] = None
        measures = context.measures
        publisher = self if measures is None else measures.timed(self, names.HTTP_REQUEST)
        deadline = context.loop.time() + context.room_patience
        self._publication = Publication(send, publisher, 0, deadline, waits_for_broker=False)
        context.link.submit(self._publication)

    def published(self, order: int, error: Exception | None) -> None:
        """See :class:`channelsq.interface.link.Publisher`."""
        self.told_worker = error is None
        if error is not None and not self._over:
            self._refuse(Refused(503, "unavailable", error))

    def on_reply(self, delivery: Delivery) -> None:
        """See :class:`channelsq.interface.link.replies.Receiver`."""
        if self._over:  # the task that continues has not begun yet
            self.replies.append(delivery)
            return
        self._context.unconsumed.answers[names.HTTP_REQUEST] += 1
        if self._context.measures is not None:
            self.request.note_reply()
        message = delivery.message
        if (
            message.get("more_content")
            or message.get("abort")
            or message.get("credit_channel") is not None
            or self._cycle.flow.write_paused
        ):
            self._over = True
            self._context.single_responses.pop(self, None)
            self.replies.append(delivery)
            self._go_on(self)
            return
        try:
            part = read_part(message)
            start = read_start(message, self._cycle.scope["method"])
        except BadResponse as error:
            self._refuse(Refused(502, "bad_response", error))
            return
        self._answer(start, b"" if start.bodiless else part.content)

    def on_done(self, order: int) -> None:
        """See :class:`channelsq.interface.link.replies.Receiver`; requests have no order."""

    @property
    def since(self) -> float:
        """See :class:`channelsq.interface.context.server_context.Waiting`."""
        return self.request.begun

    def on_tick(self, now: float) -> bool:
        """Give up if no answer came in time; return whether the request gave up."""
        timeout = self._context.config.http_timeout
        if now - self.request.begun < timeout:
            return False
        self._refuse(Refused(504, "timeout", f"no answer within {timeout:g} s"))
        return True

    def client_left(self) -> None:
        """End the request, as the connection has ended."""
        if self._over:
            return
        self._end()
        self._context.stats.count("http.clients_left")
        self.request.log(logging.INFO, "client_left", "the client left before its answer was complete")
        if self.told_worker:
            self.request.say_disconnect()
        self.request.note_end(None, 0)

    # -- the response -----------------------------------------------------------------------

    def _end(self) -> None:
        self._over = True
        if self._publication is not None:
            self._publication.cancelled = True
        self._context.replies.unregister(self.request.channel)
        self._context.single_responses.pop(self, None)

    def _refuse(self, refused: Refused) -> None:
        self._answer(*self.request.refuse(refused))

    def _answer(self, start: Start, content: bytes) -> None:
        self._end()
        cycle = self._cycle
        cycle.transport.write(written(cycle, start, content))
        cycle.response_started = cycle.response_complete = True
        self.request.note_end(start.status, len(content))
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()
