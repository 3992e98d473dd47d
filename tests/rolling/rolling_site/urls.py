"""The site's pages."""

from __future__ import annotations

from collections.abc import Iterator

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path

import channelsq
from channelsq import Channel


def where(request: HttpRequest) -> HttpResponse:
    """Tell which channelsq runs the view."""
    return HttpResponse(channelsq.__file__)


def upload(request: HttpRequest) -> HttpResponse:
    """Tell how many bytes came."""
    return HttpResponse(str(len(request.body)))


def stream(request: HttpRequest) -> StreamingHttpResponse:
    """Answer in several parts."""

    def parts() -> Iterator[bytes]:
        for number in range(4):
            yield bytes([65 + number]) * 100_000

    return StreamingHttpResponse(parts())


def broadcast(request: HttpRequest, text: str) -> HttpResponse:
    """Have every socket told."""
    Channel("broadcast").send({"text": text})
    return HttpResponse("sent")


urlpatterns = [
    path("where/", where),
    path("upload/", upload),
    path("stream/", stream),
    path("broadcast/<str:text>/", broadcast),
]
