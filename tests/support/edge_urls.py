"""Views for the edges of HTTP: content where there is none, answers that wait, bodies, streams."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

#: What ``slow/`` and ``stream/`` wait for, and what is set when the latter's generator ends.
go, ended = threading.Event(), threading.Event()


def with_content(request: HttpRequest, status: int) -> HttpResponse:
    """An answer that says too much."""
    return HttpResponse("content", status=status, headers={"Content-Length": "7"})


def slow(request: HttpRequest) -> HttpResponse:
    """An answer that waits."""
    assert go.wait(10)
    return HttpResponse("slow")


@csrf_exempt
def echo(request: HttpRequest) -> HttpResponse:
    """The request's body."""
    return HttpResponse(request.body)


async def stream(request: HttpRequest) -> StreamingHttpResponse:
    """Two parts, or with ``?broken`` one and an error."""

    async def parts() -> AsyncIterator[bytes]:
        try:
            yield b"one"
            while not go.is_set():
                await asyncio.sleep(0.01)
            if "broken" in request.GET:
                request.close()  # Django would leave its file open
                raise ValueError("a stream that breaks off")
            yield b"two"
        finally:
            ended.set()

    return StreamingHttpResponse(parts())


urlpatterns = [
    path("<int:status>/", with_content),
    path("slow/", slow),
    path("echo/", echo),
    path("stream/", stream),
]
