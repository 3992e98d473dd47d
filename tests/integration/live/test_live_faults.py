"""Live tasks whose worker, interface server or Redis dies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from celery import Celery
from websockets.exceptions import ConnectionClosed

from tests.support.live import Page
from tests.support.project import Project
from tests.support.servers import DURABLE, RedisServer
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.timeout(180)]


class Site:
    """A project on a Redis of its own, which keeps what it has when it is killed."""

    def __init__(self, directory: Path) -> None:
        self.redis = RedisServer(directory / "redis", DURABLE)
        self.redis.start()
        url = self.redis.url
        env = {"TEST_LAYER": url.replace("redis:", "redis-streams:"), "TEST_RESULTS": url, "TEST_VISIBILITY": "2"}
        self.project = Project(directory, url, env)
        self.project.migrate()
        self.project.start_interface()

    def page(self) -> Page:
        return Page(f"{self.project.ws_url}/live/")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.project.stop()
    site.redis.stop()


def test_a_task_that_is_redelivered_starts_its_text_anew(site: Site) -> None:
    """A pool's process is killed in the middle of a task with ``acks_late``."""
    site.project.start_worker("-P", "prefork", "-c", "2")
    with site.page() as page:
        task = page.start("dies_once", "first")
        page.until(lambda: page.text(task, "answer")[0] == "a run that dies, ", "the text of the first run")
        site.project.let_go("first-go")
        assert page.end(task)["result"] == "survived"
        assert page.text(task, "answer") == ("a run that dies, a run that lives", True)
        runs = {each["run"] for each in page.payloads if each.get("stream") == "answer"}
        assert len(runs) == 2


def test_a_task_whose_process_dies_has_failed(site: Site) -> None:
    """Without ``acks_late`` it does not run again; the worker's main process tells of it."""
    site.project.start_worker("-P", "prefork", "-c", "2")
    with site.page() as page:
        end = page.end(page.start("dies"))
        assert (end["state"], end["error"]) == ("failure", "The task failed.")


@pytest.mark.ways("other ways")
def test_a_task_over_its_hard_time_limit_has_failed(site: Site) -> None:
    site.project.start_worker("-P", "prefork", "-c", "2")
    with site.page() as page:
        task = page.start("too_long")
        page.state(task, "started")
        wait_until(lambda: "Hard time limit" in site.project.worker_output, "the end")

        def has_ended() -> bool:
            page.ask("watch", page.ticket(task))  # before Celery 5.6 the worker tells nobody; the result backend does
            page.until(lambda: page.payloads[-1].get("ticket") and page.payloads[-1]["id"] == task, "the answer")
            return str(page.of(task)[-1]["state"]) == "failure"

        wait_until(has_ended, "the failure to be told")


@pytest.mark.filterwarnings("ignore:Call to deprecated setex")  # by Celery's backend
def test_a_page_that_asks_learns_what_celery_knows(site: Site) -> None:
    """The whole worker dies before it can report the end, which the result backend has."""
    worker = site.project.new_worker("-P", "threads")
    with site.page() as page:
        task = page.start("count", 4, "unseen-on")
        page.state(task, "started")
        worker.kill()
        with Celery(backend=site.redis.url, set_as_current=False) as celery:
            celery.backend.store_result(task, 4, "SUCCESS")
        page.ask("watch", page.ticket(task))
        site.project.start_worker("-P", "threads")
        assert page.end(task)["result"] == 4


def test_a_page_goes_on_when_its_interface_server_was_replaced(site: Site) -> None:
    site.project.start_worker("-P", "threads")
    words = [f"word {number} " for number in range(2000)]
    with site.page() as page:
        task = page.start("write", words, "replaced-on")
        page.until(lambda: page.text(task, "answer")[0], "the first words")
        ticket = page.ticket(task)
        site.project.interface.kill()
        with pytest.raises(ConnectionClosed):
            page.until(lambda: False, "the socket to be closed")
    site.project.start_interface()
    with site.page() as page:
        page.ask("watch", ticket)
        page.state(task, "started")
        site.project.let_go("replaced-on")
        assert page.end(task)["state"] == "success"
        assert page.text(task, "answer") == ("".join(words), True)


def test_what_a_task_reports_waits_for_redis(site: Site) -> None:
    """Redis is killed under a running task, and comes back with what it had."""
    site.project.start_worker("-P", "threads")
    words = [f"word {number} " for number in range(2000)]
    with site.page() as page:
        task = page.start("write", words, "redis-on")
        page.until(lambda: page.text(task, "answer")[0], "the first words")
        ticket = page.ticket(task)
        assert site.redis.process is not None
        site.redis.process.kill()
        site.project.let_go("redis-on")  # the task writes the other half while Redis is away, and ends
        wait_until(lambda: "live" in site.project.worker_output, "the worker to say that reports wait", 30)
        site.redis.start()
        page.end(task)
        with site.page() as late:
            late.ask("watch", ticket)
            late.end(task)
            assert late.text(task, "answer") == ("".join(words), True)


@pytest.mark.ways("other ways")
def test_a_page_is_told_that_a_task_is_not_known_any_more(site: Site) -> None:
    """Redis comes back empty."""
    site.project.start_worker("-P", "threads")
    with site.page() as page:
        task = page.start("count", 4, "emptied-on")
        page.state(task, "started")
        with redis.Redis.from_url(site.redis.url) as client:
            client.flushall()
        page.ask("watch", page.ticket(task))
        page.state(task, "unknown")
        site.project.let_go("emptied-on")
