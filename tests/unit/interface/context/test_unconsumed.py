"""Channels that no worker consumes, and the log lines about them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from channelsq.interface.basis.config import InterfaceConfig
from channelsq.interface.basis.limits import Limits
from channelsq.interface.context.unconsumed import Look, Unconsumed
from tests.support.kept_logs import kept
from tests.support.layers import wrapped

HTTP, CONNECT, RECEIVE = "http.request", "websocket.connect", "websocket.receive"
PATIENCE, GRACE = Limits().answer_patience, Limits().worker_grace


class Watch:
    """The object under test, its clock, and what the next look finds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **config: Any) -> None:
        self.now = 1000.0
        self.found: Look | None = none(0)
        self.asked: list[list[str]] = []
        self.watch = Unconsumed(wrapped(), InterfaceConfig(**config))
        loop: Any = SimpleNamespace(time=lambda: self.now)

        def run(channels: list[str], _loop: object) -> None:
            self.asked.append(channels)
            self.watch._on_look(channels, self.found, loop)

        monkeypatch.setattr(self.watch, "_run", run)
        monkeypatch.setattr("channelsq.interface.context.unconsumed.asyncio.get_running_loop", lambda: loop)
        monkeypatch.setattr("channelsq.interface.context.unconsumed.threading.Thread", _AtOnce)

    def wait(self, seconds: float, *channels: str) -> None:
        """Let time pass, with a message waiting in each of some channels since now."""
        begun = self.now
        while self.now < begun + seconds:
            self.now += 0.5
            for channel in channels:
                self.watch.waits(channel, begun, self.now)
            self.watch.on_tick(self.now)

    @property
    def unready(self) -> tuple[str, bool] | None:
        return self.watch.unready(self.now)


class _AtOnce:
    """A thread that runs when it is started."""

    def __init__(self, target: Any, args: Any, **more: Any) -> None:
        self.start = lambda: target(*args)


def none(workers: int | None, *read: str, **depths: int) -> Look:
    """A look that found messages in the channels that are not named with a depth."""
    return Look(workers, frozenset(read), {name.replace("_", "."): depth for name, depth in depths.items()})


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(monkeypatch)


@pytest.fixture
def lines() -> Iterator[list[logging.LogRecord]]:
    """Return the log lines of the interface server."""
    with kept("channelsq.interface") as records:
        yield records


def test_it_is_told_once_and_then_ever_less_often(watch: Watch, lines: list[logging.LogRecord]) -> None:
    watch.wait(PATIENCE - 1, HTTP)
    assert (watch.asked, lines, watch.unready) == ([], [], None)
    watch.wait(5, HTTP)
    (line,) = lines
    assert line.levelno == logging.WARNING
    assert "no worker consumes http.request, where a message has waited for 4 s: start celery -A " in line.getMessage()
    assert watch.unready == ("no worker consumes http.request", False)
    watch.wait(4 * 3600, HTTP)
    # After 1, 2, 4, 8, 16 and 32 minutes, then each hour.
    assert 8 <= len(lines) <= 10
    assert "a message has waited for " in lines[-1].getMessage()


def test_nothing_waits_nothing_is_asked(watch: Watch) -> None:
    watch.wait(600)
    assert watch.asked == []


def test_the_server_is_not_ready_after_a_grace(watch: Watch) -> None:
    watch.wait(PATIENCE + 1, HTTP, CONNECT)
    assert watch.unready == ("no worker consumes http.request, websocket.connect", False)
    watch.wait(GRACE - 3, HTTP)
    assert watch.unready is not None
    assert watch.unready[1] is False
    watch.wait(4, HTTP)
    assert watch.unready == ("no worker consumes http.request, websocket.connect", True)


def test_a_worker_that_comes_back_ends_it_at_once(watch: Watch, lines: list[logging.LogRecord]) -> None:
    watch.wait(60, HTTP)
    assert watch.unready == ("no worker consumes http.request", True)
    watch.found = none(1, HTTP, CONNECT)
    watch.wait(2)  # clients may have left
    assert watch.unready is None
    assert lines[-1].getMessage() == "http.request is consumed again"


def test_a_busy_worker_is_one(watch: Watch, lines: list[logging.LogRecord]) -> None:
    watch.found = none(1, HTTP)
    watch.wait(100, HTTP)
    assert watch.asked
    assert lines == []
    assert watch.unready is None


def test_workers_that_do_not_say_what_they_read_read_all(watch: Watch, lines: list[logging.LogRecord]) -> None:
    watch.found = Look(2, None, {})
    watch.wait(100, HTTP, RECEIVE)
    assert lines == []


def test_workers_of_other_channels_are_told_of(watch: Watch, lines: list[logging.LogRecord]) -> None:
    watch.found = none(2, HTTP, CONNECT)
    watch.wait(100, RECEIVE)
    text = lines[0].getMessage()
    assert "no worker consumes websocket.receive" in text
    assert "the 2 announced workers read other channels" in text
    assert "without -Q and -X, or with websocket.receive in -Q" in text
    # Pages and handshakes are answered, so that the server is of use.
    assert watch.unready == ("no worker consumes websocket.receive", False)


def test_a_program_that_announces_nothing_and_takes_the_messages(watch: Watch, lines: list[logging.LogRecord]) -> None:
    watch.found = none(0, http_request=0)
    watch.wait(100, HTTP)
    assert lines == []


def test_a_program_that_announces_nothing_and_answers(watch: Watch, lines: list[logging.LogRecord]) -> None:
    for _ in range(50):
        watch.watch.answers[HTTP] += 1
        watch.wait(1, HTTP)
        watch.watch.waits(HTTP, 0, watch.now)
    assert lines == []
    watch.wait(30, HTTP)
    assert watch.unready is not None
    watch.watch.answers[HTTP] += 1
    watch.wait(2, HTTP)
    assert watch.unready is None


def test_expired_messages_end_it_where_no_worker_was_ever_announced(watch: Watch) -> None:
    watch.wait(60, HTTP)
    watch.found = none(0, http_request=0)
    watch.wait(2)
    assert watch.unready is None  # nobody knows


def test_expired_messages_do_not_end_it_where_workers_announce_themselves(watch: Watch) -> None:
    watch.found = none(1, HTTP)
    watch.wait(10, HTTP)
    watch.found = none(0)
    watch.wait(60, HTTP)
    watch.found = none(0, http_request=0)
    watch.wait(60)
    assert watch.unready == ("no worker consumes http.request", True)


def test_sockets_that_are_answered_keep_the_server_ready(watch: Watch) -> None:
    for _ in range(60):
        watch.watch.answers[CONNECT] += 1
        watch.wait(1, HTTP)
        watch.watch.waits(HTTP, 0, watch.now)
    assert watch.unready == ("no worker consumes http.request", False)


def test_a_layer_without_announcements_is_judged_later(watch: Watch, lines: list[logging.LogRecord]) -> None:
    watch.found = none(None)
    watch.wait(PATIENCE + 1, HTTP)
    assert lines == []
    watch.wait(6, HTTP)
    assert "no message was taken from http.request for " in lines[0].getMessage()
    assert "no worker consumes it, or all are busy: start celery" in lines[0].getMessage()
    watch.wait(100, RECEIVE)  # whose answers are not counted
    assert len([line for line in lines if "receive" in line.getMessage()]) == 0
    watch.found = none(None, http_request=0)
    watch.wait(2)
    assert watch.unready is None


def test_views_in_the_server_itself_keep_it_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(monkeypatch, http="direct")
    watch.wait(600, CONNECT)
    assert watch.unready == ("no worker consumes websocket.connect", False)


def test_a_broker_that_is_away_says_nothing(watch: Watch, lines: list[logging.LogRecord]) -> None:
    watch.found = None
    watch.wait(100, HTTP)
    assert watch.asked
    assert lines == []
