"""The chat's pages: ordinary Django views, which run in the workers."""

from __future__ import annotations

from typing import cast

from django.contrib.auth import login
from django.contrib.auth.decorators import login_required
from django.contrib.auth.forms import UserCreationForm
from django.contrib.auth.models import User
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST

from app.forms import MessageForm, RoomForm
from app.models import GONE_AFTER, Presence, Room


def rooms(request: HttpRequest) -> HttpResponse:
    """Show the list of rooms; logged-in users can add one."""
    form = RoomForm(request.POST or None)
    if request.method == "POST":
        if not request.user.is_authenticated:
            return redirect("login")
        if form.is_valid():
            return redirect("room", form.save().slug)
    there = Q(presences__seen_at__gte=timezone.now() - GONE_AFTER)
    listed = Room.objects.annotate(here=Count("presences__user", filter=there, distinct=True))
    return render(request, "app/rooms.html", {"rooms": listed, "form": form})


@login_required
def room(request: HttpRequest, slug: str) -> HttpResponse:
    """Show one room: its last messages, and a page that gets the next ones by its socket."""
    chat = get_object_or_404(Room, slug=slug)
    history = chat.history()
    context = {
        "room": chat,
        "history": history,
        "last_id": history[-1].pk if history else 0,
        "people": Presence.objects.people(chat),
        "form": MessageForm(),
    }
    return render(request, "app/room.html", context)


@login_required
@require_POST
def post(request: HttpRequest, slug: str) -> HttpResponse:
    """Post a message without a socket, from a browser without scripts; every socket still gets it."""
    chat = get_object_or_404(Room, slug=slug)
    form = MessageForm(request.POST)
    if form.is_valid():
        chat.post(request.user, form.cleaned_data["text"], form.cleaned_data["key"])
    return redirect("room", slug)


def signup(request: HttpRequest) -> HttpResponse:
    """Create an account, and log it in."""
    form: UserCreationForm = UserCreationForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        login(request, cast(User, form.save()))
        return redirect("rooms")
    return render(request, "app/signup.html", {"form": form})
