"""A channel's message as Celery's request: whatever Celery's pools, events and commands ask it for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from inspect import getsource
from typing import Any

import pytest
from celery import Celery
from celery.app.trace import build_tracer
from celery.worker import request as celery_request
from celery.worker import state
from kombu import Message as KombuMessage

from channelsq.asgi import ChannelLayerWrapper
from channelsq.message import Message
from channelsq.worker.running.consumer_task import make_consumer_task
from channelsq.worker.running.task_profile import TaskProfile
from channelsq.worker.sources.celery_request_internals import MessageRequest
from tests.support.apps import current
from tests.support.layers import installed, message_on, wrapped

#: What only a message of Celery's own broker has.
OF_A_BROKER = {"_message"}


class _Events:
    """A destination of events."""

    enabled = True

    def of(self, identity: str) -> Any:
        return f"the dispatcher of {identity}"


@pytest.fixture
def layer() -> Iterator[ChannelLayerWrapper]:
    layer = wrapped()
    with installed(layer):
        yield layer


@pytest.fixture
def profile(layer: ChannelLayerWrapper) -> Iterator[TaskProfile]:
    with Celery("shop", broker="memory://", set_as_current=False) as app, current(app):
        task = make_consumer_task(app, layer, lambda message: None, "tests.consumer")
        app.finalize()
        task.__trace__ = build_tracer(task.name, task, app=app)
        profile = TaskProfile(task)
        profile.look()
        profile.fields = {"hostname": "here", "headers": {}, "properties": {}, "reply_to": None}
        yield profile


def request_of(profile: TaskProfile, message: Message, **arguments: Any) -> MessageRequest:
    message.id = "message-1"
    source: Any = None
    return MessageRequest(profile, source, "the delivery", message, arguments, _Events())


def test_whatever_celerys_own_request_sets_is_there(profile: TaskProfile, layer: ChannelLayerWrapper) -> None:
    """Celery's ``__init__`` does not run; an attribute that a new Celery sets there needs a value here."""
    request = request_of(profile, message_on(layer))
    written = set(re.findall(r"\bself\.(\w+) = ", getsource(celery_request.Request.__init__)))
    assert "_request_dict" in written
    missing = {name for name in written if not hasattr(request, _mangled(name))}
    assert missing == OF_A_BROKER


def _mangled(name: str) -> str:
    return f"_Request{name}" if name.startswith("__") else name


def test_its_properties_are_the_messages(profile: TaskProfile, layer: ChannelLayerWrapper) -> None:
    message = message_on(layer, text="hello")
    request: Any = request_of(profile, message, room="tea")
    assert request.args == [message.channel_name, message.content]
    assert request.kwargs == {"room": "tea"}
    assert request.body == [request.args, request.kwargs, {}]
    assert (request.id, request.root_id, request.correlation_id) == ("message-1",) * 3
    assert (request.name, request.type, request.hostname) == ("tests.consumer", "tests.consumer", "here")
    assert request.task is profile.task
    assert request.app is profile.task.app
    assert request.eventer == "the dispatcher of message-1"
    assert request.ignore_result
    assert request.reply_to is None
    assert request.eta is None
    assert "hello" not in request.argsrepr


def test_inspect_shows_what_it_shows_of_a_task(profile: TaskProfile, layer: ChannelLayerWrapper) -> None:
    body: Any = [[], {}, {}]
    own: Any = celery_request.Request(
        KombuMessage(body=body, headers={"id": "1", "task": "tests.consumer"}, delivery_info={}),
        app=profile.task.app,
        task=profile.task,
        decoded=True,
    )
    request: Any = request_of(profile, message_on(layer))
    assert request.info(safe=True).keys() == own.info(safe=True).keys()


def test_a_message_that_is_too_old_is_revoked(profile: TaskProfile, layer: ChannelLayerWrapper) -> None:
    request: Any = request_of(profile, message_on(layer))
    assert not request.maybe_expire()
    request.expires_at = datetime.now(UTC) - timedelta(seconds=1)
    try:
        assert request.expires == request.expires_at
        assert request.maybe_expire()
    finally:
        state.revoked.discard("message-1")
    request.expires = None
    assert request.expires_at is None


def test_a_start_time_is_shown_as_celerys_eta(profile: TaskProfile, layer: ChannelLayerWrapper) -> None:
    request: Any = request_of(profile, message_on(layer))
    request.due = 1e9
    assert request.eta == datetime.fromtimestamp(1e9, UTC)
