"""Workers die under requests: nothing is joined, nothing has a hole, and no card is charged twice."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import httpx
import pytest
from websockets.sync.client import connect

from tests.project.repeats import PART
from tests.support.brokers import Broker, make_broker
from tests.support.demo import fresh_redis
from tests.support.processes import Process
from tests.support.project import Project
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.redis,
    pytest.mark.timeout(120),
    pytest.mark.ways(r"redis-streams threads"),
]

T = TypeVar("T")

#: Seconds until what a dead worker held comes again.
LEASE = "2"


class Site(Project):
    """The test project on a broker, with workers that are killed."""

    pool = "threads"
    workers: list[Process]

    def another_worker(self, *args: str, slots: int = 2) -> Process:
        """Start one more worker of the site's pool, which runs so many consumers at once."""
        worker = self.new_worker("-P", self.pool, "-c", str(slots), "--channel-threads", str(slots), *args)
        self.workers.append(worker)
        return worker

    def at_once(self, cases: Sequence[T]) -> Sequence[T]:
        """As many of the cases as a worker has under way at once: a solo worker only the first."""
        return cases[:1] if self.pool == "solo" else cases

    def end_workers(self) -> None:
        """Let every worker that is left finish, and stop it: what it held would come to the next test's workers."""
        for name in ("parts", "charge", "answer", "pay"):
            self.let_go(name)
        for worker in self.workers:
            worker.begin_stop()
        for worker in self.workers:
            worker.stop(5)
        self.workers.clear()

    def forget(self) -> None:
        """Begin the accounts anew."""
        for path in self.records.iterdir():
            path.unlink()


#: Each pool on streams, and one on each other broker.
WAYS = [
    "redis-streams threads",
    "redis-streams prefork",
    "redis-streams solo",
    "redis threads",
    "redis prefork",
    pytest.param("rabbitmq threads", marks=pytest.mark.rabbitmq),
    pytest.param("rabbitmq prefork", marks=pytest.mark.rabbitmq),
]


@pytest.fixture(scope="module", params=WAYS)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    kind, pool = request.param.rsplit(" ", 1)
    request.param = kind
    broker: Broker = make_broker(request)
    if kind != "rabbitmq":
        url = fresh_redis(broker.groups_url)
        broker = Broker(url.replace("redis:", f"{kind}:"), url)
    env = {**broker.env, "TEST_VISIBILITY": LEASE, "TEST_SHUTDOWN": "2", "TEST_STREAMING_RESPONSES": "8"}
    site = Site(tmp_path_factory.mktemp(f"{kind}-{pool}".replace(" ", "-")), env=env)
    site.pool, site.workers = pool, []
    site.embedded = False
    site.start_interface("--order-timeout", "5")
    yield site
    site.stop()


@pytest.fixture
def site(running: Site) -> Iterator[Site]:
    running.forget()
    yield running
    running.end_workers()


class Request(threading.Thread):
    """A request that is under way, and what has come of its answer.

    Args:
        call: makes a streamed request, as ``httpx.stream`` does.
    """

    def __init__(self, call: Callable[[], contextlib.AbstractContextManager[httpx.Response]]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self.status = 0
        self.content = b""
        self.error: httpx.HTTPError | None = None
        self.start()

    def run(self) -> None:
        try:
            with self._call() as response:
                self.status = response.status_code
                for chunk in response.iter_raw():
                    self.content += chunk
        except httpx.HTTPError as error:
            self.error = error

    def end(self, timeout: float = 40.0) -> None:
        """Wait until it is over."""
        self.join(timeout)
        assert not self.is_alive(), f"{self.status}: {len(self.content)} bytes, and no end"


def begin(site: Site, method: str, path: str, **options: Any) -> Request:
    """Send a request."""
    return Request(lambda: httpx.stream(method, f"{site.url}{path}", timeout=60, **options))


def replace_worker(site: Site, slots: int = 2) -> None:
    """Kill the worker, with its children, beside another."""
    site.another_worker(slots=slots)
    site.workers.pop(0).kill()


def test_a_download_is_never_joined_of_two_runs(site: Site) -> None:
    site.another_worker()
    queries = site.at_once(["stop=20", "stop=20&length=1"])
    downloads = [begin(site, "GET", f"/repeats/parts/?{query}") for query in queries]
    wait_until(lambda: all(len(each.content) >= 20 * PART for each in downloads), "twenty parts of each", 20)
    replace_worker(site)
    for download in downloads:
        download.end()
        # The client sees that it is not complete: of one run's parts, in order, with no clean end.
        assert download.status == 200
        assert isinstance(download.error, httpx.RemoteProtocolError | httpx.ReadError)
        pids = {download.content[at + 5 : at + 13] for at in range(0, len(download.content), PART)}
        assert len(pids) == 1
        assert pids <= {b"%08d" % int(pid) for pid in site.recorded("parts-waits")}
        assert len(download.content) == 20 * PART
    assert len(site.recorded("parts")) == len(queries)


def test_a_download_of_which_nothing_has_left_runs_again(site: Site) -> None:
    site.another_worker()
    download = begin(site, "GET", "/repeats/parts/?stop=0")
    wait_until(lambda: site.recorded("parts-waits"), "the view to begin", 20)
    replace_worker(site)
    wait_until(lambda: len(site.recorded("parts-waits")) == 2, "the view to begin again", 30)
    site.let_go("parts")
    download.end()
    assert (download.status, len(download.content), download.error) == (200, 30 * PART, None)


def test_an_unsafe_request_that_had_begun_is_not_begun_again(site: Site) -> None:
    methods = "POST", "DELETE", "PURGE"
    cases = [(method, where) for method in methods for where in ("charge/?card=", "raw/")]
    cases = list(site.at_once(cases))
    site.another_worker(slots=6)
    requests = [begin(site, method, f"/repeats/{where}{card}") for card, (method, where) in enumerate(cases)]
    wait_until(lambda: len(site.recorded("charges")) == len(requests), "each view to begin", 20)
    replace_worker(site)
    for request in requests:
        request.end()
        assert request.status == 502, request.content
    assert sorted(site.recorded("charges")) == sorted(f"{method} {card}" for card, (method, _) in enumerate(cases))
    site.let_go("charge")
    for method, where in cases:
        assert httpx.request(method, f"{site.url}/repeats/{where}8", timeout=20).text == "charged"


def test_requests_that_had_not_begun_are_not_refused(site: Site) -> None:
    site.another_worker("--prefetch-multiplier", "8", slots=1)
    requests = [begin(site, "POST", f"/repeats/charge/?card={card}") for card in range(6)]
    wait_until(lambda: site.recorded("charges"), "a view to begin", 20)
    (first,) = site.recorded("charges")
    replace_worker(site)
    wait_until(lambda: len(site.recorded("charges")) >= 2, "another to begin", 30)
    site.let_go("charge")
    for request in requests:
        request.end()
    assert sorted(request.status for request in requests) == [200] * 5 + [502]
    assert sorted(site.recorded("charges")) == [f"POST {card}" for card in range(6)]
    assert first in site.recorded("charges")


def test_a_request_whose_client_has_left_is_not_begun_again(site: Site) -> None:
    first = site.another_worker()
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{site.url}/repeats/charge/?card=9", timeout=2)
    wait_until(lambda: site.recorded("charges"), "the view to begin", 20)
    replace_worker(site)
    # On Kombu's stock transport it may have come to the first worker itself, after the visibility timeout.
    both = first, site.workers[0]
    wait_until(lambda: any("not run again" in worker.output for worker in both), "a worker to look at it", 30)
    assert site.recorded("charges") == ["POST 9"]


class Upload:
    """A POST of some megabytes that stops half-way, until it is told to go on."""

    size = 3 * 1024 * 1024

    def __init__(self, site: Site, kind: str) -> None:
        self.half_way, self._go_on = threading.Event(), threading.Event()
        self._content = os.urandom(self.size)
        self._head, self._tail = b"", b""
        headers = {"Content-Type": "application/octet-stream"}
        if kind == "form":
            self._head = b'--line\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
            self._tail = b"\r\n--line--\r\n"
            headers = {"Content-Type": "multipart/form-data; boundary=line"}
        if kind == "length":
            headers["Content-Length"] = str(self.size)
        self._request = begin(site, "POST", "/repeats/digest/", content=self._body(), headers=headers)

    def _body(self) -> Iterator[bytes]:
        yield self._head
        for start in range(0, self.size, 65536):
            if start == 2 * 1024 * 1024:
                self.half_way.set()
                self._go_on.wait(60)
            yield self._content[start : start + 65536]
        yield self._tail

    def end(self) -> None:
        """Send the rest; all that was sent has been read, by one view."""
        self._go_on.set()
        self._request.end()
        assert self._request.status == 200, (self._request.status, self._request.content)
        assert hashlib.sha256(self._content).hexdigest() in self._request.content.decode()


def test_an_upload_is_read_again_as_a_whole(site: Site) -> None:
    site.another_worker(slots=3)
    uploads = [Upload(site, kind) for kind in site.at_once(["chunked", "length", "form"])]
    for upload in uploads:
        assert upload.half_way.wait(20)
    replace_worker(site, slots=3)
    for upload in uploads:
        upload.end()
    assert site.recorded("digests") == [str(Upload.size)] * len(uploads)


def test_an_answer_that_was_handed_on_is_never_joined_of_two_runs(site: Site) -> None:
    site.another_worker()
    download = begin(site, "GET", "/repeats/later/")
    wait_until(lambda: site.recorded("answers-wait"), "the answer to begin", 20)
    wait_until(lambda: len(download.content) == 2 * PART, "two parts", 20)
    replace_worker(site)
    wait_until(lambda: len(site.recorded("answers")) == 2, "the consumer to run again", 30)
    site.let_go("answer")
    download.end()
    assert download.status == 200
    assert isinstance(download.error, httpx.RemoteProtocolError | httpx.ReadError)
    assert len(download.content) == 2 * PART


def test_a_frame_that_must_not_be_handled_twice(site: Site) -> None:
    first = site.another_worker()
    with connect(f"{site.ws_url}/repeats/pay/", compression=None) as socket:
        socket.send("slow")
        wait_until(lambda: site.recorded("payments"), "the consumer to begin", 20)
        replace_worker(site)
        both = first, site.workers[0]
        wait_until(lambda: any("not run again" in worker.output for worker in both), "a worker to look at it", 30)
        socket.send("next")
        assert socket.recv(timeout=30) == "paid next"
    assert site.recorded("payments") == ["slow", "next"]


@pytest.mark.parametrize("view", ["endless", "silent"])
def test_a_worker_that_ends_cuts_what_it_streams(site: Site, view: str) -> None:
    worker = site.another_worker()
    stream = begin(site, "GET", f"/repeats/{view}/")
    wait_until(lambda: stream.content, "the stream to begin", 20)
    worker.signal(signal.SIGTERM)
    stream.end(20)
    assert stream.status == 200
    assert isinstance(stream.error, httpx.RemoteProtocolError | httpx.ReadError)
    assert worker.wait(40) in (0, -signal.SIGTERM)
    assert site.recorded("endless-closed") == ["async" if view == "silent" else "sync"]
