"""The task that schedules send to groups with."""

from __future__ import annotations

from celery import current_app

from channelsq.tasks import send_to_group
from tests.support.layers import drain, installed, wrapped


def test_a_task_sends_to_a_group() -> None:
    layer = wrapped()
    with installed(layer):
        layer.group_add("room", "a")
        assert current_app.tasks["channelsq.send_to_group"].name == send_to_group.name
        send_to_group("room", {"text": "tick"})
        send_to_group.apply(args=("room", {"text": "tock"}), kwargs={"alias": "default"}, throw=True)
        assert drain(layer, "a") == [{"text": "tick"}, {"text": "tock"}]
