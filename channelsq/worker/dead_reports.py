"""Reports of channel messages that became dead letters, so that their sockets continue."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from celery import Celery
from kombu.exceptions import ContentDisallowed, DecodeError
from kombu.serialization import loads, prepare_accept_content

from channelsq.layers.wire.signing import HEADER, Refused
from channelsq.message import Message
from channelsq.transport import dead_letters
from channelsq.worker.running.consumer_task import ConsumerTask
from channelsq.worker.running.consumer_tasks import tasks_of
from channelsq.worker.running.execution import report_failed

if TYPE_CHECKING:
    from channelsq.asgi import ChannelLayerWrapper


def read_arguments(payload: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]] | None:
    """Return the arguments in a Celery task message (protocol 2); None for other messages.

    Args:
        payload: Kombu's payload, see :attr:`channelsq.transport.dead_letter_store.DeadLetter.payload`.

    Raises:
        kombu.exceptions.DecodeError, kombu.exceptions.ContentDisallowed: the body is neither JSON nor msgpack.
    """
    try:
        body = loads(
            payload.get("body") or b"",
            str(payload.get("content-type")),
            str(payload.get("content-encoding")),
            accept=prepare_accept_content(["json", "msgpack"]),
        )
    except (ContentDisallowed, DecodeError):
        raise
    except Exception as error:  # for example of an unknown encoding
        raise DecodeError(str(error)) from error
    if "task" not in payload["headers"] or not isinstance(body, (list, tuple)) or len(body) != 3:
        return None
    args, kwargs, _ = body
    return (list(args), kwargs) if isinstance(args, (list, tuple)) and isinstance(kwargs, dict) else None


def _layer_of(app: Celery, name: str) -> ChannelLayerWrapper | None:
    """Return the layer of the channel or consumer that a message names as its task; None if it names neither."""
    task: Any = app.tasks.get(name)
    if isinstance(task, ConsumerTask):
        return task.layer
    for tasks in tasks_of(app).values():
        if name in (tasks.layer.queue(channel).name for channel in tasks.channels):
            return tasks.layer
    return None


def _is_ours(
    layer: ChannelLayerWrapper, name: str, payload: Mapping[str, Any], arguments: tuple[list[Any], dict[str, Any]]
) -> bool:
    """Return whether a message is signed, if it must be."""
    signing = layer.channel_layer.signing
    if signing is None:
        return True
    headers = payload["headers"]
    try:
        if name == layer.queue(arguments[0][0]).name:
            signing.check_task(name, headers.get("id"), payload["body"])
        else:
            signing.check_call(name, headers.get("id"), *arguments, headers.get(HEADER))
    except Refused:
        return False
    return True


def install(app: Celery) -> None:
    """Report the dead letters of ``app``'s channels from now on."""

    def report(queue: str, payload: Mapping[str, Any]) -> None:
        name = str(payload["headers"].get("task"))
        layer = _layer_of(app, name)
        if layer is None:
            return
        try:
            arguments = read_arguments(payload)
        except (ContentDisallowed, DecodeError):
            return  # not a message of this package, so no client waits for it
        if arguments is None or len(arguments[0]) != 2:
            return
        with contextlib.suppress(TypeError, AttributeError):  # a message without valid names or content
            if _is_ours(layer, name, payload, arguments):
                channel, content = arguments[0]
                opened = layer.channel_layer.protection.encryption.content_of(layer.queue_name(channel), content)
                if opened is not None:
                    report_failed(Message(opened, channel, layer))

    dead_letters.listen(report)
