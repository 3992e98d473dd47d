"""The dashboard in Chromium: live, accessible, under a strict policy; dead letters; a worker that dies."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect
from websockets.sync.client import connect
from websockets.typing import Origin

from tests.support.dashboard_site import PAGE, DashboardSite
from tests.support.demo import fresh_redis
from tests.support.pictures import Pictures
from tests.support.polls import Editor, entering

pytestmark = [pytest.mark.browser, pytest.mark.redis, pytest.mark.timeout(240)]

Enter = Callable[..., Editor]

DESK, PHONE = (1280, 800), (390, 844)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


@pytest.fixture(scope="module")
def site(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DashboardSite]:
    made = DashboardSite(tmp_path_factory.mktemp("dashboard"), fresh_redis(redis_url))
    expect.set_options(timeout=20_000)
    try:
        made.make()
        made.fill()
        made.start()
        yield made
    finally:
        expect.set_options(timeout=5_000)
        made.processes.stop()


@pytest.fixture
def enter(chromium: Browser, site: DashboardSite) -> Iterator[Enter]:
    with entering(chromium, site.url) as come:
        yield come


def opened(editor: Editor, state: str = "live") -> Page:
    """Open the dashboard, and wait for its state."""
    editor.page.goto(f"{editor.url}{PAGE}")
    is_in(editor.page, state)
    return editor.page


def is_in(page: Page, state: str) -> None:
    expect(page.locator("html")).to_have_attribute("data-channelsq-dashboard", state)


def tile(page: Page, title: str) -> Any:
    return page.locator(".tile", has=page.get_by_text(title, exact=True)).locator("dd").first


@contextmanager
def chatting(site: DashboardSite, sockets: int) -> Iterator[None]:
    """Keep sockets open, each of which says something again and again."""
    over = threading.Event()

    def chat(number: int) -> None:
        with connect(f"ws://127.0.0.1:{site.port}/echo/{number}/", origin=Origin(site.url), compression=None) as socket:
            while not over.wait(0.05):
                socket.send("tea?")
                assert socket.recv(30) == "tea?"

    threads = [threading.Thread(target=chat, args=(number,)) for number in range(sockets)]
    for each in threads:
        each.start()
    try:
        yield
    finally:
        over.set()
        for each in threads:
            each.join()


def test_the_page_shows_the_site_as_it_changes(enter: Enter, site: DashboardSite, picture: Pictures) -> None:
    page = opened(enter("alice"))
    expect(tile(page, "Open sockets")).to_have_text("1")  # its own
    expect(tile(page, "Interface servers")).to_have_text("1")
    expect(tile(page, "Workers")).to_have_text("1")
    expect(page.locator("#notes")).to_have_text("FineNo problem was found.")
    expect(page.locator("#hint")).to_be_hidden()
    with chatting(site, 3):
        expect(tile(page, "Open sockets")).to_have_text("4")
        expect(tile(page, "From clients")).to_have_text(re.compile(r"^[1-9]\d(\.\d)?$"))
        expect(tile(page, "To clients")).to_have_text(re.compile(r"^[1-9]\d(\.\d)?$"))
        expect(tile(page, "Answer time")).to_have_text(re.compile(r"^[\d.,]+ m?s$"))
        expect(page.get_by_role("row", name="/echo/2/")).to_be_visible()
        expect(page.locator("#counted")).to_contain_text("websocket.receive")
        label = page.get_by_role("img", name=re.compile("^Open sockets, now: open 4"))
        expect(label).to_be_visible()
        expect(page.locator(".plot canvas")).to_have_count(4)
        picture(page, "dashboard", (1150, 905), after=40)
        page.get_by_text("As a table").nth(1).click()
        expect(page.locator(".chart").nth(1).locator("tbody tr").first).to_be_visible()
        assert page.locator(".chart").nth(1).locator("tbody tr").count() <= 12
    expect(tile(page, "Open sockets")).to_have_text("1")


def test_pages_share_the_samples_and_the_past(enter: Enter) -> None:
    first = opened(enter("alice"))
    moments = first.locator("#moment")
    before = moments.text_content()
    expect(moments).not_to_have_text(before or "")
    second = opened(enter("reader"))
    # The charts of a new page begin with the samples before it.
    second.get_by_text("As a table").first.click()
    expect(second.locator(".chart").first.locator("tbody tr").nth(1)).to_be_visible()


def test_a_refused_client_is_counted(enter: Enter, site: DashboardSite) -> None:
    page = opened(enter("alice"))
    done = page.request.post(f"{site.url}/", headers={"content-type": "text/plain"}, data=b"x" * 10)
    assert done.status in (403, 404)
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", site.port)
    connection.request("POST", "/", headers={"Content-Length": str(10**12)})
    assert connection.getresponse().status == 413
    connection.close()
    expect(page.locator("#counted")).to_contain_text("http 413 body too large")


def test_dead_letters_are_replayed_and_deleted(enter: Enter, site: DashboardSite) -> None:
    page = opened(enter("alice"))
    kept, gone = site.add_dead_letter(), site.add_dead_letter()
    expect(page.locator(".letters li")).to_have_count(2)
    expect(page.locator("#notes")).to_have_text("WarningChannel reports has 2 dead letters")
    page.get_by_role("button", name=f"Delete the dead letter {gone} of reports").click()
    expect(page.get_by_role("dialog")).to_contain_text("is deleted for good")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".letters li")).to_have_count(2)
    page.get_by_role("button", name=f"Delete the dead letter {gone} of reports").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")  # from Cancel to Delete
    page.keyboard.press("Enter")
    expect(page.locator("#letters-result")).to_have_text(f"The dead letter {gone} of reports was deleted.")
    expect(page.locator(".letters li")).to_have_count(1)
    page.get_by_role("button", name=f"Replay the dead letter {kept} of reports").click()
    page.get_by_role("dialog").get_by_role("button", name="Replay").click()
    expect(page.locator("#letters-result")).to_have_text(f"The dead letter {kept} of reports was replayed.")
    expect(page.locator(".letters li")).to_have_count(0)
    expect(tile(page, "Dead letters")).to_have_text("0")
    assert f"alice replayed the dead letter {kept} of reports" in site.worker.output


def test_who_may_look_and_who_may_act(enter: Enter, site: DashboardSite, chromium: Browser) -> None:
    letter = site.add_dead_letter()
    reader, operator = enter("reader"), enter("operator")
    expect(opened(reader).locator(".letters li")).to_have_count(1)
    assert reader.page.locator(".letters button").count() == 0
    page = opened(operator)
    page.get_by_role("button", name="Delete the dead letter").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator("#letters-result")).to_contain_text(f"{letter} of reports was deleted")
    expect(reader.page.locator(".letters li")).to_have_count(0)

    context = chromium.new_context()
    anonymous = context.new_page()
    anonymous.goto(f"{site.url}{PAGE}")
    expect(anonymous).to_have_url(f"{site.url}/admin/login/?next=/-/dashboard/")
    anonymous.fill("[name=username]", "reader")
    anonymous.fill("[name=password]", "polls-example")
    anonymous.click("[type=submit]")
    is_in(anonymous, "live")
    context.close()

    # A demotion takes effect with the next sample, or the next frame of the page.
    site.shell(
        "from django.contrib.auth.models import User; User.objects.filter(username='reader').update(is_staff=False)"
    )
    is_in(reader.page, "refused")
    expect(reader.page.locator("#state")).to_contain_text("not allowed")
    site.shell(
        "from django.contrib.auth.models import User; User.objects.filter(username='reader').update(is_staff=True)"
    )


def test_a_paused_page_asks_for_nothing(enter: Enter) -> None:
    page = opened(enter("alice"))
    sent: list[str] = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda frame: sent.append(str(frame))))
    page.reload()
    is_in(page, "live")
    page.get_by_role("button", name="Pause").press("Space")
    is_in(page, "paused")
    moment = page.locator("#moment").text_content() or ""
    count = len(sent)
    other = opened(enter("reader"))
    for _ in range(3):
        seen = other.locator("#moment").text_content() or ""
        expect(other.locator("#moment")).not_to_have_text(seen)
    assert len(sent) == count
    expect(page.locator("#moment")).to_have_text(moment)
    page.get_by_role("button", name="Pause").press("Space")
    is_in(page, "live")
    expect(page.locator("#moment")).not_to_have_text(moment)


def test_a_killed_worker_is_replaced_and_until_then_the_page_says_so(enter: Enter, site: DashboardSite) -> None:
    page = opened(enter("alice"))
    site.worker.kill()
    is_in(page, "silent")
    expect(page.locator("#notes")).to_contain_text("no worker answers")
    site.start_worker()
    is_in(page, "live")
    expect(page.locator("#notes")).not_to_contain_text("no worker answers")


def test_the_page_comes_back_after_its_interface_server(enter: Enter, site: DashboardSite) -> None:
    editor = enter("alice")
    page = opened(editor)
    site.interface.kill()
    is_in(page, "lost")
    site.start_interface("--metrics")
    is_in(page, "live")
    assert all("WebSocket" in each for each in editor.errors)  # the attempts meanwhile
    editor.errors.clear()


@pytest.mark.ways("desk")
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_axe_finds_nothing(enter: Enter, site: DashboardSite, size: tuple[int, int], tmp_path: Path) -> None:
    letter = site.add_dead_letter()
    page = opened(enter("alice", size=size))
    expect(page.locator(".letters li")).to_have_count(1)
    for each in page.get_by_text("As a table").all():
        each.click()
    found: list[str] = []

    def look(name: str) -> None:
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            page.screenshot(path=tmp_path / f"{name}-{scheme}.png", full_page=True)
            result = Axe().run(page).response
            assert result["passes"], "axe has looked at nothing"
            found.extend(f"{name}, {scheme}: {each['id']}: {each['nodes'][0]['html']}" for each in result["violations"])
            if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                found.append(f"{name}: it is wider than its window")

    look("page")
    page.get_by_role("button", name="Delete the dead letter").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    look("dialog")
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator("#letters-result")).to_contain_text(letter)
    look("result")
    assert found == []
