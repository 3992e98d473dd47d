"""The bar of a live task in a real browser: with channelsq's script, and with htmx."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.live import live_project
from tests.support.project import Project

pytestmark = [pytest.mark.browser, pytest.mark.redis, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def project(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with live_project(
        redis_url, tmp_path_factory.mktemp("bars"), DJANGO_SETTINGS_MODULE="tests.project.live_settings"
    ) as project:
        yield project


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    context = chromium.new_context()
    page = context.new_page()
    page.set_default_timeout(20_000)
    expect.set_options(timeout=20_000)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(error.message))
    page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
    yield page
    context.close()
    # The browser, and htmx, write a lost or refused connection into the console.
    assert [each for each in problems if "WebSocket connection" not in each and each != "[object Event]"] == []


def share(page: Page) -> float:
    return float(page.get_by_role("progressbar", name="Import", exact=True).evaluate("(bar) => bar.position"))


@pytest.mark.parametrize("way", ["script", "htmx"])
def test_a_bar_follows_its_task(project: Project, page: Page, way: str) -> None:
    page.goto(f"{project.url}/bars/{way}/follow-{way}/")
    status = page.get_by_role("status")
    expect(status).to_have_text("5 / 10 rows")
    assert share(page) == 0.5
    project.let_go(f"follow-{way}")
    expect(status).to_have_text("Done")
    assert share(page) == 1
    expect(page.get_by_role("progressbar")).to_have_count(1)


@pytest.mark.parametrize("way", ["script", "htmx"])
def test_a_bar_tells_of_a_failure(project: Project, page: Page, way: str) -> None:
    page.goto(f"{project.url}/bars/{way}/fails/")
    expect(page.get_by_role("status")).to_have_text("Row 7 has no date.")
    assert "secret" not in page.content()


@pytest.mark.ways("other ways")
@pytest.mark.parametrize("way", ["script", "htmx"])
def test_a_bar_goes_on_over_a_deploy(project: Project, page: Page, way: str) -> None:
    page.goto(f"{project.url}/bars/{way}/deploy-{way}/")
    status = page.get_by_role("status")
    expect(status).to_have_text("5 / 10 rows")
    project.interface.terminate()
    project.let_go(f"deploy-{way}")
    project.start_interface()
    expect(status).to_have_text("Done")
