"""The browser library, in a real browser, against servers that behave and misbehave."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.staticfiles.storage import ManifestStaticFilesStorage
from django.core.files.storage import FileSystemStorage
from playwright.sync_api import Browser, Page
from websockets.sync.server import ServerConnection

from tests.support.markdown import doc_page, rows
from tests.support.peers import Peer, Site
from tests.support.processes import ROOT
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.browser]

STATIC = ROOT / "channelsq" / "static"
CLASSIC = '<script src="/channelsq/js/websocketbridge.js"></script>'
MODULE = """<script type="module">
  import {{ WebSocketBridge }} from "{}";
  window.WebSocketBridge = WebSocketBridge;
</script>"""


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
            for (const type of ["open", "close", "connecting", "waiting", "reconnect", "statechange", "unsent",
                                "message", "unclaimed", "binary", "error"]) {
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


def test_it_takes_the_options_of_channels_1(page: Page, peer: Peer) -> None:
    options = {
        "minReconnectionDelay": 7,
        "maxReconnectionDelay": 8,
        "reconnectionDelayGrowFactor": 1.5,
        "connectionTimeout": 4000,
        "maxRetries": 3,
        "debug": True,
    }
    page.evaluate(
        """([url, options]) => {
          console.debug = (...words) => log.push(["debug", words]);
          window.bridge = new channels.WebSocketBridge();
          bridge.connect(url, undefined, options);
        }""",
        [peer.url, options],
    )
    taken = page.evaluate("bridge.socket.options")
    assert [taken[name] for name in ("minDelay", "maxDelay", "factor", "connectionTimeout", "maxRetries")] == [
        7,
        8,
        1.5,
        4000,
        3,
    ]
    page.wait_for_function("bridge.state === 'open'")
    assert [words[2] for _, words in logged(page, "debug")] == ["connecting", "open"]


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
    assert logged(page, "unclaimed") == [["unclaimed", {"stream": "nobodys", "payload": {}}]]


def test_a_path_is_one_of_the_pages_own_site(page: Page) -> None:
    urls = page.evaluate(
        """() => ["/chat/", "?a=1#top", undefined, "wss://example.org/x", "https://example.org/x"].map((url) => {
          const socket = new channelsq.ReconnectingSocket(url);
          socket.close();
          return socket.url;
        })"""
    )
    host = page.evaluate("location.host")
    assert urls == [
        f"ws://{host}/chat/",
        f"ws://{host}/page?a=1",
        f"ws://{host}",
        "wss://example.org/x",
        "wss://example.org/x",
    ]


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
    assert states[:4] == ["connecting", "open", "waiting", "connecting"]
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


@pytest.mark.parametrize("drawn", [0, 0.5, 0.9375])
def test_the_waits_grow_and_are_anywhere_up_to_the_longest(page: Page, peer: Peer, drawn: float) -> None:
    peer.refuse = True
    waits = page.evaluate(
        """([url, drawn]) => new Promise((tell) => {
          const waits = [], timeout = window.setTimeout;
          window.setTimeout = (call, ms) => {
            if (ms !== 7777) waits.push(ms);
            if (waits.length === 5) tell(waits);
            return timeout(call, ms === 7777 ? ms : 0);
          };
          Math.random = () => drawn;
          bridgeTo(url, { minDelay: 100, factor: 3, maxDelay: 1000, connectionTimeout: 7777 });
        })""",
        [peer.url, drawn],
    )
    assert waits == [drawn * longest for longest in (100, 300, 900, 1000, 1000)]
    assert [told["delay"] for _, told in logged(page, "waiting")][:5] == waits
    assert [told["retries"] for _, told in logged(page, "waiting")][:5] == [1, 2, 3, 4, 5]
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


@pytest.mark.parametrize(("codes", "code"), [(None, 1000), (None, 1008), ([4003], 4003)], ids=str)
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


def test_it_comes_back_at_once_when_somebody_looks_at_the_page_again(page: Page, peer: Peer) -> None:
    connect(page, peer, minDelay=10_000_000, maxDelay=10_000_000)
    peer.socket(0).close(1011)
    page.wait_for_function("bridge.state === 'waiting'")
    hidden = """(hidden) => {
      Object.defineProperty(document, "hidden", { configurable: true, value: hidden });
      document.dispatchEvent(new Event("visibilitychange"));
      return bridge.state;
    }"""
    assert page.evaluate(hidden, True) == "waiting"
    assert page.evaluate(hidden, False) == "connecting"
    peer.socket(1)


def test_it_comes_back_at_once_when_the_page_comes_from_the_browsers_cache(page: Page, peer: Peer) -> None:
    connect(page, peer, minDelay=10_000_000, maxDelay=10_000_000)
    shown = """(persisted) => {
      dispatchEvent(new PageTransitionEvent("pageshow", { persisted }));
      return bridge.state;
    }"""
    assert page.evaluate(shown, True) == "open"
    peer.socket(0).close(1011)
    page.wait_for_function("bridge.state === 'waiting'")
    assert page.evaluate(shown, False) == "waiting"
    assert page.evaluate(shown, True) == "connecting"
    peer.socket(1)


def test_a_silent_connection_is_taken_for_lost(context: Any, site: Site, peer: Peer) -> None:
    page = context.new_page()
    page.clock.install()
    page.goto(f"{site.url}/page")
    page.evaluate(
        """(url) => {
          window.ends = [], window.heard = 0;
          window.bridge = new channels.WebSocketBridge({ silenceTimeout: 60_000, minDelay: 0 });
          bridge.addEventListener("close", ({ code, reason }) => ends.push([code, reason]));
          bridge.addEventListener("message", () => heard++);
          bridge.connect(url);
        }""",
        peer.url,
    )
    page.wait_for_function("bridge.state === 'open'")
    page.clock.run_for(59_000)
    peer.socket(0).send("1")
    page.wait_for_function("heard === 1")
    page.clock.run_for(58_000)
    assert page.evaluate("[bridge.state, ends.length]") == ["open", 0]
    page.clock.run_for(3_000)
    peer.socket(1)
    assert page.evaluate("ends") == [[1006, "nothing came for 60000 ms"]]
    page.close()


def test_reconnect_gives_up_what_there_is_and_connects_at_once(page: Page, peer: Peer) -> None:
    connect(page, peer, minDelay=10_000_000, maxDelay=10_000_000)
    page.evaluate("bridge.reconnect()")
    peer.socket(1)
    page.wait_for_function("bridge.state === 'open'")
    assert logged(page, "close") == [["close", 1006]]
    wait_until(lambda: len(peer.closed) == 1, "the end of the first connection")

    peer.socket(1).close(1011)
    page.wait_for_function("bridge.state === 'waiting'")
    page.evaluate("bridge.reconnect()")
    peer.socket(2).close(1000)
    page.wait_for_function("bridge.state === 'closed'")
    page.evaluate("bridge.reconnect()")
    peer.socket(3)
    page.wait_for_function("bridge.state === 'open'")
    assert len(logged(page, "open")) == 4
    assert len(logged(page, "reconnect")) == 3
    assert logged(page, "close") == [["close", code] for code in (1006, 1011, 1000)]


# -- its end


# What the library itself adds; Playwright has listeners of its own in the page.
COUNTING = """() => {
  const ours = () => new Error().stack.includes("websocketbridge");
  const counts = window.counts = { timers: new Set(), listeners: 0 };
  const { setTimeout, clearTimeout } = window;
  window.setTimeout = (call, ms) => {
    const timer = setTimeout(() => { counts.timers.delete(timer); call(); }, ms);
    if (ours()) counts.timers.add(timer);
    return timer;
  };
  window.clearTimeout = (timer) => { counts.timers.delete(timer); clearTimeout(timer); };
  for (const target of [window, document]) {
    const add = target.addEventListener, remove = target.removeEventListener;
    target.addEventListener = (...args) => {
      if (ours()) {
        counts.listeners++;
        args[2]?.signal?.addEventListener("abort", () => counts.listeners--);
      }
      return add.apply(target, args);
    };
    target.removeEventListener = (...args) => {
      if (ours()) counts.listeners--;
      return remove.apply(target, args);
    };
  }
}"""
COUNTS = "[counts.listeners, counts.timers.size, bridge.state]"


def test_close_is_for_good_and_leaves_nothing(page: Page, peer: Peer) -> None:
    page.evaluate(COUNTING)
    connect(page, peer, **QUICK)
    assert page.evaluate(COUNTS) == [3, 0, "open"]
    page.evaluate("bridge.close(4000, 'done')")
    assert page.evaluate(COUNTS) == [0, 0, "closed"]
    wait_until(lambda: peer.closed == [(4000, "done")], "the end of the socket")
    page.wait_for_function("log.some(([type]) => type === 'close')")
    assert logged(page, "close") == [["close", 4000]]
    assert page.evaluate("bridge.socket.readyState") == 3

    connect(page, peer, **QUICK, silenceTimeout=60_000)
    assert page.evaluate(COUNTS) == [3, 1, "open"]
    peer.socket(1).close(1000)
    page.wait_for_function("bridge.state === 'closed'")
    assert page.evaluate(COUNTS) == [0, 0, "closed"]

    peer.refuse = True
    page.evaluate("(url) => bridgeTo(url, { minDelay: 10000000, maxDelay: 10000000 })", peer.url)
    page.wait_for_function("bridge.state === 'waiting'")
    page.evaluate("bridge.close(); bridge.close()")
    assert page.evaluate(COUNTS) == [0, 0, "closed"]
    page.evaluate("(url) => { bridgeTo(url); bridge.close(); }", peer.url)
    assert page.evaluate(COUNTS) == [0, 0, "closed"]
    assert len(peer.sockets) == 2


def test_a_url_that_is_none_leaves_nothing(page: Page) -> None:
    page.evaluate(COUNTING)
    names = page.evaluate(
        """() => ["http://[", "ftp://example.org/", () => { throw new RangeError("mine"); }].map((url) => {
          try { new channels.WebSocketBridge().connect(url); } catch (error) { return error.name; }
        })"""
    )
    assert names == ["TypeError", "SyntaxError", "RangeError"]
    assert page.evaluate("[counts.listeners, counts.timers.size]") == [0, 0]


def test_what_still_waited_at_the_end_is_given_back(page: Page, peer: Peer) -> None:
    peer.refuse = True
    page.evaluate("(url) => { bridgeTo(url); bridge.send(1); bridge.stream('s').send(2); bridge.close(); }", peer.url)
    assert logged(page, "unsent") == [["unsent", ["1", '{"stream":"s","payload":2}']]]
    assert page.evaluate("bridge.socket.queued") == 0


def test_a_code_that_pages_may_not_send_closes_nothing(page: Page, peer: Peer) -> None:
    connect(page, peer)
    problems = page.evaluate(
        """() => [[1001], [1000, "x".repeat(124)]].map((args) => {
          try { bridge.close(...args); } catch (error) { return error.name; }
        })"""
    )
    assert problems == ["InvalidAccessError", "SyntaxError"]
    page.evaluate("bridge.send('still here')")
    wait_until(lambda: peer.received == ['"still here"'], "what was sent")


def test_a_handler_may_close_it(page: Page, peer: Peer) -> None:
    peer.refuse = True
    for state in ("connecting", "waiting"):
        page.evaluate(
            """([url, state]) => {
              log.length = 0;
              window.bridge = new channels.WebSocketBridge({ minDelay: 1, maxDelay: 1 });
              bridge.addEventListener("close", ({ code }) => log.push(["close", code]));
              bridge.addEventListener("waiting", () => log.push(["waiting", null]));
              bridge.addEventListener("statechange", ({ detail }) => {
                log.push(["statechange", detail]);
                if (detail === state) bridge.close();
              });
              bridge.connect(url);
            }""",
            [peer.url, state],
        )
        page.wait_for_function("log.some(([type]) => type === 'close')")
        assert logged(page, "statechange")[-1] == ["statechange", "closed"]
        assert not logged(page, "waiting")
        assert logged(page, "close") == [["close", 1006]]


def test_connect_again_closes_the_socket_before(page: Page, peer: Peer) -> None:
    connect(page, peer)
    page.evaluate("(url) => bridge.connect(url)", peer.url)
    peer.socket(1).send('"second"')
    wait_until(lambda: len(peer.closed) == 1, "the end of the first socket")
    page.wait_for_function("log.some(([type]) => type === 'message')")
    assert logged(page, "message") == [["message", "second"]]


# -- what is no message


def test_a_frame_that_is_no_json_is_an_error_and_the_next_is_heard(page: Page, peer: Peer) -> None:
    warnings: list[str] = []
    page.on("console", lambda line: warnings.append(line.text) if line.type == "warning" else None)
    socket = connect(page, peer)
    page.evaluate("bridge.listen((content) => log.push(['heard', content]))")
    socket.send("no json")
    socket.send(b"\0\1")
    socket.send('"fine"')
    page.wait_for_function("log.some(([type]) => type === 'heard')")
    assert logged(page, "error") == [["error", "a frame could not be decoded: no json"]]
    assert [line.split("\n")[0] for line in warnings] == ["Error: a frame could not be decoded: no json"]
    assert len(logged(page, "binary")) == 1
    assert logged(page, "heard") == [["heard", "fine"]]


def test_a_page_that_handles_bad_frames_keeps_them_out_of_the_console(page: Page, peer: Peer) -> None:
    socket = connect(page, peer)
    page.evaluate(
        """() => {
          console.warn = () => log.push(["warned", null]);
          bridge.addEventListener("error", (event) => event.preventDefault());
        }"""
    )
    socket.send("no json")
    page.wait_for_function("log.some(([type]) => type === 'error')")
    assert not logged(page, "warned")


def test_a_callback_that_throws_does_not_end_the_listening(page: Page, peer: Peer) -> None:
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(error.message))
    socket = connect(page, peer)
    page.evaluate("bridge.listen((content) => { log.push(['heard', content]); throw new Error(`bad ${content}`); })")
    socket.send("1")
    socket.send("2")
    page.wait_for_function("log.filter(([type]) => type === 'heard').length === 2")
    wait_until(lambda: problems == ["bad 1", "bad 2"], "both errors")


def test_binary_goes_both_ways(page: Page, peer: Peer) -> None:
    page.evaluate(
        """(url) => {
          bridgeTo(url);
          const bytes = new Uint8Array([1, 2]);
          bridge.socket.send(bytes);
          bytes[0] = 9; // it was sent before
          bridge.socket.binaryType = "arraybuffer";
          bridge.addEventListener("binary", ({ detail }) => log.push(["bytes", [...new Uint8Array(detail)]]));
        }""",
        peer.url,
    )
    wait_until(lambda: peer.received == [b"\1\2"], "the bytes")
    peer.socket(0).send(b"\3\4")
    page.wait_for_function("log.some(([type]) => type === 'bytes')")
    assert logged(page, "bytes") == [["bytes", [3, 4]]]


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
          () => new channels.WebSocketBridge().reconnect(),
          () => new channels.WebSocketBridge().send(undefined),
          () => new channels.WebSocketBridge({ minDelya: 1 }).connect("/x"),
          () => new channels.WebSocketBridge({ maxDelay: Infinity }).connect("/x"),
          () => new channels.WebSocketBridge({ factor: "2" }).connect("/x"),
          () => new channels.WebSocketBridge({ stopCodes: 1000 }).connect("/x"),
        ].map((wrong) => { try { wrong(); } catch (error) { return `${error.name}: ${error.message}`; } })"""
    )
    assert problems[:3] == [
        "InvalidStateError: connect() comes before send()",
        "InvalidStateError: connect() comes before reconnect()",
        "TypeError: undefined is nothing that can be sent",
    ]
    assert problems[3].startswith("TypeError: there is no option minDelya; there are minDelay, maxDelay")
    assert problems[4:] == [
        "TypeError: maxDelay must be a number from 0 to 2147483647, not Infinity",
        "TypeError: factor must be a number from 1 to Infinity, not 2",
        "TypeError: stopCodes must be an array of close codes, not 1000",
    ]
    assert page.evaluate("new channels.WebSocketBridge().state") == "idle"


# -- ways to load it


def test_it_is_a_module_too(context: Any, site: Site) -> None:
    site.pages["/module"] = MODULE.format("/channelsq/js/websocketbridge.module.js")
    page = context.new_page()
    page.goto(f"{site.url}/module")
    page.wait_for_function("window.WebSocketBridge !== undefined")
    assert page.evaluate("WebSocketBridge === channels.WebSocketBridge && new WebSocketBridge().state") == "idle"
    page.close()


def test_there_is_one_class_however_often_it_is_loaded(context: Any, site: Site) -> None:
    first = "<script>window.first = channels.WebSocketBridge; channels.mine = 1</script>"
    site.pages["/twice"] = CLASSIC + first + CLASSIC + MODULE.format("/channelsq/js/websocketbridge.module.js")
    page = context.new_page()
    page.goto(f"{site.url}/twice")
    page.wait_for_function("window.WebSocketBridge !== undefined")
    assert page.evaluate("first === WebSocketBridge && first === channels.WebSocketBridge && channels.mine === 1")
    page.close()


def test_it_runs_under_a_strict_policy(context: Any, site: Site) -> None:
    policy = '<meta http-equiv="Content-Security-Policy" content="default-src \'self\'; img-src data:">'
    module = '<script type="module" src="/channelsq/js/websocketbridge.module.js"></script>'
    site.pages["/policy"] = policy + CLASSIC + module
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
    names = ["channelsq/js/websocketbridge.js", "channelsq/js/websocketbridge.module.js"]
    source = FileSystemStorage(STATIC)
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((STATIC / name).read_bytes())
    list(storage.post_process({name: (source, name) for name in names}))
    if aggregated:  # then the hashed names are all that is needed
        for name in names:
            (tmp_path / name).unlink()
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
    written = {row[0].strip("`"): row[1].strip("`") for row in rows(doc_page("javascript")) if len(row) == 3}
    defaults = page.evaluate(
        """() => Object.entries(channelsq.ReconnectingSocket.DEFAULTS).map(
          ([name, value]) => [name, Array.isArray(value) ? JSON.stringify(value) : String(value)])"""
    )
    assert dict(defaults).items() <= written.items()
    source = (STATIC / "channelsq/js/websocketbridge.js").read_text()
    source = source.partition("@typedef {object} SocketOptions")[2].partition("*/")[0]
    assert {name for name, _ in defaults} == set(re.findall(r"@property \{.*?\} (\w+)", source))
