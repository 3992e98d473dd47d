"""The trace of a client's request, which the request's own headers name.

Tracing tools look for these headers among those of the Celery task.  So a consumer's task gets them from its message:
from an HTTP request, and from the handshake of a WebSocket.  A client may send anything, so they are checked here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

#: The accepted values of each header.  W3C Trace Context: version, trace, span and flags; later
#: versions may have more.  Sentry: trace, span and whether it is sampled.
_FORMS = {
    "traceparent": re.compile(r"(?!ff)[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[\x21-\x7e]{0,200})?"),
    "tracestate": re.compile(r"[\t\x20-\x7e]{1,512}"),
    "sentry-trace": re.compile(r"[0-9a-f]{32}-[0-9a-f]{16}(-[01])?"),
    "baggage": re.compile(r"[\t\x20-\x7e]{1,8192}"),
}

#: The names of the headers.
NAMES = tuple(_FORMS)

#: In ``task.request``: whether the worker's threads have passed the message on to Celery's pool.
HANDED_OVER = "channelsq_handed_over"

#: Headers that a request may have several times; their values form one list.
_LISTS = frozenset({"tracestate", "baggage"})

#: Headers without a meaning unless another is present.
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
            continue  # it is unknown which of them the caller sent
        value = ",".join(each)
        if _FORMS[name].fullmatch(value):
            found[name] = value
    return {name: value for name, value in found.items() if _NEEDS.get(name, name) in found}


def _pairs(headers: object) -> Iterable[tuple[str, str]]:
    """Yield names, in lower case, and values of headers, which may have any form."""
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
    """Add a message's trace headers to its task's request, where Celery's instrumentations look for them.

    OpenTelemetry looks among the request's attributes; others, such as Sentry, look in its ``headers``.

    Args:
        request: the data of ``task.request``.
        content: the message's content.
        instead: replace trace headers of the request; otherwise the request's own are kept.
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
    """Add the message's trace headers to the request of a consumer's task that runs in Celery's own pool.

    A thread outside of any trace has published such a message for the pool, and an instrumentation may have recorded
    that context.

    Args:
        request: the data of ``task.request``.
        args: the task's arguments: a channel and the content of its message.
    """
    if isinstance(args, (list, tuple)) and len(args) == 2 and isinstance(args[1], Mapping):
        add_to(request, args[1], instead=bool(request.get(HANDED_OVER)))
