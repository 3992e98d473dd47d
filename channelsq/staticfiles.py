"""Static files through the channel, for development; in production a real server or whitenoise has them.

::

    channel_routing = [route("http.request", StaticFilesConsumer()), ...]

As in Channels 1 and Django, whoever routes to it decides when that is: it serves with and without ``DEBUG``.
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

__all__ = ["StaticFilesConsumer", "StaticFilesHandler"]


class StaticFilesHandler(StaticFilesHandlerMixin, AsgiHandler):
    """Answers what is below ``STATIC_URL`` with the files that the finders find, the rest with the views.

    Args:
        insecure: False serves files under ``DEBUG`` only; else all goes to the views.

    Raises, when called:
        ImproperlyConfigured: ``STATIC_URL`` is missing.
    """

    def __init__(self, *, insecure: bool = True) -> None:
        super().__init__()
        self.insecure = insecure

    @property
    def base_url(self) -> ParseResult:  # type: ignore[override]
        """``STATIC_URL``, read anew each time: it has the script prefix in it."""
        return urlparse(self.get_base_url())

    def load_middleware(self, is_async: bool = False) -> None:
        """Load the middleware: unlike Django's static handlers this one runs the views too."""
        AsgiHandler.load_middleware(self, is_async=is_async)

    def get_response(self, request: HttpRequest) -> HttpResponseBase:
        """The file, Django's page for what is wrong with it, or what the views answer.

        The views get what is not below ``STATIC_URL``, and without ``DEBUG`` also what no finder finds there.
        """
        if not (settings.DEBUG or self.insecure) or not self._should_handle(request.path):
            return AsgiHandler.get_response(self, request)
        response = self._file_or_error(request)
        if response is None:
            return AsgiHandler.get_response(self, request)
        response._resource_closers.append(request.close)  # type: ignore[attr-defined]
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
        """A static files handler that knows ``insecure``."""
        options: dict[str, Any] = {"insecure": self.insecure}
        return self.handler_class(**options)
