"""The trivial Django views, the same file for both projects."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import path


def hello(request: HttpRequest) -> HttpResponse:
    """Return the page of the HTTP load."""
    return HttpResponse(b"Hello, world", headers={"Content-Length": "12"})


async def hello_async(request: HttpRequest) -> HttpResponse:
    """Return the same page as an asynchronous view, which Django's ASGI handler runs without a thread."""
    return HttpResponse(b"Hello, world", headers={"Content-Length": "12"})


urlpatterns = [path("hello/", hello), path("hello-async/", hello_async)]
