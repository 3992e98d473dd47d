"""Threads that run requests: as few as are of use, as many as there are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from kombu.asynchronous import Hub

from channelsq.worker.lanes import SoloLane, ThreadLane
from tests.support.waiting import wait_until


class Channel:
    """Counts how often it is told to send what was acknowledged."""

    connection_errors = (ConnectionError,)

    def __init__(self) -> None:
        self.flushed = 0
        self.error: Exception | None = None

    def flush_acks(self, *, wait: bool) -> None:
        assert not wait
        self.flushed += 1
        if self.error is not None:
            raise self.error

    def free_credit(self) -> None:
        pass


class Job:
    """A request that does what it is told."""

    def __init__(self, channel: Channel, work: Callable[[], None] = lambda: None, abandoned: bool = False) -> None:
        self.channel = channel
        self.abandoned = abandoned
        self.thread = ""
        self.done = threading.Event()
        self._work = work

    def run(self) -> None:
        self.thread = threading.current_thread().name
        self._work()
        self.done.set()

    def humaninfo(self) -> str:
        return "a job"


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4, thread_name_prefix="pool") as executor:
        yield executor


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A worker's event loop, turning in a thread."""
    hub = Hub()
    ended = threading.Event()

    def turn() -> None:
        while not ended.is_set():
            hub.run_once()

    # run_once() sleeps until the next timer; this one keeps it awake.
    hub.call_repeatedly(0.005, lambda: None)
    thread = threading.Thread(target=turn)
    thread.start()
    yield hub
    ended.set()
    thread.join()
    hub.close()


def test_quick_ones_are_run_in_order_by_one_thread(executor: ThreadPoolExecutor, hub: Hub) -> None:
    lane, channel, order = ThreadLane(executor, 4, hub), Channel(), list[int]()
    jobs = [Job(channel, lambda number=number: order.append(number)) for number in range(200)]  # type: ignore[misc]
    for job in jobs:
        lane.put(job)
    wait_until(lambda: all(job.done.is_set() for job in jobs), "all to be run")
    assert order == list(range(200))
    wait_until(lambda: channel.flushed > 0, "acknowledgements to be sent")


def test_a_slow_one_holds_up_no_other(executor: ThreadPoolExecutor, hub: Hub) -> None:
    lane, channel, release = ThreadLane(executor, 4, hub), Channel(), threading.Event()
    slow = [Job(channel, lambda: bool(release.wait(30)) and None) for _ in range(3)]
    quick = Job(channel)
    for job in (*slow, quick):
        lane.put(job)
    wait_until(quick.done.is_set, "the quick one, while three others block")
    assert not any(job.done.is_set() for job in slow)
    release.set()
    wait_until(lambda: all(job.done.is_set() for job in slow), "the slow ones")


def test_no_more_threads_than_the_pool_has(executor: ThreadPoolExecutor, hub: Hub) -> None:
    lane, channel, release = ThreadLane(executor, 2, hub), Channel(), threading.Event()
    running: list[str] = []

    def block() -> None:
        running.append(threading.current_thread().name)
        release.wait(30)

    jobs = [Job(channel, block) for _ in range(5)]
    for job in jobs:
        lane.put(job)
    wait_until(lambda: len(running) == 2, "two threads")
    other = executor.submit(threading.current_thread)  # the pool's other tasks have the threads that are left
    assert other.result(timeout=10).name not in running
    assert len(running) == 2
    release.set()
    wait_until(lambda: all(job.done.is_set() for job in jobs), "all of them")
    assert len(set(running)) == 2


def test_what_is_abandoned_is_not_begun(executor: ThreadPoolExecutor, hub: Hub) -> None:
    lane, channel = ThreadLane(executor, 4, hub), Channel()
    left, taken = Job(channel, abandoned=True), Job(channel)
    lane.put(left)
    lane.put(taken)
    wait_until(taken.done.is_set, "the other one")
    assert not left.done.is_set()


def test_a_failure_and_a_lost_redis_end_no_thread(
    executor: ThreadPoolExecutor, hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    lane, channel = ThreadLane(executor, 1, hub), Channel()
    channel.error = ConnectionError("gone")

    def fail() -> None:
        raise MemoryError("no more")

    lane.put(Job(channel, fail))
    wait_until(lambda: channel.flushed > 0, "the first to be over")
    again = Job(channel)
    lane.put(again)
    wait_until(again.done.is_set, "the next one")
    actions = {getattr(record, "action", None) for record in caplog.records}
    assert {"run_failed", "acks_wait"} <= actions


def test_a_pool_that_stops_takes_nothing(executor: ThreadPoolExecutor, hub: Hub) -> None:
    lane, job = ThreadLane(executor, 4, hub), Job(Channel())
    executor.shutdown()
    lane.put(job)
    assert not job.done.is_set()


def test_without_an_event_loop_each_asks_for_a_thread(executor: ThreadPoolExecutor) -> None:
    lane, channel, met = ThreadLane(executor, 4, None), Channel(), threading.Barrier(3, timeout=30)
    jobs = [Job(channel, lambda: bool(met.wait()) and None) for _ in range(3)]
    for job in jobs:
        lane.put(job)
    wait_until(lambda: all(job.done.is_set() for job in jobs), "three at once")


def test_solo_runs_at_once() -> None:
    lane, channel = SoloLane(), Channel()
    done, left = Job(channel), Job(channel, abandoned=True)
    lane.put(done)
    lane.put(left)
    assert done.done.is_set()
    assert done.thread == threading.current_thread().name
    assert not left.done.is_set()
