"""The delays of a thread that has no processor."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from channelsq.worker.sources.delays import Delays

pytestmark = pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the kernel counts no delays")


def compute(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def test_a_thread_that_computes_on_a_busy_machine_is_delayed() -> None:
    crowd = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3 * len(os.sched_getaffinity(0)))
    ]
    try:
        delays = Delays()
        began = time.monotonic()
        compute(0.3)
        longer = time.monotonic() - began - 0.3
        assert delays.since() == pytest.approx(longer, rel=0.3, abs=0.05)
        assert longer > 0.1
        assert delays.since() < 0.1
    finally:
        for process in crowd:
            process.kill()
            process.wait()


def test_a_thread_that_waits_is_not_delayed() -> None:
    delays = Delays()
    threading.Event().wait(0.2)
    assert delays.since() < 0.1


def test_the_delays_of_a_thread_that_has_ended() -> None:
    made: list[Delays] = []
    thread = threading.Thread(target=lambda: made.append(Delays()))
    thread.start()
    thread.join()
    assert made[0].seconds >= 0
    made[0].close()
    assert made[0].seconds == 0
