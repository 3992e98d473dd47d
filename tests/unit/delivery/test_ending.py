"""Exceptions of a consumer, told from the end of its worker."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from billiard import common
from celery.exceptions import Ignore, Reject, Retry, WorkerShutdown

from channelsq.delivery import ending
from channelsq.delivery.ending import WorkerEnds, end_worker, failure_of, is_end
from channelsq.exceptions import ConsumeLater
from tests.project.hostile import WAYS, fail_with


def raised(way: str) -> BaseException:
    try:
        fail_with(way)
    except BaseException as error:
        return error


def in_thread(error: BaseException) -> BaseException:
    """Return the result of :func:`failure_of` where a consumer cannot be the user's own call."""
    found: list[BaseException] = []
    thread = threading.Thread(target=lambda: found.append(failure_of(error, "tests.consumer")))
    thread.start()
    thread.join()
    return found[0]


@pytest.fixture
def signalled() -> Iterator[None]:
    """A process in which billiard's handler of SIGTERM has been called."""
    before = signal.getsignal(signal.SIGTERM)
    billiard: Any = common
    with pytest.raises(SystemExit):
        billiard._shutdown_cleanup(signal.SIGTERM, None)
    yield
    billiard._should_have_exited[0] = False
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("way", WAYS)
def test_whatever_a_consumer_raises_is_a_failure_that_celery_can_handle(way: str) -> None:
    error = raised(way)
    failure = in_thread(error)
    assert isinstance(failure, Exception)
    assert not isinstance(failure, MemoryError)
    assert repr(failure)
    if failure is not error:
        assert type(error).__name__ in str(failure)
        assert str(failure).endswith("a consumer cannot end its worker")
        assert failure.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [ValueError("no"), Ignore(), Reject("again", requeue=True), Retry("again"), ConsumeLater()],
    ids=repr,
)
def test_ordinary_exceptions_are_kept(error: Exception) -> None:
    assert in_thread(error) is error


def test_what_cannot_go_to_another_process_is_replaced() -> None:
    lock: Any = threading.Lock()
    assert isinstance(in_thread(Reject(lock, requeue=True)), RuntimeError)


def test_memory_is_free_once_its_lack_is_noticed() -> None:
    class Held:
        pass

    held: list[Held] = []

    def consumer() -> None:
        mine = Held()
        held.append(mine)
        raise MemoryError

    try:
        consumer()
    except MemoryError as error:
        frame = error.__traceback__.tb_next.tb_frame  # type: ignore[union-attr]
        failure_of(error, "tests.consumer")
    assert "mine" not in frame.f_locals


@pytest.mark.usefixtures("signalled")
@pytest.mark.parametrize("error", [SystemExit(-241), ValueError("the cleanup failed"), KeyboardInterrupt()], ids=repr)
def test_after_the_signal_everything_is_the_end_of_the_process(error: BaseException) -> None:
    assert is_end(error)
    assert not isinstance(in_thread(error), Exception)


def test_a_solo_worker_ends_its_consumer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "_worker_ends", False)
    with pytest.raises(WorkerEnds) as end:
        end_worker(1)
    assert failure_of(end.value, "tests.consumer") is end.value
    assert isinstance(failure_of(ValueError("the cleanup failed"), "tests.consumer"), WorkerEnds)


def test_ctrl_c_is_the_users_where_no_worker_handles_it() -> None:
    error = KeyboardInterrupt()
    assert failure_of(error, "tests.consumer") is error
    before = signal.signal(signal.SIGINT, lambda *args: None)  # as a worker has it
    try:
        assert isinstance(failure_of(error, "tests.consumer"), RuntimeError)
        assert isinstance(failure_of(WorkerShutdown(0), "tests.consumer"), RuntimeError)
    finally:
        signal.signal(signal.SIGINT, before)
