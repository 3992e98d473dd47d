"""Sessions, users and order through an interface server and Celery workers on Redis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

from tests.support.demo import fresh_redis
from tests.support.project import Project

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120)]

FRAMES = 8


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Project]:
    url = fresh_redis(redis_url)
    env = {"TEST_BROKER": url.replace("redis:", "redis-streams:"), "TEST_VISIBILITY": "2"}
    project = Project(tmp_path_factory.mktemp("members"), url, env)
    try:
        project.migrate()
        project.start_interface()
        for _ in range(2):
            project.new_worker("-c", "4")
        yield project
    finally:
        project.stop()


def logged_in(project: Project, name: str) -> tuple[str, str]:
    """The session's key that the view has given, and the cookie that it has set."""
    answer = httpx.get(f"{project.url}/log-in/{name}/", timeout=60, trust_env=False)
    return answer.json()["session_key"], answer.cookies["sessionid"]


def opened(project: Project, query: str = "", cookie: str = "") -> ClientConnection:
    headers = {"Cookie": f"sessionid={cookie}"} if cookie else {}
    url = f"{project.ws_url}/members/{query}"
    return connect(url, additional_headers=headers, open_timeout=30, close_timeout=5, proxy=None)


def heard(socket: ClientConnection) -> Any:
    return socket.recv(timeout=30)


def test_who_is_logged_in_by_a_view_is_the_user_on_the_socket(project: Project) -> None:
    key, cookie = logged_in(project, "alice")
    with opened(project, cookie=cookie) as by_cookie, opened(project, f"?session_key={key}") as by_key:
        for socket in (by_cookie, by_key):
            assert heard(socket) == "welcome alice"
            socket.send("hello")
            assert heard(socket) == "alice 1 hello"


def test_the_key_in_the_url_counts_before_the_cookie(project: Project) -> None:
    (key, _), (_, cookie) = logged_in(project, "bob"), logged_in(project, "carol")
    with opened(project, f"?session_key={key}", cookie) as socket:
        assert heard(socket) == "welcome bob"


def test_who_is_not_logged_in_is_nobody(project: Project) -> None:
    for stranger in ("", "?session_key=unknown0unknown0unknown0unknown0"):
        with opened(project, stranger) as socket:
            assert heard(socket) == "welcome stranger"


def test_workers_that_race_for_the_frames_of_sockets_keep_their_order(project: Project) -> None:
    """On a route with ``ordered=False``, so that all frames are in the workers' hands at once."""
    cookie = logged_in(project, "dave")[1]
    expected = ["welcome dave", *(f"dave {number + 1} {number}" for number in range(FRAMES))]
    with ExitStack() as stack:
        sockets = [stack.enter_context(opened(project, cookie=cookie)) for _ in range(8)]
        for number in range(FRAMES):
            for socket in sockets:
                socket.send(str(number))
        for socket in sockets:
            assert [heard(socket) for _ in expected] == expected
    workers = {line.split()[0] for line in project.recorded("members-dave")}
    assert len(workers) == 2, "one worker did it all"


def test_a_frame_of_a_worker_that_is_killed_is_waited_for(project: Project) -> None:
    """After the tests that want two workers: one of them is lost here."""
    cookie = logged_in(project, "erin")[1]
    texts = ["0", "kill", "2", "3"]
    handled: list[str] = []
    with opened(project, cookie=cookie) as socket:
        assert heard(socket) == "welcome erin"
        for text in texts:
            socket.send(text)
        while "3" not in handled:
            handled.append(heard(socket).split()[-1])
    # What the killed worker had not acknowledged comes again, and is handled again.
    assert list(dict.fromkeys(handled)) == texts
    pids = [line.split()[0] for line in project.recorded("members-erin") if line.endswith("kill")]
    assert len(set(pids)) == 2
