"""The headers of clients that count as those of a trace, and their places."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channelsq.delivery import trace_context
from tests.support.processes import ROOT, environment

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
SENTRY = f"{TRACE}-{SPAN}-1"


def found(*headers: tuple[Any, Any]) -> dict[str, str]:
    return trace_context.of_message({"headers": [list(pair) for pair in headers]})


def test_a_traces_headers_are_taken_and_no_others() -> None:
    headers = {"traceparent": PARENT, "tracestate": "a=1", "baggage": "k=v", "sentry-trace": SENTRY}
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert found((b"cookie", b"x"), *pairs, (b"traceparents", b"y")) == headers
    assert trace_context.of_message({"headers": {**headers, "cookie": "x"}}) == headers
    assert found((b"TraceParent", f"\t{PARENT} ".encode())) == {"traceparent": PARENT}


MALFORMED = [
    "",
    "x",
    PARENT[:-1],
    PARENT + "0",
    PARENT.upper(),
    f"ff{PARENT[2:]}",
    f"{PARENT}-{'x' * 201}",
    f"{PARENT}\n",
]


@pytest.mark.parametrize("value", [*MALFORMED, f"{PARENT}-\xff"])
def test_a_malformed_traceparent_is_left_out_with_its_tracestate(value: str) -> None:
    assert found((b"traceparent", value.encode("latin-1")), (b"tracestate", b"a=1")) == {}


def test_later_versions_of_traceparent_may_say_more() -> None:
    value = f"cc{PARENT[2:]}-what-the-future-brings"
    assert found((b"traceparent", value.encode())) == {"traceparent": value}


def test_several_headers_are_a_list_or_none() -> None:
    first, second = (b"traceparent", PARENT.encode()), (b"traceparent", PARENT.replace("4bf", "5bf").encode())
    assert found(first, second) == {}
    assert found((b"sentry-trace", SENTRY.encode()), (b"sentry-trace", SENTRY.encode())) == {}
    assert found(first, (b"tracestate", b"a=1"), (b"tracestate", b"b=2"))["tracestate"] == "a=1,b=2"
    assert found((b"baggage", b"a=1"), (b"baggage", b"b=2")) == {"baggage": "a=1,b=2"}


@pytest.mark.parametrize(("name", "most"), [("tracestate", 512), ("baggage", 8192)])
def test_long_headers_are_left_out(name: str, most: int) -> None:
    first = (b"traceparent", PARENT.encode())
    assert name in found(first, (name.encode(), b"k" * most))
    assert name not in found(first, (name.encode(), b"k" * (most + 1)))
    half = (name.encode(), b"k" * (most // 2))
    assert name not in found(first, half, half)  # with a comma between them


@given(
    st.dictionaries(
        st.just("headers"),
        st.recursive(
            st.none() | st.integers() | st.text() | st.binary() | st.sampled_from([b"traceparent", PARENT.encode()]),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        ),
    )
)
def test_headers_of_whatever_form_are_no_error(content: dict[str, Any]) -> None:
    for name, value in trace_context.of_message(content).items():
        assert trace_context._FORMS[name].fullmatch(value)


CONTENT = {"headers": [[b"traceparent", PARENT.encode()], [b"baggage", b"k=v"]]}


def test_a_request_gets_them_as_attributes_and_as_headers() -> None:
    request: dict[str, Any] = {"id": "1", "headers": {"own": 1}}
    trace_context.add_to(request, CONTENT)
    ours = {"traceparent": PARENT, "baggage": "k=v"}
    assert request == {"id": "1", **ours, "headers": {"own": 1, **ours}}


@pytest.mark.parametrize("there", [{"traceparent": "theirs"}, {"headers": {"sentry-trace": "theirs"}}])
def test_a_publishers_own_trace_stays_unless_threads_handed_the_message_over(there: dict[str, Any]) -> None:
    request = {**there}
    trace_context.restore(request, ["channel", CONTENT])
    assert request == there
    request = {**there, trace_context.HANDED_OVER: True}
    trace_context.restore(request, ["channel", CONTENT])
    assert request["traceparent"] == request["headers"]["traceparent"] == PARENT
    assert "sentry-trace" not in request["headers"]


def test_what_is_no_consumers_message_changes_nothing() -> None:
    for args in (None, [], ["channel"], ["channel", "text"], ["channel", {}], [1, {"headers": 7}]):
        request: dict[str, Any] = {"id": "1"}
        trace_context.restore(request, args)
        assert request == {"id": "1"}


#: A program with Sentry, which changes Django for the whole process.
SENTRY_PROGRAM = """
import logging, sys
import django
from django.conf import settings
from django.http import HttpResponse
from django.urls import path

def fail(request):
    raise RuntimeError("failed")


urlpatterns = [path("", lambda request: HttpResponse("answered")), path("fail/", fail)]
settings.configure(
    ROOT_URLCONF=__name__, MIDDLEWARE=[], ALLOWED_HOSTS=["*"], INSTALLED_APPS=["channelsq"],
    CHANNEL_LAYERS={"default": {"BACKEND": "channelsq.layers.InMemoryChannelLayer", "ROUTING": []}},
)
django.setup()
logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s")
import sentry_sdk, sentry_sdk.integrations.wsgi as wsgi
from sentry_sdk.integrations.celery import CeleryIntegration

from channelsq.handler import AsgiHandler
from channelsq.message import Message
from channelsq.worker.running.isolation import fresh

handler = AsgiHandler()


def get(path):
    content = {"path": path, "method": "GET", "reply_channel": "r", "headers": [[b"host", b"example.com"]]}
    message = Message(content, "http.request", None)
    return fresh().run(lambda: [each["content"] for each in handler(message)])


def keep(event, hint):
    print("EVENT", event["request"]["method"], event["request"]["url"], event["transaction"])


sentry_sdk.init(
    dsn="http://key@127.0.0.1:1/1", shutdown_timeout=0, before_send=keep, disabled_integrations=[CeleryIntegration()]
)
"""

#: This Sentry has not what channelsq takes from it.
OTHER_SENTRY = """
assert wsgi._make_wsgi_event_processor({}, False)  # else another name must be found for it
del wsgi._make_wsgi_event_processor
for _ in range(2):
    print(get("/"))
"""


def lines_of(program: str) -> list[str]:
    """Return the lines that a program prints."""
    ran = subprocess.run(
        [sys.executable, "-c", SENTRY_PROGRAM + program],
        capture_output=True, text=True, cwd=ROOT, env=environment(), timeout=50,
    )  # fmt: skip
    assert not ran.returncode, ran.stderr
    return [line for line in ran.stdout.splitlines() if line]


def test_sentry_without_its_celery_integration_knows_each_views_own_request() -> None:
    """Then consumers run without Celery's tracer, and nothing but their context parts one request from another."""
    events = [line for line in lines_of("get('/'); get('/fail/'); get('/fail/')") if line.startswith("EVENT")]
    assert events == ["EVENT GET http://example.com/fail/ /fail/"] * 2


def test_another_sentry_is_told_of_once_and_harms_no_request() -> None:
    lines = lines_of(OTHER_SENTRY)
    assert [line for line in lines if line.startswith("[")] == ["[b'answered']"] * 2
    assert len([line for line in lines if "Sentry learns nothing of requests" in line]) == 1
