"""What Sentry's SDK is told of a request, where a project uses it.

Its Django integration finds a view's errors itself.  Which URL, method and headers they belong to it learns from the
WSGI or ASGI handler around the view, and a message has passed neither.

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
    """Have what Sentry reports in this context from here on say that it is about ``request``.

    Nothing happens in a process without Sentry's Django integration.
    """
    sdk: Any = sys.modules.get("sentry_sdk")
    if sdk is None:
        return
    try:
        if sdk.get_client().get_integration("django") is None:
            return
        from sentry_sdk.integrations.wsgi import _make_wsgi_event_processor  # which knows what is not to be reported

        environ = {**request.META}
        for name in ("PATH_INFO", "SCRIPT_NAME"):  # in WSGI they are bytes in the guise of text
            environ[name] = environ[name].encode(errors="replace").decode("latin-1")
        scope = sdk.get_current_scope()
        scope.add_event_processor(_make_wsgi_event_processor(environ, settings.USE_X_FORWARDED_HOST))
        scope.add_event_processor(_without_content)
    except Exception as error:  # of another version of it: no reason not to answer
        _log(repr(error))


def _without_content(event: Any, hint: Any) -> Any:
    """Take the message out of what is said of its task: the request is reported, without what must stay secret."""
    job = event.get("extra", {}).get("celery-job")
    match job:
        case {"args": [channel, dict(content)]}:
            job["args"] = [channel, sorted(content)]
    return event


@functools.cache
def _log(problem: str) -> None:
    """Log a problem, once."""
    logger.warning("Sentry learns nothing of requests: %s", problem, extra={"action": "sentry_not_told"})
