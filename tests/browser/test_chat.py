"""Two people in one room, each with a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.support.chat import PHONE, EnterLobby
from tests.support.demo import PASSWORD, Demo
from tests.support.pictures import Pictures

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

MARKUP = """<img src=x onerror="window.ran = true"> & <b>bold</b> <script>window.ran = true</script> "' 🫖"""


@pytest.mark.ways("redis")
def test_two_people_chat(enter_lobby: EnterLobby, tmp_path: Path, picture: Pictures) -> None:
    alice = enter_lobby("alice")
    alice.sees_people("alice")
    bob = enter_lobby("bob", PHONE)
    alice.notices("bob joined")
    alice.sees_people("alice", "bob")
    expect(bob.page.locator("#people-count")).to_have_text("2")

    alice.say("Is anybody here?")
    bob.sees("Is anybody here?", by="alice")
    bob.say("Tea is ready")
    alice.sees("Tea is ready", by="bob")
    alice.sees("Is anybody here?", by="alice")
    alice.say("Shall we meet at four?")
    bob.sees("Shall we meet at four?", by="alice")
    bob.say("Yes, I bring the cake")
    alice.sees("Yes, I bring the cake", by="bob")
    expect(alice.page.locator(".pending")).to_have_count(0)
    before = "#messages > :nth-last-child(n+4)"  # but the last three messages
    picture([alice.page, bob.page], "chat-two-windows", (740, 430), (390, 430), hides=before)

    bob.say(MARKUP)
    for user in (alice, bob):
        user.sees(MARKUP, by="bob")
        expect(user.page.locator("#log").locator("img, script, .text b")).to_have_count(0)
    alice.say("two\nlines")
    bob.sees("two\nlines")
    alice.page.screenshot(path=tmp_path / "desk.png")
    bob.page.screenshot(path=tmp_path / "phone.png")

    # What was said is still there after a reload, now as HTML from the server.
    bob.page.reload()
    bob.wait_online()
    for text in ("Is anybody here?", "Tea is ready", MARKUP):
        bob.sees(text)
    for user in (alice, bob):
        assert user.page.evaluate("window.ran") is None

    bob.close()
    alice.notices("bob left")
    alice.sees_people("alice")
    assert len(alice.sockets) == 1
    assert not alice.sockets[0].is_closed()


only_runserver = pytest.mark.parametrize("site", ["runserver"], indirect=True)
only_redis = pytest.mark.parametrize("site", [pytest.param("redis", marks=pytest.mark.redis)], indirect=True)


@only_runserver
def test_a_page_whose_network_was_gone_comes_back_or_goes_to_the_login(enter_lobby: EnterLobby) -> None:
    alice = enter_lobby("alice")
    state = alice.page.locator("#state")
    alice.context.set_offline(True)
    expect(state).to_have_attribute("data-state", "offline")
    expect(alice.page.locator("#retry")).to_be_visible()
    alice.say("Is anybody there?")
    alice.context.set_offline(False)
    alice.wait_online()
    alice.sees("Is anybody there?", by="alice")
    expect(alice.page.locator("#log .pending")).to_have_count(0)

    alice.context.set_offline(True)
    expect(state).to_have_attribute("data-state", "offline")
    alice.context.clear_cookies()
    alice.context.set_offline(False)
    alice.page.wait_for_url("**/accounts/login/?next=/chat/lobby/")
    alice.errors.clear()  # Chromium itself reports each attempt to connect that fails


@only_redis
def test_pushes_from_a_view_a_task_and_a_shell(chromium: Browser, enter_lobby: EnterLobby, site: Demo) -> None:
    alice = enter_lobby("alice")

    # A view: a browser without scripts posts the form, and has no socket.
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site.url}/accounts/login/?next=/chat/lobby/")
    page.fill("[name=username]", "bob")
    page.fill("[name=password]", PASSWORD)
    page.click("main button")
    page.fill("#text", "from a view")
    page.click("#composer > button")
    expect(page.locator("#log .message").last.locator(".text")).to_have_text("from a view")
    context.close()
    alice.sees("from a view", by="bob")

    site.manage("shell", "-c", "from app.tasks import announce; announce.delay('lobby', 'from a task')")
    alice.notices("from a task")
    site.worker.wait_for_output(r"Task app\.tasks\.announce\[.*succeeded")

    site.manage(
        "shell",
        "-c",
        "from channelsq import Group; "
        """Group("chat-lobby").send({"text": '{"type": "notice", "text": "from the shell"}'})""",
    )
    alice.notices("from the shell")


@only_redis
def test_a_killed_worker_is_replaced_under_open_sockets(enter_lobby: EnterLobby, site: Demo) -> None:
    alice, bob = enter_lobby("alice"), enter_lobby("bob")
    alice.sees_people("alice", "bob")
    accepted = site.server.output.count("WebSocket /chat/lobby/")

    site.worker.kill()
    alice.say("Is the worker there?")
    expect(alice.page.locator(".pending .text")).to_have_text("Is the worker there?")
    assert alice.message("Is the worker there?").count() == 0

    site.start_worker()
    for user in (alice, bob):
        user.sees("Is the worker there?", by="alice")
    bob.say("It is again")
    alice.sees("It is again", by="bob")
    for user in (alice, bob):
        assert len(user.sockets) == 1
        assert not user.sockets[0].is_closed()
    assert site.server.output.count("WebSocket /chat/lobby/") == accepted


@pytest.mark.ways("other ways")
@only_redis
def test_pages_come_back_when_the_interface_does(enter_lobby: EnterLobby, site: Demo) -> None:
    alice = enter_lobby("alice")
    bob = enter_lobby("bob")
    alice.notices("bob joined")
    assert site.server.terminate() == 0
    for user in (alice, bob):
        expect(user.page.locator("#state")).to_have_attribute("data-state", "offline")
    alice.say("Nobody hears this yet")
    site.manage(
        "shell",
        "-c",
        "from app.models import Room; from django.contrib.auth.models import User; "
        "Room.objects.get(slug='lobby').post(User.objects.get(username='bob'), 'You missed this')",
    )
    site.start_interface()
    for user in (alice, bob):
        user.wait_online()
        user.sees_people("alice", "bob")
    bob.say("Here I am again")
    alice.sees("Here I am again", by="bob")
    # Everybody has joined anew, which is no news but of those who were seen to leave.
    for user, other, before in ((alice, "bob", ["bob joined"]), (bob, "alice", [])):
        told = user.page.locator("#log .notice").all_inner_texts()
        assert told in (before, [*before, f"{other} left", f"{other} joined"])
    alice.sees("You missed this", by="bob")
    alice.sees("Nobody hears this yet", by="alice")
    expect(alice.page.locator(".pending")).to_have_count(0)
    for user in (alice, bob):
        user.errors.clear()  # Chromium itself reports each attempt to connect that fails
