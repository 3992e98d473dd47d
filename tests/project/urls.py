"""One view, to see that HTTP reaches Django."""

from django.http import HttpRequest, HttpResponse
from django.urls import path

from channelsq import Group


def hello(request: HttpRequest) -> HttpResponse:
    """Say hello, and tell the group ``room`` about it."""
    Group("room").send({"text": "from a view"})
    return HttpResponse("hello")


urlpatterns = [path("", hello)]
