"""Django's middleware and views, from a request message to the messages of its response."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any

from django.core import signals
from django.core.exceptions import RequestDataTooBig
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseBadRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.urls import set_script_prefix

from channelsq.core import streaming
from channelsq.core.logs import LogLimit
from channelsq.delivery import attempts
from channelsq.exceptions import RequestAborted, RequestIncomplete, RequestTimeout, ResponseLater
from channelsq.http import sentry_request_internals
from channelsq.http.asynciter import iterate
from channelsq.http.django_http_internals import DjangoHandler, note_handler
from channelsq.http.request import AsgiRequest, script_name
from channelsq.message import Message

logger = logging.getLogger("channelsq.http")


class AsgiHandler(DjangoHandler):
    """A handler that runs Django for a message: ``handler(message)`` yields the messages of the response.

    One handler serves any number of threads; it loads the middleware with the first message.
    Override :meth:`get_response` to answer without Django's views.
    """

    request_class: type[AsgiRequest] = AsgiRequest

    #: Bytes of a response in one message; well below a layer's ``message_size_limit``.
    chunk_size = 256 * 1024

    #: Seconds without a part of an asynchronous response, after its first, before a message without content is sent: by
    #: such messages the worker learns that the client has left.
    quiet_seconds: float = 5

    def __init__(self) -> None:
        super().__init__()
        self._loading = threading.Lock()

    def __call__(self, message: Message) -> Generator[dict[str, Any], None, None]:
        """Yield the response to ``message``, as messages for its reply channel.

        There are none if the client disconnected during its body, or if the view raised ResponseLater.
        Closing the generator closes the response, so that its producer ends too.
        """
        if not self._has_middleware:
            with self._loading:
                if not self._has_middleware:
                    self.load_middleware()
        set_script_prefix(script_name(message))
        signals.request_started.send(sender=type(self), message=message)
        response: HttpResponseBase | None = None
        try:
            response, later = self._respond(message)
            if response is None or later:
                return
            if not response.streaming:
                yield from self.encode_response(response)
                return
            ends = isinstance(response, FileResponse) or response.has_header("Content-Length") or _is_head(message)
            with streaming.responses_of(message.channel_layer.alias).one_more(ends=ends) as admitted:
                yield from self.encode_response(response if admitted else _too_many(message))
        finally:
            if response is None:
                signals.request_finished.send(sender=type(self))
            else:
                response.close()

    def _respond(self, message: Message) -> tuple[HttpResponseBase | None, bool]:
        """Return the response, if there is one, and whether it is sent later from elsewhere."""
        response: HttpResponseBase
        try:
            request = self.request_class(message)
        except RequestAborted as error:
            logger.info("%s", error, extra=_extra("request_aborted", message))
            return None, False
        except RequestIncomplete as error:
            logger.warning("%s", error, extra=_extra("request_incomplete", message, 503))
            response = _plain("503 Service Unavailable: a part of the request's body was lost", 503)
        except RequestTimeout as error:
            logger.warning("%s", error, extra=_extra("request_timeout", message, 408))
            response = _plain("408 Request Timeout: the request's body came too slowly", 408)
        except RequestDataTooBig as error:
            logger.warning("%s", error, extra=_extra("request_too_big", message, 413))
            response = _plain("413 Payload Too Large", 413)
        except ValueError as error:
            logger.warning("Bad Request: %s", error, extra=_extra("bad_request", message, 400))
            response = HttpResponseBadRequest()
        else:
            try:
                attempts.begin(message)
                sentry_request_internals.tell(request)
                response = self.get_response(request)
            except ResponseLater:
                request.close()
                return None, True
            except BaseException:
                request.close()
                raise
            note_handler(response, type(self))
            if isinstance(response, FileResponse):
                response.block_size = self.chunk_size
            _drop_content_if_bodiless(request, response)
            return response, request.response_later
        note_handler(response, type(self))
        return response, False

    def make_view_atomic(self, view: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a view as Django does, but commit its transactions after ResponseLater, so that its sends leave."""
        if super().make_view_atomic(view) is view:
            return view

        @functools.wraps(view)
        def commit_later(*args: Any, **kwargs: Any) -> Any:
            try:
                return view(*args, **kwargs)
            except ResponseLater as later:
                return later

        atomic = super().make_view_atomic(commit_later)

        def run(*args: Any, **kwargs: Any) -> Any:
            response = atomic(*args, **kwargs)
            if isinstance(response, ResponseLater):
                raise response
            return response

        return run

    def _run_view(self, request: HttpRequest) -> HttpResponseBase:
        # Here, inside the middleware: outside of it Django would handle the exception as a failure.
        try:
            return super()._run_view(request)
        except ResponseLater:
            request.response_later = True  # type: ignore[attr-defined]
            # For the middleware alone, which runs as for any response (a session is saved).  204, because
            # Django's cache middleware stores a 200.
            return HttpResponse(status=204)

    def process_exception_by_middleware(self, exception: Exception, request: HttpRequest) -> HttpResponse:
        """Handle an exception as Django does, but let ResponseLater pass."""
        if isinstance(exception, ResponseLater):
            raise exception
        return super().process_exception_by_middleware(exception, request)

    # -- from a response to messages ------------------------------------------------------------

    @classmethod
    def encode_response(cls, response: HttpResponseBase) -> Iterator[dict[str, Any]]:
        """Yield the messages of ``response``: the first has status and headers, the last no ``more_content``.

        Each part of a streaming response leaves as soon as it is produced, also from an asynchronous iterator.  While
        that iterator is quiet, messages without content leave.
        """
        message: dict[str, Any] = {"status": response.status_code, "headers": _headers(response)}
        if not response.streaming:
            for chunk, last in cls.chunk_bytes(response.content):  # type: ignore[attr-defined]
                yield {**message, "content": chunk, "more_content": not last}
                message = {}
            return
        with contextlib.closing(_parts(response, cls.quiet_seconds)) as parts:
            for part in parts:
                if part is None:
                    if not message:
                        yield {"content": b"", "more_content": True}
                    continue
                for chunk, _ in cls.chunk_bytes(part):
                    if chunk:
                        yield {**message, "content": chunk, "more_content": True}
                        message = {}
        yield {**message, "content": b"", "more_content": False}

    @classmethod
    def chunk_bytes(cls, data: bytes) -> Iterator[tuple[bytes, bool]]:
        """Yield ``data`` in parts of ``chunk_size`` bytes, each with whether it is the last; one part if empty."""
        for start in range(0, len(data) or 1, cls.chunk_size):
            yield data[start : start + cls.chunk_size], start + cls.chunk_size >= len(data)


def _parts(response: HttpResponseBase, quiet: float) -> Generator[bytes | None, None, None]:
    """Yield the parts of a response, and None each time that an asynchronous one is quiet for ``quiet`` seconds."""
    if isinstance(response, StreamingHttpResponse) and response.is_async:
        yield from iterate(aiter(response), quiet)
    else:
        # The response itself, not its streaming_content: a subclass may override __iter__.
        yield from response


def _headers(response: HttpResponseBase) -> list[tuple[bytes, bytes]]:
    headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in response.items()]
    # Cookies must not be folded into one header.
    headers += [
        (b"Set-Cookie", cookie.output(header="").strip().encode("ascii")) for cookie in response.cookies.values()
    ]
    return headers


def _drop_content_if_bodiless(request: HttpRequest, response: HttpResponseBase) -> None:
    """Remove content that HTTP forbids (RFC 9110, sections 6.4.1 and 9.3.2), before it is produced."""
    bodiless = response.status_code in (204, 304) or 100 <= response.status_code < 200
    if not bodiless and request.method != "HEAD":
        return
    if isinstance(response, StreamingHttpResponse):
        dropped = True
        response.streaming_content = ()
    elif isinstance(response, HttpResponse):
        dropped = bool(response.content)
        response.content = b""
    else:
        return
    # For HEAD the header has the length of GET's response; here it would announce bytes that never come.
    if bodiless and dropped and response.has_header("Content-Length"):
        del response["Content-Length"]


def _is_head(message: Message) -> bool:
    return message.content.get("method") == "HEAD"


_refusals = LogLimit(60.0)


def _too_many(message: Message) -> HttpResponse:
    """Return the 503 response for a streaming response above the limit, and log it."""
    if _refusals.allows():
        alias = message.channel_layer.alias
        responses = streaming.responses_of(alias)
        logger.warning(
            "%s: a streaming response is refused with 503, as %d hold a thread each in this process: raise "
            "CONFIG['streaming_responses'], and CONFIG['threads'] with it (%d refused so far)",
            alias,
            responses.state.running,
            responses.refused,
            extra=_extra("too_many_streaming", message, 503),
        )
    busy = _plain("503 Service Unavailable: too many responses stream, please try again soon", 503)
    busy.headers["Retry-After"] = "5"
    return busy


def _plain(text: str, status: int) -> HttpResponse:
    return HttpResponse(text, status=status, content_type="text/plain; charset=utf-8")


def _extra(action: str, message: Message, status_code: int | None = None) -> dict[str, Any]:
    return {"action": action, "connection": str(message.reply_channel), "status_code": status_code}
