"""The commands /ask and /import: live tasks in the pages of a room, embedded and with workers that are killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.support.chat import PHONE, ChatUser, EnterLobby
from tests.support.demo import Demo, fresh_redis

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

only_runserver = pytest.mark.parametrize("site", ["runserver"], indirect=True)

#: The words at the beginning and at the end of the answer about groups.
BEGIN, END = "A group is a set", "messages so far."


@pytest.fixture
def slow_site(demo_template: Path, tmp_path: Path, redis_url: str) -> Iterator[Demo]:
    """The demo on Redis, whose tasks take some seconds, and whose broker notices a dead worker soon."""
    settings = {"DJANGO_SETTINGS_MODULE": "tests.support.brief_lease", "CHAT_PACE": "3"}
    demo = Demo(demo_template, tmp_path, {"REDIS_URL": fresh_redis(redis_url), **settings})
    try:
        demo.start_interface()
        demo.start_worker()
        yield demo
    finally:
        demo.stop()


def enter(user: ChatUser) -> ChatUser:
    user.log_in()
    user.enter("Lobby")
    return user


@only_runserver
def test_an_answer_streams_while_the_chat_goes_on(enter_lobby: EnterLobby) -> None:
    alice, bob = enter_lobby("alice"), enter_lobby("bob", PHONE)
    alice.say("/ask How do groups work?")
    for user in (alice, bob):
        expect(user.page.locator(".job.answer .text")).to_contain_text(BEGIN)
    bob.say("I am reading, too")
    alice.sees("I am reading, too", by="bob")
    expect(alice.page.locator(".job.answer")).to_have_count(1)  # it still writes
    assert bob.page.locator(".job .cancel:visible").count() == 0

    bob.say("/ask What is a layer?")
    expect(bob.page.locator("#problem")).to_contain_text("still answering")
    expect(bob.page.locator("#text")).to_have_value("/ask What is a layer?")

    bob.page.reload()  # a page that comes later has the text so far
    bob.wait_online()
    expect(bob.page.locator(".job.answer .text, [data-user=assistant] .text").first).to_contain_text(BEGIN)
    for user in (alice, bob):
        answer = user.page.locator(".message[data-user=assistant] .text")
        expect(answer.last).to_contain_text(END)
        expect(user.page.locator(".job")).to_have_count(0)
        expect(answer).to_have_count(1)


@only_runserver
def test_an_import_shows_progress_and_is_cancelled(enter_lobby: EnterLobby) -> None:
    alice, bob = enter_lobby("alice"), enter_lobby("bob")
    alice.say("/import")
    for user in (alice, bob):
        expect(user.page.get_by_role("progressbar", name="Import of alice")).to_be_visible()
        expect(user.page.locator(".job.import .text")).to_contain_text("of 40 messages")
    expect(bob.page.locator(".badge", has_text="imported").first).to_be_visible()
    expect(bob.page.get_by_role("button", name="Cancel")).to_be_hidden()
    alice.page.get_by_role("button", name="Cancel").click()
    for user in (alice, bob):
        user.notices("alice cancelled the import")
        expect(user.page.locator(".job")).to_have_count(0)
    # The room is free again at once.
    csv = {"name": "rows.csv", "mimeType": "text/csv", "buffer": b"name,text\nAda,First row\n,Second row\n"}
    bob.page.set_input_files("#file", csv)  # type: ignore[arg-type]
    bob.page.fill("#text", "/import")
    bob.page.press("#text", "Enter")
    alice.sees("Ada: First row", by="bob")
    alice.notices("bob imported 2 messages")


@only_runserver
def test_a_file_with_a_mistake_is_explained(enter_lobby: EnterLobby) -> None:
    alice = enter_lobby("alice")
    csv = {"name": "rows.csv", "mimeType": "text/csv", "buffer": b"name,text\nAda,\n"}
    alice.page.set_input_files("#file", csv)  # type: ignore[arg-type]
    alice.page.fill("#text", "/import")
    alice.page.press("#text", "Enter")
    alice.notices("The import of alice failed: Row 2 has no text. Fill the column, or delete the row.")


@pytest.mark.redis
def test_a_killed_worker_leaves_its_answer_to_another_one(chromium: Browser, slow_site: Demo) -> None:
    with ChatUser(chromium, slow_site.url, "alice") as alice, ChatUser(chromium, slow_site.url, "bob", PHONE) as bob:
        enter(alice)
        enter(bob)
        alice.say("/ask How do groups work?")
        for user in (alice, bob):
            expect(user.page.locator(".job.answer .text")).to_contain_text(BEGIN)
        slow_site.worker.kill()
        alice.say("Has it stopped?")
        slow_site.start_worker()
        bob.sees("Has it stopped?", by="alice")
        for user in (alice, bob):
            answer = user.page.locator(".message[data-user=assistant] .text")
            expect(answer).to_contain_text(BEGIN, timeout=60_000)
            expect(answer).to_contain_text(END)
            expect(answer).to_have_count(1)
            expect(user.page.locator(".job")).to_have_count(0)
            assert len(user.sockets) == 1
            assert not user.errors
        rows = slow_site.query("SELECT COUNT(*) FROM app_message WHERE source = 'assistant'")
        assert rows == [(1,)]


@pytest.mark.redis
@pytest.mark.ways("other ways")
def test_a_killed_worker_leaves_its_import_to_another_one(chromium: Browser, slow_site: Demo) -> None:
    with ChatUser(chromium, slow_site.url, "alice") as alice:
        enter(alice)
        alice.say("/import")
        expect(alice.page.locator(".badge", has_text="imported")).not_to_have_count(0)
        slow_site.worker.kill()
        slow_site.start_worker()
        expect(alice.page.locator("#log .notice", has_text="alice imported 40 messages")).to_be_visible(timeout=90_000)
        rows = slow_site.query("SELECT COUNT(*), COUNT(DISTINCT key) FROM app_message WHERE source = 'import'")
        assert rows == [(40, 40)]
