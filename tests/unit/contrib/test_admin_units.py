"""Parts of the live admin: settings and checks, what pages carry, what is gathered of changes, who is told what."""

from __future__ import annotations

import gettext
import json
import re
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.template import engines
from django.test import Client, override_settings
from django.utils import translation

from app.models import Message as Said
from app.models import Room
from channelsq import conf
from channelsq.asgi import ChannelLayerWrapper
from channelsq.contrib.admin import LiveAdminMixin, admin_checks, admin_consumers, open_pages, page_texts, saved_changes
from channelsq.contrib.admin.apps import LiveAdminConfig
from channelsq.contrib.admin.live_sites import admin_of, is_live
from channelsq.contrib.admin.open_pages import OpenPage, group_of, read_page
from channelsq.contrib.admin.page_sockets import NOT_ALLOWED, PageSocket
from channelsq.contrib.admin.routing import channel_routing
from channelsq.exceptions import BadFrame, DenyConnection
from channelsq.message import Message
from channelsq.worker.running.execution import run_consumer
from tests.support.layers import drain, installed, wrapped
from tests.support.markdown import doc_page, rows
from tests.support.page_data import data_of
from tests.support.processes import ROOT

PAGE = OpenPage("change", "admin", "app.room", "7", "1", 12.5, "abc", ("1", "2"))


@pytest.fixture
def layer() -> Iterator[ChannelLayerWrapper]:
    layer = wrapped(channel_routing)
    with installed(layer):
        yield layer


class Tab:
    """A page of the admin with its socket, on a layer in memory.

    Args:
        layer: the layer.
        user: who is logged in.
        path: of the page.
    """

    def __init__(self, layer: ChannelLayerWrapper, user: User, path: str) -> None:
        self.layer = layer
        self.client = Client()
        self.client.force_login(user)
        self.html = self.client.get(path).text
        self.page = str(data_of(self.html).get("page", ""))
        self.channel = layer.new_channel("websocket.send!")

    def run(self, channel: str, **content: Any) -> None:
        """Have a message of the socket handled."""
        cookies = "; ".join(f"{name}={each.value}" for name, each in self.client.cookies.items())
        headers = [[b"host", b"testserver"], [b"origin", b"http://testserver"], [b"cookie", cookies.encode()]]
        handshake = {"headers": headers, "method": "GET"} if channel == "websocket.connect" else {}
        content = {"path": conf.admin_path(), "reply_channel": self.channel, **handshake, **content}
        message = Message(content, channel, self.layer)
        found = self.layer.router.match(message)
        assert found is not None
        run_consumer(found[0], message, "test")

    def enter(self) -> list[dict[str, Any]]:
        """Open the socket and introduce the page; return what comes."""
        self.run("websocket.connect")
        assert self.frames() == [{"accept": True}]
        self.run("websocket.receive", text=json.dumps({"type": "hello", "page": self.page}))
        return self.frames()

    def frames(self) -> list[dict[str, Any]]:
        """Return what has come, text frames decoded."""
        return [json.loads(each["text"]) if "text" in each else each for each in drain(self.layer, self.channel)]


def work(layer: ChannelLayerWrapper) -> int:
    """Have the changes that were sent handled; return how many messages they were."""
    messages = drain(layer, saved_changes.CHANNEL)
    for content in messages:
        run_consumer(admin_consumers.changed, Message(content, saved_changes.CHANNEL, layer), "test")
    return len(messages)


def named(frames: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Return the frames of a type."""
    return [each for each in frames if each.get("type") == kind]


def staff(name: str, *permissions: str) -> User:
    """Make a member of the staff."""
    user = User.objects.create_user(name, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return user


@pytest.fixture
def tea(db: None) -> Room:
    return Room.objects.create(name="Tea", slug="tea")


# -- settings and checks -------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["no-slash/", "", 7, None])
def test_a_path_that_is_none(value: object) -> None:
    with override_settings(CHANNEL_ADMIN_PATH=value):
        with pytest.raises(ImproperlyConfigured, match="CHANNEL_ADMIN_PATH"):
            conf.admin_path()
        assert [each.id for each in admin_checks.check_live_admin(None)] == ["channelsq_admin.E003"]


def test_all_or_some() -> None:
    class Plain(admin.ModelAdmin):  # type: ignore[type-arg]
        pass

    class Mixed(LiveAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
        pass

    class Off(admin.ModelAdmin):  # type: ignore[type-arg]
        live_admin = False

    site = admin.AdminSite()
    plain, mixed, off = (each(Room, site) for each in (Plain, Mixed, Off))
    assert [is_live(each) for each in (plain, mixed, off)] == [True, True, False]
    with override_settings(CHANNEL_ADMIN_ALL=False):
        assert [is_live(each) for each in (plain, mixed, off)] == [False, True, False]
    with override_settings(CHANNEL_ADMIN_ALL="some"):
        assert [each.id for each in admin_checks.check_live_admin(None)] == ["channelsq_admin.E003"]


def test_a_project_that_is_right_has_no_findings(layer: ChannelLayerWrapper) -> None:
    assert admin_checks.check_live_admin(None) == []


def test_apps_that_are_missing() -> None:
    with override_settings(INSTALLED_APPS=["channelsq", "channelsq.contrib.admin"]):
        (found,) = admin_checks.check_live_admin(None)
    assert found.id == "channelsq_admin.E001"
    assert "django.contrib.admin, django.contrib.auth, django.contrib.sessions" in found.msg


def test_the_order_of_the_apps(layer: ChannelLayerWrapper) -> None:
    configs = list(apps.get_app_configs())
    configs.sort(key=lambda config: isinstance(config, LiveAdminConfig))
    with patch.object(apps, "get_app_configs", lambda: configs):
        assert [each.id for each in admin_checks.check_live_admin(None)] == ["channelsq_admin.W001"]


def test_a_routing_without_the_routes() -> None:
    with installed(wrapped([])):
        (found,) = admin_checks.check_live_admin(None)
    assert found.id == "channelsq_admin.W002"
    assert "include(" in str(found.hint)


def test_a_routing_that_hides_the_routes() -> None:
    from channelsq import route

    def greedy(message: Message) -> None:
        """Takes everything."""

    with installed(wrapped([route("websocket.connect", greedy), *channel_routing])):
        (found,) = admin_checks.check_live_admin(None)
    assert found.id == "channelsq_admin.W002"
    assert "Another route" in found.msg


def test_sessions_in_cookies(layer: ChannelLayerWrapper) -> None:
    with override_settings(SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies"):
        assert [each.id for each in admin_checks.check_live_admin(None)] == ["channelsq_admin.E002"]
        with override_settings(CHANNEL_SESSION_ENGINE="django.contrib.sessions.backends.db"):
            assert admin_checks.check_live_admin(None) == []


def test_the_page_of_the_documentation_lists_the_checks() -> None:
    assert admin_checks.__doc__ is not None
    written = {row[0].strip("`") for row in rows(doc_page("admin"))}
    ids = set(re.findall(r"channelsq_admin\.[EW]\d{3}", admin_checks.__doc__))
    assert {each for each in written if each.startswith("channelsq_admin.")} == ids


# -- pages ---------------------------------------------------------------------------------------


def test_a_page_comes_back_from_its_text() -> None:
    assert read_page(PAGE.signed()) == PAGE
    assert open_pages.unpacked(json.loads(json.dumps(PAGE.packed()))) == PAGE


@pytest.mark.parametrize("text", ["", "x", "a.b:c", None, 7, ["x"], PAGE.signed()[:-1], "x" * 200_000])
def test_a_text_that_is_no_page(text: object) -> None:
    assert read_page(text) is None


def test_a_page_that_another_secret_has_signed() -> None:
    with override_settings(SECRET_KEY="another"):
        text = PAGE.signed()
    assert read_page(text) is None


def test_a_digest_follows_the_fields_and_hides_them(tea: Room) -> None:
    before = open_pages.digest_of([tea])
    assert open_pages.digest_of([Room.objects.get()]) == before
    tea.name = "Coffee"
    assert open_pages.digest_of([tea]) != before
    deferred = Room.objects.defer("name").get()
    open_pages.digest_of([deferred])
    assert deferred.get_deferred_fields() == {"name"}  # which was not read
    with override_settings(SECRET_KEY="another"):
        assert open_pages.digest_of([Room.objects.get()]) != before


def test_a_live_page_has_no_inline_code(client: Client, admin_user: User, tea: Room) -> None:
    client.force_login(admin_user)
    for path, kind in (("", "list"), (f"{tea.pk}/change/", "change"), (f"{tea.pk}/history/", "history"),
                       (f"{tea.pk}/delete/", "delete")):  # fmt: skip
        html = client.get(f"/admin/app/room/{path}").text
        data = data_of(html)
        assert data["kind"] == kind
        assert data["url"] == "/channelsq/admin/"
        for attributes, code in re.findall(r"<script\b([^>]*)>(.*?)</script>", html, re.DOTALL):
            assert not code.strip() or 'type="application/json"' in attributes
        ours = re.findall(r"<script[^>]*channelsq[^>]*>", html)
        assert len(ours) == 6
        assert all("defer" in each or "application/json" in each for each in ours)


def test_the_nonce_of_a_policy_is_taken(tea: Room, admin_user: User, rf: Any) -> None:
    request = rf.get("/admin/app/room/")
    request.user, request.current_app = admin_user, "admin"
    template = engines["django"].from_string('{% load channelsq_admin %}{% channelsq_admin "history" %}')
    html = template.render({"opts": Room._meta, "object": tea, "csp_nonce": "n<once"}, request)
    assert html.count('nonce="n&lt;once"') == 6


def test_no_trace_where_nothing_is_live(client: Client, admin_user: User, tea: Room) -> None:
    client.force_login(admin_user)
    for path in ("/admin/", "/admin/app/room/add/", "/admin/login/", "/admin/password_change/"):
        assert "channelsq" not in client.get(path).text
    with override_settings(CHANNEL_ADMIN_ALL=False):
        for path in ("/admin/app/room/", f"/admin/app/room/{tea.pk}/change/", f"/admin/app/room/{tea.pk}/history/"):
            response = client.get(path)
            assert response.status_code == 200
            assert "channelsq" not in response.text


def test_the_rows_of_a_changelist_cost_no_query(
    client: Client, admin_user: User, tea: Room, django_assert_num_queries: Any
) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    client.force_login(admin_user)
    counts = []
    for live in (False, True):
        with (
            override_settings(CHANNEL_ADMIN_ALL=live),
            CaptureQueriesContext(
                connection,
            ) as queries,
        ):
            client.get("/admin/app/room/")
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_the_texts_are_translated_whole() -> None:
    folder = ROOT / "channelsq" / "contrib" / "admin" / "locale" / "de" / "LC_MESSAGES"
    with (folder / "django.mo").open("rb") as file:
        compiled = gettext.GNUTranslations(file)
    with translation.override(None):
        source = page_texts.page_texts()
    with translation.override("de"):
        german = page_texts.page_texts()
    written = (folder / "django.po").read_text()
    for name, text in source.items():
        assert f'msgid "{text}"' in written, name
        assert f'msgstr "{compiled.gettext(text)}"' in written, name
        assert german[name] == compiled.gettext(text) != text, name
        assert sorted(re.findall(r"%\(\w+\)s", german[name])) == sorted(re.findall(r"%\(\w+\)s", text)), name


def test_a_site_and_a_model_that_are_not_there() -> None:
    assert admin_of("admin", "app.room") is not None
    assert admin_of("nowhere", "app.room") is None
    assert admin_of("admin", "app.nothing") is None
    assert admin_of("admin", "nonsense") is None
    assert admin_of("admin", "sessions.session") is None


# -- sockets -------------------------------------------------------------------------------------


def test_two_editors(layer: ChannelLayerWrapper, tea: Room, admin_user: User) -> None:
    path = f"/admin/app/room/{tea.pk}/change/"
    first, second = Tab(layer, admin_user, path), Tab(layer, staff("bob", "change_room", "view_room"), path)
    assert named(first.enter(), "people")[-1]["people"] == []
    (person,) = named(second.enter(), "people")[-1]["people"]
    assert person.pop("since") > 0
    assert person == {"name": "admin", "edits": True, "you": False}
    assert [each["name"] for each in named(first.frames(), "people")[-1]["people"]] == ["bob"]
    second.run("websocket.disconnect", code=1001)
    assert named(first.frames(), "people")[-1]["people"] == []
    assert layer.group_channels(group_of(Room, str(tea.pk))) == [first.channel]


def test_windows_of_one_user_are_one_person(layer: ChannelLayerWrapper, tea: Room, admin_user: User) -> None:
    path = f"/admin/app/room/{tea.pk}/change/"
    tabs = [Tab(layer, admin_user, path) for _ in range(3)]
    for tab in tabs:
        tab.enter()
    (person,) = named(tabs[0].frames(), "people")[-1]["people"]
    assert person["you"] is True


def test_who_only_looks_is_told_so(layer: ChannelLayerWrapper, tea: Room, admin_user: User) -> None:
    path = f"/admin/app/room/{tea.pk}/change/"
    reader, editor = Tab(layer, staff("reader", "view_room"), path), Tab(layer, admin_user, path)
    reader.enter()
    (person,) = named(editor.enter(), "people")[-1]["people"]
    assert (person["name"], person["edits"]) == ("reader", False)


def test_history_and_deletion_watch_and_are_not_seen(layer: ChannelLayerWrapper, tea: Room, admin_user: User) -> None:
    editor = Tab(layer, admin_user, f"/admin/app/room/{tea.pk}/change/")
    editor.enter()
    for page in ("history", "delete"):
        watcher = Tab(
            layer, staff(page, "view_room", "change_room", "delete_room"), f"/admin/app/room/{tea.pk}/{page}/"
        )
        assert [each["name"] for each in named(watcher.enter(), "people")[-1]["people"]] == ["admin"]
    assert named(editor.frames(), "people")[-1]["people"] == []


def test_a_page_of_another_user_opens_nothing(layer: ChannelLayerWrapper, tea: Room, admin_user: User) -> None:
    path = f"/admin/app/room/{tea.pk}/change/"
    theirs, thief = Tab(layer, admin_user, path), Tab(layer, staff("thief", "view_room"), path)
    thief.page = theirs.page
    assert thief.enter() == [{"close": NOT_ALLOWED}]
    assert layer.group_channels(group_of(Room)) == []


def test_nobody_is_logged_in(layer: ChannelLayerWrapper, tea: Room, admin_user: User) -> None:
    tab = Tab(layer, admin_user, f"/admin/app/room/{tea.pk}/change/")
    tab.client.cookies.clear()
    tab.run("websocket.connect")
    assert tab.frames() == [{"accept": True, "close": NOT_ALLOWED}]


def test_a_foreign_origin_is_refused_whatever_the_settings(layer: ChannelLayerWrapper) -> None:
    content = {
        "path": conf.admin_path(), "method": "GET", "reply_channel": layer.new_channel("websocket.send!"),
        "headers": [[b"host", b"testserver"], [b"origin", b"https://evil.example"]],
    }  # fmt: skip
    with override_settings(CHANNEL_ALLOWED_ORIGINS=["*"]), pytest.raises(DenyConnection):
        admin_consumers.connect(Message(content, "websocket.connect", layer))


@pytest.mark.parametrize("text", ["", "x", "[]", "7", '{"type": "look"}', '{"type": "other"}', "[" * 5000])
def test_frames_that_say_nothing(layer: ChannelLayerWrapper, tea: Room, admin_user: User, text: str) -> None:
    tab = Tab(layer, admin_user, f"/admin/app/room/{tea.pk}/change/")
    tab.run("websocket.connect")
    message = Message({"reply_channel": tab.channel, "path": "/", "text": text}, "websocket.receive", layer)
    with pytest.raises(BadFrame):
        admin_consumers.receive(message)


def test_one_page_a_socket(layer: ChannelLayerWrapper, tea: Room, admin_user: User) -> None:
    tab = Tab(layer, admin_user, f"/admin/app/room/{tea.pk}/change/")
    tab.enter()
    tab.run("websocket.receive", text=json.dumps({"type": "hello", "page": tab.page}))  # as after a redelivery
    assert named(tab.frames(), "welcome")
    other = Tab(layer, admin_user, "/admin/app/room/")
    text = json.dumps({"type": "hello", "page": other.page})
    message = Message({"reply_channel": tab.channel, "path": "/", "text": text}, "websocket.receive", layer)
    with pytest.raises(BadFrame, match="second page"):
        admin_consumers.receive(message)


def test_a_sign_of_life_renews_the_membership(layer: ChannelLayerWrapper, tea: Room, admin_user: User) -> None:
    tab = Tab(layer, admin_user, f"/admin/app/room/{tea.pk}/change/")
    tab.enter()
    layer.group_discard(group_of(Room, str(tea.pk)), tab.channel)
    layer.group_discard(group_of(Room), tab.channel)
    tab.run("websocket.receive", text='{"type": "look"}')
    assert [each["type"] for each in tab.frames()] == ["people", "welcome"]
    assert layer.group_channels(group_of(Room)) == layer.group_channels(group_of(Room, str(tea.pk))) == [tab.channel]


def test_no_room_for_more_pages(
    layer: ChannelLayerWrapper, tea: Room, admin_user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_consumers, "MOST_SOCKETS", 1)
    first, second = (Tab(layer, admin_user, "/admin/app/room/") for _ in range(2))
    assert named(first.enter(), "welcome")
    assert second.enter() == [{"close": 4013}]
    first.run("websocket.disconnect", code=1001)
    second.channel = layer.new_channel("websocket.send!")
    assert named(second.enter(), "welcome")


# -- changes -------------------------------------------------------------------------------------

committed = pytest.mark.django_db(transaction=True)


@pytest.fixture
def root(transactional_db: None) -> User:
    return User.objects.create_superuser("root")


@committed
def test_a_save_in_the_admin_is_one_message_with_its_author(layer: ChannelLayerWrapper, root: User) -> None:
    tea = Room.objects.create(name="Tea", slug="tea")
    path = f"/admin/app/room/{tea.pk}/change/"
    mine, theirs = Tab(layer, root, path), Tab(layer, staff("bob", "change_room"), path)
    mine.enter()
    theirs.enter()
    mine.frames()
    theirs.client.post(path, {"name": "Tea & <b>cake</b>", "slug": "tea"})
    assert work(layer) == 1
    (saved,) = named(mine.frames(), "saved")
    assert (saved["by"], saved["you"]) == ("bob", False)
    (own,) = named(theirs.frames(), "saved")
    assert own["you"] is True


@committed
def test_nothing_is_sent_while_nobody_watches_nor_of_models_that_are_not_live(
    layer: ChannelLayerWrapper, root: User
) -> None:
    Room.objects.create(name="Tea", slug="tea")
    assert work(layer) == 0
    Tab(layer, root, "/admin/app/room/").enter()
    root.save()
    assert work(layer) == 0
    Room.objects.create(name="Coffee", slug="coffee")
    assert work(layer) == 1


@committed
def test_a_rollback_tells_nobody_and_a_commit_once(layer: ChannelLayerWrapper, root: User) -> None:
    tab = Tab(layer, root, "/admin/app/room/")
    tab.enter()
    with transaction.atomic():
        Room.objects.create(name="Gone", slug="gone")
        transaction.set_rollback(True)
    assert work(layer) == 0
    with transaction.atomic():
        kept = [Room.objects.create(name=f"Room {n}", slug=f"room-{n}") for n in range(3)]
        kept[0].save()
        assert work(layer) == 0
        with transaction.atomic():
            Room.objects.create(name="Gone", slug="gone")
            transaction.set_rollback(True)
    assert work(layer) == 1
    (told,) = named(tab.frames(), "rows")
    assert sorted(told["added"]) == sorted(str(each.pk) for each in kept)


@committed
def test_a_deletion_is_told_with_its_author(layer: ChannelLayerWrapper, root: User) -> None:
    tea = Room.objects.create(name="Tea", slug="tea")
    page = Tab(layer, root, f"/admin/app/room/{tea.pk}/change/")
    rows = Tab(layer, root, "/admin/app/room/")
    page.enter()
    rows.enter()
    deleter = Client()
    deleter.force_login(staff("bob", "delete_room", "view_room", "delete_message", "delete_presence"))
    deleter.post(f"/admin/app/room/{tea.pk}/delete/", {"post": "yes"})
    assert work(layer) == 1
    (told,) = named(page.frames(), "deleted")
    assert (told["by"], told["you"]) == ("bob", False)
    assert named(rows.frames(), "rows")[0]["removed"] == [str(tea.pk)]
    again = page.enter()  # as after a lost connection, with the page that it had
    assert [(each["type"], each["by"]) for each in again] == [("deleted", "bob")]


@committed
def test_many_at_once_are_told_as_many(layer: ChannelLayerWrapper, root: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved_changes, "MOST_OBJECTS", 3)
    tab = Tab(layer, root, "/admin/app/room/")
    tab.enter()
    with transaction.atomic():
        for n in range(10):
            Room.objects.create(name=f"Room {n}", slug=f"room-{n}")
    assert work(layer) == 1
    (told,) = named(tab.frames(), "rows")
    assert (len(told["added"]), told["more"]) == (3, True)


@committed
def test_a_full_channel_fails_no_save_and_is_made_up_for(root: User, caplog: pytest.LogCaptureFixture) -> None:
    layer = wrapped(channel_routing, channel_capacity={saved_changes.CHANNEL: 1})
    saved_changes._failures.reset()
    with installed(layer):
        tab = Tab(layer, root, "/admin/app/room/")
        tab.enter()
        for n in range(3):
            Room.objects.create(name=f"Room {n}", slug=f"room-{n}")
        assert [record.action for record in caplog.records if hasattr(record, "action")] == ["admin_untold"]
        assert work(layer) == 1
        assert named(tab.frames(), "rows")[0]["more"] is False
        Room.objects.create(name="Room 4", slug="room-4")
        assert work(layer) == 1
        assert named(tab.frames(), "rows")[0]["more"] is True
        Room.objects.create(name="Room 5", slug="room-5")
        work(layer)
        assert named(tab.frames(), "rows")[0]["more"] is False


@committed
def test_what_was_missed_between_the_page_and_its_socket(layer: ChannelLayerWrapper, root: User) -> None:
    tea, coffee = (Room.objects.create(name=name, slug=name) for name in ("tea", "coffee"))
    page, rows = Tab(layer, root, f"/admin/app/room/{tea.pk}/change/"), Tab(layer, root, "/admin/app/room/")
    untouched = Tab(layer, root, f"/admin/app/room/{tea.pk}/change/")
    assert not named(untouched.enter(), "saved")
    Room.objects.filter(pk=tea.pk).update(name="changed without a signal")
    Room.objects.filter(pk=coffee.pk).delete()
    assert len(named(page.enter(), "saved")) == 1
    (told,) = named(rows.enter(), "rows")
    assert (told["changed"], told["removed"]) == ([str(tea.pk)], [str(coffee.pk)])


# -- permissions ---------------------------------------------------------------------------------


@committed
def test_who_loses_the_permission_is_told_nothing_more(layer: ChannelLayerWrapper, root: User) -> None:
    tea = Room.objects.create(name="Tea", slug="tea")
    path = f"/admin/app/room/{tea.pk}/change/"
    reader = staff("reader", "view_room")
    page, rows, editor = Tab(layer, reader, path), Tab(layer, reader, "/admin/app/room/"), Tab(layer, root, path)
    for tab in (page, rows, editor):
        tab.enter()
    page.frames()
    reader.user_permissions.clear()
    tea.save()
    work(layer)
    assert page.frames() == rows.frames() == [{"close": NOT_ALLOWED}]
    assert layer.group_channels(group_of(Room)) == [editor.channel]


@committed
@pytest.mark.parametrize("how", ["logout", "password", "inactive", "deleted"])
def test_who_is_no_longer_logged_in_is_told_nothing_more(layer: ChannelLayerWrapper, root: User, how: str) -> None:
    tea = Room.objects.create(name="Tea", slug="tea")
    reader = staff("reader", "view_room")
    page = Tab(layer, reader, f"/admin/app/room/{tea.pk}/change/")
    page.enter()
    if how == "logout":
        page.client.logout()
    elif how == "password":
        reader.set_password("another")
        reader.save()
    elif how == "inactive":
        User.objects.filter(pk=reader.pk).update(is_active=False)
    else:
        reader.delete()
    newcomer = Tab(layer, root, f"/admin/app/room/{tea.pk}/change/")
    assert named(newcomer.enter(), "people")[-1]["people"] == []
    assert page.frames() == [{"close": NOT_ALLOWED}]


def own_only(self: Any, request: Any) -> Any:
    """Return the objects of the request's user, as the get_queryset() of a ModelAdmin."""
    return Said.objects.filter(author=request.user)


@committed
def test_who_may_not_view_an_object_gets_no_frame_of_it(
    layer: ChannelLayerWrapper, root: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room.objects.create(name="Tea", slug="tea")
    monkeypatch.setattr(type(admin.site.get_model_admin(Said)), "get_queryset", own_only)
    permissions = ("view_message", "change_message", "delete_message")
    ann, ben = staff("ann", *permissions), staff("ben", *permissions)
    hers = Tab(layer, ann, "/admin/app/message/")
    his = Tab(layer, ben, "/admin/app/message/")
    for tab in (hers, his):
        tab.enter()
    said = Said.objects.create(room=room, author=ann, text="hello")
    work(layer)
    assert named(hers.frames(), "rows")[0]["added"] == [str(said.pk)]
    said.text = "hello!"
    said.save()
    said.delete()
    work(layer)
    assert his.frames() == []
    # Nor may he ask for one by a page that he never got.
    other = Said.objects.create(room=room, author=ann, text="hello")
    forged = OpenPage("change", "admin", "app.message", str(other.pk), str(ben.pk), 0.0, "")
    his.channel = layer.new_channel("websocket.send!")
    his.page = forged.signed()
    assert his.enter() == [{"close": NOT_ALLOWED}]


@committed
def test_a_row_that_leaves_a_users_sight_is_removed(
    layer: ChannelLayerWrapper, root: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room.objects.create(name="Tea", slug="tea")
    monkeypatch.setattr(type(admin.site.get_model_admin(Said)), "get_queryset", own_only)
    ann = staff("ann", "view_message")
    said = Said.objects.create(room=room, author=ann, text="hello")
    tab = Tab(layer, ann, "/admin/app/message/")
    tab.enter()
    said.author = root
    said.save()
    work(layer)
    assert [(each["changed"], each["removed"]) for each in named(tab.frames(), "rows")] == [([], [str(said.pk)])]


@committed
def test_a_model_admin_that_cannot_answer_lets_nobody_look(
    layer: ChannelLayerWrapper, root: User, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tea = Room.objects.create(name="Tea", slug="tea")
    tab = Tab(layer, root, f"/admin/app/room/{tea.pk}/change/")

    def needs_a_tenant(self: object, request: Any) -> Any:
        return request.tenant

    monkeypatch.setattr(type(admin.site.get_model_admin(Room)), "get_queryset", needs_a_tenant)
    assert tab.enter() == [{"close": NOT_ALLOWED}]
    assert "admin_refused" in [getattr(record, "action", "") for record in caplog.records]


def test_a_socket_without_a_page_is_in_no_group(layer: ChannelLayerWrapper, db: None) -> None:
    message = Message(
        {"reply_channel": layer.new_channel("websocket.send!"), "path": "/"}, "websocket.disconnect", layer
    )
    admin_consumers.disconnect(message)
    assert PageSocket(message).groups == []
