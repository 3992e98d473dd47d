"""The demo's commands: answers and imports, with real live tasks that run in place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from app import assistant, importing, jobs, tasks
from app.commands import MOST_JOBS
from app.importing import read_csv
from app.models import Job, Message, Room
from channelsq.exceptions import PublicError
from channelsq.message import Message as ChannelMessage
from tests.support.chat_page import ChatPage, types

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _at_once(settings: Any) -> None:
    settings.CHAT_PACE = 0


def live(frames: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what the frames say of a live task."""
    return [frame["payload"] for frame in frames if frame.get("stream") == "channelsq.task"]


class TestAnswer:
    def test_a_question_is_answered_word_by_word_and_stored(self, alices: ChatPage, bobs: ChatPage) -> None:
        alices.say({"type": "message", "text": "/ask How do groups work?", "key": "1"})
        assert types(bobs.received()) == ["message"]
        assert alices.run_jobs() == 1
        frames = bobs.received()
        job = Job.objects.get()
        assert frames[0] == {
            "type": "job", "id": job.task_id, "kind": "answer", "user": "alice", "key": f"job-{job.pk}"
        }  # fmt: skip
        text = "".join(each.get("piece", "") for each in live(frames))
        answer = Message.objects.latest("id")
        assert text.strip() == answer.text
        assert answer.text.startswith("A group is a set of sockets")
        assert (answer.author.username, answer.source, answer.key) == ("assistant", "assistant", job.key)
        assert live(frames)[-1]["state"] == "success"
        assert job.ended_at is not None

    def test_the_question_twice_has_one_answer(self, alices: ChatPage) -> None:
        for _ in range(2):
            alices.say({"type": "message", "text": "/ask Why?", "key": "1"})
        assert alices.run_jobs() == 1
        assert types(alices.received())[:2] == ["message", "message"]

    def test_a_redelivered_task_posts_one_answer(self, alices: ChatPage) -> None:
        alices.say({"type": "message", "text": "/ask Why?"})
        alices.run_jobs()
        tasks.answer(Job.objects.get().pk)
        assert Message.objects.filter(source="assistant").count() == 1

    def test_a_redelivered_message_starts_one_task(self, alices: ChatPage) -> None:
        alices.say({"type": "message", "text": "/ask Why?"})
        content = alices.layer.receive(["chat.jobs"])[1]
        assert content is not None
        for _ in range(2):
            jobs.begin(ChannelMessage(content, "chat.jobs", alices.layer))
        assert Message.objects.filter(source="assistant").count() == 1
        assert types([frame for frame in alices.received() if frame.get("type") == "job"]) == ["job"]

    def test_a_page_that_comes_later_gets_the_ticket(self, alices: ChatPage, bob: User) -> None:
        alices.say({"type": "message", "text": "/ask Why?"})
        Job.objects.update(task_id="t", ticket="t:ticket")
        page = ChatPage(alices.layer, bob)
        page.connect()
        (job,) = page.received()[1]["jobs"]
        assert (job["kind"], job["ticket"]) == ("answer", "t:ticket")
        assert "ticket" not in Job.objects.get().content

    def test_the_same_question_has_the_same_answer(self, lobby: Room) -> None:
        first, second = ("".join(assistant.words("/ask about files", lobby)) for _ in range(2))
        assert first == second
        assert "CSRF" in first
        assert "stand-in" in "".join(assistant.words("/ask xyzzy", lobby))


class TestCommands:
    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("/sing", "There is no command /sing. The commands are /ask and /import."),
            ("/ask", "/ask needs a question"),
            ("/ask  ", "/ask needs a question"),
        ],
    )
    def test_mistakes(self, text: str, problem: str, alices: ChatPage) -> None:
        alices.say({"type": "message", "text": text, "key": "1"})
        (error,) = alices.received()
        assert problem in error["text"]
        assert not Message.objects.exists()

    @pytest.mark.parametrize("text", ["/etc/passwd is a file", "either/or", "/Ask"])
    def test_other_texts(self, text: str, alices: ChatPage) -> None:
        alices.say({"type": "message", "text": text})
        assert types(alices.received()) == ["message"]
        assert not Job.objects.exists()

    def test_one_job_of_a_kind_in_a_room(self, alices: ChatPage, bobs: ChatPage) -> None:
        alices.say({"type": "message", "text": "/ask One?", "key": "1"})
        bobs.received()
        bobs.say({"type": "message", "text": "/ask Two?", "key": "1"})
        (error,) = bobs.received()
        assert "still answering" in error["text"]
        alices.run_jobs()
        bobs.received()
        bobs.say({"type": "message", "text": "/ask Two?", "key": "1"})
        assert types(bobs.received()) == ["message"]

    def test_the_site_has_a_limit(self, alices: ChatPage, alice: User) -> None:
        for number in range(MOST_JOBS):
            room = Room.objects.create(name=f"r{number}", slug=f"r{number}")
            Job.objects.create(room=room, author=alice, message=room.post(alice, "/import")[0], kind="import")
        alices.received()
        alices.say({"type": "message", "text": "/ask One?"})
        (error,) = alices.received()
        assert f"{MOST_JOBS} tasks are running" in error["text"]

    @pytest.mark.parametrize("name", ["assistant", "Assistant", "sms-1", "email-x"])
    def test_the_names_of_programs_cannot_be_signed_up(self, name: str, client: Client) -> None:
        account = {"username": name, "password1": "a tall order", "password2": "a tall order"}
        assert f"The name {name} is reserved" in client.post("/accounts/signup/", account).text
        assert not User.objects.exists()


class TestImport:
    def test_samples_become_messages_with_progress(self, alices: ChatPage, bobs: ChatPage) -> None:
        alices.say({"type": "message", "text": "/import"})
        alices.run_jobs()
        frames = bobs.received()
        told = live(frames)
        assert (told[-1]["state"], told[-1]["result"]) == ("success", importing.SAMPLES)
        assert any(each.get("text") == "messages" for each in told)
        said = [frame for frame in frames if frame.get("source") == "import"]
        assert [each["text"] for each in said] == list(map(importing.sample, range(importing.SAMPLES)))
        assert {each["badge"] for each in said} == {"imported"}

    def test_a_file_with_names(self, lobby: Room, alice: User, client: Client, alices: ChatPage, media: Path) -> None:
        client.force_login(alice)
        data = "\ufeffName,Text\nAda,First\n,Second @alice\n".encode()
        client.post("/chat/lobby/post/", {"text": "/import", "file": SimpleUploadedFile("a.csv", data)})
        alices.run_jobs()
        imported = Message.objects.filter(source="import").order_by("id")
        assert [each.text for each in imported] == ["Ada: First", "Second @alice"]
        assert not any(each.mentioned for each in imported)

    def test_a_redelivered_import_posts_each_row_once(self, alices: ChatPage) -> None:
        alices.say({"type": "message", "text": "/import"})
        alices.run_jobs()
        tasks.import_messages(Job.objects.get().pk)
        assert Message.objects.filter(source="import").count() == importing.SAMPLES

    @pytest.mark.parametrize(
        ("data", "problem"),
        [
            (b"", "has no rows"),
            (b"text\n", "has no rows"),
            (b"name,text\nAda\n", "Row 2 has no text"),
            (b"\xff\xfe", "cannot be read"),
            (b"a\n" * 501, "501 rows, and the limit is 500"),
            (b"x" * 2001, "Row 1 has 2001 characters"),
        ],
    )
    def test_bad_files(self, data: bytes, problem: str) -> None:
        with pytest.raises(PublicError, match=problem):
            read_csv(data)

    def test_a_bad_file_is_told_to_the_room(
        self, alice: User, client: Client, alices: ChatPage, media: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        task: Any = tasks.import_messages  # of the app that is current in this process
        changes: Any = task.app.conf.changes
        monkeypatch.setitem(changes, "task_eager_propagates", False)
        client.force_login(alice)
        client.post("/chat/lobby/post/", {"text": "/import", "file": SimpleUploadedFile("a.csv", b"text\n")})
        alices.run_jobs()
        assert live(alices.received())[-1]["error"].startswith("The file has no rows")
        assert Job.objects.get().ended_at is not None

    def test_only_its_user_may_cancel_a_job(self, alices: ChatPage, bobs: ChatPage) -> None:
        alices.say({"type": "message", "text": "/import"})
        Job.objects.update(task_id="t")
        assert not jobs.may_cancel(bobs.message("websocket.receive"), "t")
        assert Job.objects.running().exists()
        assert not jobs.may_cancel(ChatPage(alices.layer, None).message("websocket.receive"), "t")
        assert jobs.may_cancel(alices.message("websocket.receive"), "t")
        assert not Job.objects.running().exists()


def test_texts_and_mails_have_badges(lobby: Room, alice: User, client: Client) -> None:
    for source in ("sms", "email"):
        message, _ = lobby.post(alice, "hello", source=source)
        assert json.dumps(message.content)
    client.force_login(alice)
    page = client.get("/chat/lobby/").text
    assert '<span class="badge" data-source="sms">SMS</span>' in page
    assert '<span class="badge" data-source="email">mail</span>' in page
