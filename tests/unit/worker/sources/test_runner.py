"""The threads that run jobs: what they take, in which order, and what ends them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from channelsq.worker.sources.runner import Runner
from tests.support.fakes.sources import FakeJob, FakeSource
from tests.support.waiting import wait_until


@contextmanager
def running(source: FakeSource, limit: int) -> Iterator[Runner]:
    runner = Runner(source, limit, "test-runner")
    runner.start()
    try:
        yield runner
    finally:
        runner.stop()
        runner.wait()


def wait_for_sent(source: FakeSource, count: int) -> None:
    wait_until(lambda: len(source.sent) == count, f"{count} outcomes are sent")


def wait_for_poll(source: FakeSource) -> None:
    polls = source.polls
    wait_until(lambda: source.polls > polls, "another poll")


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("test-runner-")]


def test_one_thread_keeps_the_order() -> None:
    source, order = FakeSource(), list[int]()
    jobs = source.put(*(lambda number=number: order.append(number) for number in range(300)))
    with running(source, 1):
        wait_until(lambda: len(source.sent) == 300, "every outcome is sent")
        assert order == list(range(300))
        assert source.sent == jobs
        assert len(threads()) == 1
    assert source.most_polling == 1
    assert threads() == []


def test_a_job_that_waits_does_not_hold_up_the_batch() -> None:
    source, go = FakeSource(), threading.Event()
    with running(source, 4):
        (blocked, *others) = source.put(go.wait, *[lambda: None] * 50)
        wait_until(lambda: len(source.sent) == 50, "the others are done")
        assert set(source.sent) == set(others)
        assert blocked not in source.sent
        (later,) = source.put(lambda: None)
        wait_until(lambda: later in source.sent, "one that came later is done, too")
        go.set()
        wait_until(lambda: blocked in source.sent, "the blocked one is done")
    assert source.most_polling == 1


def test_as_many_wait_at_once_as_there_may_be_threads() -> None:
    source, go = FakeSource(), threading.Event()
    now: list[int] = []

    def wait() -> None:
        now.append(1)
        go.wait()

    with running(source, 3):
        source.put(*[wait] * 10)
        wait_until(lambda: len(now) == 3, "three run")
        assert not threading.Event().wait(0.1)  # longer than what a stall takes
        assert len(now) == 3
        assert len(threads()) == 3 + 1  # one polls for them
        go.set()
        wait_until(lambda: len(source.sent) == 10, "all are done")


def test_more_is_fetched_before_threads_run_out_of_jobs_that_wait() -> None:
    source = FakeSource(credit=16)
    with running(source, 4):
        source.put(*[lambda: threading.Event().wait(0.001)] * 400)
        wait_until(lambda: len(source.sent) == 400, "all are done")
    assert len(source.begun_at_fetches) > 10
    assert source.most_polling == 1


def test_nothing_is_fetched_ahead_of_jobs_that_compute_or_take_long() -> None:
    for function, number in ((lambda: None, 500), (lambda: threading.Event().wait(0.05), 40)):
        source = FakeSource(credit=16)
        with running(source, 4):
            source.put(*[function] * number)
            wait_for_sent(source, number)
        assert source.begun_at_fetches == []


def test_a_source_that_is_empty_is_not_asked_after_each_job() -> None:
    source = FakeSource()
    with running(source, 2):
        source.put(*[lambda: threading.Event().wait(0.001)] * 100)
        wait_until(lambda: len(source.sent) == 100, "it is known that jobs wait")
        fetches = len(source.begun_at_fetches)
        source.put(*[lambda: threading.Event().wait(0.001)] * 20)
        wait_until(lambda: len(source.sent) == 120, "all are done")
        assert len(source.begun_at_fetches) <= fetches + 1


def test_the_outcome_of_a_short_job_does_not_wait_for_a_long_one() -> None:
    source, go = FakeSource(), threading.Event()
    with running(source, 2):
        (short, _) = source.put(lambda: None, go.wait)
        wait_until(lambda: source.sent == [short], "its outcome is sent")
        go.set()


@pytest.mark.parametrize("limit", [2, 3])
def test_an_outcome_is_sent_though_every_thread_runs_a_long_job(limit: int) -> None:
    source, go = FakeSource(), threading.Event()
    with running(source, limit):
        source.put(*[lambda: go.wait(0.003)] * 60)  # so that it is known that jobs wait
        wait_until(lambda: len(source.sent) == 60, "their outcomes are sent")
        (short, *_) = source.put(lambda: None, *[go.wait] * limit)
        try:
            wait_until(lambda: source.sent[60:] == [short], "its outcome is sent")
            wait_until(lambda: source.polling, "more is polled for")
        finally:
            go.set()


@pytest.mark.parametrize("limit", [2, 3])
def test_an_outcome_is_sent_though_jobs_of_its_poll_take_all_threads_and_more_wait(limit: int) -> None:
    """Nothing is known of the jobs yet, so that the first thread takes several in a row."""
    source, go = FakeSource(), threading.Event()
    with running(source, limit):
        (short, *_) = source.put(lambda: None, *[go.wait] * (limit + 2))
        try:
            wait_until(lambda: source.sent == [short], "its outcome is sent")
        finally:
            go.set()


def test_stop_gives_back_what_was_not_begun() -> None:
    source, go, begun = FakeSource(), threading.Event(), threading.Event()

    def first() -> None:
        begun.set()
        go.wait()

    with running(source, 1) as runner:
        (job, *others) = source.put(first, *[lambda: None] * 5)
        assert begun.wait(10)
        runner.stop()
        assert source.given_back == others
        assert source.sent == []
        polls = source.polls
        go.set()
        runner.wait()
        assert source.sent == [job]  # what ran to its end is told
        assert source.polls == polls
        runner.stop()  # again
        assert source.given_back == others


def test_stop_gives_back_what_a_poll_still_brings() -> None:
    class LateSource(FakeSource):
        def interrupt(self) -> None:
            self.put(lambda: None)  # at the last moment
            super().interrupt()

    source = LateSource()
    with running(source, 2) as runner:
        wait_until(lambda: source.polling, "a poll waits")
        runner.stop()
        runner.wait()
        assert len(source.given_back) == 1
        assert source.sent == []


@pytest.mark.parametrize("error", [ValueError("bad"), SystemExit(3), KeyboardInterrupt(), MemoryError()], ids=repr)
def test_what_a_job_raises_does_not_end_its_thread(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    source = FakeSource()

    def fail() -> None:
        raise error

    with running(source, 1):
        (thread,) = threads()
        source.put(fail)
        (after,) = source.put(lambda: None)
        wait_until(lambda: after in source.sent, "the next one is done")
        assert threads() == [thread]
    assert "failed in the worker" in caplog.text


def test_a_poll_that_raises_does_not_end_its_thread(caplog: pytest.LogCaptureFixture) -> None:
    class BrokenSource(FakeSource):
        def poll(self, seconds: float) -> Sequence[FakeJob]:
            if not self.polls:
                self.polls += 1
                raise MemoryError("once")
            return super().poll(seconds)

    source = BrokenSource()
    with running(source, 1):
        (job,) = source.put(lambda: None)
        wait_until(lambda: job in source.sent, "it is done")
    assert "a poll was interrupted" in caplog.text


def test_an_idle_runner_does_nothing() -> None:
    source = FakeSource()
    with running(source, 4):
        go = threading.Event()
        source.put(*[lambda: go.wait(0.05)] * 8)  # so that there are several threads
        wait_until(lambda: len(source.sent) == 8, "they are done")
        assert len(threads()) > 1
        polls, asked = source.polls, source.asked
        assert not threading.Event().wait(0.5)
        assert source.polls - polls <= 1  # each waits for a second
        assert source.asked - asked <= 4


def test_without_credit_nothing_is_polled_and_nobody_asks_over_and_over() -> None:
    source, go = FakeSource(credit=2), threading.Event()
    with running(source, 4):
        source.put(*[go.wait] * 3)
        wait_until(lambda: len(source._held) == 2 and not source.polling, "two are held")
        assert not threading.Event().wait(0.1)
        polls, asked = source.polls, source.asked
        assert not threading.Event().wait(0.3)
        assert source.polls == polls
        assert source.asked - asked < 10
        go.set()
        wait_until(lambda: len(source.sent) == 3, "the third is taken when there is credit again")


def test_a_system_without_more_threads(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    source = FakeSource()

    class Refused(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    with running(source, 4) as runner:
        monkeypatch.setattr(threading, "Thread", Refused)
        source.put(*[lambda: threading.Event().wait(0.05)] * 4)
        wait_until(lambda: len(source.sent) == 4, "one thread runs them all")
        assert runner.limit == 1
    assert caplog.text.count("can't start new thread") == 1


def test_when_jobs_end_the_thread_that_runs_none_leaves_polling_to_the_others() -> None:
    """Its poll may end, with jobs or without, when the others have nothing to do."""
    source, go = FakeSource(), threading.Event()
    with running(source, 2):
        source.put(*[lambda: go.wait(0.003)] * 60)
        wait_until(lambda: len(source.sent) == 60, "their outcomes are sent")
        for wakes_poll in (True, False) * 5:
            go.clear()
            before = len(source.sent)
            source.put(go.wait, go.wait)
            wait_until(lambda: len(source._held) == 2 and source.polling, "a poll while both wait")
            go.set()
            wait_for_sent(source, before + 2)
            if wakes_poll:
                source.put(lambda: None)
                wait_for_sent(source, before + 3)
            else:  # a poll waits for a second
                wait_for_poll(source)
