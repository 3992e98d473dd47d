"""Static files through the channel, for development; in production use a real server or whitenoise.

::

    channel_routing = [route("http.request", StaticFilesConsumer()), ...]

As in Channels 1 and Django, the routing decides when it is used: it serves with and without ``DEBUG``.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import ParseResult, urlparse

from django.conf import settings
from django.contrib.staticfiles.handlers import StaticFilesHandlerMixin
from django.core.handlers.exception import response_for_exception
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase

from channelsq.handler import AsgiHandler, ViewConsumer
from channelsq.http.django_http_internals import close_with, is_static_path

__all__ = ["StaticFilesConsumer", "StaticFilesHandler"]


class StaticFilesHandler(StaticFilesHandlerMixin, AsgiHandler):
    """The handler that answers paths below ``STATIC_URL`` with files of the finders, and all others with the views.

    Args:
        insecure: False serves files under ``DEBUG`` only; otherwise the views get all paths.

    Raises, when called:
        ImproperlyConfigured: ``STATIC_URL`` is missing.
    """

    def __init__(self, *, insecure: bool = True) -> None:
        super().__init__()
        self.insecure = insecure

    @property
    def base_url(self) -> ParseResult:  # type: ignore[override]
        """``STATIC_URL``, computed each time, as it contains the script prefix."""
        return urlparse(self.get_base_url())

    def load_middleware(self, is_async: bool = False) -> None:
        """Load the middleware: unlike Django's static handlers this one also runs the views."""
        AsgiHandler.load_middleware(self, is_async=is_async)

    def get_response(self, request: HttpRequest) -> HttpResponseBase:
        """Return the file, Django's error page, or the response of the views.

        The views get paths that are not below ``STATIC_URL``, and without ``DEBUG`` also paths without a file.
        """
        if not (settings.DEBUG or self.insecure) or not is_static_path(self, request.path):
            return AsgiHandler.get_response(self, request)
        response = self._file_or_error(request)
        if response is None:
            return AsgiHandler.get_response(self, request)
        close_with(response, request.close)
        return response

    def _file_or_error(self, request: HttpRequest) -> HttpResponseBase | None:
        try:
            return self.serve(request)
        except Exception as error:
            if isinstance(error, Http404) and not settings.DEBUG:
                return None
            # Not only Http404: a path with ".." in it is a SuspiciousFileOperation, and a 400.
            return response_for_exception(request, error)


class StaticFilesConsumer(ViewConsumer):
    """:class:`~channelsq.handler.ViewConsumer`, with static files before the views.

    Args:
        insecure: False serves them under ``DEBUG`` only.
    """

    handler_class: type[AsgiHandler] = StaticFilesHandler

    def __init__(self, *, insecure: bool = True) -> None:
        super().__init__()
        self.insecure = insecure

    def make_handler(self) -> AsgiHandler:
        """Return a static files handler with the option ``insecure``."""
        options: dict[str, Any] = {"insecure": self.insecure}
        return self.handler_class(**options)
