from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.staticfiles import finders
from django.contrib.staticfiles.handlers import StaticFilesHandler as DjangosHandler
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.wsgi import WSGIHandler
from django.urls import set_script_prefix

from channelsq.handler import AsgiRequest
from channelsq.staticfiles import StaticFilesConsumer, StaticFilesHandler
from tests.support.fakes.interface import FakeInterface
from tests.support.http_channel import django_settings, through_wsgi


@pytest.fixture
def settings_with_files(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "files" / "css").mkdir(parents=True)
    (tmp_path / "files" / "css" / "site ä.css").write_bytes(b"body {}")
    (tmp_path / "files" / "big.bin").write_bytes(b"z" * 3_000_000)
    (tmp_path / "secret.txt").write_text("the content")
    return {
        "DEBUG": True,
        "STATICFILES_DIRS": [tmp_path / "files"],
        "STATICFILES_FINDERS": ["django.contrib.staticfiles.finders.FileSystemFinder"],
        "STATIC_ROOT": None,
    }


@pytest.fixture
def interface(settings_with_files: dict[str, Any]) -> Iterator[FakeInterface]:
    get_finder: Any = finders.get_finder
    get_finder.cache_clear()
    with django_settings(**settings_with_files):
        yield FakeInterface()
    get_finder.cache_clear()
    set_script_prefix("/")


def test_a_file(interface: FakeInterface) -> None:
    response = interface.run(interface.message("/static/css/site ä.css"), StaticFilesConsumer())
    assert (response.status, response.body, response.complete) == (200, b"body {}", True)
    assert response.header("content-type") == "text/css"
    assert response.header("content-length") == "7"
    assert response.header("last-modified")


def test_a_large_file_and_a_cached_one(interface: FakeInterface) -> None:
    consumer = StaticFilesConsumer()
    response = interface.run(interface.message("/static/big.bin"), consumer)
    assert response.body == b"z" * 3_000_000
    seen = {"if-modified-since": response.header("last-modified") or ""}
    response = interface.run(interface.message("/static/big.bin", headers=dict(seen)), consumer)
    assert (response.status, response.body) == (304, b"")


def test_other_paths_are_the_views(interface: FakeInterface) -> None:
    consumer = StaticFilesConsumer()
    assert interface.run(interface.message("/"), consumer).body == b"root"
    response = interface.run(interface.message("/visits/"), consumer)
    assert response.body == b"1"
    assert response.header("set-cookie"), "the views' middleware must run"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/static/nothing.css", 404),
        ("/static/", 404),
        ("/static/css/", 404),
        ("/static/../secret.txt", 400),
        ("/static/css/../../secret.txt", 400),
        ("/static//etc/passwd", 404),
    ],
)
def test_files_that_are_not_there(interface: FakeInterface, path: str, status: int) -> None:
    response = interface.run(interface.message(path), StaticFilesConsumer())
    assert response.status == status
    assert b"the content" not in response.body


def test_without_debug_it_serves_too_unless_told_otherwise(
    interface: FakeInterface, settings_with_files: dict[str, Any]
) -> None:
    with django_settings(**{**settings_with_files, "DEBUG": False}):
        message = interface.message("/static/big.bin")
        assert interface.run(message, StaticFilesConsumer()).status == 200
        message = interface.message("/static/big.bin")
        assert interface.run(message, StaticFilesConsumer(insecure=False)).status == 404


def test_without_debug_what_is_not_found_is_the_views(
    interface: FakeInterface, settings_with_files: dict[str, Any]
) -> None:
    with django_settings(**{**settings_with_files, "DEBUG": False, "STATIC_URL": "/echo/"}):
        answer = interface.run(interface.message("/echo/"), StaticFilesConsumer())
        assert answer.json()["path_info"] == "/echo/"
    with django_settings(**{**settings_with_files, "STATIC_URL": "/echo/"}):
        assert interface.run(interface.message("/echo/"), StaticFilesConsumer()).status == 404


def test_static_url_on_another_host_is_the_views(interface: FakeInterface, settings_with_files: dict[str, Any]) -> None:
    with django_settings(**settings_with_files, STATIC_URL="https://cdn.example/static/"):
        message = interface.message("/static/big.bin")
        assert interface.run(message, StaticFilesConsumer()).status == 404


def test_below_a_root_path(interface: FakeInterface, settings_with_files: dict[str, Any]) -> None:
    with django_settings(**settings_with_files, STATIC_URL="static/"):
        message = interface.message("/app/static/css/site ä.css", root_path="/app")
        assert interface.run(message, StaticFilesConsumer()).body == b"body {}"


def test_no_static_url(interface: FakeInterface, settings_with_files: dict[str, Any]) -> None:
    message = interface.message("/")
    with (
        django_settings(**settings_with_files, STATIC_URL=None),
        pytest.raises(ImproperlyConfigured, match="STATIC_URL"),
    ):
        StaticFilesConsumer()(message)
    assert interface.responses[str(message.reply_channel)].status == 500


def test_closing_the_response_closes_the_request(interface: FakeInterface) -> None:
    with_body = interface.message("/static/big.bin", "POST", body=b"x" * 10)
    closed = []

    class Handler(StaticFilesHandler):
        class request_class(AsgiRequest):
            def close(self) -> None:
                closed.append(self.path)
                super().close()

    assert next(iter(list(Handler()(with_body))))["status"] == 200
    assert closed == ["/static/big.bin"]


@pytest.mark.parametrize("path", ["/static/css/site ä.css", "/static/nothing", "/static/css", "/", "/nothing"])
def test_answers_are_djangos(interface: FakeInterface, path: str) -> None:
    message = interface.message(path)
    status, their_headers, body = through_wsgi(DjangosHandler(WSGIHandler()), message)
    ours = interface.run(message, StaticFilesConsumer())
    assert ours.status == status
    if ours.status == 200:
        assert ours.body == body
        headers = sorted((k.decode(), v.decode()) for k, v in ours.messages[0]["headers"])
        assert headers == sorted(their_headers)
