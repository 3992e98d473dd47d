"""Pictures of the documentation, taken by the tests that have the pages open anyway.

``make pictures`` writes them into ``docs/images/``.  Without its option ``--pictures`` a test only checks that the
picture is there, and that a page shows it.
"""

from __future__ import annotations

import base64
import struct
import time
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import Page, ViewportSize

from tests.support.processes import ROOT

IMAGES = ROOT / "docs" / "images"

#: The most pixels of a picture from left to right, and the most bytes of its file.
WIDEST, LARGEST = 1200, 120_000

_PNG = b"\x89PNG\r\n\x1a\n"

#: Several windows side by side, each with a bar at its top.
_DESK = """<!doctype html>
<style>
  body {{ margin: 0; padding: 12px; display: inline-flex; gap: 16px; align-items: flex-start; background: #eceef4; }}
  figure {{ margin: 0; border: 1px solid #b9bdcc; border-radius: 10px; overflow: hidden; background: #fff; }}
  figure::before {{ content: "● ● ●"; display: block; padding: 4px 12px; font: 13px/1.4 sans-serif;
                    background: #dcdfe8; color: #9196a8; border-bottom: 1px solid #b9bdcc; }}
  img {{ display: block; }}
</style>
{windows}
"""

_DISPLAY = "(elements, value) => elements.forEach((element) => { element.style.display = value; })"


class Pictures:
    """Takes pictures, or checks those that were taken.

    Args:
        writes: whether to take them.
    """

    def __init__(self, *, writes: bool) -> None:
        self.writes = writes

    def __call__(
        self, pages: Page | Sequence[Page], name: str, *sizes: tuple[int, int], after: float = 0, hides: str = ""
    ) -> None:
        """Take the picture ``name`` of a page, or of several pages as windows side by side.

        Args:
            pages: one page, or several.
            name: the name of the file in ``docs/images/``, without ``.png``.
            sizes: the size of each window for the picture; one size is that of all.
            after: seconds to wait first, for instance until a chart has some points; only while pictures are taken.
            hides: the selector of elements that are left out of the picture, such as texts of other tests.
        """
        if self.writes:
            shown = [pages] if isinstance(pages, Page) else list(pages)
            time.sleep(after)
            shots = _shots(shown, [sizes[number % len(sizes)] for number in range(len(shown))], hides)
            IMAGES.mkdir(exist_ok=True)
            (IMAGES / f"{name}.png").write_bytes(
                shots[0] if isinstance(pages, Page) else _side_by_side(shown[0], shots)
            )
        check(IMAGES / f"{name}.png")


def _shots(pages: Sequence[Page], sizes: Sequence[tuple[int, int]], hides: str) -> list[bytes]:
    """Return a screenshot of each page, all taken at nearly the same time, and restore the pages' sizes."""
    before: list[ViewportSize | None] = [page.viewport_size for page in pages]
    for page, (width, height) in zip(pages, sizes, strict=True):
        page.set_viewport_size({"width": width, "height": height})
        if hides:
            page.locator(hides).evaluate_all(_DISPLAY, "none")
    shots = [page.screenshot(scale="css", caret="hide") for page in pages]
    for page, size in zip(pages, before, strict=True):
        if hides:
            page.locator(hides).evaluate_all(_DISPLAY, "")
        if size is not None:
            page.set_viewport_size(size)
    return shots


def _side_by_side(page: Page, shots: Sequence[bytes]) -> bytes:
    """Return one picture of several; the browser of ``page`` draws it."""
    browser = page.context.browser
    assert browser is not None
    context = browser.new_context(viewport={"width": 2 * WIDEST, "height": 1000})
    try:
        desk = context.new_page()
        encoded = (base64.b64encode(shot).decode() for shot in shots)
        windows = "".join(f'<figure><img src="data:image/png;base64,{each}"></figure>' for each in encoded)
        desk.set_content(_DESK.format(windows=windows), wait_until="load")
        return desk.locator("body").screenshot()
    finally:
        context.close()


def check(path: Path) -> None:
    """Check a picture's format and size, and that a page shows it.

    Raises:
        AssertionError: ``make pictures`` must take it, or a page must show it.
    """
    assert path.exists(), f"{path.name} is missing: make pictures"
    data = path.read_bytes()
    assert data.startswith(_PNG), f"{path.name} is no PNG"
    (width,) = struct.unpack(">I", data[16:20])
    assert width <= WIDEST, f"{path.name} is {width} pixels wide"
    assert len(data) < LARGEST, f"{path.name} has {len(data)} bytes"
    shown = f"images/{path.name})"
    assert any(shown in page.read_text() for page in (ROOT / "docs").rglob("*.md")), f"no page shows {path.name}"
