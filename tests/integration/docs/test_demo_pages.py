"""The demo's pages and commands, with Django's test client."""

from __future__ import annotations

import subprocess
import sys
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client

from app.demo_users import PASSWORD
from app.models import HISTORY, Message, Presence, Room
from tests.support.processes import ROOT, environment

pytestmark = pytest.mark.django_db


@pytest.fixture
def lobby() -> Room:
    return Room.objects.create(name="Lobby", slug="lobby")


@pytest.fixture
def alice(client: Client) -> User:
    """A user, logged in."""
    user = User.objects.create_user("alice")
    client.force_login(user)
    return user


def test_room_list_counts_people(client: Client, lobby: Room, alice: User) -> None:
    bob = User.objects.create_user("bob")
    for number, user in enumerate((alice, alice, bob)):
        Presence.objects.create(channel=f"websocket.send.x!{number}", room=lobby, user=user)
    assert "2 here" in client.get("/").text


def test_room_needs_login(client: Client, lobby: Room) -> None:
    response = client.get("/chat/lobby/")
    assert response.headers["Location"] == "/accounts/login/?next=/chat/lobby/"


def test_room_shows_history_escaped(client: Client, lobby: Room, alice: User) -> None:
    for number in range(HISTORY + 1):
        Message.objects.create(room=lobby, author=alice, text=f"<script>alert({number})</script>")
    page = client.get("/chat/lobby/").text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "alert(0)" not in page
    assert f'data-last-id="{Message.objects.latest("id").pk}"' in page


def test_unknown_room(client: Client, alice: User) -> None:
    response = client.get("/chat/cellar/")
    assert response.status_code == 404
    assert "There is nothing here" in response.text


def test_create_room(client: Client, alice: User) -> None:
    response = client.post("/", {"name": "Tea & Cake"})
    assert response.headers["Location"] == "/chat/tea-cake/"
    assert "of that name already" in client.post("/", {"name": "Tea Cake"}).text


def test_create_room_in_any_script(client: Client, alice: User) -> None:
    response = client.post("/", {"name": "茶室"})
    assert Room.objects.get(name="茶室").slug.isascii()
    assert client.get(response.headers["Location"]).status_code == 200


def test_create_room_needs_login(client: Client) -> None:
    assert client.post("/", {"name": "Tea"}).headers["Location"].startswith("/accounts/login/")
    assert not Room.objects.exists()


def test_post_needs_login_and_post(client: Client, lobby: Room) -> None:
    assert client.post("/chat/lobby/post/", {"text": "x"}).status_code == 302
    assert not Message.objects.exists()
    client.force_login(User.objects.create_user("alice"))
    assert client.get("/chat/lobby/post/").status_code == 405
    client.post("/chat/lobby/post/", {"text": "x" * 2001})
    assert not Message.objects.exists()


def test_signup_login_logout(client: Client) -> None:
    account = {"username": "carol", "password1": "a tall order", "password2": "a tall order"}
    assert client.post("/accounts/signup/", account).headers["Location"] == "/"
    assert "carol" in client.get("/").text
    assert client.post("/accounts/logout/").headers["Location"] == "/"
    assert "carol" not in client.get("/").text
    wrong = client.post("/accounts/login/", {"username": "carol", "password": "wrong"})
    assert "correct username and password" in wrong.text
    right = {"username": "carol", "password": "a tall order", "next": "/chat/lobby/"}
    assert client.post("/accounts/login/", right).headers["Location"] == "/chat/lobby/"


def test_the_demo_users_are_offered_in_development_only(client: Client, lobby: Room, settings: Any) -> None:
    call_command("demo", "--force", stdout=StringIO())
    assert "Log in as" not in client.get("/accounts/login/").text
    button = {"demo_user": "bob", "next": "/chat/lobby/"}
    assert "This field is required" in client.post("/accounts/login/", button).text
    settings.DEBUG = True
    page = client.get("/accounts/login/?next=/chat/lobby/").text
    assert 'name="demo_user" value="bob"' in page
    assert PASSWORD in page
    assert "This field is required" in client.post("/accounts/login/", {"demo_user": "admin"}).text
    assert client.post("/accounts/login/", button).headers["Location"] == "/chat/lobby/"


def test_admin(client: Client, lobby: Room) -> None:
    user = User.objects.create_superuser("root")
    client.force_login(user)
    lobby.post(user, "hello")
    Presence.objects.create(channel="websocket.send.x!1", room=lobby, user=user)
    for page in ("", "app/room/", "app/message/", "app/presence/", "app/room/add/"):
        assert client.get(f"/admin/{page}").status_code == 200


def test_demo_command(client: Client) -> None:
    with pytest.raises(CommandError, match="DEBUG is off"):
        call_command("demo")
    output = StringIO()
    for _ in range(2):
        call_command("demo", "--force", stdout=output)
    assert Room.objects.count() == 3
    assert Message.objects.count() == 5
    assert client.login(username="alice", password=output.getvalue().split()[-1])
    assert User.objects.get(username="admin").is_superuser


def test_migrations_are_complete() -> None:
    call_command("makemigrations", "--check", "--dry-run", stdout=StringIO())


def settings_with(**env: str) -> subprocess.CompletedProcess[str]:
    """Return the values of config.settings in an environment, as they print."""
    script = (
        "from config import settings as s; layer = s.CHANNEL_LAYERS['default'];"
        "print(s.DEBUG, layer['BACKEND'].rpartition('.')[2], layer.get('CONFIG'), s.BROKER_URL,"
        " s.DATABASES['default']['ENGINE'], s.DATABASES['default'].get('OPTIONS', {}).get('sslmode'),"
        " getattr(s, 'SECURE_SSL_REDIRECT', False), s.ALLOWED_HOSTS)"
    )
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment(env),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, "True InMemoryChannelLayer None  django.db.backends.sqlite3 None False []"),
        (
            {"REDIS_URL": "redis://r/1"},
            "True RedisChannelLayer {'url': 'redis://r/1'} redis-streams://r/1"
            " django.db.backends.sqlite3 None False []",
        ),
        (
            {"REDIS_URL": "redis://r/1", "BROKER_URL": "amqp://b//"},
            "True RedisChannelLayer {'url': 'redis://r/1'} amqp://b// django.db.backends.sqlite3 None False []",
        ),
        (
            {
                "DYNO": "web.1",
                "SECRET_KEY": "s",
                "REDIS_URL": "rediss://:p@h:6380",
                "DATABASE_URL": "postgres://u:p@h/d",
            },
            "False RedisChannelLayer {'url': 'rediss://:p@h:6380?ssl_cert_reqs=none'}"
            " rediss-streams://:p@h:6380?ssl_cert_reqs=none"
            " django.db.backends.postgresql require True ['.herokuapp.com']",
        ),
        (
            {"SECRET_KEY": "s", "REDIS_URL": "rediss://h:6380", "ALLOWED_HOSTS": "a.example, b.example"},
            "False RedisChannelLayer {'url': 'rediss://h:6380'} rediss-streams://h:6380"
            " django.db.backends.sqlite3 None True ['a.example', 'b.example']",
        ),
        (
            {"SECRET_KEY": "s", "DEBUG": "1"},
            "True InMemoryChannelLayer None  django.db.backends.sqlite3 None False []",
        ),
    ],
)
def test_settings(env: dict[str, str], expected: str) -> None:
    done = settings_with(**env)
    assert done.stdout.strip() == expected, done.stderr


@pytest.mark.parametrize(
    ("env", "problem"),
    [
        ({"DEBUG": "0"}, "SECRET_KEY is not set"),
        ({"DYNO": "web.1"}, "SECRET_KEY"),
        ({"DEBUG": "maybe"}, "maybe"),
        ({"CHAT_PACE": "fast"}, "CHAT_PACE must be a number that is not below 0, not 'fast'"),
        ({"CHAT_UPLOAD_SIZE": "-1"}, "CHAT_UPLOAD_SIZE"),
    ],
)
def test_settings_refused(env: dict[str, str], problem: str) -> None:
    done = settings_with(**env)
    assert done.returncode
    assert problem in done.stderr
