"""A real browser for the demo's pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

CHROMIUM_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--no-first-run",
]


def chromium_binary() -> str | None:
    """``$CHROMIUM``, or the system's Chromium or Chrome.

    First its headless shell, which Playwright's own installations use: the same engine without windows, so it
    takes less than a third of the time to start and to open a page.
    """
    names = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


@contextmanager
def run_chromium(binary: str) -> Iterator[Browser]:
    """A headless Chromium.

    Playwright's synchronous interface keeps an event loop running in this thread.  Django would therefore
    refuse the database to the tests, so it is told that this is meant.
    """
    before = os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE")
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=binary, args=CHROMIUM_OPTIONS)
            try:
                yield browser
            finally:
                browser.close()
    finally:
        if before is None:
            del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]
        else:
            os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = before


@contextmanager
def two_pages(browser: Browser, timeout: float, size: ViewportSize | None = None) -> Iterator[list[Page]]:
    """The pages of two visitors; no script may have failed in them at the end.

    Args:
        browser: the browser.
        timeout: milliseconds that Playwright waits for what a test expects of them.
        size: of their windows; Playwright's own by default.
    """
    expect.set_options(timeout=timeout)
    contexts = [browser.new_context(viewport=size) if size else browser.new_context() for _ in range(2)]
    problems: list[str] = []
    pages = [context.new_page() for context in contexts]
    for page in pages:
        page.set_default_timeout(timeout)
        page.on("pageerror", lambda error: problems.append(error.message))
    try:
        yield pages
    finally:
        for context in contexts:
            context.close()
        expect.set_options(timeout=5_000)
    assert problems == []
