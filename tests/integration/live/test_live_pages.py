"""Sockets of live pages join groups without a consumer; a hook of the project may forbid it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from channelsq.fragments.joining import MOST
from tests.support.demo import fresh_redis
from tests.support.project import Project

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120)]

LAYERS = ["redis-streams", "ipc", "memory", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)]


def environment(layer: str, request: pytest.FixtureRequest, folder: Path) -> tuple[str | None, dict[str, str]]:
    """Return the URL of Celery's broker, and the environment, of a project with a layer."""
    env = {"DJANGO_SETTINGS_MODULE": "tests.project.pages_settings"}
    if layer == "memory":
        return None, env
    url = fresh_redis(request.getfixturevalue("redis_url"))
    if layer == "ipc":
        return url, {**env, "TEST_IPC": str(folder / "layer")}
    if layer == "rabbitmq":
        return url, {**env, "TEST_LAYER": request.getfixturevalue("rabbitmq_url"), "TEST_GROUPS": url}
    return url, {**env, "TEST_LAYER": url.replace("redis:", "redis-streams:")}


@pytest.fixture(scope="module", params=LAYERS)
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("pages")
    broker, env = environment(request.param, request, folder)
    (folder / "project").mkdir()
    project = Project(folder / "project", broker, env)
    try:
        project.migrate()
        project.start()
        yield project
    finally:
        project.stop()


def get(project: Project, path: str, session: str = "") -> httpx.Response:
    cookies = {"sessionid": session} if session else {}
    answer = httpx.get(project.url + path, cookies=cookies, trust_env=False, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer


def log_in(project: Project, name: str) -> str:
    return str(get(project, f"/log-in/{name}/").json()["session_key"])


def tickets(project: Project, board: str, session: str = "") -> list[str]:
    """Return the tickets of a board's page."""
    return re.findall(r'ticket="([^"]+)"', get(project, f"/board/script/{board}/", session).text)


def address(project: Project, way: str, board: str) -> str:
    """Return the address of the socket of a page with htmx or Turbo."""
    text = get(project, f"/board/{way}/{board}/").text
    found = re.search(r'(?:ws-connect|turbo-stream-source src)="([^"]+)"', text)
    assert found is not None, text
    url = unescape(found[1])
    return url if url.startswith("ws:") else project.ws_url + url


class Socket:
    """A socket of the path of live pages."""

    def __init__(self, project: Project, url: str = "") -> None:
        self._context = connect(url or f"{project.ws_url}/channelsq/live/", proxy=None)

    def __enter__(self) -> Socket:
        self.socket: ClientConnection = self._context.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(*error)

    def send(self, payload: Any) -> None:
        self.socket.send(json.dumps({"stream": "channelsq.page", "payload": payload}, separators=(",", ":")))

    def join(self, *found: str) -> list[dict[str, Any]]:
        """Join with tickets, and return the answers."""
        self.send({"join": found})
        return [self.read() for _ in found]

    def read(self) -> dict[str, Any]:
        """Return the payload of the next frame."""
        content = json.loads(self.socket.recv(15))
        assert content["stream"] == "channelsq.page"
        payload: dict[str, Any] = content["payload"]
        return payload


def test_a_socket_joins_and_gets_fragments(project: Project) -> None:
    (ticket,) = tickets(project, "joins")
    with Socket(project) as socket, Socket(project) as stranger:
        assert socket.join(ticket) == [{"joined": ticket, "stale": False}]
        stranger.join(*tickets(project, "another"))
        get(project, "/add/joins/hello/")
        payload = socket.read()
        assert (payload["action"], payload["target"]) == ("append", "notes")
        assert payload["html"].endswith("<td>hello</td></tr>")
        get(project, "/say/another/first/")
        assert stranger.read()["html"] == "first"
        assert socket.join(ticket) == [{"joined": ticket, "stale": True}]


@pytest.mark.parametrize(("way", "text"), [("htmx", "hx-swap-oob="), ("turbo", '<turbo-stream action="update"')])
def test_the_sockets_of_htmx_and_turbo_join_by_their_address(project: Project, way: str, text: str) -> None:
    with Socket(project, address(project, way, way)) as socket:
        get(project, f"/say/{way}/hello/")
        assert text in str(socket.socket.recv(15))


def test_tickets_of_others_are_refused(project: Project) -> None:
    (ticket,) = tickets(project, "forged")
    forged = ticket[:-4] + ("AAAA" if ticket[-4:] != "AAAA" else "BBBB")
    with Socket(project) as socket:
        (answer,) = socket.join(forged)
        assert answer["refused"] == forged
        assert not answer["expired"]
        get(project, "/say/forged/secret/")
        socket.join(ticket)
        get(project, "/say/forged/open/")
        assert socket.read()["html"] == "open"
    url = address(project, "htmx", "forged").replace("page_ticket=", "page_ticket=x")
    with pytest.raises(InvalidStatus) as caught:
        Socket(project, url).__enter__()
    assert caught.value.response.status_code == 403
    with pytest.raises(InvalidStatus):
        Socket(project, address(project, "htmx", "forged").replace("form=htmx", "form=other")).__enter__()


@pytest.mark.parametrize("payload", [{"join": "x"}, {"leave": []}, [], {"join": ["x"] * (MOST + 1)}, None])
def test_other_frames_close_the_socket(project: Project, payload: Any) -> None:
    with Socket(project) as socket:
        socket.send(payload)
        with pytest.raises(ConnectionClosed) as caught:
            socket.socket.recv(15)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1003


def test_a_user_s_pages_end_with_the_user_s_sockets(project: Project) -> None:
    session = log_in(project, "alice")
    board, own = tickets(project, "closed", session)
    user = re.search(r"auth\.user\.(\d+)", _content(own))
    assert user is not None
    with Socket(project) as socket, Socket(project) as stranger:
        socket.join(board, own)
        stranger.join(*tickets(project, "closed"))
        get(project, f"/say/{user[1]}/yours/")
        assert socket.read()["html"] == "yours"
        get(project, f"/leave/{user[1]}/")
        with pytest.raises(ConnectionClosed) as caught:
            socket.socket.recv(15)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 4000
        get(project, "/say/closed/still/")
        assert stranger.read()["html"] == "still"


def _content(ticket: str) -> str:
    return base64.urlsafe_b64decode(ticket.split("~")[0] + "==").decode()


def test_pages_join_while_no_worker_lives(project: Project) -> None:
    if project.embedded:
        return  # the worker is in the interface server
    (ticket,) = tickets(project, "alone")
    url = address(project, "htmx", "alone")
    project.worker.kill()
    with Socket(project) as socket, Socket(project, url) as htmx:
        assert socket.join(ticket) == [{"joined": ticket, "stale": False}]
        socket.send({"join": []})
        assert socket.read() == {"alive": True}
        project.start_worker()
        get(project, "/say/alone/back/")
        assert socket.read()["html"] == "back"
        assert "back" in str(htmx.socket.recv(15))
    assert "page_ticket=***" in project.interface.output
    assert ticket not in project.interface.output


@pytest.mark.parametrize("layer", ["redis-streams", "memory"])
def test_a_hook_decides_in_a_worker(layer: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    broker, env = environment(layer, request, tmp_path)
    (tmp_path / "project").mkdir()
    project = Project(tmp_path / "project", broker, {**env, "TEST_MAY_JOIN": "tests.project.pages.may_join"})
    try:
        project.migrate()
        project.start()
        sessions = {name: log_in(project, name) for name in ("alice", "staff")}
        with Socket(project) as socket:
            for session, board, may in (
                ("", "open", True),
                ("", "closed", False),
                (sessions["alice"], "closed", False),
                (sessions["staff"], "closed", True),
            ):
                ticket = tickets(project, board, session)[0]
                (answer,) = socket.join(ticket)
                expected = {"joined": ticket, "stale": False}
                refused = {"refused": ticket, "expired": False, "error": "it is forbidden"}
                assert answer == (expected if may else refused), (session, board)
            socket.send({"join": []})
            assert socket.read() == {"alive": True}
        with pytest.raises(InvalidStatus):
            Socket(project, address(project, "htmx", "closed")).__enter__()
        with Socket(project, address(project, "htmx", "open")) as socket:
            get(project, "/say/open/hello/")
            assert "hello" in str(socket.socket.recv(15))
    finally:
        project.stop()


def test_an_expired_ticket_asks_for_a_new_page(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    broker, env = environment("memory", request, tmp_path)
    (tmp_path / "project").mkdir()
    project = Project(tmp_path / "project", broker, {**env, "TEST_PAGE_AGE": "0.001"})
    try:
        project.migrate()
        project.start()
        with Socket(project) as socket:
            (ticket,) = tickets(project, "old")
            assert socket.join(ticket) == [{"refused": ticket, "expired": True, "error": "it has expired"}]
        with Socket(project, address(project, "htmx", "old")) as socket:
            assert 'data-channelsq-page="expired"' in str(socket.socket.recv(15))
        with Socket(project, address(project, "turbo", "old")) as socket:
            assert socket.socket.recv(15) == '<turbo-stream action="refresh"></turbo-stream>'
            with pytest.raises(ConnectionClosed) as caught:
                socket.socket.recv(15)
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 4001
    finally:
        project.stop()
