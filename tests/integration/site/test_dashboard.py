"""The dashboard of a site with several workers: one sampler at a time, also while workers are killed."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from websockets.sync.client import ClientConnection, connect

from tests.support.dashboard_site import DashboardSite
from tests.support.demo import fresh_redis
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.timeout(180)]

_LOGIN = """
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
user = User.objects.get(username="alice")
session = SessionStore()
session[SESSION_KEY] = str(user.pk)
session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
session[HASH_SESSION_KEY] = user.get_session_auth_hash()
session.save()
print(session.session_key)
"""


@pytest.fixture(scope="module")
def site(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DashboardSite]:
    made = DashboardSite(tmp_path_factory.mktemp("dashboard"), fresh_redis(redis_url))
    try:
        made.make()
        made.fill()
        made.start()
        yield made
    finally:
        made.processes.stop()


class Watcher:
    """A page of the dashboard, without a browser.

    Args:
        site: the site.
        cookie: the session of its user.
        stack: closes the socket.
    """

    def __init__(self, site: DashboardSite, cookie: str, stack: contextlib.ExitStack) -> None:
        url = f"ws://127.0.0.1:{site.port}/channelsq/dashboard/"
        headers = {"Origin": site.url, "Cookie": f"sessionid={cookie}"}
        self._socket: ClientConnection = stack.enter_context(connect(url, additional_headers=headers, proxy=None))
        self.say("hello")
        assert self.next()["type"] == "history"

    def say(self, kind: str) -> None:
        """Send a frame."""
        self._socket.send(json.dumps({"type": kind}))

    def next(self, timeout: float = 40.0) -> dict[str, Any]:
        """Return the next frame."""
        frame: dict[str, Any] = json.loads(self._socket.recv(timeout))
        return frame

    def samples(self, count: int) -> list[dict[str, Any]]:
        """Ask as a page does, and return the next samples."""
        found: list[dict[str, Any]] = []
        while len(found) < count:
            self.say("look")
            with contextlib.suppress(TimeoutError):
                while len(found) < count:
                    frame = self.next(0.5)
                    assert frame["type"] == "sample", frame
                    found.append(frame)
        return found


@pytest.fixture
def cookie(site: DashboardSite) -> str:
    return site.shell(_LOGIN).split()[-1]


def test_several_pages_and_workers_make_one_sample_an_interval(site: DashboardSite, cookie: str) -> None:
    first = site.worker
    site.processes.start("celery", "-A", "mysite", "worker", "-n", "second@%h", env=site.env, cwd=site.folder)
    client: Any = redis.Redis.from_url(site.redis_url)
    wait_until(lambda: client.scard("channelsq:workers") == 2, "two workers", timeout=60)
    with contextlib.ExitStack() as stack:
        watchers = [Watcher(site, cookie, stack) for _ in range(3)]
        frames = watchers[0].samples(4)
        times = [each["point"]["time"] for each in frames]
        assert all(later - earlier >= 1.5 for earlier, later in itertools.pairwise(times))
        assert frames[-1]["totals"]["workers"] == 2
        assert frames[-1]["point"]["sockets"] == 3
        # The others got the same ones, though only the first page asked.
        for watcher in watchers[1:]:
            while watcher.next()["point"]["time"] != times[-1]:
                pass

        first.kill()
        assert (
            len(watchers[0].samples(3)) == 3
        )  # the other worker takes them, after the lease of what the dead one held
    site.start_worker()

    # No page looks any more: the turn ends, and no worker takes it again.
    wait_until(lambda: not client.keys("*channelsq.dashboard.turn*"), "the end of the turn")
    wait_until(lambda: not client.keys("*group*channelsq.dashboard*"), "an empty group")
    client.close()
