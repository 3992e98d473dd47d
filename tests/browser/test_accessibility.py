"""axe-core over every page of the demo, on a desk and on a phone, light and dark; and the demo by keyboard alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from tests.support import upload_files
from tests.support.chat import DESK, PHONE, ChatUser
from tests.support.demo import PASSWORD, Demo

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")

#: Fills a room with more than a page, among them a text and a mail.
MORE_MESSAGES = """
from app.models import Room
from django.contrib.auth.models import User
room, alice = Room.objects.get(slug="lobby"), User.objects.get(username="alice")
for number in range(55):
    room.post(alice, f"number {number}", source=("", "sms", "email")[number % 3])
"""

#: What differs between the schemes.
_COLOURS = {"runOnly": ["color-contrast"]}


@pytest.fixture(scope="module")
def demo(demo_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The demo under ``runserver``, whose rooms one of the tests deletes."""
    site = Demo(demo_template, tmp_path_factory.mktemp("accessibility"))
    try:
        site.start_runserver("--noreload")
        yield site
    finally:
        site.stop()


class Inspector:
    """Looks at the pages of one user, and collects what is wrong with them.

    Args:
        user: whose window is looked at.
        folder: for screenshots.
    """

    def __init__(self, user: ChatUser, folder: Path) -> None:
        self._page = user.page
        self._folder = folder
        self._axe = Axe()
        self.found: list[str] = []

    def look(self, name: str) -> None:
        """Have axe look at the page that is shown, in both schemes, and check that nothing is wider than the window."""
        for scheme in SCHEMES:
            self._page.emulate_media(color_scheme=scheme)
            self._page.screenshot(path=self._folder / f"{name}-{scheme}.png")
            result: dict[str, Any] = self._axe.run(self._page, options=_COLOURS if scheme == "dark" else None).response
            self.found += [
                f"{name} ({scheme}): {violation['id']}: {violation['help']}: {node['html'][:120]}"
                for violation in result["violations"]
                for node in violation["nodes"]
            ]
            assert result["passes"], "axe has looked at nothing"
        if self._page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            self.found.append(f"{name}: it is wider than its window")


@pytest.mark.ways("desk")
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_axe_finds_nothing(chromium: Browser, demo: Demo, size: tuple[int, int], tmp_path: Path) -> None:
    with ChatUser(chromium, demo.url, "bob", size) as bob:
        page, inspector = bob.page, Inspector(bob, tmp_path)
        for name, path in (("login", "accounts/login/"), ("signup", "accounts/signup/"), ("visitor", "")):
            page.goto(f"{demo.url}/{path}")
            inspector.look(name)
        # With DEBUG, Django shows a page of its own.
        shown = "from django.template.loader import render_to_string; print(render_to_string('404.html'))"
        not_found = demo.manage("shell", "-v", "0", "-c", shown)
        page.route("**/nowhere/", lambda route: route.fulfill(body=not_found, content_type="text/html"))
        page.goto(f"{demo.url}/nowhere/")
        expect(page.locator("h1")).to_have_text("Not found")
        inspector.look("404")

        page.goto(f"{demo.url}/accounts/signup/")
        page.fill("[name=username]", "bob")
        page.fill("[name=password1]", "12345")
        page.fill("[name=password2]", "123")
        page.click("main button")
        expect(page.locator(".errorlist").first).to_be_visible()
        inspector.look("signup-errors")
        page.goto(f"{demo.url}/accounts/login/")
        page.fill("[name=username]", "nobody")
        page.fill("[name=password]", "wrong")
        page.click("main button")
        expect(page.locator(".errorlist")).to_be_visible()
        inspector.look("login-error")

        bob.log_in()
        inspector.look("rooms")
        page.fill(".line [name=name]", "Lobby")
        page.click(".line button")
        expect(page.locator(".errorlist")).to_be_visible()
        inspector.look("rooms-error")

        page.fill(".line [name=name]", f"Quiet {size[0]}")
        page.click(".line button")
        bob.wait_online()
        expect(page.locator(".nothing")).to_be_visible()
        inspector.look("room-empty")
        bob.say("longwordwithoutanyspace" * 12)
        expect(page.locator(".message:not(.pending)")).to_have_count(1)
        expect(page.locator(".nothing")).to_be_hidden()
        page.evaluate(
            """() => { for (let n = 0; n < 40; n++) {
                const item = document.createElement("li");
                item.textContent = "somebody" + n;
                document.getElementById("people").append(item);
            } }"""
        )
        inspector.look("room")
        bob.context.set_offline(True)
        expect(page.locator("#state")).to_have_attribute("data-state", "offline")
        bob.say("Is anybody there?")
        expect(page.locator(".pending time")).to_have_text("sending …")
        inspector.look("room-offline")
        bob.context.set_offline(False)
        bob.wait_online()

        assert inspector.found == []


@pytest.mark.ways("desk")
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_axe_finds_nothing_while_much_happens(
    chromium: Browser, demo: Demo, size: tuple[int, int], tmp_path: Path
) -> None:
    with ChatUser(chromium, demo.url, "bob", size) as bob, ChatUser(chromium, demo.url, "alice") as alice:
        page, inspector = bob.page, Inspector(bob, tmp_path)
        for user in (bob, alice):
            user.log_in()
            user.enter("Tea kitchen")
        page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": upload_files.png(200, 90)})
        expect(page.locator("#preview")).to_be_visible()
        inspector.look("file-chosen")
        page.fill("#alt", "A bar")
        page.click("#composer > button")
        expect(page.locator(".picture")).not_to_have_count(0)
        page.set_input_files("#file", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"text"})
        page.click("#composer > button")
        expect(page.locator("a.file")).not_to_have_count(0)
        alice.say("Have you seen it, @bob? I am @alice.")
        bob.sees("Have you seen it, @bob? I am @alice.")
        page.fill("#text", "/")
        expect(page.locator("#suggestions")).to_be_visible()
        inspector.look("suggestions")
        alice.page.press("#text", "x")
        rows = b"text\n" + b"A row of many\n" * 400  # which take longer than axe
        page.set_input_files("#file", {"name": "rows.csv", "mimeType": "text/csv", "buffer": rows})
        bob.say("/import")
        expect(page.locator(".job.import .text")).to_contain_text("of 400")
        inspector.look("import")
        page.get_by_role("button", name="Cancel").click()
        bob.notices("bob cancelled the import")
        bob.say("/ask Tell me about groups and rooms")
        expect(page.locator(".job.answer .text")).to_contain_text("A group is")
        inspector.look("answer")
        expect(page.locator(".job")).to_have_count(0)
        page.goto(f"{demo.url}/chat/release-night/")
        bob.wait_online()
        alice.say("Tea, @bob?")
        expect(page.locator(".toast")).to_be_visible()
        inspector.look("toast")
        page.get_by_role("button", name="Dismiss").click()
        expect(page.locator("#mentions")).to_be_visible()
        page.goto(demo.url)
        expect(page.locator("[data-room=tea-kitchen] .unread")).to_be_visible()
        inspector.look("rooms-unread")
        demo.manage("shell", "-c", MORE_MESSAGES)
        page.goto(f"{demo.url}/chat/lobby/?before=9999999")
        expect(page.get_by_role("link", name="Older messages")).to_be_attached()
        inspector.look("history")
        assert inspector.found == []
        assert not bob.errors


def test_no_rooms_at_all(chromium: Browser, demo: Demo, tmp_path: Path) -> None:
    demo.manage("shell", "-c", "from app.models import Room; Room.objects.all().delete()")
    with ChatUser(chromium, demo.url, "alice", PHONE) as alice:
        inspector = Inspector(alice, tmp_path)
        alice.page.goto(demo.url)
        expect(alice.page.locator(".nothing")).to_have_text("There are no rooms yet.")
        inspector.look("no-rooms-visitor")
        alice.log_in()
        expect(alice.page.locator(".nothing")).to_have_text("There are no rooms yet. Make the first one.")
        inspector.look("no-rooms")
        assert inspector.found == []
    demo.manage("demo")


def test_from_a_room_back_to_the_list_on_a_phone(chromium: Browser, demo: Demo) -> None:
    with ChatUser(chromium, demo.url, "bob", PHONE) as bob:
        bob.log_in()
        bob.enter("Lobby")
        back = bob.page.get_by_role("link", name="Rooms")
        expect(back).to_be_in_viewport(ratio=1)
        box = back.bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) >= 44
        back.tap()
        expect(bob.page.locator("h1")).to_have_text("Rooms")


def test_the_keyboard_is_enough(chromium: Browser, demo: Demo) -> None:
    with ChatUser(chromium, demo.url, "alice", DESK) as alice:
        page = alice.page

        def focused() -> str:
            return str(page.evaluate("document.activeElement.textContent.trim() || document.activeElement.id"))

        def tab_to(text: str, *, back: bool = False) -> None:
            for _ in range(20):
                page.keyboard.press("Shift+Tab" if back else "Tab")
                if focused().startswith(text):
                    break
            assert focused().startswith(text)
            # The focus is seen.
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"

        page.goto(f"{demo.url}/accounts/login/")
        page.locator("[name=username]").focus()
        page.keyboard.type("alice")
        page.keyboard.press("Tab")
        page.keyboard.type(PASSWORD)
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_have_text("Rooms")
        tab_to("Lobby")
        page.keyboard.press("Enter")
        alice.wait_online()
        expect(page.locator("#text")).to_be_focused()
        page.keyboard.type("By keyboard")
        page.keyboard.press("Enter")
        alice.sees("By keyboard", by="alice")
        expect(page.locator("#text")).to_be_focused()
        page.keyboard.press("Shift+Tab")
        expect(page.locator("#log")).to_be_focused()  # which the arrow keys scroll
        tab_to("‹ Rooms", back=True)
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_have_text("Rooms")
