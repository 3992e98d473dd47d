"""Bodies of requests: too large, too slow, and large ones that take no memory."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import httpx
import pytest

from channelsq.asgi import ChannelLayerWrapper
from channelsq.interface.basis.config import InterfaceConfig
from channelsq.layers import RedisChannelLayer
from tests.support.demo import fresh_redis
from tests.support.interfaces import Call, RawClient, Site, running
from tests.support.memory import forget_peak, needs_proc, peak
from tests.support.project import Project
from tests.support.waiting import wait_until

MIB = 1024 * 1024

#: The size of a large body, in MiB.
BODY = 180


def hello(call: Call) -> None:
    call.reply(status=200, headers=[], content=b"hello", more_content=False)


def actions(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the interface server's log lines of connections, by their action."""
    return [record.__dict__["action"] for record in caplog.records if record.__dict__.get("connection")]


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "channelsq")


@pytest.fixture
def site() -> Iterator[Site]:
    with running({"http.request": hello}, InterfaceConfig(max_body_size=1_000_000)) as site:
        yield site
        with site.raw() as client:  # the next one is served
            client.send(post(b"x" * 1_000_000))
            assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def post(body: bytes = b"", *headers: str, length: int | None = None) -> bytes:
    """A request with a Content-Length."""
    lines = ["POST / HTTP/1.1", "Host: a", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def test_a_length_over_the_limit_is_413_before_anything_is_read(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    with site.raw() as client:
        client.send(post(length=1_000_001))
        answer = client.read_to_end()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close\r\n" in answer
    assert answer.endswith(b"413 Payload Too Large\n")
    assert site.application.messages("http.request") == []
    assert site.count("http.body_too_large") == site.count("http.refused.413") == 1
    assert actions(caplog) == ["body_too_large"]


def test_with_expect_100_continue_nothing_is_asked_for(site: Site) -> None:
    with site.raw() as client:
        client.send(post(b"", "Expect: 100-continue", length=2_000_000))
        assert client.read_to_end().startswith(b"HTTP/1.1 413 ")


def test_a_client_that_sends_all_the_same_reads_the_answer(site: Site) -> None:
    """No reset overtakes the answer, though what still comes is thrown away."""
    with site.raw() as client:
        client.send(post(b"x" * 8 * MIB))
        assert client.read_to_end().startswith(b"HTTP/1.1 413 ")


def test_a_small_limit_counts_for_bodies_that_are_here_at_once() -> None:
    with running({"http.request": hello}, InterfaceConfig(max_body_size=10)) as site, site.raw() as client:
        client.send(post(b"x" * 10))
        assert client.read_until(b"hello").startswith(b"HTTP/1.1 200 ")
        client.send(post(b"x" * 11))
        assert client.read_to_end().startswith(b"HTTP/1.1 413 ")


def test_no_limit_with_0() -> None:
    with running({"http.request": hello}, InterfaceConfig(max_body_size=0)) as site, site.raw() as client:
        client.send(post(b"x" * 100_000))
        assert client.read_until(b"hello").startswith(b"HTTP/1.1 200 ")


def test_a_chunked_body_that_grows_too_large_early_reaches_no_worker() -> None:
    with running({"http.request": hello}, InterfaceConfig(max_body_size=1000)) as site, site.raw() as client:
        client.send(CHUNKED + chunk(b"x" * 900))
        client.send(chunk(b"x" * 101))
        assert client.read_to_end().startswith(b"HTTP/1.1 413 ")
        assert site.application.messages("http.request") == []


def rest_of(site: Site) -> list[dict[str, object]]:
    """The chunks that the worker of the only request gets, to the last."""
    (request,) = site.application.wait_for("http.request")
    chunks: list[dict[str, object]] = []
    while not chunks or chunks[-1]["more_content"]:
        content = site.layer.receive([request["body_channel"]], block=True)[1]
        assert content is not None
        chunks.append(content)
    return chunks


@pytest.mark.parametrize("begun", [False, True])
def test_a_chunked_body_that_grows_too_large_later(begun: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Its worker is told that it ends; the client gets 413, or a cut-off answer if there is one already."""

    def begin(call: Call) -> None:
        if begun:
            call.now(status=200, headers=[], content=b"so far so good", more_content=True)

    with running({"http.request": begin}, InterfaceConfig(max_body_size=1_000_000)) as site, site.raw() as client:
        client.send(CHUNKED + chunk(b"x" * 600_000))
        site.application.wait_for("http.request")
        if begun:
            client.read_until(b"so far so good")
        client.send(chunk(b"x" * 600_000))
        answer = client.read_to_end()
        assert answer.startswith(b"HTTP/1.1 413 ") is not begun
        assert rest_of(site)[-1]["closed"] is True
        assert site.count("http.body_too_large") == 1
        assert b"0\r\n\r\n" not in answer
    assert actions(caplog) == ["body_too_large"]


def test_a_body_that_drips_is_408(caplog: pytest.LogCaptureFixture) -> None:
    stop = threading.Event()

    def drip(client: RawClient) -> None:
        while not stop.wait(0.05):
            try:
                client.send(b"x")
            except OSError:
                return

    config = InterfaceConfig(header_timeout=0.3, min_body_rate=1000)
    with running({"http.request": hello}, config) as site, site.raw() as client:
        client.send(post(length=1000))
        thread = threading.Thread(target=drip, args=(client,))
        thread.start()
        try:
            answer = client.read_until(b"\n\r\n")
        finally:
            stop.set()
            thread.join()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert site.application.messages("http.request") == []
        assert site.count("http.slow_body") == site.count("http.refused.408") == 1
    assert actions(caplog) == ["slow_body"]


def test_a_body_that_is_held_up_by_its_worker_is_not_slow() -> None:
    """Only the time counts in which the client is waited for."""
    config = InterfaceConfig(header_timeout=0.2, min_body_rate=2_000_000)
    with running({}, config, layer_config={"capacity": 1}) as site, site.raw() as client:
        client.socket.settimeout(20)
        sender = threading.Thread(target=client.send, args=(post(b"x" * 3 * MIB),))
        sender.start()
        (request,) = site.application.wait_for("http.request")
        site.wait_for_count("http.body_waits", 6)  # more than half a second, in which 512 KiB may come
        chunks = rest_of(site)
        assert not any(each["closed"] for each in chunks)
        assert len(request["body"]) + sum(len(each["content"]) for each in chunks) == 3 * MIB  # type: ignore[misc,arg-type]
        sender.join()
        assert site.count("http.slow_body") == 0


# -- memory, and Django's own handler --------------------------------------------------------


@pytest.fixture(scope="module")
def broker(redis_url: str) -> str:
    return fresh_redis(redis_url).replace("redis:", "redis-streams:")


@pytest.fixture(scope="module")
def project(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """An interface server alone, whose worker is the test."""
    project = Project(tmp_path_factory.mktemp("bodies"), broker)
    try:
        project.start_interface("--max-body-size", f"{BODY}m")
        yield project
    finally:
        project.stop()


@needs_proc
@pytest.mark.redis
@pytest.mark.timeout(60)
def test_memory_does_not_grow_with_the_body(project: Project, broker: str) -> None:
    layer = ChannelLayerWrapper(RedisChannelLayer(url=broker, capacity=4), "default", [])
    pid = project.interface.pid
    before = forget_peak(pid)
    done: list[bytes] = []

    def send() -> None:
        with socket.create_connection(("127.0.0.1", project.port), timeout=30) as connection:
            client = RawClient(connection)
            client.send(post(length=BODY * MIB))
            for _ in range(BODY):
                client.send(b"x" * MIB)
            done.append(client.read_until(b"\r\n\r\n"))

    sender = threading.Thread(target=send)
    sender.start()
    try:
        request = wait_until(lambda: layer.receive(["http.request"])[1], "the request")
        size = len(request["body"])
        while True:
            part = layer.receive([request["body_channel"]], block=True)[1]
            if part is None:
                continue
            size += len(part["content"])
            assert not part["closed"]
            if not part["more_content"]:
                break
        layer.send(request["reply_channel"], {"status": 200, "headers": [], "content": b"thanks"})
        sender.join(20)
        grown = peak(pid) - before
    finally:
        layer.close()
    assert size == BODY * MIB
    assert done[0].startswith(b"HTTP/1.1 200 ")
    assert grown < BODY * MIB / 3  # on a busy machine it is some 40 MiB, also of a body of twice this size


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Django's views in the interface server itself."""
    project = Project(tmp_path_factory.mktemp("direct"))
    project.migrate()
    try:
        project.start_interface(
            "--http", "direct", "--max-body-size", "70m", "--header-timeout", "1", "--min-body-rate", "1m", "--metrics",
            "-v", "2",
        )  # fmt: skip
        yield project
    finally:
        project.stop()


def raw(project: Project) -> socket.socket:
    return socket.create_connection(("127.0.0.1", project.port), timeout=30)


def test_too_large_for_djangos_own_handler(direct: Project) -> None:
    before = direct.counted("refused_total", reason="body_too_large")
    for data in (post(length=80 * MIB), post(b"", "Expect: 100-continue", length=80 * MIB)):
        with raw(direct) as connection:
            client = RawClient(connection)
            client.send(data)
            assert client.read_to_end().startswith(b"HTTP/1.1 413 ")
    assert direct.counted("refused_total", reason="body_too_large") == before + 2
    direct.interface.wait_for_output("POST /: answered with 413: its body has more than 73400320 bytes")
    assert "Traceback" not in direct.interface.output


@needs_proc
@pytest.mark.timeout(60)
def test_a_body_that_grows_too_large_for_djangos_own_handler_takes_no_memory(direct: Project) -> None:
    before = forget_peak(direct.interface.pid)
    with raw(direct) as connection:
        client = RawClient(connection)
        client.send(CHUNKED)
        for _ in range(75):
            client.send(chunk(b"x" * MIB))
        assert client.read_to_end().startswith(b"HTTP/1.1 413 ")
    assert peak(direct.interface.pid) - before < 12 * MIB
    assert httpx.get(direct.url).text == "hello"


def test_too_slow_for_djangos_own_handler(direct: Project) -> None:
    with raw(direct) as connection:
        client = RawClient(connection)
        client.send(post(b"half", length=8))
        assert client.read_to_end().startswith(b"HTTP/1.1 408 ")
    assert direct.counted("refused_total", reason="slow_body") == 1
    assert "Traceback" not in direct.interface.output
