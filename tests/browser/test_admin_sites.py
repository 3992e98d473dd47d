"""The live admin on two admin sites below a path: editable changelists, popups, widgets, and pages in German."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.support.demo import fresh_redis
from tests.support.polls import Editor, PollsSite, entering

pytestmark = [pytest.mark.browser, pytest.mark.redis, pytest.mark.timeout(240), pytest.mark.ways("two_sites")]

Enter = Callable[..., Editor]

#: The path that the proxy would pass on, and the two sites below it.
ROOT = "/app"
FIRST, SECOND = f"{ROOT}/admin/", f"{ROOT}/staff/"

_ADMIN = """\
from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import User

from .models import Choice, Question


class QuestionAdmin(admin.ModelAdmin):
    fields = ["question_text"]
    search_fields = ["question_text"]
    ordering = ["pk"]


class EditableQuestionAdmin(QuestionAdmin):
    list_display = ["id", "question_text"]
    list_editable = ["question_text"]


class ChoiceAdmin(admin.ModelAdmin):
    raw_id_fields = ["question"]


class CompletingChoiceAdmin(admin.ModelAdmin):
    autocomplete_fields = ["question"]


class SilentUserAdmin(UserAdmin):
    live_admin = False


staff = admin.AdminSite(name="staff")
admin.site.register(Question, QuestionAdmin)
admin.site.register(Choice, ChoiceAdmin)
staff.register(Question, EditableQuestionAdmin)
staff.register(Choice, CompletingChoiceAdmin)
staff.register(User, SilentUserAdmin)
"""

_URLS = """\
from django.contrib import admin
from django.urls import path
from polls.admin import staff

urlpatterns = [path("admin/", admin.site.urls), path("staff/", staff.urls)]
"""

#: Languages of the browsers; German for those that ask for it.
_SETTINGS = """
MIDDLEWARE.insert(2, "django.middleware.locale.LocaleMiddleware")
"""


@pytest.fixture(scope="module")
def site(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PollsSite]:
    files = {"polls/admin.py": _ADMIN, "mysite/urls.py": _URLS}
    site = PollsSite(tmp_path_factory.mktemp("sites"), fresh_redis(redis_url), files, _SETTINGS)
    expect.set_options(timeout=20_000)  # several browsers at once, and sometimes other tests beside them
    try:
        site.make()
        site.add()
        site.fill()
        site.start("--root-path", ROOT)
        yield site
    finally:
        expect.set_options(timeout=5_000)
        site.processes.stop()


@pytest.fixture
def enter(chromium: Browser, site: PollsSite) -> Iterator[Enter]:
    with entering(chromium, site.url, FIRST) as come:
        yield come


@pytest.fixture
def pk(site: PollsSite) -> str:
    """The primary key of a new question with a choice."""
    return site.shell(
        "from django.utils import timezone; from polls.models import Question\n"
        "question = Question.objects.create(question_text='At first', pub_date=timezone.now())\n"
        "question.choice_set.create(choice_text='Not much')\n"
        "print(question.pk)"
    ).split()[-1]


def rename(site: PollsSite, pk: str, text: str) -> None:
    """Save a question with another text, as a task does."""
    site.shell(
        f"from polls.models import Question; q = Question.objects.get(pk={pk}); q.question_text = {text!r}; q.save()"
    )


def test_people_on_two_sites_see_each_other(enter: Enter, pk: str) -> None:
    alice = enter("alice", f"{FIRST}polls/question/{pk}/change/")
    bob = enter("bob", f"{SECOND}polls/question/{pk}/change/", admin=SECOND)
    expect(alice.people).to_contain_text(["bob (<b>Bob</b>) is editing this, too"])
    expect(bob.people).to_contain_text(["alice is editing this, too"])
    bob.page.fill("[name=question_text]", "On the second site")
    bob.page.click("[name=_continue]")
    expect(alice.notices).to_contain_text(["bob (<b>Bob</b>) saved this at"])
    expect(alice.notices).to_contain_text(["Changed: Question text"])
    alice.page.get_by_role("button", name="Reload and keep my input").click()
    expect(alice.page.locator("[name=question_text]")).to_have_value("On the second site")


def test_values_typed_into_an_editable_changelist_stay(enter: Enter, pk: str, site: PollsSite) -> None:
    alice = enter("alice", f"{SECOND}polls/question/", admin=SECOND)
    page = alice.page
    row = page.locator("#result_list tbody tr").filter(has=page.locator(f"input.action-select[value='{pk}']"))
    field, other = row.locator("input[name$=question_text]"), page.locator("#id_form-0-question_text")
    first = page.locator("#result_list input.action-select").first.get_attribute("value")
    assert first is not None
    assert first != pk
    field.fill("Typed by Alice")
    rename(site, pk, "By a task")
    expect(row.locator(".channelsq-mark")).to_have_text("changed")
    expect(field).to_have_value("Typed by Alice")
    rename(site, first, "Another by a task")
    expect(other).to_have_value("Another by a task")
    page.click("[name=_save]")
    expect(page.locator(".messagelist .success")).to_contain_text("1 question was changed")
    alice.is_live()
    expect(field).to_have_value("Typed by Alice")


def test_rows_of_a_popup_are_marked_and_can_be_chosen(enter: Enter, pk: str, site: PollsSite) -> None:
    alice = enter("alice")
    page = alice.page
    page.goto(f"{alice.url}{FIRST}polls/choice/add/")
    with page.expect_popup() as opened:
        page.click("#lookup_id_question")
    popup = opened.value
    alice.is_live(popup)
    row = popup.locator("#result_list tbody tr").filter(has=popup.locator(f"a[data-popup-opener='{pk}']"))
    rename(site, pk, "Renamed meanwhile")
    expect(row.locator(".channelsq-mark")).to_have_text("changed")
    expect(row.locator("th a")).to_have_text("At first")  # the link is the admin's own
    row.locator("th a").click()
    expect(page.locator("#id_question")).to_have_value(pk)


def test_a_form_in_a_popup_is_live(enter: Enter, pk: str, site: PollsSite) -> None:
    bob = enter("bob", f"{FIRST}polls/question/{pk}/change/")
    alice = enter("alice", admin=SECOND)
    choice = site.shell(f"from polls.models import Choice; print(Choice.objects.get(question_id={pk}).pk)").split()[-1]
    page = alice.opens(f"{SECOND}polls/choice/{choice}/change/")
    with page.expect_popup() as opened:
        page.click("#change_id_question")
    popup = opened.value
    alice.is_live(popup)
    expect(bob.people).to_contain_text(["alice is editing this, too"])
    expect(popup.locator(".channelsq-people li")).to_contain_text(["bob (<b>Bob</b>) is editing this, too"])
    popup.fill("[name=question_text]", "From a popup")
    popup.click("[name=_save]")
    expect(bob.notices).to_contain_text(["alice saved this at"])
    expect(bob.notices).to_contain_text(["Changed: Question text"])


def test_a_completed_field_is_kept_by_a_reload(enter: Enter, pk: str, site: PollsSite) -> None:
    """select2 shows a choice that the rendered page did not contain."""
    alice = enter("alice", admin=SECOND)
    created = "from django.utils import timezone; from polls.models import Choice, Question\n"
    other, choice = site.shell(
        f"{created}print(Question.objects.create(question_text='Chosen', pub_date=timezone.now()).pk, "
        f"Choice.objects.get(question_id={pk}).pk)"
    ).split()[-2:]
    page = alice.opens(f"{SECOND}polls/choice/{choice}/change/")
    page.click(".select2-selection")
    page.fill(".select2-search__field", "Chosen")
    page.locator(".select2-results__option", has_text="Chosen").last.click()
    chosen = page.locator("#id_question").input_value()
    assert chosen != pk
    site.shell(f"from polls.models import Choice; c = Choice.objects.get(pk={choice}); c.votes = 5; c.save()")
    expect(alice.notices).to_contain_text(["Changed: Votes"])
    page.get_by_role("button", name="Reload and keep my input").click()
    expect(page.locator("[name=votes]")).to_have_value("5")
    expect(page.locator("#id_question")).to_have_value(chosen)
    expect(page.locator(".select2-selection__rendered")).to_contain_text("Chosen")
    assert int(chosen) >= int(other) - 1


def test_the_boxes_of_two_are_kept_by_a_reload(enter: Enter, site: PollsSite) -> None:
    """A user's permissions: ``filter_horizontal``."""
    alice = enter("alice")
    user = site.shell("from django.contrib.auth.models import User; print(User.objects.get(username='reader').pk)")
    page = alice.opens(f"{FIRST}auth/user/{user.split()[-1]}/change/")
    page.locator("#id_user_permissions_from").select_option(label=_permission(page.content()))
    page.click("#id_user_permissions_add")
    moved = sorted(page.locator("#id_user_permissions_to option").all_inner_texts())
    assert any("Can add question" in each for each in moved)
    site.shell("from django.contrib.auth.models import User; u = User.objects.get(username='reader'); "
               "u.first_name = 'Rea'; u.save()")  # fmt: skip
    expect(alice.notices).to_contain_text(["Changed: First name"])
    page.get_by_role("button", name="Reload and keep my input").click()
    expect(page.locator("[name=first_name]")).to_have_value("Rea")
    expect(page.locator("#id_user_permissions_to option")).to_have_count(len(moved))
    assert sorted(page.locator("#id_user_permissions_to option").all_inner_texts()) == moved


def _permission(html: str) -> str:
    """Return the label of a permission that the page offers."""
    found = re.search(r">([^<]*Can add question)<", html)
    assert found
    return found[1]


def test_a_model_that_is_not_live_on_one_site_is_live_on_the_other(enter: Enter, site: PollsSite) -> None:
    alice = enter("alice", admin=SECOND)
    user = site.shell("from django.contrib.auth.models import User; print(User.objects.get(username='reader').pk)")
    change = f"auth/user/{user.split()[-1]}/change/"
    alice.page.goto(f"{alice.url}{SECOND}{change}")
    assert "channelsq" not in alice.page.content()
    bob = enter("bob", f"{FIRST}{change}")
    expect(bob.people).to_have_count(0)


def test_each_page_is_in_its_language(enter: Enter, pk: str) -> None:
    alice = enter("alice", f"{FIRST}polls/question/{pk}/change/", locale="de-DE")
    bob = enter("bob", f"{FIRST}polls/question/{pk}/change/")
    rows = enter("alice", f"{FIRST}polls/question/", locale="de-DE")
    expect(alice.page.locator("html")).to_have_attribute("lang", "de")
    expect(alice.people).to_have_text([re.compile(r"^bob \(<b>Bob</b>\) bearbeitet dies auch, seit \d+:\d\d")])
    expect(bob.people).to_contain_text(["alice is editing this, too"])
    bob.page.fill("[name=question_text]", "Auf Deutsch")
    bob.page.click("[name=_continue]")
    saved = re.compile(r"^bob \(<b>Bob</b>\) hat dies um \d+:\d\d gesichert\. Geändert: Question text$")
    expect(alice.notices).to_have_text([saved])
    expect(rows.notices).to_have_text(["Geändert: 1"])
    expect(rows.page.locator(".channelsq-mark")).to_have_text("geändert")
    alice.page.get_by_role("button", name="Neu laden, meine Eingaben behalten").click()
    expect(alice.page.locator("[name=question_text]")).to_have_value("Auf Deutsch")
