"""One trace from a browser's request to the task that a view or a consumer calls, and errors with their request."""

from __future__ import annotations

import contextlib
import gzip
import json
import secrets
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

from tests.support.brokers import make_broker
from tests.support.project import Project
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.redis,
    pytest.mark.timeout(120),
    pytest.mark.ways("prefork-worker_process_init|threads-worker_process_init|embedded|errors_alone"),
]


NOTE = "tests.project.traced.note"
VIEWS = "run/channelsq.handler.ViewConsumer"


class Dsn:
    """A server that takes Sentry's envelopes."""

    def __init__(self) -> None:
        self.items: list[tuple[str, dict[str, Any]]] = []
        items = self.items

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                lines = iter(body.split(b"\n")[1:])
                for header in lines:
                    if header:
                        items.append((json.loads(header)["type"], json.loads(next(lines))))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://key@127.0.0.1:{self._server.server_port}/1"

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Return the items of a kind: "event" or "transaction"."""
        return [item for each, item in self.items if each == kind]

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()


class Traced:
    """The traced project, and what its SDKs tell."""

    def __init__(self, project: Project, dsn: Dsn, pool: str, start: str) -> None:
        self.project = project
        self.dsn = dsn
        self.pool = pool
        #: Whether Sentry's integration, which must start before Celery makes its tracers, is told of ordinary tasks.
        #: The spans of a task that is called; one in place is not published.
        self.task = (f"run/{NOTE}",) if pool == "embedded" else (f"apply_async/{NOTE}", f"run/{NOTE}")
        self.tells_of_tasks = (pool, start) != ("prefork", "worker_process_init")

    def get(self, path: str, **options: Any) -> httpx.Response:
        """The answer to a request."""
        return httpx.get(f"{self.project.url}{path}", timeout=30, trust_env=False, **options)

    @contextlib.contextmanager
    def socket(self, path: str, **headers: str) -> Iterator[ClientConnection]:
        """An open WebSocket."""
        url = f"{self.project.ws_url}{path}"
        with connect(url, additional_headers=headers, open_timeout=30, close_timeout=5) as socket:
            yield socket

    def spans(self, *names: str, **sought: object) -> list[dict[str, Any]]:
        """The spans with these attributes, once those with the names are there, which are listed first."""
        found: list[dict[str, Any]] = []

        def are_there() -> bool:
            every = map(json.loads, self.project.recorded("spans"))
            found[:] = [span for span in every if all(span[key] == value for key, value in sought.items())]
            have = [span["name"] for span in found]
            return all(have.count(name) >= names.count(name) for name in names)

        wait_until(are_there, f"spans {names} with {sought}")
        return sorted(found, key=lambda span: names.index(span["name"]) if span["name"] in names else len(names))

    def told(self, kind: str, trace: str, count: int) -> list[dict[str, Any]]:
        """Sentry's items of a kind in a trace, once there are so many."""

        def found() -> list[dict[str, Any]]:
            return [item for item in self.dsn.of(kind) if item["contexts"]["trace"]["trace_id"] == trace]

        wait_until(lambda: len(found()) >= count, f"{count} of {kind}")
        return found()


class Caller:
    """A client that traces itself."""

    def __init__(self) -> None:
        self.trace, self.span = secrets.token_hex(16), secrets.token_hex(8)
        self.headers = {
            "traceparent": f"00-{self.trace}-{self.span}-01",
            "tracestate": "vendor=opaque",
            "sentry-trace": f"{self.trace}-{self.span}-1",
            "baggage": f"sentry-trace_id={self.trace},sentry-public_key=key,sentry-sampled=true",
        }


WAYS = [
    ("prefork", "worker_process_init"),
    ("prefork", "celeryd_init"),
    ("prefork", "settings"),
    ("threads", "worker_process_init"),
    ("threads", "settings"),
    ("solo", "worker_process_init"),
    ("gevent", "worker_process_init"),
    ("embedded", "settings"),
    ("threads", "settings", "redis"),
    pytest.param(("prefork", "settings", "rabbitmq"), marks=pytest.mark.rabbitmq),
]


@pytest.fixture(scope="module", params=WAYS, ids="-".join)
def traced(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    pool, start, *others = request.param
    dsn = Dsn()
    env = {
        "DJANGO_SETTINGS_MODULE": "tests.project.traced_settings",
        "TEST_DSN": dsn.url,
        "TEST_START": start,
        "PYTHONHASHSEED": "random",  # started as a user's programs are: what is imported before the SDKs matters
    }
    if pool != "embedded":
        env = {**make_broker(request, *others or ["redis-streams"]).env, **env}
    project = Project(tmp_path_factory.mktemp("traced"), None, env)
    try:
        project.migrate()
        (project.records / "started").unlink(missing_ok=True)
        project.start_interface()
        if pool != "embedded":
            project.start_worker("-P", pool, "-c", "1")
        yield Traced(project, dsn, pool, start)
    finally:
        project.stop()
        dsn.close()


def assert_chain(spans: list[dict[str, Any]], first_parent: str) -> None:
    """Check that each span is a child of the one before it."""
    assert [span["parent"] for span in spans] == [first_parent, *(span["id"] for span in spans[:-1])]


def test_one_trace_from_a_page_to_its_task(traced: Traced) -> None:
    caller = Caller()
    assert traced.get("/pages/7/?q=1", headers=caller.headers).status_code == 200
    page = "GET pages/<int:number>/"
    spans = traced.spans(VIEWS, page, *traced.task, trace=caller.trace)
    assert_chain(spans, caller.span)
    assert {span["state"] for span in spans} == {"vendor=opaque"}
    assert not any(span["failed"] for span in spans)
    view = spans[1]["attributes"]
    assert view["http.method"] == "GET"
    assert view["http.status_code"] == 200
    assert view["http.url"] == f"{traced.project.url}/pages/7/?q=1"
    assert view["http.route"] == "pages/<int:number>/"
    # Sentry's names, in the same trace.
    first, *others = traced.told("transaction", caller.trace, 2 if traced.tells_of_tasks else 1)
    transactions = {each["transaction"]: each for each in (first, *others)}
    by_page = transactions["/pages/{number}/"]
    assert by_page["contexts"]["trace"]["parent_span_id"] == caller.span
    assert by_page["request"]["url"] == f"{traced.project.url}/pages/7/"
    assert by_page["request"]["method"] == "GET"
    assert (NOTE in transactions) == traced.tells_of_tasks


def test_one_trace_from_a_handshake_to_a_task(traced: Traced) -> None:
    caller = Caller()
    with traced.socket("/", **caller.headers) as socket:
        names = "run/tests.project.traced.connect", *traced.task
        assert_chain(traced.spans(*names, trace=caller.trace), caller.span)
        # No frame has headers: each is the beginning of a trace.
        traces: list[str] = []
        for text in ("first", "second"):
            socket.send(text)
            assert socket.recv(timeout=30) == text
            name = "run/tests.project.traced.receive"
            run = traced.spans(*[name] * (len(traces) + 1), name=name)[-1]
            assert run["parent"] == ""
            assert run["links"] == [caller.trace]
            assert_chain(traced.spans(name, *traced.task, trace=run["trace"]), "")
            traces.append(run["trace"])
    assert len({caller.trace, *traces}) == 3


@pytest.mark.parametrize("path", ["limited", "stubborn"])
def test_consumers_that_run_elsewhere_or_again_are_in_the_trace(traced: Traced, path: str) -> None:
    caller = Caller()
    with traced.socket(f"/{path}/", **caller.headers):
        name = f"run/tests.project.traced.{path}"
        runs = traced.spans(*[name] * (2 if path == "stubborn" else 1), trace=caller.trace)
        assert [run["parent"] for run in runs].count(caller.span) >= 1


def test_headers_in_a_message_carry_a_trace_to_another_consumer(traced: Traced) -> None:
    caller = Caller()
    assert traced.get("/raw/", headers=caller.headers).text == "raw"
    traced.spans("run/tests.project.traced.raw", "run/tests.project.traced.onwards", trace=caller.trace)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"traceparent": "00-0-0-01", "sentry-trace": "x"},
        {"traceparent": f"00-{'0' * 32}-{'0' * 16}-01"},
        {"traceparent": "00-" + "a" * 5000, "baggage": "k=" + "v" * 9000, "tracestate": "a=" + "b" * 5000},
        {"traceparent": f"ff-{'a' * 32}-{'b' * 16}-01", "baggage": "=;=,,\xff;sentry-trace_id"},
    ],
    ids=["none", "malformed", "zero", "long", "odd"],
)
def test_headers_that_are_no_trace_begin_one(traced: Traced, headers: dict[str, str]) -> None:
    sent = {name: value.encode("latin-1") for name, value in headers.items()}
    number = str(secrets.randbelow(10**9))
    assert traced.get(f"/pages/{number}/", headers=sent).status_code == 200
    spans = traced.spans("GET pages/<int:number>/")
    (view,) = [span for span in spans if span["attributes"].get("http.url", "").endswith(f"/pages/{number}/")]
    (run,) = traced.spans(VIEWS, trace=view["trace"], name=VIEWS)
    assert run["parent"] == ""


def test_a_failing_view_is_one_event_with_its_request(traced: Traced) -> None:
    cookies = dict(traced.get("/login/").cookies)
    caller = Caller()
    path, quoted = "/failing/3/\N{LATIN SMALL LETTER O WITH DIAERESIS}\N{SNOWMAN}/", "/failing/3/%C3%B6%E2%98%83/"
    headers = {**caller.headers, "Authorization": "Bearer hidden-word", "X-Shown": "yes"}
    assert traced.get(f"{quoted}?q=1", headers=headers, cookies=cookies).status_code == 500
    (event,) = traced.told("event", caller.trace, 1)
    assert event["exception"]["values"][-1]["value"] == "page 3 failed"
    request = event["request"]
    assert request["url"] in (f"{traced.project.url}{path}", f"{traced.project.url}{quoted}")
    assert (request["method"], request["query_string"]) == ("GET", "q=1")
    assert request["headers"]["X-Shown"] == "yes"
    assert "hidden-word" not in json.dumps(event)
    assert cookies["sessionid"] not in json.dumps(request)
    assert event["user"]["username"] == "ann"
    # Whatever is told of later comes after what was told of before.
    with traced.socket("/") as socket:
        socket.send("fail")
        wait_until(lambda: "receive failed" in json.dumps(traced.dsn.of("event")), "the next event")
    values = [event["exception"]["values"][-1]["value"] for event in traced.dsn.of("event")]
    assert values == ["page 3 failed", "receive failed"]
    failed = traced.spans("run/tests.project.traced.receive", name="run/tests.project.traced.receive", failed=True)
    assert len(failed) == 1


def test_a_sentry_that_records_errors_alone_knows_request_and_trace(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with contextlib.closing(Dsn()) as dsn:
        env = {
            **make_broker(request, "redis-streams").env,
            "DJANGO_SETTINGS_MODULE": "tests.project.traced_settings",
            "TEST_DSN": dsn.url,
            "TEST_START": "settings",
            "TEST_ERRORS_ALONE": "1",
            "PYTHONHASHSEED": "random",  # see above
        }
        project = Project(tmp_path, None, env)
        try:
            project.migrate()
            project.start_interface()
            project.start_worker("-c", "1")
            traced = Traced(project, dsn, "threads", "settings")
            caller = Caller()
            headers = {"Authorization": "Bearer hidden-word"}
            assert traced.get("/failing/1/", headers={**headers, **caller.headers}).status_code == 500
            assert traced.get("/failing/2/", headers=headers).status_code == 500
            wait_until(lambda: len(dsn.of("event")) == 2, "two events")
            for number, event in enumerate(dsn.of("event"), 1):
                assert event["exception"]["values"][-1]["value"] == f"page {number} failed"
                assert event["request"]["url"] == f"{project.url}/failing/{number}/"
                assert event["request"]["method"] == "GET"
                assert event["extra"]["celery-job"]["task_name"] == "channelsq.handler.ViewConsumer"
                assert "hidden-word" not in json.dumps(event)
            traces = [event["contexts"]["trace"]["trace_id"] for event in dsn.of("event")]
            assert traces[0] == caller.trace != traces[1]
        finally:
            project.stop()


def test_what_is_held_is_sent_when_the_worker_ends(traced: Traced) -> None:
    process = traced.project.interface if traced.pool == "embedded" else traced.project.worker
    assert traced.get("/pages/1234/").status_code == 200
    traced.project.wait_for_record("notes", "page 1234")
    for name in ("started", "process ready"):  # once in each process
        processes = traced.project.recorded(name)
        assert processes
        assert len(set(processes)) == len(processes)
    assert not traced.project.recorded("late spans")
    process.terminate()
    late = [json.loads(line)["name"] for line in traced.project.recorded("late spans")]
    assert VIEWS in late
