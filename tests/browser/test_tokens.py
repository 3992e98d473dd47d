"""Tokens as subprotocols and in URLs, between the browser library in Chromium and the interface server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from tests.support.processes import ROOT
from tests.support.project import Project
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

LIBRARY = ROOT / "channelsq" / "static" / "channelsq" / "js" / "websocketbridge.js"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    project = Project(tmp_path_factory.mktemp("tokens"))
    try:
        project.processes.manage("migrate", "--run-syncdb", "--verbosity", "0", env=project.env)
        project.start("-v", "3")  # with what the libraries say
        yield project
    finally:
        project.stop()


@pytest.fixture
def page(chromium: Browser, project: Project) -> Iterator[Page]:
    """A page of the site, of a user who is logged in."""
    context = chromium.new_context()
    page = context.new_page()
    page.goto(f"{project.url}/log-in/alice/")
    page.add_script_tag(path=LIBRARY)
    page.evaluate("window.heard = []; window.tokens = []")
    yield page
    context.close()


def heard(page: Page, count: int) -> list[Any]:
    page.wait_for_function("count => heard.length >= count", arg=count)
    return page.evaluate("heard")  # type: ignore[no-any-return]


def test_a_browser_takes_the_answer_to_a_token_among_subprotocols(page: Page) -> None:
    said = page.evaluate(
        """async () => {
          const { token } = await (await fetch("/token/")).json();
          const socket = new WebSocket(`ws://${location.host}/tokens/`, ["channelsq", `channelsq.token.${token}`]);
          return await new Promise((resolve, reject) => {
            socket.onerror = () => reject(new Error("refused"));
            socket.onmessage = ({ data }) => resolve([data, socket.protocol]);
          });
        }"""
    )
    assert said == ["welcome alice", "channelsq"]


def test_the_library_gets_a_fresh_token_for_each_connection(page: Page) -> None:
    page.evaluate(
        """() => {
          const bridge = window.bridge = new channels.WebSocketBridge({
            minDelay: 10,
            token: async () => {
              const { token } = await (await fetch("/token/")).json();
              tokens.push(token);
              return token;
            },
          });
          bridge.decode = (text) => text;
          bridge.encode = (text) => text;
          bridge.listen((text) => heard.push(text));
          bridge.connect("/tokens/");
          bridge.send("sent while the token was on its way");
        }"""
    )
    assert heard(page, 2) == ["welcome alice", "alice 1 sent while the token was on its way"]
    # A token tells the second in which it was made.
    page.wait_for_function("before => Date.now() > before", arg=time.time() * 1000 + 1100)
    page.evaluate("bridge.reconnect()")
    assert heard(page, 3)[2] == "welcome alice"
    assert page.evaluate("tokens.length") == 2
    assert page.evaluate("new Set(tokens).size") == 2
    assert page.evaluate("[bridge.state, bridge.socket.protocol]") == ["open", "channelsq"]


def test_the_library_asks_a_view_for_tokens(page: Page) -> None:
    page.evaluate(
        """() => {
          const bridge = window.bridge = new channels.WebSocketBridge({ token: "/token/?path=/tokens/" });
          bridge.decode = (text) => text;
          bridge.listen((text) => heard.push(text));
          bridge.connect("/tokens/", ["json"]);
        }"""
    )
    assert heard(page, 1) == ["welcome alice"]


def test_the_library_goes_on_without_a_token(page: Page) -> None:
    """A view that refuses is as a server that is away; close() ends an attempt that waits for its token."""
    page.evaluate(
        """() => {
          const bridge = window.bridge = new channels.WebSocketBridge({ minDelay: 1, token: "/no-such-page/" });
          bridge.addEventListener("close", ({ code, reason }) => heard.push([code, reason]));
          bridge.connect("/tokens/");
        }"""
    )
    assert heard(page, 2)[:2] == [[1006, "no token"], [1006, "no token"]]
    page.evaluate(
        """() => {
          const { promise, resolve } = Promise.withResolvers();
          bridge.connect("/tokens/", [], { token: () => promise });
          heard.push([bridge.state, bridge.socket.readyState]);
          bridge.close();
          resolve("late");
          return promise;
        }"""
    )
    page.wait_for_function("bridge.state === 'closed'")
    assert page.evaluate("heard.at(-1)") == ["connecting", 0]
    assert page.evaluate("bridge.socket.readyState") == 3
    with pytest.raises(Exception, match="token must be a URL, or a function that gives a token, not 5"):
        page.evaluate("new channels.WebSocketBridge({ token: 5 }).connect('/tokens/')")


def test_a_token_is_in_no_log(page: Page, project: Project) -> None:
    """Wherever it is sent, taken or not, at the level at which the libraries tell of every frame and header."""
    cookie = {"sessionid": page.context.cookies()[0]["value"]}
    token = httpx.get(f"{project.url}/token/", cookies=cookie, trust_env=False).json()["token"]
    url = f"{project.ws_url}/tokens/"
    offered = [Subprotocol(name) for name in ("channelsq", f"channelsq.token.{token}")]
    with connect(url, subprotocols=offered, proxy=None) as socket:
        assert socket.recv(timeout=30) == "welcome alice"
        assert socket.subprotocol == "channelsq"
        socket.send("a frame that is in no log")
        socket.recv(timeout=30)
    with connect(f"{url}?a=1&token={token}", proxy=None) as socket:
        assert socket.recv(timeout=30) == "welcome alice"
    for query in (f"?token={token}x", f"?%74oken={token}x", f"?token=={token}"):
        with pytest.raises(InvalidStatus, match="403"):
            connect(url + query, proxy=None).__enter__()
    offered = [Subprotocol("channelsq"), Subprotocol(f"channelsq.token.{token}x")]
    with pytest.raises(InvalidStatus, match="403"):
        connect(url, subprotocols=offered, proxy=None).__enter__()
    bad_header = {"Sec-WebSocket-Protocol": f"channelsq.token.{token} broken"}
    with pytest.raises(InvalidStatus, match="400"):
        connect(url, additional_headers=bad_header, proxy=None).__enter__()
    wait_until(lambda: project.interface.output.count("token=***") >= 4, "the log")
    output = project.interface.output
    assert "channelsq.token.***" in output
    assert output.count("its token is invalid") == 4
    assert token not in output
    assert cookie["sessionid"] not in output
    assert "a frame that is in no log" not in output
    assert "Traceback" not in output
