"""The browser library, in a real browser, against servers that behave and misbehave."""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.staticfiles.storage import ManifestStaticFilesStorage
from django.core.files.storage import FileSystemStorage
from playwright.sync_api import Browser, Page
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

from tests.support.markdown import rows
from tests.support.ports import free_port
from tests.support.processes import ROOT
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.browser]

STATIC = ROOT / "channelsq" / "static"
CLASSIC = '<script src="/channelsq/js/websocketbridge.js"></script>'
MODULE = """<script type="module">
  import {{ WebSocketBridge }} from "{}";
  window.WebSocketBridge = WebSocketBridge;
</script>"""


class Site:
    """Serves static files and a page of a test's own; with a strict content security policy."""

    def __init__(self, root: Path) -> None:
        self.pages: dict[str, str] = {}
        site = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args, directory=str(root))

            def do_GET(self) -> None:
                if self.path not in site.pages:
                    super().do_GET()
                    return
                body = f"<!doctype html><link rel=icon href=data:,>{site.pages[self.path]}".encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)


class Peer:
    """A WebSocket server on a port of its own, which can go away and come back."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"ws://127.0.0.1:{self.port}/"
        self.sockets: list[ServerConnection] = []
        self.received: list[str | bytes] = []
        #: Code and reason of each socket that has ended.
        self.closed: list[tuple[int | None, str | None]] = []
        self.refuse = False
        self._server: Server | None = None

    def start(self) -> None:
        """Listen."""
        self._server = serve(self._handle, "127.0.0.1", self.port, process_request=self._check)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _check(self, connection: ServerConnection, request: Any) -> Any:
        return connection.respond(403, "no") if self.refuse else None

    def _handle(self, connection: ServerConnection) -> None:
        self.sockets.append(connection)
        with contextlib.suppress(ConnectionClosed):
            for data in connection:
                self.received.append(data)
        self.closed.append((connection.close_code, connection.close_reason))

    def socket(self, number: int = 0) -> ServerConnection:
        """The socket of the so many-th connection, once it is there."""
        wait_until(lambda: len(self.sockets) > number, f"connection {number}")
        return self.sockets[number]

    def stop(self) -> None:
        """Stop listening, and close every socket (1001)."""
        if self._server is not None:
            self._server.shutdown()
            self._server = None


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    site = Site(STATIC)
    site.pages["/page"] = CLASSIC
    yield site
    site.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    peer.start()
    yield peer
    peer.stop()


@pytest.fixture(scope="module")
def context(chromium: Browser) -> Iterator[Any]:
    context = chromium.new_context()
    yield context
    context.close()


@pytest.fixture
def page(context: Any, site: Site) -> Iterator[Page]:
    """A page with the library, and what bridges tell in ``window.log``."""
    page = context.new_page()
    page.goto(f"{site.url}/page")
    page.evaluate(
        """() => {
          window.log = [];
          window.bridgeTo = (url, options) => {
            const bridge = window.bridge = new channels.WebSocketBridge(options);
            for (const type of ["open", "close", "statechange", "message", "binary", "error"]) {
              bridge.addEventListener(type, (event) =>
                log.push([type, event.code ?? (event.detail instanceof Error ? event.detail.message : event.detail)]));
            }
            bridge.connect(url);
          };
        }"""
    )
    yield page
    page.close()


def connect(page: Page, peer: Peer, **options: Any) -> ServerConnection:
    """A bridge to the peer that is open."""
    number = len(peer.sockets)
    page.evaluate("([url, options]) => bridgeTo(url, options)", [peer.url, options])
    socket = peer.socket(number)
    page.wait_for_function("bridge.state === 'open'")
    return socket


def logged(page: Page, *types: str) -> list[Any]:
    return [entry for entry in page.evaluate("log") if entry[0] in types]


QUICK = {"minDelay": 1, "maxDelay": 5, "minUptime": 0}


# -- as Channels 1 documents it


def test_it_connects_listens_and_sends(page: Page, peer: Peer) -> None:
    socket = connect(page, peer)
    page.evaluate("bridge.listen((action, stream) => log.push(['heard', [action, stream]]))")
    page.evaluate("bridge.send({prop1: 'value1'})")
    wait_until(lambda: peer.received == ['{"prop1":"value1"}'], "what was sent")
    for content in ({"a": 1}, [1], "text", None, 0):
        socket.send(json.dumps(content))
    page.wait_for_function("log.filter(([type]) => type === 'heard').length === 5")
    assert [heard for _, heard in logged(page, "heard")] == [
        [{"a": 1}, None],
        [[1], None],
        ["text", None],
        [None, None],
        [0, None],
    ]


def test_streams_go_both_ways(page: Page, peer: Peer) -> None:
    socket = connect(page, peer)
    page.evaluate(
        """() => {
          bridge.listen((action, stream) => log.push(["default", [action, stream]]));
          bridge.demultiplex("mystream", (action, stream) => log.push(["mystream", [action, stream]]));
          bridge.stream("mystream").send({a: 1});
        }"""
    )
    wait_until(lambda: peer.received == ['{"stream":"mystream","payload":{"a":1}}'], "what was sent")
    socket.send('{"stream": "mystream", "payload": {"b": 2}}')
    socket.send('{"stream": "nobodys", "payload": {}}')
    socket.send('{"last": true}')
    page.wait_for_function("log.some(([type]) => type === 'default')")
    assert logged(page, "mystream", "default") == [
        ["mystream", [{"b": 2}, "mystream"]],
        ["default", [{"last": True}, None]],
    ]


def test_a_path_is_one_of_the_pages_own_site(page: Page) -> None:
    urls = page.evaluate(
        """() => ["/chat/", undefined, "wss://example.org/x"].map((url) => {
          const socket = new channelsq.ReconnectingSocket(url);
          socket.close();
          return socket.url;
        })"""
    )
    host = page.evaluate("location.host")
    assert urls == [f"ws://{host}/chat/", f"ws://{host}", "wss://example.org/x"]


def test_a_function_is_asked_for_the_url_at_each_attempt(page: Page, peer: Peer) -> None:
    page.evaluate(
        """(url) => {
          let attempts = 0;
          window.bridge = new channels.WebSocketBridge({ minDelay: 1, maxDelay: 5 });
          bridge.connect(() => `${url}?attempt=${++attempts}`);
        }""",
        peer.url,
    )
    peer.socket(0).close(1012)
    paths = [peer.socket(number).request.path for number in range(2)]  # type: ignore[union-attr]
    assert paths == ["/?attempt=1", "/?attempt=2"]


def test_the_socket_has_a_websockets_events_and_handlers(page: Page, peer: Peer) -> None:
    page.evaluate(
        """(url) => {
          window.bridge = new channels.WebSocketBridge({ minDelay: 1, maxDelay: 5 });
          bridge.connect(url);
          bridge.socket.addEventListener("open", () => log.push(["open", bridge.socket.readyState]));
          bridge.socket.onclose = (event) => log.push(["close", event.code]);
          bridge.socket.onmessage = (event) => log.push(["message", event.data]);
        }""",
        peer.url,
    )
    peer.socket(0).send("hello")
    page.wait_for_function("log.length === 2")
    peer.socket(0).close(1012)
    peer.socket(1)
    page.wait_for_function("log.length === 4")
    assert page.evaluate("log") == [["open", 1], ["message", "hello"], ["close", 1012], ["open", 1]]
    assert page.evaluate("[bridge.socket.OPEN, channelsq.ReconnectingSocket.CLOSED]") == [1, 3]


# -- coming back


def test_it_comes_back_when_the_server_does(page: Page, peer: Peer) -> None:
    connect(page, peer, **QUICK)
    page.evaluate("bridge.listen(() => {})")
    peer.stop()
    page.wait_for_function("bridge.socket.retries >= 3")
    assert page.evaluate("bridge.socket.readyState") == 0
    page.evaluate("bridge.send('while away')")
    assert page.evaluate("bridge.socket.queued") == 1
    peer.start()
    wait_until(lambda: peer.received == ['"while away"'], "what was sent while it was away")
    states = [state for _, state in logged(page, "statechange")]
    assert states[:3] == ["open", "waiting", "connecting"]
    assert states[-1] == "open"


def test_what_waits_is_sent_in_order_before_what_is_sent_later(page: Page, peer: Peer) -> None:
    page.evaluate(
        """(url) => {
          bridgeTo(url);
          bridge.addEventListener("open", () => bridge.send("last"));
          bridge.send("first");
          bridge.send("second");
        }""",
        peer.url,
    )
    wait_until(lambda: peer.received == ['"first"', '"second"', '"last"'], "all three")


def test_no_more_than_max_queue_messages_wait(page: Page, peer: Peer) -> None:
    peer.refuse = True
    page.evaluate("(url) => bridgeTo(url, { maxQueue: 2 })", peer.url)
    problem = page.evaluate(
        """() => {
          bridge.send(1); bridge.send(2);
          try { bridge.send(3); } catch (error) { return [error.name, error.message]; }
        }"""
    )
    assert problem[0] == "QuotaExceededError"
    assert "maxQueue" in problem[1]
    peer.refuse = False
    wait_until(lambda: peer.received == ["1", "2"], "those that waited")


def test_the_waits_grow_and_are_anywhere_up_to_the_longest(page: Page, peer: Peer) -> None:
    peer.refuse = True
    waits = page.evaluate(
        """(url) => new Promise((tell) => {
          const waits = [], timeout = window.setTimeout;
          window.setTimeout = (call, ms) => {
            if (ms !== 7777) waits.push(ms);
            if (waits.length === 5) tell(waits);
            return timeout(call, ms === 7777 ? ms : 0);
          };
          Math.random = () => 0.5;
          bridgeTo(url, { minDelay: 100, factor: 3, maxDelay: 1000, connectionTimeout: 7777 });
        })""",
        peer.url,
    )
    assert waits == [50, 150, 450, 500, 500]
    page.evaluate("bridge.close()")


def test_a_connection_that_lasts_begins_the_waits_anew_and_a_short_one_does_not(page: Page, peer: Peer) -> None:
    connect(page, peer, minDelay=1, maxDelay=5, minUptime=60_000)
    for number in range(1, 4):
        peer.socket(number - 1).close(1011)
        peer.socket(number)
    page.wait_for_function("bridge.state === 'open' && bridge.socket.retries === 3")
    page.evaluate("bridge.close()")
    connect(page, peer, **QUICK)
    for number in range(5, 8):
        peer.socket(number - 1).close(1011)
        peer.socket(number)
    page.wait_for_function("bridge.state === 'open' && bridge.socket.retries === 1")


def test_it_gives_up_after_max_retries(page: Page, peer: Peer) -> None:
    peer.refuse = True
    page.evaluate("(url) => bridgeTo(url, { minDelay: 1, maxRetries: 2 })", peer.url)
    page.wait_for_function("bridge.state === 'closed'")
    assert logged(page, "close") == [["close", 1006]] * 3
    assert page.evaluate("bridge.socket.readyState") == 3


@pytest.mark.parametrize(("codes", "code"), [(None, 1000), ([4003], 4003)], ids=str)
def test_it_stays_away_after_the_codes_that_say_so(page: Page, peer: Peer, codes: Any, code: int) -> None:
    socket = connect(page, peer, **QUICK, **({"stopCodes": codes} if codes else {}))
    socket.close(code, "go away")
    page.wait_for_function("bridge.state === 'closed'")
    assert logged(page, "close") == [["close", code]]
    name = page.evaluate("() => { try { bridge.send(1); } catch (error) { return error.name; } }")
    assert name == "InvalidStateError"


def test_a_connection_that_hangs_is_given_up(page: Page) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        page.evaluate(
            "([url, options]) => bridgeTo(url, options)",
            [f"ws://127.0.0.1:{silent.getsockname()[1]}/", {**QUICK, "connectionTimeout": 30}],
        )
        page.wait_for_function("bridge.socket.retries >= 2")
        page.evaluate("bridge.close()")


def test_it_comes_back_at_once_when_the_browser_is_online_again(context: Any, page: Page, peer: Peer) -> None:
    connect(page, peer, minDelay=10_000_000, maxDelay=10_000_000)
    context.set_offline(True)
    peer.socket(0).close(1011)
    page.wait_for_function("bridge.state === 'waiting'")
    context.set_offline(False)
    peer.socket(1)
    page.wait_for_function("bridge.state === 'open'")


# -- its end


def test_close_is_for_good_and_leaves_nothing(page: Page, peer: Peer) -> None:
    counts = page.evaluate(
        """() => {
          const counts = window.counts = { timers: new Set(), listeners: 0 };
          const { setTimeout, clearTimeout } = window;
          window.setTimeout = (call, ms) => {
            const timer = setTimeout(() => { counts.timers.delete(timer); call(); }, ms);
            counts.timers.add(timer);
            return timer;
          };
          window.clearTimeout = (timer) => { counts.timers.delete(timer); clearTimeout(timer); };
          for (const target of [window, document]) {
            const add = target.addEventListener, remove = target.removeEventListener;
            const count = (type, by) => {
              if (type === "online" || type === "visibilitychange") counts.listeners += by;
            };
            target.addEventListener = (...args) => { count(args[0], 1); return add.apply(target, args); };
            target.removeEventListener = (...args) => { count(args[0], -1); return remove.apply(target, args); };
          }
          return counts.listeners;
        }"""
    )
    assert counts == 0
    connect(page, peer, **QUICK)
    assert page.evaluate("[counts.listeners, counts.timers.size]") == [2, 0]
    page.evaluate("bridge.close(4000, 'done')")
    wait_until(lambda: peer.closed == [(4000, "done")], "the end of the socket")
    page.wait_for_function("log.some(([type]) => type === 'close')")
    assert logged(page, "close") == [["close", 4000]]
    assert page.evaluate("[counts.listeners, counts.timers.size, bridge.state]") == [0, 0, "closed"]

    peer.refuse = True
    page.evaluate("(url) => bridgeTo(url, { minDelay: 10000000, maxDelay: 10000000 })", peer.url)
    page.wait_for_function("bridge.state === 'waiting'")
    page.evaluate("bridge.close(); bridge.close()")
    assert page.evaluate("[counts.listeners, counts.timers.size, bridge.state]") == [0, 0, "closed"]
    assert len(peer.sockets) == 1


def test_connect_again_closes_the_socket_before(page: Page, peer: Peer) -> None:
    connect(page, peer)
    page.evaluate("(url) => bridge.connect(url)", peer.url)
    peer.socket(1).send('"second"')
    wait_until(lambda: len(peer.closed) == 1, "the end of the first socket")
    page.wait_for_function("log.some(([type]) => type === 'message')")
    assert logged(page, "message") == [["message", "second"]]


# -- what is no message


def test_a_frame_that_is_no_json_is_an_error_and_the_next_is_heard(page: Page, peer: Peer) -> None:
    socket = connect(page, peer)
    page.evaluate("bridge.listen((content) => log.push(['heard', content]))")
    socket.send("no json")
    socket.send(b"\0\1")
    socket.send('"fine"')
    page.wait_for_function("log.some(([type]) => type === 'heard')")
    assert logged(page, "error") == [["error", "a frame could not be decoded: no json"]]
    assert len(logged(page, "binary")) == 1
    assert logged(page, "heard") == [["heard", "fine"]]


def test_another_codec(page: Page, peer: Peer) -> None:
    socket = connect(page, peer)
    page.evaluate(
        """() => {
          bridge.encode = (content) => `<${content}>`;
          bridge.decode = (text) => text.toUpperCase();
          bridge.listen((content) => log.push(["heard", content]));
          bridge.send("x");
        }"""
    )
    wait_until(lambda: peer.received == ["<x>"], "what was sent")
    socket.send("loud")
    page.wait_for_function("log.some(([type]) => type === 'heard')")
    assert logged(page, "heard") == [["heard", "LOUD"]]


def test_mistakes_are_told(page: Page) -> None:
    problems = page.evaluate(
        """() => [
          () => new channels.WebSocketBridge().send(1),
          () => new channels.WebSocketBridge({ minDelya: 1 }).connect("/x"),
        ].map((wrong) => { try { wrong(); } catch (error) { return `${error.name}: ${error.message}`; } })"""
    )
    assert problems[0] == "InvalidStateError: connect() comes before send()"
    assert problems[1].startswith("TypeError: unknown options minDelya; there are minDelay, maxDelay")
    assert page.evaluate("new channels.WebSocketBridge().state") == "idle"


# -- ways to load it


def test_it_is_a_module_too(context: Any, site: Site) -> None:
    site.pages["/module"] = MODULE.format("/channelsq/js/websocketbridge.mjs")
    page = context.new_page()
    page.goto(f"{site.url}/module")
    page.wait_for_function("window.WebSocketBridge !== undefined")
    assert page.evaluate("WebSocketBridge === channels.WebSocketBridge && new WebSocketBridge().state") == "idle"
    page.close()


def test_it_runs_under_a_strict_policy(context: Any, site: Site) -> None:
    policy = '<meta http-equiv="Content-Security-Policy" content="default-src \'self\'; img-src data:">'
    site.pages["/policy"] = policy + CLASSIC
    page = context.new_page()
    errors: list[str] = []
    page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    page.goto(f"{site.url}/policy")
    assert page.evaluate("new channels.WebSocketBridge().state") == "idle"
    assert not errors
    page.close()


@pytest.mark.parametrize("aggregated", [False, True], ids=["files", "imports too"])
def test_it_survives_hashed_names(context: Any, tmp_path: Path, aggregated: bool) -> None:
    class Storage(ManifestStaticFilesStorage):
        support_js_module_import_aggregation = aggregated

    tmp_path = tmp_path / "static"
    storage = Storage(location=tmp_path, base_url="/static/")
    names = ["channelsq/js/websocketbridge.js", "channelsq/js/websocketbridge.mjs"]
    source = FileSystemStorage(STATIC)
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((STATIC / name).read_bytes())
    list(storage.post_process({name: (source, name) for name in names}))
    hashed = Site(tmp_path.parent)
    try:
        hashed.pages["/page"] = f'<script src="{storage.url(names[0], force=True)}"></script>'
        hashed.pages["/module"] = MODULE.format(storage.url(names[1], force=True))
        for path, name in (("/page", "channels.WebSocketBridge"), ("/module", "window.WebSocketBridge")):
            page = context.new_page()
            page.goto(f"{hashed.url}{path}")
            page.wait_for_function(f"window.channels && {name} !== undefined")
            page.close()
    finally:
        hashed.close()


def test_the_documented_options_are_those_of_the_source(page: Page) -> None:
    written = {row[0].strip("`"): row[1].strip("`") for row in rows(ROOT / "docs" / "javascript.md") if len(row) == 3}
    defaults = page.evaluate(
        """() => Object.entries(channelsq.ReconnectingSocket.DEFAULTS).map(
          ([name, value]) => [name, Array.isArray(value) ? JSON.stringify(value) : String(value)])"""
    )
    assert dict(defaults).items() <= written.items()
    source = (STATIC / "channelsq/js/websocketbridge.js").read_text()
    assert {name for name, _ in defaults} == set(re.findall(r"@property \{.*?\} (\w+)", source))
