"""HTTP through Django's views: ``AsgiRequest``, ``AsgiHandler`` and ``ViewConsumer``."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import Any

from channelsq.delivery import shutdown
from channelsq.delivery.attempts import NotAgain
from channelsq.delivery.ending import is_end
from channelsq.exceptions import ResponseLater
from channelsq.http.asgi_handler import AsgiHandler
from channelsq.http.reply import Reply
from channelsq.http.request import AsgiRequest
from channelsq.message import Message

__all__ = ["AsgiHandler", "AsgiRequest", "ViewConsumer"]


class ViewConsumer:
    """The consumer that answers ``http.request`` messages with Django's views.

    The parts of a response leave at once, not when the consumer returns, so that a streaming response streams.  A
    response of a single message leaves with the acknowledgement of the request, if the layer supports that.  If the
    consumer fails, the client gets status 500 or, in the middle of a response, a cut connection.

    Raises, when called:
        ValueError: the message has no ``reply_channel``.
        ChannelFull: the reply channel had no room for ``full_timeout`` seconds.
    """

    handler_class: type[AsgiHandler] = AsgiHandler

    #: The number of full chunks of a response after which the worker asks the interface server for credit,
    credit_chunks = 8
    #: or the number of messages, of any size,
    credit_messages = 64
    #: or the number of seconds.
    credit_seconds: float = 5
    #: Seconds that a client may take for that; then it counts as disconnected.
    credit_timeout: float = 120
    #: Seconds to wait for room on a full reply channel.
    full_timeout: float = 30
    #: Whether a response of one message leaves before Django closes it, and so before ``request_finished``.  Without
    #: it the layer may send it together with the acknowledgement of the request.
    immediately = False

    #: Tells the worker that the handler marks the run of a request itself, after it has read the body.
    marks_run = True

    def __init__(self) -> None:
        self._handler: AsgiHandler | None = None
        self._making = threading.Lock()

    @property
    def handler(self) -> AsgiHandler:
        """The handler of every thread; created at its first use, so that routings import without Django."""
        if self._handler is None:
            with self._making:
                if self._handler is None:
                    self._handler = self.make_handler()
        return self._handler

    @handler.setter
    def handler(self, handler: AsgiHandler) -> None:
        self._handler = handler

    def make_handler(self) -> AsgiHandler:
        """Return a new handler; override it to pass arguments to ``handler_class``."""
        return self.handler_class()

    def __call__(self, message: Message, **kwargs: Any) -> None:
        if message.reply_channel is None:
            raise ValueError(f"{message!r} has no 'reply_channel', so it cannot be answered")
        reply = Reply(
            message.reply_channel,
            credit_bytes=self.credit_chunks * self.handler_class.chunk_size,
            credit_messages=self.credit_messages,
            credit_seconds=self.credit_seconds,
            credit_timeout=self.credit_timeout,
            full_timeout=self.full_timeout,
            immediately=self.immediately,
        )
        try:
            # Closed here, not by the garbage collector: this ends the view's generator.
            with closing(self.handler(message)) as responses:
                for content in responses:
                    if not reply.send(content):
                        break
                    if not reply.complete and shutdown.is_over():
                        raise shutdown.ShuttingDown("the worker is shutting down")
        except NotAgain:  # nothing has begun
            raise
        except shutdown.ShuttingDown as error:
            reply.cut(str(error))
        except ResponseLater:
            pass
        except BaseException as error:
            # A view's exception cannot end its worker, so the client must not wait.  If the worker ends, another one
            # answers, unless this one has begun to.
            if reply.sent or not is_end(error):
                reply.fail()
            raise
