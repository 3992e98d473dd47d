"""Every socket's messages are handled one after another, whatever happens to the workers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection

from tests.support.project import Project
from tests.support.swarm import Sockets
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.timeout(180)]

SOCKETS = 200
FRAMES = 8


@pytest.fixture
def project(redis_url: str, tmp_path: Path) -> Iterator[Project]:
    url = redis_url.replace("redis:", "redis-streams:").rsplit("/", 1)[0] + "/6"
    project = Project(tmp_path, url, {"TEST_FAST": "1", "TEST_VISIBILITY": "3", "TEST_CAPACITY": "1000"})
    yield project
    project.stop()


async def talk(number: int, socket: ClientConnection) -> None:
    """Send frames now and then, and leave at once after the last."""
    for frame in range(FRAMES):
        await asyncio.sleep(random.uniform(0, 1.5))
        await socket.send(str(frame))


@pytest.mark.ways(r"\[threads")
@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_order_with_two_workers_of_eight_threads_and_kills_in_between(project: Project, pool: str) -> None:
    project.start_interface("--order-timeout", "120")
    options = ("-P", pool, "-c", "8" if pool == "threads" else "1", "--channel-threads", "8")
    workers = [project.new_worker(*options) for _ in range(2)]
    sockets = Sockets(f"{project.ws_url}/order/{{}}/", SOCKETS, talk)
    sockets.start()
    total = SOCKETS * (FRAMES + 2)

    def wait_for_more(than: int) -> None:
        wait_until(lambda: len(project.recorded("order")) > than, "a part of the work", 60)

    for part in (1, 2):
        wait_for_more(total * part * 2 // 4)
        workers[part - 1].kill()
        workers.append(project.new_worker(*options))
    sockets.join(60)
    wait_until(
        lambda: len({line for line in project.recorded("order") if line.endswith("disconnect end")}) == SOCKETS,
        "every disconnect", 60,
    )  # fmt: skip

    expected = ["connect", *map(str, range(FRAMES)), "disconnect"]
    events: dict[str, list[tuple[str, str]]] = {}
    for line in project.recorded("order"):
        name, what, moment = line.split()
        events.setdefault(name, []).append((what, moment))
    assert len(events) == SOCKETS
    again = 0
    for name, seen in events.items():
        handled: list[str] = []
        open_one: str | None = None
        for what, moment in seen:
            if moment == "begin":
                # One that was begun and not ended was in the hands of a worker that was killed.
                assert open_one in (None, what), f"socket {name}: {what} began within {open_one}: {seen}"
                again += open_one is not None or handled[-1:] == [what]
                open_one = what
            else:
                assert open_one == what, f"socket {name}: {seen}"
                open_one = None
                if handled[-1:] != [what]:
                    handled.append(what)
        assert handled == expected, f"socket {name}: {seen}"
    assert 0 < again <= 2 * 8 * 2, f"{again} messages were begun twice"
