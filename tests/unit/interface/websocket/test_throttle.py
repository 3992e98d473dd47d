from __future__ import annotations

import pytest

from channelsq.interface.websocket.throttle import Throttle
from tests.support.fakes.loops import FakeLoop


class ThrottledSocket:
    def __init__(self, frames: int, size: int) -> None:
        self.clock = FakeLoop()
        self.told: list[str] = []
        self.throttle = Throttle(
            self.clock,  # type: ignore[arg-type]
            frames,
            size,
            self,
        )

    def on_held(self) -> None:
        self.told.append("held")

    def on_free(self) -> None:
        self.told.append("free")


def test_within_the_limits_the_clock_is_not_even_looked_at() -> None:
    socket = ThrottledSocket(1000, 1000)
    looked = socket.clock.looked
    for _ in range(1000):
        socket.throttle.took(1, 1)
    assert (socket.told, socket.clock.looked) == ([], looked)


@pytest.mark.parametrize(("frames", "size"), [(100, 0), (0, 100)])
def test_what_is_too_much_at_once_is_waited_for(frames: int, size: int) -> None:
    socket = ThrottledSocket(frames, size)
    socket.throttle.took(300, 300)
    assert socket.throttle.held
    assert socket.told == ["held"]
    socket.clock.run_timer()
    assert socket.clock.now == pytest.approx(1002.1)  # what is owed, and a little
    assert not socket.throttle.held
    assert socket.told == ["held", "free"]


def test_the_rate_holds_in_the_long_run() -> None:
    socket = ThrottledSocket(100, 0)
    taken = 0
    while socket.clock.now < 1060:
        socket.throttle.took(1, 0)
        taken += 1
        if socket.throttle.held:
            socket.clock.run_timer()
    assert taken == pytest.approx(6000, rel=0.05)


def test_a_rest_gives_back_a_second_and_no_more() -> None:
    socket = ThrottledSocket(100, 0)
    socket.throttle.took(100, 0)
    socket.clock.now += 1000
    socket.throttle.took(100, 0)
    assert not socket.throttle.held
    socket.throttle.took(101, 0)
    assert socket.throttle.held


def test_pieces_are_small_if_few_frames_are_left() -> None:
    socket = ThrottledSocket(100, 0)
    assert ThrottledSocket(1000, 0).throttle.piece == 600
    assert socket.throttle.piece == 128
    assert ThrottledSocket(10_000, 0).throttle.piece == ThrottledSocket(0, 10).throttle.piece == 4096


def test_the_end_ends_the_timer() -> None:
    socket = ThrottledSocket(1, 0)
    socket.throttle.took(2, 0)
    socket.throttle.ended()
    assert socket.clock.timers == []
