"""Django's own backends set the return value of a result in the same way."""

from __future__ import annotations

import dataclasses

import pytest
from django.tasks import TaskResult, TaskResultStatus, task
from django.test import override_settings

from channelsq.contrib.django_tasks.django_tasks_internals import set_return_value

DJANGOS = {"default": {"BACKEND": "django.tasks.backends.immediate.ImmediateBackend"}}

with override_settings(TASKS=DJANGOS):

    @task
    def add(one: int, two: int) -> int:
        return one + two


def test_the_return_value_of_a_result() -> None:
    with override_settings(TASKS=DJANGOS):
        result = add.enqueue(1, 2)
    assert result.return_value == 3
    set_return_value(result, 4)
    assert result.return_value == 4


def test_it_has_no_public_way() -> None:
    fields = {field.name: field.init for field in dataclasses.fields(TaskResult)}
    assert fields["_return_value"] is False
    with override_settings(TASKS=DJANGOS):
        result = add.enqueue(1, 2)
        with pytest.raises(AttributeError):
            result.status = TaskResultStatus.FAILED  # frozen; the types do not say so
