"""``python manage.py demo``: rooms, users and some history to try."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.contrib.auth.models import Permission, User
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from app.demo_users import PASSWORD
from app.models import Message, Room

ROOMS = {
    "lobby": (
        "Lobby",
        [
            ("alice", "Hello! Open this page in two windows and talk to yourself."),
            ("bob", "Or log in as me in a private window: the password is the same."),
            ("alice", "<b>Markup</b> stays what it is: <script>alert('no')</script>"),
        ],
    ),
    "tea-kitchen": (
        "Tea kitchen",
        [
            ("bob", "Who has taken the last of the Darjeeling?"),
            ("alice", "Not me 🫖 but there is Earl Grey.\nSecond shelf, behind the oats."),
        ],
    ),
    "release-night": ("Release night", []),
}


class Command(BaseCommand):
    """The command that adds demo data; a repeated run adds missing rows."""

    help = "Add a few rooms with some history, the users alice and bob, and an admin.  Alice may edit rooms in /admin/."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add ``--force``."""
        parser.add_argument(
            "--force", action="store_true", help="also with DEBUG off, although the users' password is public"
        )

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        """Add the missing rows."""
        if not settings.DEBUG and not options["force"]:
            raise CommandError(
                "DEBUG is off: this would add users with a password that everybody can read in the source.  "
                "Use --force if that is what you want."
            )
        users = {"alice": self._user("alice", edits=True, is_staff=True), "bob": self._user("bob")}
        self._user("admin", is_staff=True, is_superuser=True)
        for slug, (name, history) in ROOMS.items():
            room, is_new = Room.objects.get_or_create(slug=slug, defaults={"name": name})
            if is_new:
                for author, text in history:
                    Message.objects.create(room=room, author=users[author], text=text)
        self.stdout.write("In /admin/ alice and admin see each other on the page of a room.")
        self.stdout.write(f"Rooms: {', '.join(ROOMS)}.  Log in as alice, bob or admin, password: {PASSWORD}")

    def _user(self, name: str, *, edits: bool = False, **rights: bool) -> User:
        user, is_new = User.objects.get_or_create(username=name, defaults=rights)
        if is_new:
            user.set_password(PASSWORD)
            user.save(update_fields=["password"])
        if is_new and edits:
            edited = ("room", "message")
            user.user_permissions.add(
                *Permission.objects.filter(content_type__app_label="app", content_type__model__in=edited)
            )
        return user
