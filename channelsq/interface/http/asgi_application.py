"""HTTP without the channel: Django's own ASGI application in the interface server's process (``--http direct``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from asgiref.typing import ASGIReceiveCallable, ASGIReceiveEvent, ASGISendCallable, ASGISendEvent, Scope

from channelsq.interface.http.request_message import ABORT, LAST, Refused, RequestMessage
from channelsq.interface.http.response_messages import OWN_HEADERS
from channelsq.interface.http.upload_bounds import Upload

if TYPE_CHECKING:
    from channelsq.interface.context.server_context import ServerContext


class DirectApp:
    """An application that answers each request with Django's views in this process and publishes nothing.

    Args:
        context: the state that all connections share.
    """

    def __init__(self, context: ServerContext) -> None:
        from django.core.asgi import get_asgi_application

        self._context = context
        self._django: Any = get_asgi_application()

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer one request."""
        assert scope["type"] == "http"
        context = self._context
        context.stats.count("http.requests")
        request = RequestMessage(context, scope)
        body = _Body(Upload(context, scope, receive, patience=context.config.http_timeout))
        sent = _Sent(context, send)
        try:
            if context.ending:
                raise Refused(503, "ending", "the server is shutting down")
            body.upload.check()
            client = tuple(request.client) if request.client else None
            theirs = {**scope, "root_path": context.config.root_path, "client": client, "scheme": request.scheme}
            await self._django(theirs, body, sent)
            if body.refused is not None:
                raise body.refused
        except Refused as refused:
            if sent.status is not None:
                request.abort(refused.action, refused)
                cast("dict[str, Callable[[], None]]", scope)[ABORT]()
                return
            start, content = request.refuse(refused)
            if refused.ends:
                cast("dict[str, Any]", scope)[LAST](start, content)
                sent.status, sent.size = start.status, len(content)
                return
            await sent({"type": "http.response.start", "status": start.status, "headers": start.headers,
                        "trailers": False})  # fmt: skip
            await sent({"type": "http.response.body", "body": content, "more_body": False})
        finally:
            sent.end()
            request.note_end(sent.status, sent.size)


class _Body:
    """The ``receive`` of Django; it turns a refused body into a disconnect, so that Django stops working on the
    request.
    """

    def __init__(self, upload: Upload) -> None:
        self.upload = upload
        self.refused: Refused | None = None

    async def __call__(self) -> ASGIReceiveEvent:
        try:
            return await self.upload()
        except Refused as refused:
            self.refused = refused
            return {"type": "http.disconnect"}


class _Sent:
    """The sent part of a response, for the log; it drops the body of a response that has none."""

    def __init__(self, context: ServerContext, send: ASGISendCallable) -> None:
        self._context = context
        self._send = send
        self._streams = False
        self._empty = False
        self.status: int | None = None
        self.size = 0

    async def __call__(self, event: ASGISendEvent) -> None:
        if event["type"] == "http.response.start":
            self.status = event["status"]
            event = {**event, "headers": [each for each in event["headers"] if each[0].lower() not in OWN_HEADERS]}
            if self.status in (204, 304):
                # RFC 9110, sections 15.3.5 and 15.4.5: a client would read such content as the next response.
                self._empty = True
                headers = [header for header in event["headers"] if header[0].lower() != b"content-length"]
                event = {**event, "headers": headers}
        elif event["type"] == "http.response.body":
            if self._empty:
                event = {**event, "body": b""}
            self.size += len(event.get("body", b""))
            if event.get("more_body") and not self._streams:
                self._streams = True
                self._context.streaming += 1
        await self._send(event)

    def end(self) -> None:
        """Record that the response is over."""
        self._context.streaming -= self._streams
