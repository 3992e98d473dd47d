"""The data about a request for Sentry's SDK, in projects that use it.

Sentry's Django integration finds a view's errors itself.  It learns their URL, method and headers from the WSGI or ASGI
handler around the view, but a message has passed neither.

A private part of ``sentry_sdk``; ``tests/integration/site/test_tracing.py`` pins it.
"""

from __future__ import annotations

import functools
import logging
import sys
from typing import Any

from django.conf import settings
from django.http import HttpRequest

logger = logging.getLogger("channelsq.http")


def tell(request: HttpRequest) -> None:
    """Add ``request`` to Sentry's reports in this context, from here on.

    Do nothing in a process without Sentry's Django integration.
    """
    sdk: Any = sys.modules.get("sentry_sdk")
    if sdk is None:
        return
    try:
        if sdk.get_client().get_integration("django") is None:
            return
        from sentry_sdk.integrations.wsgi import _make_wsgi_event_processor  # which filters out secrets

        environ = {**request.META}
        for name in ("PATH_INFO", "SCRIPT_NAME"):  # in WSGI they are bytes decoded as latin-1
            environ[name] = environ[name].encode(errors="replace").decode("latin-1")
        scope = sdk.get_current_scope()
        scope.add_event_processor(_make_wsgi_event_processor(environ, settings.USE_X_FORWARDED_HOST))
        scope.add_event_processor(_without_content)
    except Exception as error:  # another version of the SDK must not keep the view from answering
        _log(repr(error))


def _without_content(event: Any, hint: Any) -> Any:
    """Remove the message's content from the data about its task; secrets of the request must not be reported."""
    job = event.get("extra", {}).get("celery-job")
    match job:
        case {"args": [channel, dict(content)]}:
            job["args"] = [channel, sorted(content)]
    return event


@functools.cache
def _log(problem: str) -> None:
    """Log a problem, once."""
    logger.warning("Sentry learns nothing of requests: %s", problem, extra={"action": "sentry_not_told"})
