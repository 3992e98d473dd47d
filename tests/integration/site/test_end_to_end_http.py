"""Django's views behind a real interface server, with the worker in the same process and apart on Redis."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import redis

from tests.support.demo import PASSWORD, Demo, fresh_redis, fresh_streams
from tests.support.project import Project
from tests.support.visitor import Visitor
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(120)

MIB = 1024 * 1024

BOTH = ["embedded", pytest.param("redis", marks=pytest.mark.redis)]


@pytest.fixture(scope="module")
def big_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "big"
    path.write_bytes(os.urandom(20 * MIB))
    return path


@pytest.fixture(scope="module", params=BOTH)
def site(request: pytest.FixtureRequest, big_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    redis_url = fresh_streams(request.getfixturevalue("redis_url")) if request.param == "redis" else None
    project = Project(tmp_path_factory.mktemp("site"), redis_url, {"TEST_FILE": str(big_file)})
    project.migrate()
    try:
        project.start()
        yield project
    finally:
        project.stop()


@pytest.fixture
def client(site: Project) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=site.url, timeout=60, trust_env=False) as client:
        yield client


def test_upload_of_50_mb(client: httpx.Client) -> None:
    content = os.urandom(50 * MIB)
    answer = client.post("/upload/", data={"title": "größer"}, files={"file": ("größe.bin", content)})
    assert answer.json() == {
        "name": "größe.bin",
        "title": "größer",
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def test_download_of_20_mb(client: httpx.Client, big_file: Path) -> None:
    answer = client.get("/download/")
    assert answer.headers["Content-Length"] == str(20 * MIB)
    assert answer.headers["Content-Disposition"] == "attachment; filename*=utf-8''gr%C3%B6%C3%9Fe.bin"
    assert hashlib.sha256(answer.content).digest() == hashlib.sha256(big_file.read_bytes()).digest()
    head = client.head("/download/")
    assert (head.headers["Content-Length"], head.content) == (str(20 * MIB), b"")


def test_a_stream_arrives_in_parts(site: Project, client: httpx.Client) -> None:
    with client.stream("GET", "/stream/") as answer:
        assert answer.headers["Transfer-Encoding"] == "chunked"
        lines = answer.iter_lines()
        assert next(lines) == "first"
        site.let_go("stream")
        assert list(lines) == ["second"]


def test_the_generator_is_closed_when_the_client_leaves(site: Project, client: httpx.Client) -> None:
    with client.stream("GET", "/endless/") as answer:
        parts = answer.iter_raw()
        assert next(parts)
        assert not site.recorded("endless")
    site.wait_for_record("endless", "closed")
    site.wait_for_record("http-disconnect", "/endless/")


def test_http_disconnect_while_the_view_works(site: Project) -> None:
    with (
        pytest.raises(httpx.ReadTimeout),
        httpx.Client(base_url=site.url, timeout=1, trust_env=False) as client,
    ):
        client.get("/slow/")
    site.wait_for_record("slow", "begun")
    site.wait_for_record("http-disconnect", "/slow/")
    site.let_go("slow")


def test_cookies_and_sessions(client: httpx.Client) -> None:
    answer = client.get("/cookies/")
    assert answer.json() == {}
    assert len(answer.headers.get_list("Set-Cookie")) == 2
    assert client.get("/cookies/").json() == {"first": "1", "second": '[2, "\\u00fc"]'}
    assert [client.get("/count/").text for _ in range(3)] == ["1", "2", "3"]


def test_error_pages(site: Project, client: httpx.Client) -> None:
    missing = client.get("/no/such/page/")
    assert (missing.status_code, "Not Found" in missing.text) == (404, True)
    broken = client.get("/broken/")
    assert (broken.status_code, "Server Error (500)" in broken.text) == (500, True)
    assert "s3cret" not in broken.text
    if not site.embedded:  # there the log is the project's affair, as under any server for Django
        wait_until(lambda: "this view always fails" in site.worker.output, "the fault in the log")
    assert client.get("/").text == "hello"


def test_a_consumer_that_fails_is_a_500_at_once_and_nothing_of_its_answer(client: httpx.Client) -> None:
    for _ in range(2):
        answer = client.get("/fail/", timeout=15)
        assert (answer.status_code, answer.text) == (500, "500 Internal Server Error\n")
    assert client.get("/").text == "hello"


@pytest.mark.parametrize("broker", BOTH)
def test_admin(request: pytest.FixtureRequest, broker: str, demo_template: Path, tmp_path: Path) -> None:
    env = {"REDIS_URL": fresh_redis(request.getfixturevalue("redis_url"))} if broker == "redis" else {}
    demo = Demo(demo_template, tmp_path, env)
    admin = Visitor(demo.url)
    try:
        server = demo.start_interface()
        if broker == "redis":
            demo.start_worker()
        else:
            assert "the workers run in this process too" in server.output
        answer = admin.post("/admin/login/", username="admin", password=PASSWORD, next="/admin/")
        assert answer.headers["Location"] == "/admin/"
        assert "Site administration" in admin.get("/admin/").text
        answer = admin.post("/admin/app/room/add/", name="Größe & <b>co</b>", slug="size")
        assert answer.headers["Location"] == "/admin/app/room/"
        assert demo.query("SELECT name FROM app_room WHERE slug = 'size'") == [("Größe & <b>co</b>",)]
        assert "was added successfully" in admin.get("/admin/app/room/").text
        stylesheet = re.search(r'href="(/static/admin/css/base[^"]*\.css)"', admin.get("/admin/").text)
        assert stylesheet
        assert admin.get(stylesheet[1]).headers["Content-Type"].startswith("text/css")
    finally:
        admin.close()
        demo.stop()


@pytest.mark.redis
def test_full_channel_and_late_answer(redis_url: str, tmp_path: Path) -> None:
    url = fresh_redis(redis_url)
    project = Project(tmp_path, url, {"TEST_CAPACITY": "3"})
    try:
        project.start_interface("--http-timeout", "1.5")
        with (
            httpx.Client(base_url=project.url, timeout=30, trust_env=False) as client,
            redis.Redis.from_url(url) as broker,
            ThreadPoolExecutor(3) as threads,
        ):
            waiting = [threads.submit(client.get, "/") for _ in range(3)]
            wait_until(lambda: broker.llen("http.request") == 3, "three requests that wait for a worker")
            refused = client.get("/")
            assert refused.status_code == 503
            assert refused.headers["Retry-After"] == "1"
            assert refused.text == "503 Service Unavailable: please try again soon\n"
            for late in waiting:
                assert late.result().status_code == 504
                assert late.result().text == "504 Gateway Timeout: the application did not answer in time\n"
            # A worker that comes takes what has been left, and answers the next.
            project.start_worker()
            assert client.get("/").text == "hello"
    finally:
        project.stop()
