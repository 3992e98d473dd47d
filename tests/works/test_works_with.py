"""docs/how-to/begin/works-with.md, taken out of its page into a project that has other tools, and used as it says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.support.demo import fresh_redis
from tests.support.waiting import wait_until
from tests.works.shop import Shop

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def shop(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    made = Shop(tmp_path_factory.mktemp("shop"), fresh_redis(redis_url), fresh_redis(redis_url))
    try:
        made.start()
        yield made
    finally:
        made.stop()


def opened(shop: Shop, path: str, token: str | None = None) -> ClientConnection:
    offered = [Subprotocol("channelsq"), Subprotocol(f"channelsq.token.{token}")] if token is not None else None
    return connect(shop.ws_url + path, subprotocols=offered, proxy=None, open_timeout=30)


CREDENTIALS = {"username": "alice", "password": "pw"}


# -- Django REST framework and JWT


def test_rest_views_know_both_kinds_of_tokens(shop: Shop) -> None:
    token = shop.ask("POST", "/token/", json=CREDENTIALS)["token"]
    jwt = shop.ask("POST", "/jwt/", json=CREDENTIALS)["access"]
    for header in (f"Token {token}", f"Bearer {jwt}"):
        answer = shop.ask("POST", "/whoami/", json={"a": [1, "ü"]}, headers={"Authorization": header})
        assert answer == {"user": "alice", "sent": {"a": [1, "ü"]}}
    for wrong in ("Token x", "Bearer x.y.z", ""):
        answer = httpx.get(f"{shop.url}/whoami/", headers={"Authorization": wrong} if wrong else {}, trust_env=False)
        assert answer.status_code == 401, wrong


def test_a_jwt_opens_a_socket(shop: Shop) -> None:
    jwt = shop.ask("POST", "/jwt/", json=CREDENTIALS)["access"]
    for path, offered in (("/ws/jwt/", jwt), (f"/ws/jwt/?token={jwt}", None)):
        with opened(shop, path, offered) as socket:
            for text in ("a", "b"):
                socket.send(text)
                assert socket.recv(30) == f"alice: {text}"
    refresh = shop.ask("POST", "/jwt/", json=CREDENTIALS)["refresh"]
    for wrong in (None, "x", jwt[:-2], refresh):
        with pytest.raises(InvalidStatus, match="403"):
            opened(shop, "/ws/jwt/", wrong)
    assert jwt not in shop.interface.output
    assert jwt not in shop.worker.output


def test_a_token_in_the_first_message(shop: Shop) -> None:
    token = shop.ask("POST", "/token/", json=CREDENTIALS)["token"]
    with opened(shop, "/ws/token/") as socket:
        socket.send(token)
        for text in ("a", "b"):
            socket.send(text)
            assert socket.recv(30) == f"alice: {text}"
    with opened(shop, "/ws/token/") as socket:
        socket.send("guessed")
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(30)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4401


def test_a_rest_view_gives_a_token_for_sockets(shop: Shop) -> None:
    token = shop.ask("POST", "/token/", json=CREDENTIALS)["token"]
    own = shop.ask("POST", "/socket-token/", headers={"Authorization": f"Token {token}"})["token"]
    with opened(shop, "/ws/own/", own) as socket:
        assert socket.recv(30) == "alice"
    with pytest.raises(InvalidStatus, match="403"):
        opened(shop, "/ws/own/", token)


# -- structlog


def lines_of(shop: Shop, event: str, count: int = 1) -> list[dict[str, Any]]:
    def found() -> list[dict[str, Any]]:
        return [line for line in shop.logged() if line["event"] == event]

    wait_until(lambda: len(found()) >= count, f"{count} lines {event!r}", 20)
    return found()


def test_the_lines_of_a_view_and_its_task_have_one_request_id(shop: Shop) -> None:
    assert httpx.get(f"{shop.url}/logs/", trust_env=False, timeout=30).text == "42"
    view, task = lines_of(shop, "in a view")[-1], lines_of(shop, "in a task")[-1]
    assert view["request_id"] == task["request_id"]
    assert view["channel"] == "http.request"
    assert task["parent_task_id"] == view["task_id"] != task["task_id"]
    assert task["client"] == view["client"]


def test_the_lines_of_a_socket_have_one_client(shop: Shop) -> None:
    known = len(lines_of(shop, "in a consumer", 0))
    for number in range(2):
        with opened(shop, "/ws/logs/") as socket:
            for text in "12":
                socket.send(text)
                assert socket.recv(30) == str(int(text) + 1), number
    lines = lines_of(shop, "in a consumer", known + 4)[known:]
    assert [line["client"] for line in lines] == [lines[0]["client"]] * 2 + [lines[2]["client"]] * 2
    assert lines[0]["client"] != lines[2]["client"]
    assert len({line["task_id"] for line in lines}) == 4
    assert lines[0]["task_id"] in {line.get("parent_task_id") for line in lines_of(shop, "in a task")}


# -- results


def test_a_consumer_may_keep_its_result(shop: Shop) -> None:
    with opened(shop, "/ws/kept/") as socket:
        socket.send("go on")
        assert shop.ask("GET", f"/state/{socket.recv(30, decode=True)}/") == {"state": "SUCCESS"}


# -- Flower


def test_flower_knows_channels_and_no_message_unless_asked_to(shop: Shop) -> None:
    with httpx.Client(base_url=shop.start_flower(), trust_env=False, timeout=30) as flower:

        def workers() -> dict[str, Any]:
            told = flower.get("/api/workers", params={"refresh": "1"}).json()
            return told if any("active_queues" in each for each in told.values()) else {}

        ((node, worker),) = wait_until(workers, "the worker", 30).items()
        queues = {queue["name"] for queue in worker["active_queues"]}
        assert {"celery", "http.request", "websocket.receive"} <= queues
        assert worker["stats"]["Channel layers"]["runs"] == "consumers run in 2 processes of 4 threads"
        for page in ("/workers", f"/worker/{node}", "/tasks", "/broker"):
            assert flower.get(page).status_code == 200, page

        def order(path: str, **form: str) -> str:
            answer = flower.post(f"/api/{path}", data=form)
            assert answer.status_code == 200, answer.text
            return str(answer.json()["message"])

        with opened(shop, "/ws/logs/") as socket:
            cancelled = order(f"worker/queue/cancel-consumer/{node}", queue="websocket.receive")
            assert cancelled == "no longer consuming from websocket.receive"
            for _ in range(10):  # polls that had begun still take a message, one in each process
                socket.send("1")
                try:
                    assert socket.recv(1.5) == "2"
                except TimeoutError:
                    break
            else:
                pytest.fail("the channel is still read")
            assert order(f"worker/queue/add-consumer/{node}", queue="websocket.receive")
            assert socket.recv(30) == "2"
            for rate in ("1/h", "0"):
                assert order("task/rate-limit/shop.consumers.logs", workername=node, ratelimit=rate)
            for text in "23":
                socket.send(text)
                assert socket.recv(30) == str(int(text) + 1)

        def tasks() -> list[str]:
            httpx.get(f"{shop.url}/logs/", trust_env=False, timeout=30)  # a message, and a task
            return [task["name"] for task in flower.get("/api/tasks").json().values()]

        wait_until(lambda: len(tasks()) > 1, "events of tasks, which Flower asks for after some seconds", 30)
        assert set(tasks()) == {"shop.tasks.add"}


# -- django-debug-toolbar


def test_the_toolbar_and_its_panels(shop: Shop) -> None:
    with httpx.Client(base_url=shop.url, trust_env=False, timeout=30) as client:
        for _ in range(4):  # two processes answer them
            found = re.search(r'data-request-id="(\w+)"', client.get("/").text)
            assert found is not None
            for panel in ("TimerPanel", "RequestPanel"):
                asked = {"request_id": found[1], "panel_id": panel}
                told = client.get("/__debug__/render_panel/", params=asked).json()["content"]
                assert "available anymore" not in told
            assert "shop.views.index" in told


# -- htmx


@pytest.fixture
def pages(shop: Shop, chromium: Browser) -> Iterator[list[Page]]:
    """Two browsers' pages of the room, connected."""
    contexts = [chromium.new_context() for _ in range(2)]
    found = [context.new_page() for context in contexts]
    for page in found:
        page.goto(f"{shop.url}/room/")
        page.get_by_text("connected").wait_for(timeout=20_000)
    yield found
    for context in contexts:
        context.close()


#: The room's own, beside those of the toolbar.
FIELD = "form[ws-send] input"


def say(page: Page, text: str) -> None:
    page.locator(FIELD).fill(text)
    page.locator("form[ws-send] button").click()


def shown(page: Page) -> list[str]:
    return page.locator("#messages li").all_inner_texts()


@pytest.mark.browser
def test_htmx_swaps_what_forms_and_tasks_send(shop: Shop, pages: list[Page]) -> None:
    say(pages[0], "hello <b>")
    for page in pages:
        page.get_by_text("hello <b>", exact=True).wait_for(timeout=20_000)
    assert pages[0].locator(FIELD).input_value() == ""
    assert httpx.get(f"{shop.url}/push/", trust_env=False).text == "pushed"
    for page in pages:
        page.get_by_text("from <a> task", exact=True).wait_for(timeout=20_000)
        assert shown(page) == ["hello <b>", "from <a> task"]


@pytest.mark.ways("other ways")
@pytest.mark.browser
def test_htmx_comes_back_over_a_deploy(shop: Shop, pages: list[Page]) -> None:
    for page in pages:
        page.evaluate(
            """() => {
              window.codes = [];
              document.body.addEventListener("htmx:wsClose", ({detail}) => codes.push(detail.event.code));
            }"""
        )
    say(pages[0], "before")
    for page in pages:
        page.get_by_text("before", exact=True).wait_for(timeout=20_000)
        page.evaluate("document.getElementById('status').textContent = 'waiting'")
    assert shop.interface.terminate() == 0
    say(pages[1], "said meanwhile")
    shop.start_interface()
    for page in pages:
        page.get_by_text("connected").wait_for(timeout=30_000)
        assert page.evaluate("codes")[0] == 1012
    say(pages[0], "after")
    for page in pages:
        page.get_by_text("after", exact=True).wait_for(timeout=20_000)
        assert "before" in shown(page)
    assert "said meanwhile" in shown(pages[1])
