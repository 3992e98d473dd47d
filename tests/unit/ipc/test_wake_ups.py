"""Waiters, and the wake-ups that they get from other processes and threads."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from channelsq.ipc import waiter as waiters
from channelsq.ipc.messages import Message
from channelsq.ipc.store import Store, store_at
from channelsq.ipc.waiter import Waiter
from tests.support.waiting import wait_until


def sockets(store: Store) -> list[str]:
    return sorted(path.name for path in store.directory.iterdir() if path.name.startswith("wake-"))


def is_armed(store: Store, slot: int) -> bool:
    return bool(store.wake_ups._flags[slot])


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nobody look for messages by itself."""
    monkeypatch.setattr(waiters, "LOOK_EVERY", 60)


@pytest.fixture
def waiter(place: Store) -> Iterator[Waiter]:
    made = place.waiter(["a"])
    yield made
    made.close()


_WAITER = """
import sys
from pathlib import Path
import channelsq.ipc.waiter
channelsq.ipc.waiter.LOOK_EVERY = 60
from channelsq.ipc.store import store_at
store = store_at(Path(sys.argv[1]))
waiter = store.waiter([sys.argv[2]])
while True:
    waiter.arm()
    taken = store.take([sys.argv[2]], held=False)
    if taken:
        break
    print("waits", flush=True)
    waiter.sleep(60)
    print("woke", flush=True)
print(taken[0].payload.decode(), flush=True)
"""


def test_a_process_is_woken_by_another_for_what_it_waits_for(place: Store) -> None:
    place.put("b", Message(b"nothing of its business", None))
    with subprocess.Popen(
        [sys.executable, "-c", _WAITER, str(place.directory), "a"], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "waits\n"
        place.put("b", Message(b"nor this", None))
        place.put("a", Message(b"this", None))
        assert other.stdout.readlines() == ["woke\n", "this\n"]
        assert other.wait(10) == 0


def test_one_waiter_is_woken_for_one_message(place: Store) -> None:
    ones = [place.waiter(["a"]) for _ in range(3)]
    for each in ones:
        each.arm()
    place.put("a", Message(b"x", None))
    assert sum(is_armed(place, each._slot) for each in ones) == 2
    place.write(lambda tx: tx.put("a", [Message(b"x", None)] * 5))
    assert sum(is_armed(place, each._slot) for each in ones) == 0
    for each in ones:
        each.close()


def test_a_waiter_that_is_awake_is_not_woken(place: Store, waiter: Waiter) -> None:
    waiter.arm()
    waiter.disarm()
    place.put("a", Message(b"x", None))
    assert waiter.socket is not None
    waiter.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        waiter.socket.recv(1)


def test_a_message_between_the_look_and_the_sleep_is_not_missed(place: Store, waiter: Waiter) -> None:
    waiter.arm()
    assert not place.take(["a"])
    place.put("a", Message(b"x", None))
    waiter.sleep(60)  # the test has a time limit
    assert place.take(["a"])


def test_an_interrupted_waiter_returns(place: Store, waiter: Waiter) -> None:
    waiter.arm()
    thread = threading.Thread(target=waiter.sleep, args=(60,))
    thread.start()
    waiter.interrupt()
    thread.join(10)
    assert not thread.is_alive()


def test_what_is_waited_for_can_change(place: Store, waiter: Waiter) -> None:
    waiter.arm()
    waiter.watch(["b"])
    waiter.arm()
    place.put("a", Message(b"x", None))
    assert is_armed(place, waiter._slot)
    place.put("b", Message(b"x", None))
    assert not is_armed(place, waiter._slot)


def test_the_socket_of_a_dead_process_is_taken_away_and_another_is_woken(place: Store, waiter: Waiter) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _WAITER, str(place.directory), "a"], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "waits\n"
        other.kill()
    waiter.arm()
    assert len(sockets(place)) == 2
    place.put("a", Message(b"x", None))
    assert not is_armed(place, waiter._slot)  # whichever was tried first
    place.sweep(now=True)
    assert sockets(place) == [f"wake-{waiter._slot:x}"]


def test_slots_are_used_again(place: Store) -> None:
    ones = [place.waiter(["a"]) for _ in range(4)]
    for each in ones:
        each.arm()
    assert sockets(place) == ["wake-0", "wake-1", "wake-2", "wake-3"]
    ones[0].close()
    ones[2].close()
    assert sockets(place) == ["wake-1", "wake-3"]
    for each in (ones[2], ones[0]):
        each.arm()
    assert sockets(place) == ["wake-0", "wake-1", "wake-2", "wake-3"]
    place.close()
    assert sockets(place) == []


def test_a_waiter_goes_on_in_a_file_that_was_begun_anew(place: Store, waiter: Waiter) -> None:
    waiter.arm()
    assert waiter.rearm()
    place.path.unlink()
    place.sweep(now=True)
    assert not waiter.rearm()
    waiter.arm()
    place.put("a", Message(b"x", None))
    assert not is_armed(place, waiter._slot)


def test_a_long_path_is_shortened_where_the_system_can(tmp_path: Path) -> None:
    place = store_at(tmp_path / ("long" * 40))
    waiter = place.waiter(["a"])
    waiter.arm()
    if Path("/proc/self/fd").is_dir():
        assert waiter.socket is not None
        place.put("a", Message(b"x", None))
        waiter.sleep(60)
    place.close()
    assert sockets(place) == []


def test_a_waiter_without_a_socket_looks_now_and_then(place: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiters, "SLOTS", 0)
    waiter = place.waiter(["a"])
    waiter.arm()
    assert waiter.socket is None
    before = time.monotonic()
    waiter.sleep(60)
    assert time.monotonic() - before < 10
    waiter.interrupt()
    waiter.close()


def test_closing_ends_a_sleep(place: Store, waiter: Waiter) -> None:
    waiter.arm()
    thread = threading.Thread(target=waiter.sleep, args=(60,))
    thread.start()
    wait_until(thread.is_alive, "the thread to begin")
    place.close()
    thread.join(10)
    assert not thread.is_alive()
