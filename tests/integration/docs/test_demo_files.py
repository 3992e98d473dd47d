"""Files in the demo: the check of uploads, and the headers with which they are served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from app.models import Attachment, Message, Room
from app.uploads import readable_name
from tests.support import upload_files
from tests.support.chat_page import ChatPage

pytestmark = pytest.mark.django_db


@pytest.fixture
def bobs_client(bob: User) -> Client:
    client = Client()
    client.force_login(bob)
    return client


def send(client: Client, name: str, data: bytes, **fields: str) -> Attachment:
    """Upload a file, without a script; return what was stored."""
    fields["file"] = SimpleUploadedFile(name, data, "image/png")  # type: ignore[assignment]
    response = client.post("/chat/lobby/post/", fields)
    assert response.headers.get("Location") == "/chat/lobby/", response.text
    return Attachment.objects.latest("id")


def content(response: Any) -> bytes:
    """Return the bytes of a response; at their end the test's client closes the file."""
    return b"".join(response)


@pytest.mark.parametrize(
    ("data", "kind", "size"),
    [
        (upload_files.png(8, 6), "image/png", (8, 6)),
        (upload_files.GIF, "image/gif", (3, 2)),
        (upload_files.JPEG, "image/jpeg", (3, 2)),
        (upload_files.WEBP_LOSSY, "image/webp", (3, 2)),
        (upload_files.WEBP_LOSSLESS, "image/webp", (3, 2)),
        (upload_files.WEBP_EXTENDED, "image/webp", (3, 2)),
    ],
)
def test_raster_images_are_shown_inline(
    data: bytes, kind: str, size: tuple[int, int], lobby: Room, bobs_client: Client, media: Path
) -> None:
    stored = send(bobs_client, "evil.html", data, alt="Hills")
    assert (stored.image_type, (stored.width, stored.height)) == (kind, size)
    response = bobs_client.get(stored.url)
    assert response.headers["Content-Type"] == kind
    assert response.headers["Content-Disposition"].startswith("inline")
    assert content(response) == data
    assert 'alt="Hills"' in bobs_client.get("/chat/lobby/").text


@pytest.mark.parametrize(
    "data",
    [
        upload_files.SVG,
        b"<!doctype html><script>alert(1)</script>",
        b"\x89PNG\r\n\x1a\n<script>alert(1)</script>",
        upload_files.png(50_000, 1)[:16] + b"\0\1\0\0\0\1\0\0" + upload_files.png()[24:],  # 65,536 by 65,536 pixels
        b"GIF89a",
        b"GIF89a\0\0\0\0<script>",  # without a pixel
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xe0\0\0" * 20,
        b"RIFF....WEBPxxxx" + b"\0" * 20,
    ],
)
def test_all_else_is_downloaded(data: bytes, lobby: Room, bobs_client: Client, media: Path) -> None:
    stored = send(bobs_client, "picture.png", data)
    assert stored.image_type == ""
    response = bobs_client.get(stored.url)
    assert content(response) == data
    assert response.headers["Content-Type"] == "application/octet-stream"
    assert response.headers["Content-Disposition"] == 'attachment; filename="picture.png"'
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in response.headers["Content-Security-Policy"]
    page = bobs_client.get("/chat/lobby/").text
    assert f'href="{stored.url}" download' in page
    assert f'src="{stored.url}"' not in page


def test_only_users_who_are_logged_in_get_files(lobby: Room, bobs_client: Client, media: Path) -> None:
    stored = send(bobs_client, "a.png", upload_files.png())
    response = Client().get(stored.url)
    assert response.headers["Location"] == f"/accounts/login/?next={stored.url}"


def test_the_stored_name_has_no_part_of_the_name(lobby: Room, bobs_client: Client, media: Path) -> None:
    stored = send(bobs_client, "../../etc/run.html", upload_files.SVG)
    assert stored.name == "run.html"
    (path,) = (each for each in media.rglob("*") if each.is_file())
    assert path.suffix == ""
    assert "run" not in path.name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a\\b\\c.txt", "c.txt"),
        ("x" * 300 + ".jpeg", "x" * 115 + ".jpeg"),
        ("\u202egnp.exe\0", "gnp.exe"),
        ("", "file"),
        ("\x01", "file"),
    ],
)
def test_names_are_readable(name: str, expected: str) -> None:
    assert readable_name(name) == expected


def test_the_limit_is_named(lobby: Room, bobs_client: Client, media: Path, settings: Any) -> None:
    settings.CHAT_UPLOAD_SIZE = 10
    file = SimpleUploadedFile("big.png", b"x" * 11)
    fields = {"file": file, "text": "kept"}
    response = bobs_client.post("/chat/lobby/post/", fields)
    assert response.status_code == 400
    assert "big.png has 11 bytes, and the limit is 10 bytes. Choose a smaller file." in response.text
    assert ">kept</textarea>" in response.text
    file.seek(0)
    refused = bobs_client.post("/chat/lobby/post/", fields, headers={"accept": "application/json"})
    assert (refused.status_code, refused.json()["error"][:7]) == (400, "big.png")
    empty = bobs_client.post("/chat/lobby/post/", {"file": SimpleUploadedFile("none.txt", b"")})
    assert "none.txt is empty" in empty.text
    assert not Message.objects.exists()
    assert not media.exists()


def test_the_room_is_told_by_its_sockets(alices: ChatPage, bobs_client: Client, media: Path) -> None:
    fields = {"file": SimpleUploadedFile("a.png", upload_files.png()), "key": "1", "alt": "A square"}
    answers = [bobs_client.post("/chat/lobby/post/", fields, headers={"accept": "application/json"})]
    (message,) = alices.received()
    assert answers[0].json() == message
    assert message["file"] == {
        "url": f"/files/{Attachment.objects.get().pk}/", "name": "a.png", "size": "74 bytes", "alt": "A square",
        "width": 8, "height": 6,
    }  # fmt: skip
    fields["file"] = SimpleUploadedFile("a.png", upload_files.png())
    answers.append(bobs_client.post("/chat/lobby/post/", fields, headers={"accept": "application/json"}))
    assert answers[1].json() == message
    assert Attachment.objects.count() == 1  # the same key: the browser had no answer


def test_csrf(lobby: Room, bob: User, media: Path) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(bob)
    assert client.post("/chat/lobby/post/", {"text": "x"}).status_code == 403


@pytest.mark.django_db(transaction=True)
def test_a_deleted_message_deletes_its_file(lobby: Room, bobs_client: Client, media: Path) -> None:
    send(bobs_client, "a.png", upload_files.png())
    Message.objects.all().delete()
    assert [each for each in media.rglob("*") if each.is_file()] == []


def test_a_file_that_is_gone(lobby: Room, bobs_client: Client, media: Path) -> None:
    stored = send(bobs_client, "a.png", upload_files.png())
    Path(stored.file.path).unlink()
    assert bobs_client.get(stored.url).status_code == 404
    assert bobs_client.get("/chat/lobby/").status_code == 200
