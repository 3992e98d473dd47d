"""Streaming responses hold threads: how many an operator sees, and how many there may be."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.support.demo import fresh_streams
from tests.support.metrics import Metrics
from tests.support.project import Project
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120)]


def project(directory: pytest.TempPathFactory, redis_url: str | None, **env: str) -> Project:
    folder = directory.mktemp("streaming")
    (folder / "file").write_bytes(os.urandom(1024 * 1024))
    return Project(folder, redis_url, {"TEST_FILE": str(folder / "file"), "TEST_STREAMING_RESPONSES": "2", **env})


@pytest.fixture(scope="module")
def shared(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A site whose worker has four threads and may run two streaming responses; it has no worker yet."""
    site = project(tmp_path_factory, fresh_streams(redis_url), TEST_THREADS="4")
    try:
        site.start_interface("--metrics")
        yield site
    finally:
        site.stop()


@pytest.fixture
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    site = project(tmp_path_factory, None)
    try:
        site.start_interface("--metrics")
        yield site
    finally:
        site.stop()


@contextlib.contextmanager
def ticks(site: Project) -> Iterator[httpx.Response]:
    """A response without end, which has begun or was refused."""
    with httpx.stream("GET", f"{site.url}/ticks/", timeout=20, trust_env=False) as response:
        parts = response.iter_text()  # that ends with the response
        if response.status_code == 200:
            assert next(parts).startswith("data: 0")
        yield response


def statuses(site: Project, *targets: str) -> list[int]:
    def get(target: str) -> int:
        return httpx.get(f"{site.url}{target}", timeout=20, trust_env=False).status_code

    with ThreadPoolExecutor(len(targets)) as threads:
        return list(threads.map(get, targets))


def check_the_bound(site: Project) -> None:
    with ticks(site) as first, ticks(site) as second:
        assert (first.status_code, second.status_code) == (200, 200)
        wait_until(lambda: Metrics(site.url)("worker_streaming") == 2, "both to be told of")
        assert Metrics(site.url)("http_streaming") == 2
        assert Metrics(site.url)("worker_streaming_limit") == 2
        if not site.embedded:
            listed = json.loads(site.processes.manage("channels", "--json", env=site.env))
            (worker,) = listed["layers"][0]["workers"]
            assert (worker["streaming"], worker["streaming_limit"]) == (2, 2)
        for _ in range(3):
            with ticks(site) as refused:
                assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
                refused.read()
                assert "too many responses stream" in refused.text
        # Everything else goes on, files too.
        assert statuses(site, *["/"] * 5, *["/download/"] * 5) == [200] * 10
    wait_until(lambda: Metrics(site.url)("worker_streaming") == 0, "both to be over", 20)
    assert Metrics(site.url)("http_streaming") == 0
    assert site.worker_output.count("CONFIG['streaming_responses']") == 1
    with ticks(site) as another:
        assert another.status_code == 200
        # Short ones wait for one another.
        assert statuses(site, *["/ticks/?n=2"] * 20) == [200] * 20


@pytest.mark.ways("threads")
@pytest.mark.parametrize("pool", ["threads", "prefork", "gevent"])
def test_the_bound(shared: Project, pool: str) -> None:
    shared.start_worker("-P", pool)
    try:
        check_the_bound(shared)
    finally:
        shared.worker.stop()


def test_the_bound_of_an_embedded_worker(embedded: Project) -> None:
    check_the_bound(embedded)
