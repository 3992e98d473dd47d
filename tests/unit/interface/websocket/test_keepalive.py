"""Clients that do not answer a ping, and the time when they count as lost."""

from __future__ import annotations

import pytest

from channelsq.interface.websocket.keepalive import KeepAlive


@pytest.fixture
def pinged() -> KeepAlive:
    """One that has had a ping at 10, and is lost at 15."""
    keep_alive = KeepAlive(10, 5, 4096)
    keep_alive.start(0)
    assert keep_alive.ping(9.9) is None
    assert keep_alive.ping(10) is not None
    assert keep_alive.ping(20) is None
    keep_alive.look(10, 0, read=True, held=False)
    return keep_alive


def test_silence(pinged: KeepAlive) -> None:
    pinged.look(14.9, 4095, read=True, held=False)
    assert not pinged.is_lost(14.9)
    assert pinged.is_lost(15)


def test_a_sign_of_life(pinged: KeepAlive) -> None:
    pinged.signs += 1
    pinged.look(14, 0, read=True, held=False)
    assert not pinged.is_lost(18.9)
    assert pinged.is_lost(19)


def test_a_part_of_a_message(pinged: KeepAlive) -> None:
    pinged.look(14, 4096, read=True, held=False)
    assert not pinged.is_lost(18.9)
    pinged.look(18, 4097, read=True, held=False)
    assert pinged.is_lost(19)
    pinged.look(20, 0, read=True, held=False)  # it is whole
    assert not pinged.is_lost(24.9)


def test_an_answer(pinged: KeepAlive) -> None:
    keep_alive = KeepAlive(10, 5, 4096)
    keep_alive.start(0)
    data = keep_alive.ping(10)
    assert data is not None
    keep_alive.pong(b"another")
    assert keep_alive.is_lost(16)
    keep_alive.pong(data)
    assert not keep_alive.is_lost(16)
    assert keep_alive.ping(20) is not None


@pytest.mark.parametrize(("floods", "lost"), [(False, False), (True, True)])
def test_a_client_that_is_not_read(pinged: KeepAlive, floods: bool, lost: bool) -> None:
    pinged.look(11, 0, read=True, held=False)
    if not floods:
        pinged.signs += 1
        pinged.look(11, 0, read=True, held=False)
    pinged.held(0)
    for now in range(12, 60):
        pinged.look(now, 0, read=False, held=True)
    assert pinged.is_lost(60) is lost
    if not lost:
        pinged.look(63, 0, read=True, held=False)
        assert not pinged.is_lost(63.9)
        assert pinged.is_lost(64)


def test_messages_that_have_no_room(pinged: KeepAlive) -> None:
    for now in range(11, 60):
        pinged.look(now, 0, read=False, held=False)
    assert not pinged.is_lost(59 + 4.9)
    assert pinged.is_lost(59 + 5)


def test_no_limit() -> None:
    keep_alive = KeepAlive(1, 0, 4096)
    keep_alive.start(0)
    assert keep_alive.ping(1) is not None
    assert not keep_alive.is_lost(1e9)
    assert keep_alive.ping(2) is not None
