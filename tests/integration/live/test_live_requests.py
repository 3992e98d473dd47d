"""Tasks that views and consumers call with Celery's own ``delay()`` are live by themselves, if the settings say so."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.support.live import Page, live_project
from tests.support.project import Project

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120)]


@pytest.fixture(scope="module", params=["tests.project.live_settings", "tests.project.settings"])
def project(
    request: pytest.FixtureRequest, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    """The project with the setting, and without it."""
    with live_project(redis_url, tmp_path_factory.mktemp("live"), DJANGO_SETTINGS_MODULE=request.param) as project:
        yield project


@pytest.fixture
def is_on(project: Project) -> bool:
    return project.env["DJANGO_SETTINGS_MODULE"].endswith("live_settings")


def test_what_a_frame_calls_is_live_for_its_socket(project: Project, is_on: bool) -> None:
    with Page(f"{project.ws_url}/live/") as page, Page(f"{project.ws_url}/live/") as other:
        task = page.start("count", 10, to="nobody")
        if is_on:
            assert page.end(task)["result"] == 10
            assert page.ticket(task)
        for socket in (other,) if is_on else (page, other):
            socket.send(join="anything")
            socket.until(lambda who=socket: {"joined": "anything"} in who.others, "the answer")
            assert socket.payloads == []


@pytest.mark.parametrize("view", ["delayed", "delayed-async"])
def test_what_a_view_calls_is_live_for_its_user(project: Project, is_on: bool, view: str) -> None:
    if not is_on:
        return  # the project without the setting has no such view
    key = httpx.get(f"{project.url}/log-in/alice/", trust_env=False).json()["session_key"]
    other_key = httpx.get(f"{project.url}/log-in/bob/", trust_env=False).json()["session_key"]
    with (
        Page(f"{project.ws_url}/members/", cookie=f"sessionid={key}") as page,
        Page(f"{project.ws_url}/members/", cookie=f"sessionid={other_key}") as other,
    ):
        for each in (page, other):
            each.until(lambda who=each: who.others, "the welcome")
        answer = httpx.get(f"{project.url}/{view}/10/", cookies={"sessionid": key}, trust_env=False)
        task = answer.json()["task"]
        assert page.end(task)["result"] == 10
        assert other.payloads == []
        assert httpx.get(f"{project.url}/{view}/10/", trust_env=False).status_code == 200  # of nobody
