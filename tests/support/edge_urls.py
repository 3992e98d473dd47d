"""Views whose answers have content where HTTP has none."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import path


def with_content(request: HttpRequest, status: int) -> HttpResponse:
    """An answer that says too much."""
    return HttpResponse("content", status=status, headers={"Content-Length": "7"})


urlpatterns = [path("<int:status>/", with_content)]
