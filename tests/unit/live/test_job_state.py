"""The state of a live task as a value."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channelsq.live.job_state import (
    FAILURE,
    MOST_STREAMS,
    MOST_TEXT,
    RETRY,
    REVOKED,
    STARTED,
    SUCCESS,
    WAITING,
    JobState,
)


def succeed(state: JobState, part: int | None, *, is_last: bool = False, result: Any = None) -> bool:
    return state.succeed(part, is_last=is_last, result=result)


def fail(state: JobState, part: int | None, *dependents: int, is_last: bool = False) -> bool:
    return state.fail(part, dependents, is_last=is_last, error="it failed")


def test_a_single_task() -> None:
    state = JobState()
    assert state.payload("a") == {"id": "a", "n": 0, "state": WAITING, "done": 0.0, "total": None}
    assert state.begin(0)
    assert state.progress(0, 40, 100, "rows")
    assert state.payload("a") == {"id": "a", "n": 2, "state": STARTED, "done": 40, "total": 100, "text": "rows"}
    assert state.retry(0)
    assert (state.state, state.position()) == (RETRY, (0.0, None))
    assert state.begin(0)
    assert succeed(state, 0, is_last=True, result=[1, 2])
    assert state.payload("a") | {"n": 0} == {
        "id": "a", "n": 0, "state": SUCCESS, "done": 1, "total": 1, "text": "rows", "result": [1, 2],
    }  # fmt: skip


@pytest.mark.parametrize("end", [SUCCESS, FAILURE, REVOKED])
def test_nothing_changes_after_the_end(end: str) -> None:
    state = JobState()
    if end == SUCCESS:
        succeed(state, 0, is_last=True)
    elif end == FAILURE:
        fail(state, 0, is_last=True)
    else:
        state.revoke()
    before = state.dump()
    assert state.state == end
    assert not state.begin(0)
    assert not state.progress(0, 1, 2, "")
    assert not state.retry(0)
    assert not succeed(state, 0, is_last=True)
    assert not fail(state, 0, is_last=True)
    assert not state.revoke()
    assert not state.open_stream("answer", "run")
    assert state.dump() == before


def test_a_chain_ends_with_its_last_part() -> None:
    state = JobState(parts=3)
    succeed(state, 0, result="of a part")
    assert state.state == STARTED
    state.begin(1)
    state.progress(1, 1, 4, "")
    assert state.position() == (1.25, 3.0)
    succeed(state, 1)
    assert succeed(state, 2, is_last=True, result="of all")
    assert state.payload("a")["result"] == "of all"
    assert state.payload("a")["parts"] == {"total": 3, "done": 3, "failed": 0}


def test_the_last_part_may_end_before_the_one_before_reports() -> None:
    state = JobState(parts=3)
    succeed(state, 0)
    succeed(state, 2, is_last=True)
    assert state.payload("a")["parts"] == {"total": 3, "done": 3, "failed": 0}


def test_a_part_that_runs_again_counts_once() -> None:
    state = JobState(parts=2)
    assert succeed(state, 0)
    assert not succeed(state, 0)
    assert state.payload("a")["parts"]["done"] == 1


def test_a_chain_fails_with_a_part() -> None:
    state = JobState(parts=3)
    assert fail(state, 0, 1, 2, is_last=True)
    assert state.payload("a")["state"] == FAILURE
    assert state.payload("a")["parts"] == {"total": 3, "done": 0, "failed": 3}
    assert state.payload("a")["error"] == "it failed"


def test_a_group_ends_with_the_last_of_its_parts() -> None:
    state = JobState(parts=4, is_group=True)
    assert fail(state, 0, 1)
    assert state.state == STARTED
    succeed(state, 2)
    assert succeed(state, 3)
    assert state.state == FAILURE
    whole = JobState(parts=2, is_group=True)
    succeed(whole, 1)
    succeed(whole, 0)
    assert whole.state == SUCCESS
    assert "result" not in whole.payload("a")


def test_a_part_that_failed_and_runs_again_may_succeed() -> None:
    state = JobState(parts=2, is_group=True)
    fail(state, 0)
    assert succeed(state, 0)
    succeed(state, 1)
    assert state.state == SUCCESS


def test_a_task_that_another_called_changes_the_text_alone() -> None:
    state = JobState()
    state.begin(0)
    state.progress(0, 1, 2, "mine")
    assert state.progress(None, 99, 100, "of the called task")
    assert not state.begin(None) or state.state == STARTED
    assert not succeed(state, None)
    assert not fail(state, None)
    assert not state.retry(None)
    assert state.position() == (1, 2)
    assert state.text == "of the called task"


def test_streams() -> None:
    state = JobState()
    assert state.open_stream("answer", "run 1")
    assert state.open_stream("answer", "run 2")
    assert not state.end_stream("answer", "run 1", 7)
    assert state.end_stream("answer", "run 2", 7)
    assert not state.end_stream("answer", "run 2", 7)
    assert state.streams == {"answer": ("run 2", 7)}
    for number in range(MOST_STREAMS):
        state.open_stream(str(number), "run")
    assert len(state.streams) == MOST_STREAMS


def test_texts_are_bounded() -> None:
    state = JobState()
    state.progress(0, 1, 2, "x" * 10_000)
    assert len(state.text) == MOST_TEXT
    state.fail(0, (), is_last=True, error="x" * 10_000)
    assert len(state.error) == MOST_TEXT


@given(
    parts=st.integers(1, 2000),
    succeeded=st.sets(st.integers(0, 1999)),
    failed=st.sets(st.integers(0, 1999)),
    progress=st.lists(st.tuples(st.integers(0, 1999), st.floats(0, 1e9), st.none() | st.floats(1, 1e9))),
)
def test_a_state_is_the_same_after_a_journey(
    parts: int, succeeded: set[int], failed: set[int], progress: list[tuple[int, float, float | None]]
) -> None:
    state = JobState(parts=parts, is_group=True)
    for part in succeeded:
        succeed(state, part % parts)
    for part in failed:
        fail(state, part % parts)
    for part, done, total in progress:
        state.progress(part % parts, done, total, "text")
    loaded = JobState.load(state.dump())
    assert loaded == state
    done, total = loaded.position()
    assert total is None or 0 <= done <= max(total, done)
    assert len(state.dump()) < 12_000
