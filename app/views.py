"""The chat's pages: ordinary Django views, which run in the workers."""

from __future__ import annotations

from typing import Any, cast

from django.contrib.auth import login
from django.contrib.auth import views as auth
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.db.models import Count, OuterRef, Q, Subquery
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST

from app import demo_users
from app.forms import MessageForm, RoomForm, SignupForm
from app.models import GONE_AFTER, HISTORY, Attachment, Message, Presence, ReadMarker, Room
from app.models.reading import unread_mentions
from app.posting import post as post_message
from app.uploads import response_with, size_limit

#: The most rooms in the side bar of a room.
ROOMS_BESIDE = 50


def rooms(request: HttpRequest) -> HttpResponse:
    """Show the list of rooms; logged-in users can add one."""
    form = RoomForm(request.POST or None)
    if request.method == "POST":
        if not request.user.is_authenticated:
            return redirect("login")
        if form.is_valid():
            return redirect("room", form.save().slug)
    there = Q(presences__seen_at__gte=timezone.now() - GONE_AFTER)
    newest = Message.objects.filter(room=OuterRef("pk")).order_by("-id").values("id")[:1]
    listed: Any = Room.objects.annotate(
        here=Count("presences__user", filter=there, distinct=True), newest_id=Subquery(newest)
    )
    # Only users who are logged in see what is said.
    ids = [each.newest_id for each in listed if each.newest_id and request.user.is_authenticated]
    messages = Message.objects.select_related("author", "attachment").in_bulk(ids)
    shown = [(each, messages.get(each.newest_id)) for each in listed]
    return render(request, "app/rooms.html", {"rooms": shown, "form": form})


@login_required
def room(request: HttpRequest, slug: str) -> HttpResponse:
    """Show one room: its last messages, and a page that gets the next ones by its socket.

    With ``?before=`` and the id of a message, show the messages before it.
    """
    chat = get_object_or_404(Room, slug=slug)
    before = _id_in(request.GET.get("before", ""))
    return _show(request, chat, before)


def _show(request: HttpRequest, chat: Room, before: int = 0, problem: str = "", text: str = "") -> HttpResponse:
    history = chat.history(before=before)
    read_to = ReadMarker.objects.position(request.user, chat)
    first_unread = next((said.pk for said in history if said.pk > read_to and said.author != request.user), 0)
    if history and not before:
        ReadMarker.objects.move(request.user, chat, history[-1].pk)
    context = {
        "room": chat,
        "rooms": Room.objects.all()[:ROOMS_BESIDE],
        "history": history,
        "before": before,
        "older_than": history[0].pk if len(history) == HISTORY else 0,
        "last_id": history[-1].pk if history else 0,
        # The line above unread messages; a user's first visit has none.
        "first_unread": first_unread if read_to and not before else 0,
        "people": Presence.objects.people(chat),
        "form": MessageForm(),
        "size_limit": size_limit(),
        "problem": problem,
        "text": text,
    }
    return render(request, "app/room.html", context, status=400 if problem else 200)


@login_required
@require_POST
def post(request: HttpRequest, slug: str) -> HttpResponse:
    """Post a message with or without a file; every socket of the room gets it.

    A browser without scripts gets a page, a script that accepts only JSON gets the message or the error.
    """
    chat = get_object_or_404(Room, slug=slug)
    form = MessageForm(request.POST, request.FILES, room=chat, author=request.user)
    wants_json = request.headers.get("Accept") == "application/json"
    if form.is_valid():
        message, _ = post_message(chat, request.user, form)
        return JsonResponse(message.content) if wants_json else redirect("room", slug)
    if wants_json:
        return JsonResponse({"error": form.problems}, status=400)
    return _show(request, chat, problem=form.problems, text=request.POST.get("text", ""))


@login_required
def file(request: HttpRequest, pk: int) -> FileResponse:
    """Return the file of a message."""
    attachment = get_object_or_404(Attachment, pk=pk)
    try:
        return response_with(attachment)
    except FileNotFoundError:
        raise Http404("the file is gone") from None


@login_required
def mentions(request: HttpRequest) -> HttpResponse:
    """Go to the oldest unread message that mentions the user; to the rooms if there is none."""
    first = unread_mentions(request.user).select_related("message__room").first()
    return redirect(first.message.url if first is not None else "rooms")


class LoginView(auth.LoginView):
    """The log-in page; in development it offers the demo's users."""

    template_name = "app/login.html"

    def get_form_kwargs(self) -> dict[str, Any]:
        """Fill in the form for the demo's user whose button was pressed."""
        kwargs = super().get_form_kwargs()
        name = self.request.POST.get("demo_user")
        if name in demo_users.offered():
            kwargs["data"] = {"username": name, "password": demo_users.PASSWORD}
        return kwargs

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Add the names and the password of the demo's users."""
        offered = {"demo_users": demo_users.offered(), "demo_password": demo_users.PASSWORD}
        return super().get_context_data(**kwargs, **offered)


def signup(request: HttpRequest) -> HttpResponse:
    """Create an account, and log it in."""
    form = SignupForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        login(request, cast(User, form.save()))
        return redirect("rooms")
    return render(request, "app/signup.html", {"form": form})


def _id_in(text: str) -> int:
    """Return the id in an address; 0 if it is not one."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0
