"""The chat as a user sees it, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import TracebackType

from playwright.sync_api import Browser, Locator, Page, StorageState, WebSocket, expect

from tests.support.demo import PASSWORD

DESK = (1280, 800)
PHONE = (390, 844)

expect.set_options(timeout=15_000)


class ChatUser:
    """Somebody with a browser of their own; logs in as people do, and closes it at the end.

    Args:
        browser: Chromium.
        url: the site's.
        name: of one of the demo's users.
        size: of the window, in CSS pixels; one of a phone's width is a phone.
        cookies: what :attr:`cookies` gave after an earlier login.
    """

    def __init__(
        self,
        browser: Browser,
        url: str,
        name: str,
        size: tuple[int, int] = DESK,
        cookies: StorageState | None = None,
    ) -> None:
        width, height = size
        self.url = url
        self.name = name
        self.phone = phone = width < 600
        self.context = browser.new_context(
            viewport={"width": width, "height": height},
            has_touch=phone,
            is_mobile=phone,
            locale="en-GB",
            storage_state=cookies,
        )
        self.context.set_default_timeout(20_000)
        self.page: Page = self.context.new_page()
        #: Every WebSocket that the pages of rooms have opened so far.
        self.sockets: list[WebSocket] = []
        #: What went wrong in the page.
        self.errors: list[str] = []
        self.page.on("websocket", lambda socket: self.sockets.append(socket) if "/chat/" in socket.url else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda line: self.errors.append(line.text) if line.type == "error" else None)

    def __enter__(self) -> ChatUser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the browser's window."""
        self.context.close()

    def log_in(self) -> None:
        """Fill in the login form, and see the list of rooms."""
        self.page.goto(f"{self.url}/accounts/login/")
        self.page.fill("[name=username]", self.name)
        self.page.fill("[name=password]", PASSWORD)
        self.page.click("main button")
        expect(self.page.locator("h1")).to_have_text("Rooms")
        expect(self.page.locator(".who")).to_have_text(self.name)

    @property
    def cookies(self) -> StorageState:
        """The cookies of this user's session."""
        return self.context.storage_state()

    def come_back(self) -> None:
        """Open the list of rooms, with the cookies of an earlier login."""
        self.page.goto(self.url)
        expect(self.page.locator(".who")).to_have_text(self.name)

    def enter(self, room: str) -> None:
        """Choose a room from the list, and wait until its page is connected."""
        self.page.locator(".rooms a", has_text=room).click()
        self.wait_online()

    def wait_online(self) -> None:
        """Wait until the page shows that it is connected."""
        expect(self.page.locator("#state")).to_have_attribute("data-state", "online")

    def say(self, text: str) -> None:
        """Type a message and send it."""
        self.page.fill("#text", text)
        if self.phone:
            self.page.click("#composer > button")
        else:
            self.page.press("#text", "Enter")

    def message(self, text: str) -> Locator:
        """The messages that read exactly so and have come from the server."""
        exactly = re.compile(f"^{re.escape(text)}$")
        return self.page.locator("#log .message:not(.pending)").filter(has=self.page.locator(".text", has_text=exactly))

    def sees(self, text: str, by: str | None = None) -> None:
        """Wait until a message is there, once."""
        expect(self.message(text)).to_have_count(1)
        expect(self.message(text)).to_be_visible()
        if by is not None:
            expect(self.message(text).locator(".user")).to_have_text(by)

    def notices(self, text: str) -> None:
        """Wait until a notice is there."""
        expect(self.page.locator("#log .notice", has_text=text).last).to_be_visible()

    def sees_people(self, *names: str) -> None:
        """Wait until exactly these people are shown as here."""
        expect(self.page.locator("#people li")).to_have_text(list(names))
        expect(self.page.locator("#people-count")).to_have_text(str(len(names)))


#: Lets a user log in and enter the lobby: name, and size of the window.
EnterLobby = Callable[..., ChatUser]
