"""The page of the dashboard: permissions, settings, and a strict content security policy."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from django.contrib.auth.models import Permission, User
from django.contrib.staticfiles import finders
from django.core.exceptions import ImproperlyConfigured
from django.test import Client, override_settings

from channelsq import conf

URL = "/-/dashboard/"
ON = {"enabled": True}


@pytest.fixture(autouse=True)
def urls(settings: object) -> Iterator[None]:
    with override_settings(ROOT_URLCONF="tests.support.dashboard_urls", CHANNEL_DASHBOARD=ON):
        yield


def client_of(*, is_staff: bool = False) -> Client:
    client = Client()
    client.force_login(User.objects.create_user("sam", is_staff=is_staff))
    return client


@pytest.mark.django_db
def test_the_page_is_for_staff() -> None:
    assert client_of(is_staff=True).get(URL).status_code == 200
    response = Client().get(f"{URL}?a=b")
    assert response.status_code == 302
    assert response.headers["Location"] == "/admin/login/?next=/-/dashboard/%3Fa%3Db"


@pytest.mark.django_db
def test_other_users_are_refused() -> None:
    client = client_of()
    assert client.get(URL).status_code == 403
    User.objects.update(is_staff=True)
    assert client.get(URL).status_code == 200
    assert client.post(URL).status_code == 405
    User.objects.update(is_superuser=True, is_staff=False)
    assert client.get(URL).status_code == 403


@pytest.mark.django_db
def test_without_an_admin_the_login_is_that_of_the_settings() -> None:
    with override_settings(ROOT_URLCONF="tests.support.dashboard_alone_urls", LOGIN_URL="/enter/"):
        assert Client().get(URL).headers["Location"] == "/enter/?next=/-/dashboard/"


@pytest.mark.django_db
def test_outside_debug_the_page_is_off_until_it_is_enabled() -> None:
    client = client_of(is_staff=True)
    for value, debug, status in (({}, False, 404), ({"enabled": False}, False, 404), ({}, True, 200), (ON, False, 200)):
        with override_settings(CHANNEL_DASHBOARD=value, DEBUG=debug):
            assert client.get(URL).status_code == status, (value, debug)
    with override_settings(CHANNEL_DASHBOARD={}):
        assert Client().get(URL).status_code == 404  # not even a login


@pytest.mark.django_db
def test_the_page_has_nothing_inline_and_all_files() -> None:
    response = client_of(is_staff=True).get(URL)
    html = response.text
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", html)
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", html, re.DOTALL)
    assert len(scripts) == 6
    assert all('src="' in attributes and not text for attributes, text in scripts)
    files = re.findall(r'(?:src|href)="/?static/([^"]+)"', html)
    assert len(files) == 9
    assert all(finders.find(each) for each in files)
    assert "no-store" in response.headers["Cache-Control"]


@pytest.mark.django_db
def test_the_page_says_whether_its_user_may_act() -> None:
    client = client_of(is_staff=True)
    for permission, may in (("", "false"), ("sessions.delete_session", "false")):
        with override_settings(CHANNEL_DASHBOARD={**ON, "permission": permission}):
            assert f'data-may-act="{may}"' in client.get(URL).text
    User.objects.get().user_permissions.add(Permission.objects.get(codename="delete_session"))
    with override_settings(CHANNEL_DASHBOARD={**ON, "permission": "sessions.delete_session"}):
        assert 'data-may-act="true"' in client.get(URL).text
    User.objects.update(is_superuser=True)
    assert 'data-may-act="true"' in client.get(URL).text


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (7, "CHANNEL_DASHBOARD must be a dict"),
        ({"enabeld": True}, "has no setting 'enabeld'.*'enabled'"),
        ({"enabled": 1}, r"CHANNEL_DASHBOARD\['enabled'\] must be True or False, not 1"),
        ({"path": "socket"}, r"\['path'\] must be a path"),
        ({"every": 0}, r"\['every'\] must be a number, more than 0, not 0"),
        ({"permission": 3}, r"\['permission'\] must be a dotted path"),
        ({"metrics": "http://a/"}, r"\['metrics'\] must be a list, not 'http://a/'"),
        ({"metrics": ["a:8000"]}, r"cannot have 'a:8000': write the address of a metrics page"),
        ({"metrics": ["http://me:secret@a/"]}, "without user and password"),
        ({"metrics": ["file:///etc/passwd"]}, "cannot have 'file:///etc/passwd'"),
        ({"metrics": ["http://a/"] * 51}, "has 51 addresses; name at most 50"),
    ],
)
def test_settings_that_cannot_be_used(value: object, problem: str) -> None:
    with override_settings(CHANNEL_DASHBOARD=value), pytest.raises(ImproperlyConfigured, match=problem):
        conf.dashboard_settings()


def test_settings() -> None:
    with override_settings(CHANNEL_DASHBOARD={"metrics": ["https://a:1/-/metrics", "http://[::1]:8000/x"], "every": 5}):
        chosen = conf.dashboard_settings()
        assert chosen.metrics == ("https://a:1/-/metrics", "http://[::1]:8000/x")
        assert (chosen.every, chosen.path, chosen.is_on) == (5, "/channelsq/dashboard/", False)
