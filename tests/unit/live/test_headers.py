"""The header that makes a task live."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery, chain, chord, group

from channelsq.live.headers import HEADER, LiveHeader, header_of, leaves, parts_of, read_header
from channelsq.live.jobs import Job

JOB = Job("the-job", "default", ("room",))

app = Celery("headers", set_as_current=False)


@app.task
def step(number: int = 0) -> int:
    return number


@pytest.mark.parametrize(
    "header", [LiveHeader(JOB, 3), LiveHeader(JOB, None), LiveHeader(JOB._replace(groups=()), None, ("caller", 2))]
)
def test_a_header_is_read_as_it_was_written(header: LiveHeader) -> None:
    assert read_header(header.dump()) == header


@pytest.mark.parametrize("value", [None, 7, "x", [], {}, {"job": "a"}, {"job": "a", "layer": "b", "part": "x"}])
def test_another_value_is_no_header(value: object) -> None:
    assert read_header(value) is None


def test_a_task_that_replaces_its_caller_is_the_same_part() -> None:
    header = LiveHeader(JOB, None, ("caller", 2)).dump()
    assert read_header(header, "caller") == LiveHeader(JOB, 2)
    assert read_header(header, "another") == LiveHeader(JOB, None, ("caller", 2))


def test_where_celery_puts_the_header() -> None:
    value = LiveHeader(JOB, 0).dump()
    assert header_of(SimpleNamespace(**{HEADER: value})) == LiveHeader(JOB, 0)
    assert header_of(SimpleNamespace(headers={HEADER: value})) == LiveHeader(JOB, 0)  # of a task that runs in place
    assert header_of(SimpleNamespace(headers=None)) is None
    assert header_of(SimpleNamespace(headers={})) is None


@pytest.mark.parametrize(
    ("canvas", "numbers"),
    [
        (step.s(0), [0]),
        (chain(step.s(0), step.s(1), step.s(2)), [0, 1, 2]),
        (group(step.s(number) for number in range(3)), [0, 1, 2]),
        (chord([step.s(0), step.s(1)], step.s(2)), [0, 1, 2]),
        (chord(group(step.s(0), step.s(1)), step.s(2)), [0, 1, 2]),
        (step.s(0) | group(step.s(1), step.s(2) | step.s(3)) | step.s(4), [0, 1, 2, 3, 4]),
        (step.chunks([(number,) for number in range(9)], 3).group(), None),
        (step.map([1, 2]), None),
    ],
)
def test_every_task_of_a_canvas_is_a_part(canvas: Any, numbers: list[int] | None) -> None:
    found = list(leaves(canvas))
    assert all(each["task"].partition(".")[2] not in ("chain", "group", "chord") for each in found)
    if numbers is not None:
        assert [each["args"][0] for each in found] == numbers
    else:
        assert found


def test_what_follows_a_task() -> None:
    canvas = chain(step.s(0), chord([step.s(1)], step.s(2)))
    for number, each in enumerate(leaves(canvas)):
        each["options"]["headers"] = {HEADER: LiveHeader(JOB, number).dump()}
    assert list(parts_of([canvas], JOB.id)) == [0, 1, 2]
    assert list(parts_of([canvas], "another job")) == []
    last: Any = step.s(3)
    last.set(headers={HEADER: LiveHeader(JOB, 3).dump()})
    for options in ({"chain": [last]}, {"chord": last}):
        before: Any = step.s(9)
        before.set(**options)
        assert list(parts_of([before], JOB.id)) == [3]
