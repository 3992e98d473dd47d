"""Files in the chat: chosen, pasted, dropped, and sent without a script."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, FilePayload, expect

from tests.support import upload_files
from tests.support.chat import PHONE, EnterLobby
from tests.support.demo import PASSWORD, Demo

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

only_runserver = pytest.mark.parametrize("site", ["runserver"], indirect=True)

PICTURE: FilePayload = {"name": "square.png", "mimeType": "image/png", "buffer": upload_files.png(300, 200)}

#: Makes an event with a file as a person's paste or drop has it.
GIVE = """([type, bytes]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(bytes)], `${type}.png`, { type: "image/png" }));
    const target = document.getElementById("text");
    const event = type === "paste"
        ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true })
        : new DragEvent(type, { dataTransfer: transfer, bubbles: true, cancelable: true });
    target.dispatchEvent(event);
}"""


@pytest.mark.ways("redis")
def test_a_picture_with_a_description_reaches_the_others(enter_lobby: EnterLobby) -> None:
    alice, bob = enter_lobby("alice"), enter_lobby("bob", PHONE)
    before = bob.page.locator(".picture img").count()
    alice.page.set_input_files("#file", PICTURE)
    expect(alice.page.locator("#preview")).to_be_visible()
    expect(alice.page.locator("#alt")).to_be_focused()
    alice.page.keyboard.type("A square")
    alice.page.fill("#text", "Look at this")
    alice.page.press("#text", "Enter")
    bob.sees("Look at this", by="alice")
    image = bob.page.locator(".picture img")
    expect(image).to_have_count(before + 1)
    expect(image.last).to_have_attribute("alt", "A square")
    image.last.scroll_into_view_if_needed()
    expect(image.last).to_have_js_property("naturalWidth", 300)
    expect(alice.page.locator("#chosen")).to_be_hidden()
    expect(alice.page.locator("#text")).to_be_focused()
    alice.sees("Look at this")  # once, although the answer and the socket brought it
    # The page of the server shows the same.
    bob.page.reload()
    expect(bob.page.locator(".picture img").last).to_have_attribute("alt", "A square")


@only_runserver
def test_the_newest_message_stays_in_view_beside_a_chosen_file(enter_lobby: EnterLobby) -> None:
    alice, bob = enter_lobby("alice"), enter_lobby("bob")
    for number in range(12):
        bob.say(f"Line {number} of a long story")
    alice.sees("Line 11 of a long story")
    # The scroll event of a message and the row of the file come in one frame of the browser.
    alice.page.evaluate(
        """(bytes) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], "a.png", { type: "image/png" }));
            const event = new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true });
            document.getElementById("text").dispatchEvent(event);
            document.getElementById("log").dispatchEvent(new Event("scroll")); // of an earlier message
        }""",
        list(upload_files.png()),
    )
    expect(alice.page.locator("#chosen")).to_be_visible()
    bob.say("The end")
    alice.sees("The end")
    expect(alice.message("The end")).to_be_in_viewport(ratio=1)
    expect(alice.page.locator("#jump")).to_be_hidden()
    alice.page.click("#remove")
    alice.page.evaluate("document.getElementById('log').scrollTop = 0")
    bob.say("One more")
    expect(alice.page.locator("#jump")).to_be_visible()
    alice.page.click("#jump")
    expect(alice.message("One more")).to_be_in_viewport(ratio=1)


@only_runserver
def test_pasted_and_dropped_files_are_chosen(enter_lobby: EnterLobby) -> None:
    alice = enter_lobby("alice")
    data = list(upload_files.png())
    alice.page.evaluate(GIVE, ["paste", data])
    expect(alice.page.locator("#file-name")).to_have_text("paste.png")
    alice.page.click("#remove")
    expect(alice.page.locator("#chosen")).to_be_hidden()
    expect(alice.page.locator("#text")).to_be_focused()
    alice.page.evaluate(GIVE, ["dragover", data])
    expect(alice.page.locator(".dropping")).to_have_count(1)
    alice.page.evaluate(GIVE, ["drop", data])
    expect(alice.page.locator(".dropping")).to_have_count(0)
    expect(alice.page.locator("#file-name")).to_have_text("drop.png")


@only_runserver
def test_a_file_that_is_no_image_is_a_download(enter_lobby: EnterLobby) -> None:
    alice = enter_lobby("alice")
    svg: FilePayload = {"name": "evil.png", "mimeType": "image/png", "buffer": upload_files.SVG}
    alice.page.set_input_files("#file", svg)
    alice.page.press("#text", "Enter")
    link = alice.page.locator("#log a.file").last
    expect(link).to_contain_text("evil.png")
    with alice.page.expect_download() as download:
        link.click()
    assert download.value.suggested_filename == "evil.png"
    assert Path(download.value.path()).read_bytes() == upload_files.SVG


@only_runserver
def test_a_file_over_the_limit_is_refused_before_it_is_sent(enter_lobby: EnterLobby) -> None:
    alice = enter_lobby("alice")
    large: FilePayload = {"name": "large.bin", "mimeType": "application/zip", "buffer": b"x" * (5 * 1024 * 1024 + 1)}
    alice.page.set_input_files("#file", large)
    expect(alice.page.locator("#problem")).to_have_text(
        "large.bin has 5.0 MB, and the limit is 5.0 MB. Choose a smaller file."
    )
    expect(alice.page.locator("#chosen")).to_be_hidden()


@only_runserver
def test_a_lost_connection_keeps_the_file_for_another_try(enter_lobby: EnterLobby) -> None:
    alice = enter_lobby("alice")
    alice.page.route("**/post/", lambda route: route.abort())
    alice.page.set_input_files("#file", PICTURE)
    alice.page.fill("#text", "Once more")
    alice.page.press("#text", "Enter")
    expect(alice.page.locator("#problem")).to_contain_text("the connection was lost")
    alice.page.unroute("**/post/")
    alice.page.press("#text", "Enter")
    alice.sees("Once more", by="alice")
    expect(alice.page.locator("#problem")).to_be_hidden()
    alice.errors.clear()  # Chromium itself reports the request that failed


@only_runserver
def test_without_a_script(chromium: Browser, enter_lobby: EnterLobby, site: Demo) -> None:
    alice = enter_lobby("alice")
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site.url}/accounts/login/?next=/chat/lobby/")
    page.fill("[name=username]", "bob")
    page.fill("[name=password]", PASSWORD)
    page.click("main button")
    page.set_input_files("#file", PICTURE)
    page.fill("#alt", "Without a script")
    page.click("#composer > button")
    expect(page.locator(".picture img").last).to_have_attribute("alt", "Without a script")
    expect(alice.page.locator(".picture img").last).to_have_attribute("alt", "Without a script")
    page.click("#composer > button")
    expect(page.locator("#problem")).to_have_text("Write a message, or choose a file.")
    context.close()
