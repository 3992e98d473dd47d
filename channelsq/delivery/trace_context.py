"""The trace that a client's request belongs to, which the request's own headers name.

Tracing tools look for these headers among those of the Celery task.  So a consumer's task gets them from its message:
from an HTTP request, and from the handshake of a WebSocket.  They come from the client, so they are checked here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

#: The value of each header, as far as it is passed on.  W3C Trace Context: version, trace, span and flags; later
#: versions may have more.  Sentry: trace, span and whether it is sampled.
_FORMS = {
    "traceparent": re.compile(r"(?!ff)[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[\x21-\x7e]{0,200})?"),
    "tracestate": re.compile(r"[\t\x20-\x7e]{1,512}"),
    "sentry-trace": re.compile(r"[0-9a-f]{32}-[0-9a-f]{16}(-[01])?"),
    "baggage": re.compile(r"[\t\x20-\x7e]{1,8192}"),
}

#: The names of the headers.
NAMES = tuple(_FORMS)

#: In ``task.request``: whether threads have handed the message over to Celery's pool.
HANDED_OVER = "channelsq_handed_over"

#: Headers of which a request may have several, which are parts of one list.
_LISTS = frozenset({"tracestate", "baggage"})

#: A header that says nothing without another.
_NEEDS = {"tracestate": "traceparent"}


def of_message(content: Mapping[str, Any]) -> dict[str, str]:
    """Return the trace headers among a message's ``headers``; those that are too long or malformed are left out.

    Args:
        content: a message's; ``headers`` are pairs of bytes, or, in tests, a dict.
    """
    headers = content.get("headers")
    if not headers:
        return {}
    values: dict[str, list[str]] = {}
    for name, value in _pairs(headers):
        if name in _FORMS:
            values.setdefault(name, []).append(value)
    found = {}
    for name, each in values.items():
        if len(each) > 1 and name not in _LISTS:
            continue  # none of them can be trusted to be the caller's
        value = ",".join(each)
        if _FORMS[name].fullmatch(value):
            found[name] = value
    return {name: value for name, value in found.items() if _NEEDS.get(name, name) in found}


def _pairs(headers: object) -> Iterable[tuple[str, str]]:
    """Yield names, in lower case, and values of headers that may have any form."""
    pairs: Iterable[object] = headers.items() if isinstance(headers, Mapping) else ()
    if isinstance(headers, (list, tuple)):
        pairs = headers
    for pair in pairs:
        if isinstance(pair, (list, tuple)) and len(pair) == 2:
            name, value = map(_text, pair)
            yield name.lower(), value.strip(" \t")


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if isinstance(value, str) else ""


def add_to(request: dict[str, Any], content: Mapping[str, Any], *, instead: bool = False) -> None:
    """Give a task's request the trace headers of its message, where Celery's instrumentations look for them.

    OpenTelemetry's looks among the request's attributes, and others, such as Sentry's, look in its ``headers``.

    Args:
        request: what ``task.request`` is made of.
        content: the message's.
        instead: replace trace headers that the request has already; else the message's are not taken then.
    """
    found = of_message(content)
    if not found:
        return
    headers = request.get("headers")
    headers = dict(headers) if isinstance(headers, Mapping) else {}
    if not instead and any(name in request or name in headers for name in NAMES):
        return
    for name in NAMES:
        request.pop(name, None)
        headers.pop(name, None)
    request.update(found)
    request["headers"] = {**headers, **found}


def restore(request: dict[str, Any], args: object) -> None:
    """Give the request of a consumer's task that Celery's own pool runs the trace headers of its message.

    A message that was handed over to the pool was published there by a thread that is in no trace, and an
    instrumentation may have noted that one.

    Args:
        request: what ``task.request`` is made of.
        args: the task's: a channel and the content of its message.
    """
    if isinstance(args, (list, tuple)) and len(args) == 2 and isinstance(args[1], Mapping):
        add_to(request, args[1], instead=bool(request.get(HANDED_OVER)))
