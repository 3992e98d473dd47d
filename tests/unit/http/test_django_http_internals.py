"""The work of Django's handlers on requests and responses is done for those that come as messages, too."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest
from django.core.handlers.base import BaseHandler
from django.core.signals import request_finished
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from channelsq.http.django_http_internals import (
    DjangoHandler,
    DjangoRequest,
    close_with,
    is_static_path,
    note_handler,
)
from channelsq.staticfiles import StaticFilesHandler
from tests.support.http_channel import django_settings, multipart


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    with django_settings():
        yield


class PostRequest(DjangoRequest):
    """A form that was posted."""

    def __init__(self, body: bytes, content_type: str) -> None:
        self.method = "POST"
        self.META = {"CONTENT_TYPE": content_type, "CONTENT_LENGTH": str(len(body))}
        self._parse_content_type()
        self._set_body(BytesIO(body))

    def _url_scheme(self) -> str:
        return "https"


def test_a_form_and_its_files_are_read_when_a_view_looks() -> None:
    body, content_type = multipart({"name": "Ann"}, "photo", b"pixels")
    request = PostRequest(body, content_type)
    assert request.content_type == "multipart/form-data"
    assert request.POST["name"] == "Ann"
    photo = request.FILES["photo"]
    assert not isinstance(photo, list)
    assert photo.read() == b"pixels"


def test_a_view_may_read_the_body_or_the_form_and_not_both() -> None:
    request = PostRequest(b"name=Ann", "application/x-www-form-urlencoded; charset=latin-1")
    assert request.encoding == "latin-1"
    assert request.read(4) == b"name"
    with pytest.raises(Exception, match="cannot access body after reading"):
        _ = request.body


def test_the_requests_scheme_makes_it_secure_unless_a_setting_says_where_else_to_look() -> None:
    request = PostRequest(b"", "text/plain")
    assert request.is_secure()
    with django_settings(SECURE_PROXY_SSL_HEADER=("HTTP_X_SCHEME", "https")):
        request.META["HTTP_X_SCHEME"] = "http"
        assert not request.is_secure()


def test_the_body_is_given_back_with_the_request() -> None:
    request = PostRequest(b"x", "text/plain")
    request._close_body()
    with pytest.raises(ValueError, match="closed file"):
        request.read()


def test_views_run_within_all_middleware_which_is_loaded_once() -> None:
    class Handler(DjangoHandler):
        def _run_view(self, request: HttpRequest) -> HttpResponseBase:
            seen.append(request.path)
            return HttpResponse("of the view")

    seen: list[str] = []
    handler = Handler()
    assert not handler._has_middleware
    handler.load_middleware()
    assert handler._has_middleware
    request = HttpRequest()
    request.path = request.path_info = "/"
    request.META = {"SERVER_NAME": "testserver", "SERVER_PORT": "80"}
    response = handler.get_response(request)
    assert isinstance(response, HttpResponse)
    assert response.content == b"of the view"
    assert seen == ["/"]
    assert response["X-Content-Type-Options"] == "nosniff"  # of Django's SecurityMiddleware


def test_the_end_of_a_response_is_signalled_and_closes_what_belongs_to_it() -> None:
    told: list[Any] = []

    def finished(sender: Any, **kwargs: Any) -> None:
        told.append(sender)

    response = HttpResponse()
    note_handler(response, BaseHandler)
    close_with(response, lambda: told.append("closed"))
    request_finished.connect(finished)
    try:
        response.close()
    finally:
        request_finished.disconnect(finished)
    assert told == ["closed", BaseHandler]


def test_static_files_are_those_below_their_url() -> None:
    handler = StaticFilesHandler()
    assert is_static_path(handler, "/static/app.css")
    assert not is_static_path(handler, "/admin/")
    with django_settings(STATIC_URL="https://cdn.example/static/"):
        assert not is_static_path(StaticFilesHandler(), "/static/app.css")
