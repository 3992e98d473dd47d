"""The documentation as a site: ``make docs`` builds it without a warning, and its pages work for everybody."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Request, expect

import channelsq
from tests.support.processes import ROOT

pytestmark = pytest.mark.timeout(120)

SEARCH = "search.html?q=ticket"

#: The first page, which has tables, one with examples, and the results of a search.
PAGES = ("index.html", "how-to/build/users.html", SEARCH)

#: The rule that differs between the schemes.
_COLOURS = {"runOnly": ["color-contrast"]}

SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as ``make docs`` builds it."""
    out = tmp_path_factory.mktemp("site")
    (recipe,) = [line for line in (ROOT / "Makefile").read_text().splitlines() if "-m sphinx" in line]
    words = recipe.replace("$(BIN)/python", sys.executable).replace("$(ARGS)", f"-d {out / 'trees'}").split()
    assert words[-2:] == ["docs", "build/docs"]
    assert "--fail-on-warning" in words
    built = subprocess.run([*words[:-1], str(out / "html")], cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-4000:]
    return out / "html"


class Silent(SimpleHTTPRequestHandler):
    """A handler of files that logs nothing."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing."""


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """The address of a server of the site."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Links(HTMLParser):
    """The targets and the anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = {""}
        self.undescribed: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element's target, its anchor, and an image without a description."""
        found = dict(attrs)
        self.targets += [value for name in ("href", "src") if (value := found.get(name))]
        self.anchors.add(found.get("id") or "")
        if tag == "img" and not found.get("alt"):
            self.undescribed.append(found.get("src") or "")


def test_every_link_within_the_site_is_alive(folder: Path) -> None:
    pages = {path: Links(path.read_text()) for path in folder.rglob("*.html")}
    dead = []
    for path, page in pages.items():
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not file.exists() or (file in pages and unquote(parts.fragment) not in pages[file].anchors):
                dead.append(f"{path.relative_to(folder)}: {target}")
    assert not dead
    assert len(pages) > 60


def test_links_to_the_repository_are_alive(folder: Path) -> None:
    start = "https://github.com/channelsq/channelsq/"
    targets = {
        target.removeprefix(start).partition("#")[0]
        for path in folder.rglob("*.html")
        for target in Links(path.read_text()).targets
        if target.startswith((f"{start}blob/main/", f"{start}tree/main/"))
    }
    assert not [each for each in targets if not (ROOT / each.partition("/main/")[2]).exists()]
    assert {"blob/main/SECURITY.md", "blob/main/benchmarks/README.md"} <= targets


def test_pictures_are_described_and_pages_too(folder: Path) -> None:
    for path in folder.rglob("*.html"):
        text = path.read_text()
        assert not Links(text).undescribed, path
        if path.name not in ("genindex.html", "search.html"):
            assert '<meta name="description" content="' in text, path


def test_the_first_page_leads_to_every_other(folder: Path) -> None:
    """The navigation is on each page; a page that is not in it would be found by a search alone."""
    first = (folder / "index.html").read_text()
    sources = [path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")]
    pages = [path.as_posix() for path in sources if path.parts[0] != "examples" and path.name != "index.html"]
    below = {"api", "decisions"}
    assert not [each for each in pages if Path(each).parent.name not in below and f'href="{each}"' not in first]


@pytest.fixture
def page(chromium: Browser, url: str) -> Iterator[Page]:
    """A window, in which nothing may go wrong and nothing may come from elsewhere."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    wrong: list[str] = []

    def failed(request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # a window that goes on to another page stops what it was loading
            wrong.append(f"{request.url}: {request.failure}")

    page.on("console", lambda line: wrong.append(line.text) if line.type in ("error", "warning") else None)
    page.on("requestfailed", failed)
    page.on("request", lambda request: wrong.append(request.url) if not request.url.startswith(url) else None)
    page.on("response", lambda response: wrong.append(response.url) if response.status >= 400 else None)
    yield page
    context.close()
    assert not wrong


@pytest.mark.browser
def test_axe_finds_nothing(page: Page, url: str, tmp_path: Path) -> None:
    axe = Axe()
    found = []
    for path in PAGES:
        page.goto(f"{url}/{path}")
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            page.screenshot(path=tmp_path / f"{path.partition('?')[0].replace('/', '-')}-{scheme}.png")
            result: dict[str, Any] = axe.run(page, options=_COLOURS if scheme == "dark" else None).response
            found += [
                f"{path} ({scheme}): {violation['id']}: {node['html'][:160]}"
                for violation in result["violations"]
                for node in violation["nodes"]
                if not (path == SEARCH and violation["id"] == "page-has-heading-one")  # Sphinx's script writes <h2>
            ]
            assert result["passes"]
    assert not found, "\n".join(found)


@pytest.mark.browser
def test_no_page_is_wider_than_a_phone(page: Page, url: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    for path in (*PAGES, "explanation/layers.html", "reference/settings.html", "reference/api/core.html"):
        page.goto(f"{url}/{path}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path


@pytest.mark.browser
def test_a_reader_searches_and_copies_and_changes_the_theme(page: Page, url: str) -> None:
    page.goto(url)
    page.get_by_placeholder("Search").fill("signed tickets")
    page.keyboard.press("Enter")
    expect(page.locator("ul.search a", has_text="Live pages").first).to_be_visible()

    page.goto(url)
    page.locator("button.copybtn").first.click()
    expect(page.locator("button.copybtn.success")).to_have_count(1)

    colours = set()
    for _ in range(3):  # as the system has it, light, dark
        page.locator(".theme-toggle:visible").first.click()
        colours.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(colours) == 2


@pytest.mark.browser
def test_a_page_is_light(page: Page, url: str) -> None:
    """It has a language and a title, one heading of the first rank, and loads half a megabyte at most."""
    sizes: list[int] = []
    page.on("response", lambda response: sizes.append(len(response.body())))
    page.goto(f"{url}/explanation/layers.html", wait_until="networkidle")
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.title() == f"Channel layers - channelsq {channelsq.__version__}"
    expect(page.locator("article h1")).to_have_count(1)
    assert 0 < sum(sizes) < 500_000
