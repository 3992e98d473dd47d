"""Unread messages, mentions, typing and older messages, in the pages of two users."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.support.chat import PHONE, EnterLobby
from tests.support.demo import Demo
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

only_runserver = pytest.mark.parametrize("site", ["runserver"], indirect=True)

#: Makes the page believe that its tab is hidden, or shown again.
HIDE = """(hidden) => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
    document.dispatchEvent(new Event("visibilitychange"));
}"""


@pytest.mark.ways("redis")
def test_a_mention_reaches_its_user_on_another_page(enter_lobby: EnterLobby, site: Demo) -> None:
    alice, bob = enter_lobby("alice"), enter_lobby("bob", PHONE)
    bob.page.goto(f"{site.url}/chat/tea-kitchen/")
    bob.wait_online()
    alice.say("Have you seen this, @bob?")
    toast = bob.page.locator(".toast")
    expect(toast.locator(".about")).to_have_text("alice mentioned you in Lobby")
    expect(toast.locator(".excerpt")).to_have_text("Have you seen this, @bob?")
    expect(bob.page.locator("#mentions .number")).to_have_text("1")
    expect(alice.page.locator(".toast")).to_have_count(0)
    toast.get_by_role("link", name="Show").click()
    bob.wait_online()
    bob.sees("Have you seen this, @bob?")
    expect(bob.page.locator(".target .mention.me")).to_be_in_viewport()
    expect(bob.page.locator("#mentions")).to_be_hidden()

    # The list of rooms has a socket of its own, which is the same user's.
    bob.page.goto(site.url)
    expect(bob.page.locator("[data-room=lobby] .unread")).to_be_hidden()
    alice.say("And this, @bob?")
    expect(bob.page.locator(".toast")).to_have_count(1)
    expect(bob.page.locator("[data-room=lobby] .unread .number")).to_have_text("1")
    expect(bob.page.locator("[data-room=lobby] .excerpt")).to_have_text("And this, @bob?")
    bob.page.get_by_role("button", name="Dismiss").click()
    expect(bob.page.locator(".toast")).to_have_count(0)


@only_runserver
def test_rooms_elsewhere_and_a_hidden_tab(enter_lobby: EnterLobby, site: Demo) -> None:
    alice, bob = enter_lobby("alice"), enter_lobby("bob")
    alice.page.goto(f"{site.url}/chat/tea-kitchen/")
    alice.wait_online()
    before = bob.page.locator("#elsewhere .number").inner_text()
    alice.say("Tea is ready")
    expect(bob.page.locator("#elsewhere .number")).to_have_text(str(int(before) + 1))
    bob.page.goto(f"{site.url}/chat/tea-kitchen/")
    bob.wait_online()
    expect(bob.page.locator("#elsewhere")).to_be_hidden()

    bob.page.evaluate(HIDE, True)
    alice.say("Is bob still here?")
    expect(bob.page).to_have_title("(1) Tea kitchen")
    bob.page.evaluate(HIDE, False)
    expect(bob.page).to_have_title("Tea kitchen")
    # Seen is read: another page of the user does not count it.
    wanted = (
        "SELECT last_id = (SELECT MAX(id) FROM app_message) FROM app_readmarker "
        "JOIN auth_user ON auth_user.id = user_id JOIN app_room ON app_room.id = room_id "
        "WHERE username = 'bob' AND slug = 'tea-kitchen'"
    )
    wait_until(lambda: site.query(wanted) == [(1,)], "the marker to move")


@only_runserver
def test_typing_is_shown_and_ends_by_itself(enter_lobby: EnterLobby) -> None:
    alice, bob = enter_lobby("alice"), enter_lobby("bob")
    typing = bob.page.locator("#typing")
    alice.page.press("#text", "H")
    expect(typing).to_have_text("alice is typing …")
    expect(alice.page.locator("#typing")).to_have_text("")
    expect(typing).to_have_text("")  # after some seconds of silence
    alice.page.press("#text", "i")
    expect(typing).to_have_text("alice is typing …")
    alice.page.press("#text", "Enter")
    bob.sees("Hi")
    expect(typing).to_have_text("", timeout=2000)  # at once, by the message


@only_runserver
def test_older_messages_load_and_the_position_is_kept(enter_lobby: EnterLobby, site: Demo) -> None:
    site.manage(
        "shell",
        "-c",
        "from app.models import Room; from django.contrib.auth.models import User\n"
        "room, alice = Room.objects.get(slug='release-night'), User.objects.get(username='alice')\n"
        "for number in range(120): room.post(alice, f'number {number}')",
    )
    bob = enter_lobby("bob")
    page = bob.page
    page.goto(f"{site.url}/chat/release-night/")
    bob.wait_online()
    expect(bob.message("number 119")).to_be_in_viewport()
    assert bob.message("number 69").count() == 0
    first = page.locator("#messages .message").first
    expect(first.locator(".text")).to_have_text("number 70")

    page.evaluate("document.getElementById('log').scrollTop = 40")
    top = "document.querySelector('#messages [data-seen]').getBoundingClientRect().top"
    page.evaluate("document.querySelector('#messages .message').dataset.seen = ''")
    before = page.evaluate(top)
    expect(bob.message("number 20")).to_have_count(1)
    assert abs(page.evaluate(top) - before) <= 40  # the reader still sees the same message

    page.locator("#older").focus()
    page.keyboard.press("Enter")
    expect(bob.message("number 0")).to_have_count(1)
    expect(page.locator("#older")).to_have_count(0)
    expect(page.locator("#log")).to_be_focused()
    numbers = page.locator("#messages .text").all_inner_texts()
    assert numbers == [f"number {number}" for number in range(120)]


@only_runserver
def test_a_page_that_missed_much_has_no_gap(enter_lobby: EnterLobby, site: Demo) -> None:
    bob = enter_lobby("bob")
    bob.page.goto(f"{site.url}/chat/tea-kitchen/")
    bob.wait_online()
    bob.context.set_offline(True)
    expect(bob.page.locator("#state")).to_have_attribute("data-state", "offline")
    site.manage(
        "shell",
        "-c",
        "from app.models import Room; from django.contrib.auth.models import User\n"
        "room, alice = Room.objects.get(slug='tea-kitchen'), User.objects.get(username='alice')\n"
        "for number in range(70): room.post(alice, f'missed {number}')",
    )
    bob.context.set_offline(False)
    bob.wait_online()
    bob.sees("missed 69")
    bob.page.evaluate("document.getElementById('log').scrollTop = 0")
    expect(bob.message("missed 0")).to_have_count(1)
    expect(bob.message("missed 20")).to_have_count(1)
    numbers = [text for text in bob.page.locator("#messages .text").all_inner_texts() if text.startswith("missed")]
    assert numbers == [f"missed {number}" for number in range(70)]
    bob.errors.clear()  # Chromium itself reports each attempt to connect that fails


@only_runserver
def test_names_and_commands_are_suggested(enter_lobby: EnterLobby) -> None:
    alice, bob = enter_lobby("alice"), enter_lobby("bob")
    bob.sees_people("alice", "bob")
    bob.page.locator("#text").press_sequentially("Hello @al")
    bob.page.keyboard.press("ArrowUp")
    bob.page.keyboard.press("Enter")
    expect(bob.page.locator("#text")).to_have_value("Hello @alice ")
    expect(bob.page.locator("#text")).to_be_focused()
    bob.page.fill("#text", "/")
    expect(bob.page.locator("#suggestions button b")).to_have_text(["/ask", "/import"])
    bob.page.keyboard.press("Escape")
    expect(bob.page.locator("#suggestions")).to_be_hidden()
    assert not alice.errors
