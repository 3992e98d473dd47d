"""Live pages: notes on a board, which change with channelsq's script, with htmx and with Turbo."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import path

from channelsq import Group, User, route
from channelsq.binding.live_templates import LiveTemplate
from channelsq.live import start
from channelsq.message import Message
from channelsq.staticfiles import StaticFilesConsumer
from tests.project import members, routing
from tests.project.live import count_surely
from tests.project.models import Note
from tests.project.records import record, wait_for_go

_TURBO = ("@hotwired/turbo/dist/turbo.es2017-esm.js",)

#: The scripts of a page, below a folder with packages of npm, by the way in which it is live.
SCRIPTS: dict[str, tuple[str, ...]] = {
    "script": (),
    "script-turbo": _TURBO,
    "htmx": ("htmx.org/dist/htmx.js", "htmx-ext-ws/ws.js"),
    "turbo": _TURBO,
}


class LiveNote(LiveTemplate):
    model = "project.Note"
    template = "project/note.html"
    target = "notes"

    @classmethod
    def group_names(cls, instance: Any) -> list[str]:
        return [instance.board]


def page(request: HttpRequest, way: str, board: str) -> HttpResponse:
    """Show a board; with ``?wait=`` wait for a file between the query and the page."""
    notes = list(Note.objects.filter(board=board).order_by("pk"))
    if "wait" in request.GET:
        record("waits", board)
        wait_for_go(request.GET["wait"] + ".go", 60)
    context = {
        "ticket": request.GET.get("ticket", ""),
        "board": board,
        "notes": notes,
        "scripts": SCRIPTS[way],
        "turbo_library": way.endswith("turbo"),
        "htmx": way == "htmx",
        "turbo": way == "turbo",
    }
    return render(request, "project/board.html", context)


def add(request: HttpRequest, board: str, text: str) -> JsonResponse:
    """Add a note."""
    return JsonResponse({"pk": Note.objects.create(board=board, text=text).pk})


def change(request: HttpRequest, pk: int, board: str, text: str) -> JsonResponse:
    """Change a note."""
    note = Note.objects.get(pk=pk)
    note.board, note.text = board, text
    note.save()
    return JsonResponse({})


def delete(request: HttpRequest, pk: int) -> JsonResponse:
    """Delete a note."""
    Note.objects.get(pk=pk).delete()
    return JsonResponse({})


def say(request: HttpRequest, board: str, text: str) -> JsonResponse:
    """Show a text in every page of a board, or in those of a user."""
    target: Any = User(int(board)) if board.isdigit() else Group(board)
    target.render("project/status.html", {"text": text}, target="own" if board.isdigit() else "status", action="update")
    return JsonResponse({})


def run(request: HttpRequest, name: str) -> JsonResponse:
    """Start a task that waits for a file in the middle."""
    return JsonResponse({"ticket": start(count_surely.s(10, name)).ticket})


def leave(request: HttpRequest, user: int) -> JsonResponse:
    """Close every socket of a user."""
    User(user).disconnect(4000)
    return JsonResponse({})


def may_join(user: Any, group: str) -> bool:
    """Allow the user "staff", and every user on the board "open"."""
    return group == "open" or user.get_username() == "staff"


def hears(message: Message) -> None:
    """Record nothing: the frames of live pages must not come here."""
    message.reply_channel.send({"text": "a consumer got " + message["text"][:40]})


urlpatterns = [
    path("board/<slug:way>/<slug:board>/", page),
    path("add/<slug:board>/<str:text>/", add),
    path("change/<int:pk>/<slug:board>/<str:text>/", change),
    path("delete/<int:pk>/", delete),
    path("say/<slug:board>/<str:text>/", say),
    path("run/<slug:name>/", run),
    path("leave/<int:user>/", leave),
    path("log-in/<slug:name>/", members.log_in),
]

channel_routing = [
    route("websocket.receive", hears),
    *routing.channel_routing,
    route("http.request", StaticFilesConsumer(insecure=True)),
]
