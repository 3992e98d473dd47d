"""Pages with the bars of live tasks, and views whose tasks are live by themselves."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template import RequestContext, Template
from django.urls import path

from channelsq import route
from channelsq.live import start
from channelsq.staticfiles import StaticFilesConsumer
from tests.project import live, members, routing

_PAGE = Template(
    """{% load channelsq django_htmx %}<!doctype html><html lang="en"><title>Bars</title>
<link rel="icon" href="data:,">{% htmx_script extensions="hx-ws" %}
<main><h1>Bars</h1>{% task_progress task "Import" htmx=htmx %}</main></html>"""
)


def bars(request: HttpRequest, way: str, name: str) -> HttpResponse:
    """Start a task that waits in the middle, and show it with channelsq's script or with htmx."""
    task = start(live.count.s(10, name)) if name != "fails" else start(live.fail.s("secret", "Row 7 has no date."))
    return HttpResponse(_PAGE.render(RequestContext(request, {"task": task, "htmx": way == "htmx"})))


def delayed(request: HttpRequest, rows: int) -> JsonResponse:
    """Call a task as every Celery user does."""
    return JsonResponse({"task": live.count.delay(rows).id})


async def delayed_async(request: HttpRequest, rows: int) -> JsonResponse:
    """Do the same in a coroutine."""
    return JsonResponse({"task": live.count.delay(rows).id})


urlpatterns = [
    path("bars/<slug:way>/<slug:name>/", bars),
    path("delayed/<int:rows>/", delayed),
    path("delayed-async/<int:rows>/", delayed_async),
    path("log-in/<slug:name>/", members.log_in),
]

channel_routing = [*routing.channel_routing, route("http.request", StaticFilesConsumer(insecure=True))]
