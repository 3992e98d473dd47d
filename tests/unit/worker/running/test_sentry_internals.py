"""Consumers under Sentry's Celery integration, which stays in a process of its own: it changes Celery for good."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from functools import partial
from typing import Any

import pytest

#: The trace that the last message's request belongs to.
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1"


def main(options: dict[str, Any]) -> None:
    """Run consumers under Sentry, in the other process, and print the events that Sentry's server would get."""
    import django
    import sentry_sdk
    from celery import Celery
    from sentry_sdk.integrations.celery import CeleryIntegration

    django.setup()
    events: list[Any] = []

    class Collector(sentry_sdk.transport.Transport):
        def capture_envelope(self, envelope: Any) -> None:
            events.extend(item.payload.json for item in envelope.items if item.payload.json)

    sentry_sdk.init("http://key@sentry.invalid/1", transport=Collector, integrations=[CeleryIntegration()], **options)

    from celery.app import trace

    from channelsq.delivery import trace_context
    from channelsq.message import Message
    from channelsq.worker.running import database_connections, untraced_run
    from channelsq.worker.running.consumer_task import make_consumer_task
    from channelsq.worker.running.task_profile import TaskProfile
    from tests.support.layers import installed, wrapped

    def fails(message: Message) -> None:
        sentry_sdk.set_tag("room", "tea")
        sentry_sdk.add_breadcrumb(message="the kettle boils")
        raise ValueError("no tea")

    def logs(message: Message) -> None:
        sentry_sdk.add_breadcrumb(message="the kettle boils")
        logging.getLogger("shop").error("no tea")

    def succeeds(message: Message) -> None:
        sentry_sdk.add_breadcrumb(message="of another message")

    layer = wrapped()
    with installed(layer), Celery("shop", broker="memory://", set_as_current=False) as app:
        database_connections.keep_connections(type("Worker", (), {"app": app}))
        quickly = []
        for number, consumer in enumerate((succeeds, fails, logs, succeeds, logs, logs)):
            task = make_consumer_task(app, layer, consumer, f"shop.{consumer.__name__}{number}")
            app.finalize()
            task.__trace__ = trace.build_tracer(task.name, task, app=app)
            profile = TaskProfile(task)
            profile.look()
            quickly.append(profile.untraced)
            headers = [[b"sentry-trace", TRACE.encode()]] if number == 5 else []
            message = Message({"order": number, "headers": headers}, "shop", layer)
            message.id = f"id{number}"
            request = {"id": message.id, "hostname": "here", "is_eager": False, "headers": {}, "delivery_info": {}}
            trace_context.add_to(request, message.content)
            untraced_run.run(profile, message, {}, partial(dict, request))
    json.dump({"quick": quickly, "events": events}, sys.stdout)


def told(**options: Any) -> tuple[list[bool], list[dict[str, Any]]]:
    """Return which consumers ran without Celery's tracer, and Sentry's events without its transactions."""
    code = f"from tests.unit.worker.running.test_sentry_internals import main; main({options!r})"
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=60)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    return said["quick"], [event for event in said["events"] if event.get("type") != "transaction"]


def essence(event: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of an event that an operator reads."""
    exception = event.get("exception", {}).get("values", [])
    return {
        "message": event.get("logentry", {}).get("message"),
        "exception": [(each["type"], each["value"], each["mechanism"]["type"]) for each in exception],
        "frames": [frame["function"] for each in exception for frame in each["stacktrace"]["frames"]][-1:],
        "breadcrumbs": [each["message"] for each in event["breadcrumbs"]["values"] if each["type"] == "default"],
        "tags": event.get("tags"),
        "task": event["extra"]["celery-job"],
        "is of the request's trace": event["contexts"]["trace"]["trace_id"] == TRACE.partition("-")[0],
    }


@pytest.fixture(scope="module")
def traced() -> tuple[list[bool], list[dict[str, Any]]]:
    """Report as Sentry's own wrappers do when Sentry records transactions."""
    return told(traces_sample_rate=1.0)


@pytest.mark.parametrize("options", [{}, {"traces_sample_rate": 0.0}], ids=str)
def test_consumers_run_without_sentrys_wrappers_and_its_events_are_the_same(
    options: dict[str, Any], traced: tuple[list[bool], list[dict[str, Any]]]
) -> None:
    quick, events = told(**options)
    assert quick == [True] * 6
    assert [essence(event) for event in events] == [essence(event) for event in traced[1]]


def test_what_sentrys_wrappers_tell(traced: tuple[list[bool], list[dict[str, Any]]]) -> None:
    quick, (failed, logged, *_) = traced
    assert quick == [False] * 6
    told = essence(failed)
    assert told["exception"] == [("ValueError", "no tea", "celery")]
    assert told["frames"] == ["fails"]
    assert told["tags"] == {"celery_task_id": "id1", "room": "tea"}
    assert told["breadcrumbs"] == essence(logged)["breadcrumbs"] == ["the kettle boils"]
    assert essence(logged)["task"]["task_name"] == "shop.logs2"
    assert [essence(event)["is of the request's trace"] for event in traced[1]] == [False, False, False, True]


@pytest.mark.parametrize("options", [{"trace_lifecycle": "stream"}, {"traces_sample_rate": 0.5}])
def test_consumers_are_traced_where_sentry_records_transactions(options: dict[str, Any]) -> None:
    assert told(**options)[0] == [False] * 6
