"""The number of threads of a runner follows from its jobs."""

from __future__ import annotations

from channelsq.worker.sources.load import LOOK, GreenletLoad, Load, make_load

LIMIT = 8


class Clock:
    """Jobs that follow each other."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.load = Load(limit)
        self.now = 1000.0

    def jobs(self, number: int, seconds: float, part: float, *, at_once: int = 1) -> int:
        """Have jobs take so long, computing for a part of it; returns how many may then run at once.

        Args:
            number: how many jobs.
            seconds: how long each takes.
            part: of that for which its thread computes.
            at_once: how many of them run at once.
        """
        for _ in range(number):
            self.now += seconds / at_once
            self.load.add(self.now, seconds, seconds * part, alone=at_once == 1)
        return self.load.allowed


def test_one_job_at_a_time_is_the_beginning() -> None:
    assert Clock().load.allowed == 1


def test_jobs_that_wait_raise_the_number() -> None:
    clock = Clock()
    assert clock.jobs(50, 0.002, 0.5) == 2
    assert clock.jobs(100, 0.002, 0.25) == 4
    assert clock.jobs(200, 0.002, 0.01) == LIMIT
    assert clock.load.waiting > 0.0015


def test_the_limit_is_kept() -> None:
    assert Clock(3).jobs(500, 0.01, 0.0) == 3


def test_jobs_that_compute_lower_it() -> None:
    clock = Clock()
    assert clock.jobs(200, 0.002, 0.01) == LIMIT
    assert clock.jobs(200, 0.002, 1.0) == 1
    assert clock.load.waiting < 0.0002


def test_threads_that_keep_the_interpreter_busy_become_fewer_even_if_each_seems_to_wait() -> None:
    """Beside others a thread waits for the interpreter, too, so that its own part says little."""
    clock = Clock()
    clock.jobs(200, 0.002, 0.1)
    before = clock.load.allowed
    assert before > 4
    after = clock.jobs(200, 0.008, 1 / 4, at_once=4)  # together they compute all the time
    assert after < before


def test_free_time_gives_it_back() -> None:
    clock = Clock()
    clock.jobs(200, 0.002, 0.1)
    clock.jobs(200, 0.008, 1 / 4, at_once=4)
    low = clock.load.allowed
    clock.jobs(200, 0.008, 0.1, at_once=4)
    assert clock.load.allowed > low


def test_one_job_alone_that_waited_long_counts_more_than_short_ones() -> None:
    short, long = Clock(), Clock()
    short.jobs(1, 0.002, 0.0)
    long.jobs(1, 0.1, 0.0)
    assert short.load.allowed == 1
    assert long.load.allowed == 2


def test_a_stall_lets_one_more_begin() -> None:
    clock = Clock()
    clock.load.stalled(1)
    assert clock.load.allowed == 2
    clock.load.stalled(2)
    assert clock.load.allowed == 3
    for running in range(3, 20):
        clock.load.stalled(running)
    assert clock.load.allowed == LIMIT


def test_computing_beside_jobs_counts() -> None:
    """The computing of polls is the interpreter's time, too."""
    clock = Clock()
    clock.jobs(200, 0.002, 0.1)
    before = clock.load.allowed
    for _ in range(100):
        clock.now += LOOK
        clock.load.compute(clock.now, LOOK)
    assert clock.load.allowed < before


def test_a_job_that_took_no_time_is_no_division_by_it() -> None:
    clock = Clock()
    clock.load.add(clock.now, 0.0, 0.0, alone=True)
    assert clock.load.allowed == 1


def test_jobs_are_kept_in_stock_if_they_wait_for_a_short_time() -> None:
    clock = Clock()
    assert clock.load.stock == 0
    clock.jobs(200, 0.0005, 0.05)
    assert clock.load.stock == 2 * LIMIT
    clock.jobs(400, 0.01, 0.01)
    assert clock.load.stock == 3  # each of them waits some 4 ms for one of eight threads
    clock.jobs(100, 0.1, 0.001)
    assert clock.load.stock == 0
    clock.jobs(300, 0.001, 1.0)
    assert clock.load.stock == 0


def test_greenlets_all_run_whatever_they_do() -> None:
    load = GreenletLoad(LIMIT)
    assert load.allowed == LIMIT
    for number in range(100):
        load.add(1000 + number, 1.0, 1.0, alone=False)
        load.compute(1000 + number, 1.0)
    load.stalled(LIMIT)
    assert load.allowed == LIMIT
    assert load.waiting > 0.9
    assert type(make_load(LIMIT)) is Load  # nothing is patched here
