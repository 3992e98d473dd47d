"""The live admin on the polls project of Django's tutorial, with an interface server, a worker, Redis and browsers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.support.demo import fresh_redis
from tests.support.polls import Editor, PollsSite

pytestmark = [pytest.mark.browser, pytest.mark.redis, pytest.mark.timeout(180)]

Enter = Callable[..., Editor]

LIST, FIRST = "/admin/polls/question/", "/admin/polls/question/1/change/"


@pytest.fixture(scope="module")
def polls_site(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PollsSite]:
    site = PollsSite(tmp_path_factory.mktemp("polls"), fresh_redis(redis_url))
    try:
        site.make()
        site.add()
        site.fill()
        site.start()
        yield site
    finally:
        site.processes.stop()


@pytest.fixture
def enter(chromium: Browser, polls_site: PollsSite) -> Iterator[Enter]:
    editors: list[Editor] = []

    def come(name: str, path: str = FIRST, size: tuple[int, int] = (1280, 800)) -> Editor:
        editor = Editor(chromium, polls_site.url, name, size)
        editors.append(editor)
        editor.log_in()
        editor.opens(path)
        return editor

    yield come
    for editor in editors:
        editor.close()


def test_two_people_on_one_object_see_each_other(enter: Enter) -> None:
    alice, bob = enter("alice"), enter("bob")
    expect(alice.people).to_contain_text(["bob is editing this, too, since"])
    expect(bob.people).to_contain_text(["alice is editing this, too, since"])
    bob.page.goto(f"{bob.url}{LIST}")
    expect(alice.people).to_have_count(0)
