"""A socket whose connect consumer fails is refused at once, and the log says so."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support.brokers import make_broker
from tests.support.project import Project
from tests.support.waiting import wait_until

#: Seconds for which the interface server waits for a socket to be accepted.
PATIENCE = 4.0

pytestmark = [pytest.mark.timeout(120), pytest.mark.ways(r"embedded|streams-threads")]

WAYS = [
    "embedded",
    pytest.param("redis-streams-threads", marks=pytest.mark.redis),
    pytest.param("redis-streams-prefork", marks=pytest.mark.redis),
    pytest.param("redis-threads", marks=pytest.mark.redis),
    pytest.param("rabbitmq-threads", marks=pytest.mark.rabbitmq),
]


@pytest.fixture(scope="module", params=WAYS)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    broker, _, pool = str(request.param).rpartition("-")
    env = make_broker(request, broker).env if broker else {}
    project = Project(tmp_path_factory.mktemp("site"), env=env)
    project.embedded = not broker
    try:
        project.start_interface("--accept-timeout", f"{PATIENCE:g}")
        if broker:
            project.start_worker("-P", pool, "-c", "2")
            wait_until(lambda: opens(project), "the worker's processes", 60)
        yield project
    finally:
        project.stop()


def opens(site: Project) -> bool:
    """Return whether a socket opens whose consumer does not fail."""
    try:
        with connect(f"{site.ws_url}/failing/not", proxy=None, open_timeout=20):
            return True
    except InvalidStatus:
        return False


def refusal(site: Project, path: str) -> tuple[int, float]:
    """The status that a handshake is refused with, and after how many seconds."""
    begun = monotonic()
    with pytest.raises(InvalidStatus) as refused:
        connect(f"{site.ws_url}{path}", proxy=None, open_timeout=20)
    return refused.value.response.status_code, monotonic() - begun


@pytest.mark.parametrize("path", [f"/failing/{way}" for way in ("raise", "unserialisable", "reject", "ignore")])
def test_a_connect_consumer_that_fails_is_a_500_at_once(site: Project, path: str) -> None:
    status, seconds = refusal(site, path)
    assert status == 500
    assert seconds < PATIENCE / 2
    said = f"{path}: handshake answered with 500: the consumer of its connect failed"
    wait_until(lambda: said in site.interface.output, "the log")


def test_one_that_is_not_ordered_too(site: Project) -> None:
    assert refusal(site, "/early/raise")[0] == 500


def test_a_coroutine_function_is_a_failure_that_says_what_to_write(site: Project) -> None:
    status, _ = refusal(site, "/async/")
    assert status == 500
    wait_until(lambda: "async_connect is a coroutine function (async def)" in site.worker_output, "the error")
    assert "never awaited" not in site.worker_output


def test_one_that_does_not_answer_is_not_blamed_on_workers(site: Project) -> None:
    status, seconds = refusal(site, "/silent/")
    assert (status, seconds >= PATIENCE) == (504, True)
    wait_until(lambda: "its consumer did not accept it within 4 s" in site.interface.output, "the log")


def test_the_others_open(site: Project) -> None:
    with connect(f"{site.ws_url}/failing/not", proxy=None) as socket:
        assert socket.ping().wait(15)
