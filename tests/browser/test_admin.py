"""The live admin on the polls project of Django's tutorial, with an interface server, a worker, Redis and browsers."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from tests.support.demo import fresh_redis
from tests.support.pictures import Pictures
from tests.support.polls import Editor, PollsSite, entering

pytestmark = [pytest.mark.browser, pytest.mark.redis, pytest.mark.timeout(240)]

Enter = Callable[..., Editor]

LIST = "/admin/polls/question/"
PHONE = (390, 844)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


@pytest.fixture(scope="module")
def polls_site(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PollsSite]:
    site = PollsSite(tmp_path_factory.mktemp("polls"), fresh_redis(redis_url))
    expect.set_options(timeout=20_000)  # several browsers at once, and sometimes other tests beside them
    try:
        site.make()
        site.add()
        site.fill()
        site.start()
        yield site
    finally:
        expect.set_options(timeout=5_000)
        site.processes.stop()


@pytest.fixture
def enter(chromium: Browser, polls_site: PollsSite) -> Iterator[Enter]:
    with entering(chromium, polls_site.url) as come:
        yield come


@pytest.fixture
def question(enter: Enter) -> str:
    """A new question with two choices; the path of its page."""
    editor = enter("alice")
    page = editor.page
    page.goto(f"{editor.url}{LIST}add/")
    page.fill("[name=question_text]", "What's new?")
    page.locator("summary").first.click()
    page.fill("[name=pub_date_0]", "2026-01-02")
    page.fill("[name=pub_date_1]", "10:00")
    page.fill("[name=choice_set-0-choice_text]", "Not much")
    page.fill("[name=choice_set-1-choice_text]", "The sky")
    page.click("[name=_continue]")
    expect(page.locator(".messagelist .success")).to_be_visible()
    path = page.url.removeprefix(editor.url)
    editor.context.close()
    return path


def test_two_people_on_one_object_see_each_other(enter: Enter, question: str, picture: Pictures) -> None:
    alice, bob = enter("alice", question), enter("bob", question, size=PHONE)
    expect(alice.people).to_have_text([re.compile(r"^bob \(<b>Bob</b>\) is editing this, too, since \d+:\d\d.[AP]M$")])
    expect(bob.people).to_have_text([re.compile(r"^alice is editing this, too, since \d+:\d\d.[AP]M$")])
    reader = enter("reader", question)
    expect(alice.people).to_contain_text(["is editing this", "reader is looking at this"])
    expect(reader.people).to_contain_text(["alice is editing", "bob (<b>Bob</b>) is editing"])
    alice.page.fill("[name=question_text]", "What is new?")
    alice.page.click("[name=_continue]")
    expect(bob.notices).to_contain_text(["Changed: Question text"])
    expect(bob.people).to_have_count(2)
    picture(bob.page, "live-admin", (1100, 740), hides="#user-tools")
    bob.page.goto(f"{bob.url}{LIST}")
    expect(alice.people).to_contain_text(["reader is looking"])
    reader.context.close()
    expect(alice.people).to_have_count(0)
    expect(alice.page.locator(".channelsq-filled")).to_have_count(0)


def test_what_another_saved_is_named_and_a_reload_keeps_what_was_typed(enter: Enter, question: str) -> None:
    alice, bob = enter("alice", question), enter("bob", question)
    mine = alice.page
    mine.fill("[name=choice_set-0-votes]", "7")
    mine.locator("summary").first.click()
    mine.fill("[name=pub_date_1]", "11:30:00")
    mine.locator(".add-row a").click()
    mine.locator(".dynamic-choice_set [name$=choice_text]").last.fill("Of my own")

    theirs = bob.page
    theirs.fill("[name=question_text]", "What is <b>new</b>?")
    theirs.fill("[name=choice_set-0-votes]", "3")
    theirs.fill("[name=choice_set-2-choice_text]", "Maybe")
    theirs.check("[name=choice_set-1-DELETE]")
    theirs.click("[name=_continue]")
    bob.is_live()
    expect(alice.notices).to_contain_text(["bob (<b>Bob</b>) saved this at"])
    for named in (
        "Question text",
        "Choices › Not much › Votes",
        "Choices › Maybe (added)",
        "Choices › The sky (removed)",
    ):
        expect(alice.notices).to_contain_text([named])
    expect(alice.notices).not_to_contain_text(["Date published"])
    expect(mine.locator("[name=question_text]")).to_have_value("What's new?")  # nothing is taken over unasked
    expect(mine.locator("[name=choice_set-0-votes]")).to_have_value("7")
    expect(bob.notices).to_have_count(0)  # his own save is no news to him

    mine.get_by_role("button", name="Reload and keep my input").click()
    expect(mine.locator("[name=question_text]")).to_have_value("What is <b>new</b>?")
    expect(mine.locator("[name=choice_set-0-votes]")).to_have_value("7")
    expect(mine.locator("[name=pub_date_1]")).to_have_value("11:30:00")
    expect(mine.locator("[name=choice_set-1-choice_text]")).to_have_value("Maybe")
    expect(mine.locator(".dynamic-choice_set [name$=choice_text]").last).to_have_value("Of my own")
    expect(alice.notices).to_have_text([
        "Reloaded. Your input is back in: Date published, Choices › Choice text",
        "Changed by both, with your input in the form: Choices › Not much › Votes",
    ])  # fmt: skip
    assert mine.evaluate("sessionStorage.length") == 0
    alice.is_live()
    mine.click("[name=_continue]")
    expect(mine.locator(".messagelist .success")).to_be_visible()
    expect(mine.locator("[name=choice_set-2-choice_text]")).to_have_value("Of my own")


@pytest.mark.ways("other ways")
def test_a_save_that_changes_nothing_on_the_form_is_not_told(
    enter: Enter, question: str, polls_site: PollsSite
) -> None:
    alice, bob = enter("alice", question), enter("bob", question)
    bob.page.click("[name=_continue]")
    bob.is_live()
    pk = question.split("/")[-3]
    polls_site.shell(
        f"from polls.models import Question; each = Question.objects.get(pk={pk}); each.question_text = 'By a task';"
        "each.save()"
    )
    # One notice, of the second save, which no log entry names.  It is put down to bob if his is compared after it.
    told = r"^(This was changed|bob \(<b>Bob</b>\) saved this) at \d+:\d\d.[AP]M\. Changed: Question text$"
    expect(alice.notices).to_have_text([re.compile(told)])


@pytest.mark.ways("other ways")
def test_a_form_that_was_refused_is_compared_with_what_is_stored(enter: Enter, question: str) -> None:
    alice, bob = enter("alice", question), enter("bob", question)
    alice.page.fill("[name=choice_set-0-choice_text]", "Mine")
    alice.page.fill("[name=question_text]", "")
    alice.page.click("[name=_continue]")
    expect(alice.page.locator(".errornote")).to_be_visible()
    alice.is_live()
    bob.page.fill("[name=choice_set-1-votes]", "5")
    bob.page.click("[name=_continue]")
    expect(alice.notices).to_contain_text(["Changed: Choices › The sky › Votes"])
    alice.page.get_by_role("button", name="Reload and keep my input").click()
    expect(alice.page.locator("[name=choice_set-1-votes]")).to_have_value("5")
    expect(alice.page.locator("[name=choice_set-0-choice_text]")).to_have_value("Mine")


def test_a_deletion_is_told_to_every_page_of_the_object(enter: Enter, question: str) -> None:
    alice, reader, bob = enter("alice", question), enter("reader", question), enter("bob")
    history = alice.opens(question.replace("change", "history"), alice.tab())
    page = bob.opens(question.replace("change", "delete"))
    expect(bob.people).to_contain_text(["alice is editing", "reader is looking"])
    page.click("#content [type=submit]")
    expect(page.locator(".messagelist .success")).to_be_visible()
    text = re.compile(r"^bob \(<b>Bob</b>\) deleted this at \d+:\d\d.[AP]M\. It cannot be saved any more\.$")
    for tab in (alice.page, history, reader.page):
        expect(tab.locator(".channelsq-notices li")).to_have_text([text])
        expect(tab.locator(".channelsq-actions button")).to_have_count(0)


@pytest.mark.ways("other ways")
def test_history_pages_offer_a_reload(enter: Enter, question: str) -> None:
    alice, bob = enter("alice"), enter("bob", question)
    history = alice.opens(question.replace("change", "history"))
    expect(alice.people).to_contain_text(["bob (<b>Bob</b>) is editing"])
    bob.page.fill("[name=question_text]", "For the record")
    bob.page.click("[name=_continue]")
    expect(alice.notices).to_contain_text(["bob (<b>Bob</b>) saved this at"])
    history.get_by_role("button", name="Reload").click()
    expect(history.locator("#change-history tbody")).to_contain_text("Changed Question text")


@pytest.mark.ways("other ways")
def test_several_tabs_of_one_user(enter: Enter, question: str) -> None:
    alice = enter("alice", question)
    second = alice.opens(question, alice.tab())
    expect(alice.people).to_contain_text(["You have this open in another window, too"])
    second.fill("[name=question_text]", "From the second")
    second.click("[name=_continue]")
    expect(alice.notices).to_have_text([re.compile("^You saved this in another window at .* Changed: Question text$")])
    alice.is_live(second)
    expect(second.locator(".channelsq-people li")).to_have_count(1)
    expect(second.locator(".channelsq-notices li")).to_have_count(0)


def test_changelists_follow(enter: Enter, question: str) -> None:
    alice, bob = enter("alice", LIST), enter("bob", question)
    page, pk = alice.page, question.split("/")[-3]
    row = page.locator("#result_list tbody tr").filter(has=page.locator(f"input.action-select[value='{pk}']"))
    row.locator("input.action-select").check()
    bob.page.fill("[name=question_text]", "Changed <i>live</i>")
    bob.page.click("[name=_continue]")
    expect(row.locator("th a")).to_have_text("Changed <i>live</i>")
    expect(row.locator(".channelsq-mark")).to_have_text("changed")
    expect(row.locator("input.action-select")).to_be_checked()
    expect(alice.notices).to_have_text(["Changed: 1"])

    rows = page.locator("#result_list tbody tr")
    before = rows.count()
    bob.page.goto(f"{bob.url}{LIST}add/")
    bob.page.fill("[name=question_text]", "Brand new")
    bob.page.locator("summary").first.click()
    for number in (0, 1):  # today, now
        bob.page.locator(".datetimeshortcuts").nth(number).locator("a").first.click()
    bob.page.click("[name=_save]")
    expect(alice.notices).to_have_text(["Changed: 1 · Added: 1"])
    assert rows.count() == before  # nothing moves under the mouse

    bob.page.goto(f"{bob.url}{question.replace('change', 'delete')}")
    bob.page.click("#content [type=submit]")
    expect(row.locator(".channelsq-mark")).to_have_text("removed")
    expect(row.locator("input.action-select")).to_be_disabled()
    expect(page.locator(".action-counter")).to_contain_text("0 of")
    expect(alice.notices).to_have_text(["Removed: 1 · Added: 1"])
    page.get_by_role("button", name="Refresh").click()
    expect(page.locator("#result_list tbody th a").first).to_have_text("Brand new")
    alice.is_live()
    expect(alice.notices).to_have_count(0)


@pytest.mark.ways("other ways")
def test_a_filtered_changelist_is_told_of_its_own_rows(enter: Enter, question: str) -> None:
    alice, bob = enter("alice", f"{LIST}?q=new"), enter("bob", question)
    bob.page.fill("[name=question_text]", "Does not match")
    bob.page.click("[name=_save]")
    expect(alice.page.locator(".channelsq-mark").first).to_have_text("changed, no longer on this page")


@pytest.mark.ways("other ways")
def test_changes_of_tasks_and_deletions_of_many_are_told(enter: Enter, question: str, polls_site: PollsSite) -> None:
    alice = enter("alice", LIST)
    rows = alice.page.locator("#result_list tbody tr").count()
    polls_site.shell("from polls.models import Question; Question.objects.all().delete()")
    expect(alice.page.locator("tr.channelsq-removed")).to_have_count(rows)


def test_who_may_not_look_has_no_trace_of_it(enter: Enter, question: str) -> None:
    stranger = enter("stranger")
    response = stranger.page.goto(f"{stranger.url}{question}")
    assert response is not None
    assert response.status == 403
    assert "channelsq" not in stranger.page.content()
    stranger.errors.clear()  # the browser tells of the 403


@pytest.mark.ways("other ways")
def test_a_policy_without_inline_code_is_kept(enter: Enter, question: str) -> None:
    alice, bob = enter("alice", question), enter("bob", question)
    policy = alice.page.request.get(f"{alice.url}{question}").headers["content-security-policy"]
    assert policy == "default-src 'self'; img-src 'self' data:"
    bob.page.fill("[name=question_text]", "Under a policy")
    bob.page.click("[name=_continue]")
    expect(alice.notices).to_contain_text(["Changed: Question text"])
    alice.page.get_by_role("button", name="Reload and keep my input").click()
    expect(alice.page.locator("[name=question_text]")).to_have_value("Under a policy")


@pytest.mark.ways("desk")
@pytest.mark.parametrize("size", [(1280, 800), PHONE], ids=["desk", "phone"])
def test_axe_finds_nothing(enter: Enter, question: str, size: tuple[int, int], tmp_path: Path) -> None:
    alice, rows, bob = enter("alice", question, size=size), enter("alice", LIST, size=size), enter("bob", question)
    bob.page.fill("[name=question_text]", "A text that is as long as texts are when people write what they think of it")
    bob.page.fill("[name=choice_set-0-votes]", "3")
    bob.page.click("[name=_continue]")
    expect(alice.notices).to_have_count(1)
    bob.page.goto(f"{bob.url}{question.replace('change', 'delete')}")
    expect(rows.notices).to_have_count(1)
    found: list[str] = []

    def look(editor: Editor, name: str, part: str) -> None:
        for scheme in SCHEMES:
            editor.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            editor.page.screenshot(path=tmp_path / f"{name}-{scheme}.png")
            result: dict[str, Any] = Axe().run(editor.page, context=part).response
            assert result["passes"], "axe has looked at nothing"
            found.extend(
                f"{name} ({scheme}): {each['id']}: {node['html'][:160]} {node['failureSummary']}"
                for each in result["violations"]
                for node in each["nodes"]
            )
        assert not editor.page.evaluate("document.documentElement.scrollWidth > innerWidth")
        # Screenshots and axe put styles of their own into the page, which the site's policy refuses.
        editor.errors[:] = [each for each in editor.errors if not each.startswith("Applying inline style")]

    look(alice, "saved", ".channelsq-bar")
    bob.page.click("#content [type=submit]")
    expect(alice.page.locator(".channelsq-error")).to_have_count(1)
    expect(rows.page.locator(".channelsq-removed")).to_have_count(1)
    look(alice, "deleted", ".channelsq-bar")
    look(rows, "list", ".channelsq-bar")
    look(rows, "rows", ".channelsq-removed")
    assert found == []


@pytest.mark.ways("other ways")
def test_the_keyboard_reaches_the_bar_and_the_bar_is_a_status(enter: Enter, question: str) -> None:
    alice, bob = enter("alice", question), enter("bob", question)
    status = alice.page.get_by_role("status")
    expect(status).to_contain_text("is editing this")
    bob.page.fill("[name=question_text]", "By keyboard")
    bob.page.click("[name=_continue]")
    expect(status).to_contain_text("saved this")
    alice.page.locator("#content [name=_continue]").focus()
    alice.page.keyboard.press("Tab")
    if alice.page.evaluate("document.activeElement.className") == "deletelink":
        alice.page.keyboard.press("Tab")
    expect(alice.page.get_by_role("button", name="Reload and keep my input")).to_be_focused()
    assert alice.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    alice.page.keyboard.press("Enter")
    expect(alice.page.locator("[name=question_text]")).to_have_value("By keyboard")


@pytest.mark.ways("other ways")
def test_presence_is_true_after_the_interface_server_was_killed(
    enter: Enter, question: str, polls_site: PollsSite
) -> None:
    alice, bob, gone = enter("alice", question), enter("bob", question), enter("reader", question)
    expect(alice.people).to_have_count(2)
    alice.page.fill("[name=question_text]", "Not saved yet")
    polls_site.interface.kill()
    gone.context.close()  # its socket died with the server, so nobody closes it any more
    expect(alice.page.locator(".channelsq-problem")).to_contain_text("Connection lost", timeout=15_000)
    expect(alice.page.locator(".channelsq-people")).to_be_hidden()
    polls_site.shell(
        f"from polls.models import Question; each = Question.objects.get(pk={question.split('/')[-3]});"
        "each.question_text = 'Meanwhile'; each.save()"
    )
    polls_site.start_interface()
    expect(alice.page.locator(".channelsq-problem")).to_be_hidden(timeout=60_000)
    expect(alice.people).to_contain_text(["bob (<b>Bob</b>) is editing"], timeout=90_000)
    # What was saved meanwhile is found, and what was typed is still there.
    expect(alice.notices).to_contain_text(["Changed: Question text"])
    expect(alice.page.locator("[name=question_text]")).to_have_value("Not saved yet")
    bob.context.close()
    # The sockets that died with the server are cleaned up when its heartbeat has been missing for long enough.
    expect(alice.people).to_have_count(0, timeout=90_000)
    for editor in (alice, bob, gone):
        editor.errors.clear()  # the browser tells of sockets that it could not open


@pytest.mark.ways("other ways")
def test_what_is_saved_while_a_worker_is_killed_is_told(enter: Enter, question: str, polls_site: PollsSite) -> None:
    alice = enter("alice", question)
    polls_site.worker.signal_all(signal.SIGKILL)
    polls_site.worker.wait()
    polls_site.shell(
        f"from polls.models import Question; each = Question.objects.get(pk={question.split('/')[-3]});"
        "each.question_text = 'Without a worker'; each.save()"
    )
    polls_site.start_worker()
    expect(alice.notices).to_contain_text(["Changed: Question text"], timeout=60_000)
