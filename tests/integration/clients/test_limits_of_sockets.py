"""WebSockets that send too fast, too much or nothing, and decompression bombs."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect

from channelsq.interface.basis.config import InterfaceConfig
from channelsq.interface.basis.limits import Limits
from tests.support.interfaces import RawClient, Site, accept, echo, frame, running
from tests.support.memory import forget_peak, needs_proc, peak
from tests.support.project import Project
from tests.support.waiting import wait_until

ECHO = {"websocket.connect": accept, "websocket.receive": echo}


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "channelsq")


def records(caplog: pytest.LogCaptureFixture, action: str) -> list[str]:
    """The connections of the log's lines with ``action``."""
    return [record.__dict__["connection"] for record in caplog.records if record.__dict__.get("action") == action]


def check_another(site: Site) -> None:
    """Another client is served at once."""
    with connect(site.ws_url) as other:
        begun = time.monotonic()
        other.send("x")
        assert other.recv(timeout=10) == "x"
        assert time.monotonic() - begun < 0.5


# -- how fast --------------------------------------------------------------------------------


def test_too_many_messages_are_read_more_slowly_and_none_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    with running(ECHO, InterfaceConfig(max_message_rate=200)) as site, site.raw() as client:
        client.upgrade()
        begun = time.monotonic()
        client.send(b"".join(frame(1, b"%d" % number) for number in range(600)))
        site.wait_for_count("websocket.throttled")
        check_another(site)
        assert [client.read_frame() for _ in range(600)] == [(1, b"%d" % number) for number in range(600)]
        assert time.monotonic() - begun > 0.9  # 200 in stock, as many again for the first second, and the rest
        assert site.count("websocket.throttled") > 1
        (opened, *_) = site.application.messages("websocket.connect")
        assert records(caplog, "throttled") == [opened["reply_channel"]]


@pytest.mark.parametrize("what", ["pings", "empty fragments"])
def test_control_frames_and_empty_fragments_count_for_ten(what: str) -> None:
    with running(ECHO, InterfaceConfig(max_message_rate=1000)) as site, site.raw() as client:
        client.upgrade()
        begun = time.monotonic()
        if what == "pings":
            client.send(frame(9, b"p") * 290 + frame(1, b"end"))
            assert [client.read_frame() for _ in range(290)] == [(10, b"p")] * 290
        else:
            client.send(frame(1, b"e", fin=False) + frame(0, b"", fin=False) * 290 + frame(0, b"nd"))
        assert client.read_frame() == (1, b"end")
        assert time.monotonic() - begun > 0.85
        assert site.count("websocket.throttled")


@pytest.mark.parametrize("compressed", [False, True])
def test_too_many_bytes_are_read_more_slowly_and_none_is_lost(compressed: bool) -> None:
    """A compressed message counts with its unpacked size."""
    with running(ECHO, InterfaceConfig(max_byte_rate=200_000)) as site:
        with connect(site.ws_url, compression="deflate" if compressed else None) as client:
            begun = time.monotonic()
            for number in range(12):
                client.send(str(number) * 50_000)
            for number in range(12):
                assert client.recv(timeout=10) == str(number) * 50_000
            client.send("end")
            assert client.recv(timeout=10) == "end"
            assert time.monotonic() - begun > 0.9
        assert site.count("websocket.throttled")


def test_the_defaults_let_a_busy_socket_be() -> None:
    with running(ECHO) as site, site.raw() as client:
        client.upgrade()
        data = b"".join(frame(1, b"x" * 100) for _ in range(250))
        for _ in range(12):
            client.send(data)
            for _ in range(250):
                client.read_frame()
        assert site.count("websocket.received") == 3000
        assert site.count("websocket.throttled") == 0


def test_no_rates_with_0() -> None:
    with running(ECHO, InterfaceConfig(max_message_rate=0, max_byte_rate=0)) as site, site.raw() as client:
        client.upgrade()
        client.send(frame(9, b"p") * 6000)
        for _ in range(6000):
            assert client.read_frame() == (10, b"p")
        assert site.count("websocket.throttled") == 0


def test_a_client_that_pings_and_does_not_read_is_closed() -> None:
    config = InterfaceConfig(send_queue=100_000, max_message_rate=0, limits=Limits(close_timeout=0.5))
    with running({"websocket.connect": accept}, config) as site, site.raw() as client:
        client.upgrade()
        client.socket.settimeout(10)
        try:
            while not site.count("websocket.slow_clients"):
                client.send(frame(9, b"p" * 100) * 1000)
        except OSError:
            pass  # it was dropped, as it does not read the close frame either
        assert site.count("websocket.slow_clients") == 1
        (last,) = site.application.wait_for("websocket.disconnect")
        assert last["code"] == 1013


# -- decompression bombs ---------------------------------------------------------------------

MIB = 1024 * 1024
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover"


def bomb(size: int, step: int = 16 * MIB) -> bytes:
    """Compressed data that becomes ``size`` zeros, a multiple of ``step``."""
    compressor = zlib.compressobj(9, wbits=-12)
    one = compressor.compress(bytes(step)) + compressor.flush(zlib.Z_FULL_FLUSH)
    return (one * (size // step))[:-4]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """An interface server in a process of its own, with its workers inside."""
    project = Project(tmp_path_factory.mktemp("bombs"))
    project.migrate()
    try:
        project.start_interface("--metrics")
        yield project
    finally:
        project.stop()


@pytest.mark.timeout(60)
def test_floods_slow_nobody_else_down(tmp_path: Path) -> None:
    """Without the limits on rates even the handshake of somebody else times out."""
    alone = Project(tmp_path)
    alone.start_interface("--metrics")
    stop = threading.Event()
    begun: list[bytes] = []

    def flood(data: bytes) -> None:
        with socket.create_connection(("127.0.0.1", alone.port), timeout=10) as connection:
            client = RawClient(connection)
            begun.append(client.upgrade("/chat/flood/"))
            connection.settimeout(0.1)
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    client.send(data)
                with contextlib.suppress(TimeoutError):
                    while connection.recv(MIB):
                        pass

    pings, empties = frame(9, b"p") * 5000, frame(1, b"a", fin=False) + frame(0, b"", fin=False) * 5000
    before = alone.counted("websocket_throttled_total")
    threads = [threading.Thread(target=flood, args=(data,)) for data in (pings, empties) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: alone.counted("websocket_throttled_total") >= before + len(threads), "the floods")
        with connect(f"{alone.ws_url}/chat/tea/") as other:
            for number in range(50):
                other.send(str(number))
                assert other.recv(timeout=2) == f"tea: {number}"
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)
        alone.interface.kill()  # it would read on for a while
        alone.stop()
    assert len(begun) == len(threads)


def whole(data: bytes) -> bytes:
    """In one frame, which is parsed past the parser if it comes with one read."""
    return frame(1, data, rsv=4)


def fragments(data: bytes) -> bytes:
    parts = [data[start : start + 4000] for start in range(0, len(data), 4000)]
    first, *others, last = parts
    return b"".join(
        [frame(1, first, rsv=4, fin=False), *(frame(0, part, fin=False) for part in others), frame(0, last)]
    )


@needs_proc
@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(whole(bomb(1024 * MIB)), id="1 GiB in 1 MiB"),
        pytest.param(whole(bomb(16 * MIB, MIB)), id="16 MiB in one read"),
        pytest.param(fragments(bomb(1024 * MIB)), id="1 GiB in fragments"),
        pytest.param(
            frame(1, bomb(MIB, MIB) + b"\x00\x00\xff\xff", rsv=4, fin=False) + frame(0, bomb(16 * MIB, MIB)) * 10,
            id="a full message that goes on",
        ),
    ],
)
def test_a_bomb_is_1009_and_takes_no_memory(alone: Project, data: bytes) -> None:
    assert len(data) < 1.1 * MIB
    before = alone.counted("websocket_closed_total", reason="message_too_big")
    with socket.create_connection(("127.0.0.1", alone.port), timeout=20) as connection:
        client = RawClient(connection)
        assert b"permessage-deflate" in client.upgrade("/chat/tea/", DEFLATE)
        client.send(whole(bomb(MIB // 2, MIB // 2)))  # what an ordinary message of that size takes
        assert client.read_frame()[0] == 1
        memory = forget_peak(alone.interface.pid)
        client.send(data)
        assert client.read_close() == 1009
    assert peak(alone.interface.pid) - memory < 8 * MIB
    assert alone.counted("websocket_closed_total", reason="message_too_big") == before + 1
    assert "Traceback" not in alone.interface.output
    alone.interface.wait_for_output("/chat/tea/: closed, the client broke the protocol")
