"""Users' sockets on two interface servers: sends, closes, logout and changed passwords."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.support.demo import fresh_redis
from tests.support.ports import free_port
from tests.support.project import Project
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120)]


class Site:
    """The project, on as many interface servers as it has ports."""

    def __init__(self, project: Project, ports: list[int]) -> None:
        self.project = project
        self.ports = ports

    def get(self, path: str, **cookies: str) -> Any:
        """Return the JSON of a view."""
        return httpx.get(f"{self.project.url}{path}", cookies=cookies, timeout=30, trust_env=False).json()

    def log_in(self, name: str) -> str:
        """Log a user in, and return the session's key."""
        return str(self.get(f"/log-in/{name}/")["session_key"])

    def log_out(self, key: str) -> None:
        """Call Django's logout view."""
        url = f"{self.project.url}/log-out/"
        token = "t" * 32
        cookies = {"sessionid": key, "csrftoken": token}
        found = httpx.post(url, cookies=cookies, data={"csrfmiddlewaretoken": token}, timeout=30, trust_env=False)
        assert found.status_code == 302

    @contextlib.contextmanager
    def tab(self, key: str = "", number: int = 0, path: str = "/users/") -> Iterator[ClientConnection]:
        """Open a socket on one of the servers."""
        url = f"ws://127.0.0.1:{self.ports[number % len(self.ports)]}{path}"
        headers = {"Cookie": f"sessionid={key}"} if key else {}
        with connect(url, additional_headers=headers, open_timeout=30, close_timeout=5, proxy=None) as socket:
            yield socket

    def sockets(self, name: str) -> int:
        """Return the number of a user's sockets."""
        return int(self.get(f"/sockets/{name}/")["sockets"])


@pytest.fixture(scope="module", params=["redis-streams", "ipc", "memory"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    env = {"DJANGO_SETTINGS_MODULE": "tests.project.users_settings"}
    folder = tmp_path_factory.mktemp("users")
    url = None
    if request.param == "redis-streams":
        url = fresh_redis(request.getfixturevalue("redis_url")).replace("redis:", "redis-streams:")
        env["TEST_GROUPS"] = url.replace("redis-streams:", "redis:")
    elif request.param == "ipc":
        url, env["TEST_IPC"] = f"ipc://{folder}/ipc", f"{folder}/ipc"
    project = Project(folder, url, env)
    try:
        project.migrate()
        project.start()
        ports = [project.port]
        if not project.embedded:
            other = free_port()
            project.processes.interface(env=project.env, port=other)
            ports.append(other)
        yield Site(project, ports)
    finally:
        project.stop()


def closed(socket: ClientConnection) -> tuple[int | None, str]:
    """Wait until a socket is closed; return code and reason."""
    try:
        while True:
            socket.recv(20)
    except ConnectionClosed as error:
        return (None, "") if error.rcvd is None else (error.rcvd.code, error.rcvd.reason)


def test_a_send_and_a_close_reach_all_tabs_of_one_user(site: Site) -> None:
    ann, bea = site.log_in("ann"), site.log_in("bea")
    with site.tab(ann, 0) as one, site.tab(ann, 1, "/page/") as two, site.tab(bea, 1) as hers, site.tab() as stranger:
        assert [each.recv(30) for each in (one, two, hers, stranger)] == [
            "welcome ann", "welcome ann", "welcome bea", "welcome stranger"
        ]  # fmt: skip
        assert (site.sockets("ann"), site.sockets("bea")) == (2, 1)
        site.get("/send/ann/hello/")
        assert (one.recv(30), two.recv(30)) == ("hello", "hello")
        site.get("/disconnect/ann/")
        assert closed(one) == closed(two) == (4001, "enough")
        site.get("/send/bea/still/")
        assert hers.recv(30) == "still"  # and nothing of what was for another
        wait_until(lambda: site.sockets("ann") == 0, "the closed sockets to leave the group")


@pytest.mark.parametrize("way", ["denied", "closed", "at-once"])
def test_a_refused_handshake_leaves_no_member(site: Site, way: str) -> None:
    key = site.log_in(f"refused-{way}")
    with pytest.raises(InvalidStatus), site.tab(key, path=f"/refused/{way}/"):
        pass
    site.project.let_go("refused")
    if way != "denied":
        site.project.wait_for_record("refused", way)
    wait_until(lambda: site.sockets(f"refused-{way}") == 0, "no member")


def test_a_socket_that_logs_in_later_joins_then(site: Site) -> None:
    site.log_in("cleo"), site.log_in("dora")
    with site.tab(path="/later/") as socket:
        assert socket.recv(30) == "welcome stranger"
        assert site.sockets("cleo") == 0
        for name, other in (("cleo", "dora"), ("dora", "cleo")):
            socket.send(name)
            assert socket.recv(30) == f"hello {name}"
            assert (site.sockets(name), site.sockets(other)) == (1, 0)


def test_a_logout_closes_the_users_sockets(site: Site) -> None:
    emma, fay = site.log_in("emma"), site.log_in("fay")
    with site.tab(emma, 0) as one, site.tab(emma, 1) as two, site.tab(fay) as hers:
        assert [each.recv(30) for each in (one, two, hers)] == ["welcome emma", "welcome emma", "welcome fay"]
        site.log_out(emma)
        assert closed(one) == closed(two) == (1012, "")
        with site.tab(emma) as again:
            assert again.recv(30) == "welcome stranger"
        site.get("/send/fay/still/")
        assert hers.recv(30) == "still"


def test_a_changed_password_closes_the_users_sockets_on_commit(site: Site) -> None:
    key = site.log_in("gwen")
    with site.tab(key, 0) as one, site.tab(key, 1) as two:
        assert (one.recv(30), two.recv(30)) == ("welcome gwen", "welcome gwen")
        site.get("/password/gwen/rollback/")
        site.get("/password/gwen/same/")
        site.get("/send/gwen/still/")
        assert (one.recv(30), two.recv(30)) == ("still", "still")
        site.get("/password/gwen/commit/")
        assert closed(one) == closed(two) == (1012, "")
