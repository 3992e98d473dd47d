"""The private parts of Django's own requests, handlers and responses, for requests made of messages.

Private parts of Django; ``tests/unit/http/test_django_http_internals.py`` pins them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO

from django.contrib.staticfiles.handlers import StaticFilesHandlerMixin
from django.core.files.uploadedfile import UploadedFile
from django.core.handlers.base import BaseHandler
from django.http import HttpRequest, QueryDict
from django.http.response import HttpResponseBase
from django.utils.datastructures import MultiValueDict


class DjangoRequest(HttpRequest):
    """A request that is not made of WSGI or ASGI."""

    _post: QueryDict
    _files: MultiValueDict[str, UploadedFile[Any]]

    def _set_body(self, body: BinaryIO) -> None:
        """Let ``read()``, ``body`` and the form's parsers read from ``body``."""
        self._post_parse_error = False
        self._read_started = False
        self._stream = body

    def _close_body(self) -> None:
        """Close the temporary file of the body."""
        self._stream.close()

    def _parse_content_type(self) -> None:
        """Read ``content_type``, its parameters and the encoding from ``META``."""
        self._set_content_type_params(self.META)  # type: ignore[attr-defined]

    def _url_scheme(self) -> str:
        """Return the scheme of the URL, unless a setting names another place for it."""
        raise NotImplementedError

    def _get_scheme(self) -> str:
        return self._url_scheme()

    @property  # type: ignore[override]
    def POST(self) -> QueryDict:
        if not hasattr(self, "_post"):
            self._load_post_and_files()
        return self._post

    @POST.setter
    def POST(self, post: QueryDict) -> None:
        self._post = post

    @property
    def FILES(self) -> MultiValueDict[str, UploadedFile[Any]]:  # type: ignore[override]
        if not hasattr(self, "_files"):
            self._load_post_and_files()
        return self._files


class DjangoHandler(BaseHandler):
    """A handler that runs middleware and views."""

    _middleware_chain: Any

    @property
    def _has_middleware(self) -> bool:
        """True after ``load_middleware()``; Django sets this last, so that no thread sees an incomplete chain."""
        return self._middleware_chain is not None

    def _run_view(self, request: HttpRequest) -> HttpResponseBase:
        """Return the view's response, within all middleware."""
        return super()._get_response(request)  # type: ignore[misc,no-any-return]

    def _get_response(self, request: HttpRequest) -> HttpResponseBase:
        return self._run_view(request)


def note_handler(response: HttpResponseBase, handler: type[BaseHandler]) -> None:
    """Let ``handler`` send ``request_finished`` when the response is closed."""
    response._handler_class = handler  # type: ignore[attr-defined]


def close_with(response: HttpResponseBase, close: Callable[[], None]) -> None:
    """Call ``close`` when the response is closed."""
    response._resource_closers.append(close)  # type: ignore[attr-defined]


def is_static_path(handler: StaticFilesHandlerMixin, path: str) -> bool:
    """Return whether a path is below the URL of a handler's static files, and that URL is of this host."""
    return bool(handler._should_handle(path))
