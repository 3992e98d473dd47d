"""Signs of life of a WebSocket: whole messages, pings, pongs; no dripped bytes, no fragments without content."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator

import pytest

from channelsq.interface.basis.config import InterfaceConfig
from tests.support.interfaces import Call, RawClient, Site, accept, echo, frame, running


def fragments(content: bytes, at_once: int = 1) -> Iterator[bytes]:
    """A message without end."""
    yield frame(0x1, content, fin=False)
    yield from itertools.repeat(frame(0x0, content, fin=False) * at_once)


def drip(data: bytes) -> Iterator[bytes]:
    return (bytes([byte]) for byte in data)


DEAD: dict[str, Callable[[], Iterable[bytes]]] = {
    "a frame byte by byte": lambda: drip(frame(0x1, b"x" * 60_000)),
    "a ping byte by byte": lambda: drip(frame(0x9, b"x" * 100) * 9),
    "fragments without content": lambda: fragments(b""),
    "fragments of a byte": lambda: fragments(b"x"),
    "many fragments": lambda: fragments(b"", 1000),
}

LIVING: dict[str, Callable[[], Iterable[bytes]]] = {
    "messages": lambda: itertools.repeat(frame(0x1, b"")),
    "pings": lambda: itertools.repeat(frame(0x9, b"")),
    "pongs that nobody asked for": lambda: itertools.repeat(frame(0xA, b"")),
    "a long message": lambda: fragments(b"x" * 4096),
    "a long frame": lambda: [frame(0x2, b"x" * 1_000_000)[start : start + 4096] for start in range(0, 1_000_000, 4096)],
}


@contextlib.contextmanager
def sending(client: RawClient, parts: Iterable[bytes]) -> Iterator[threading.Thread]:
    """Send one part after the other, until that fails or all is over."""
    stop = threading.Event()

    def send() -> None:
        with contextlib.suppress(OSError):
            for part in parts:
                client.send(part)
                if stop.wait(0.02):
                    return

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        client.socket.close()
        thread.join()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    config = InterfaceConfig(ping_interval=0.3, ping_timeout=1.2, max_message_rate=1000)
    with running({"websocket.connect": accept, "websocket.receive": echo}, config) as site:
        yield site


def test_what_is_a_sign_of_life(site: Site) -> None:
    with contextlib.ExitStack() as stack:
        threads = {}
        for kind, parts in (*DEAD.items(), *LIVING.items()):
            client = stack.enter_context(site.raw())
            client.upgrade("/" + kind.replace(" ", "-"))
            threads[kind] = stack.enter_context(sending(client, parts()))
        ends = site.application.wait_for("websocket.disconnect", len(DEAD))
        threads["messages"].join(2.5)  # longer than a ping may be unanswered
        assert {end["path"] for end in ends} == {"/" + kind.replace(" ", "-") for kind in DEAD}
        assert {end["code"] for end in ends} == {1006}
        assert all(threads[kind].is_alive() for kind in LIVING)
        assert site.count("websocket.ping_timeouts") == len(DEAD)


def test_silence_of_a_socket_that_is_not_read_is_no_death() -> None:
    """Its pongs wait behind messages for which there is no room."""
    go = threading.Event()

    def slow(call: Call) -> None:
        assert go.wait(20)
        echo(call)

    config = InterfaceConfig(ping_interval=0.2, ping_timeout=0.4)
    with (
        running({"websocket.connect": accept, "websocket.receive": slow}, config) as site,
        site.raw() as client,
    ):
        client.upgrade()
        client.send(frame(0x1, b"hello") * 30)
        site.wait_for_count("websocket.paused")
        threading.Event().wait(1.5)
        go.set()
        echoes = 0
        while echoes < 20:
            echoes += client.read_frame() == (0x1, b"hello")
        assert site.count("websocket.ping_timeouts") == 0


@pytest.mark.parametrize("kind", ["fragments without content", "a frame byte by byte"])
def test_they_do_not_make_a_socket_busy(kind: str) -> None:
    config = InterfaceConfig(idle_timeout=0.6)
    with running({"websocket.connect": accept}, config) as site, site.raw() as client:
        client.upgrade()
        with sending(client, DEAD[kind]()):
            assert client.read_close() == 1001
