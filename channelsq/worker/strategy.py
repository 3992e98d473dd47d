"""A channel's message on its way into the worker: find its route, become its consumer's task.

Celery asks a task's *strategy* what to do with each message.  This one gives the message the name and arguments
of the consumer's task and hands it to that task's own strategy, so that from there on Celery does what it does
for every task: events, revokes, rate limits, time limits, retries, acknowledgement.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from celery.exceptions import InvalidTaskError

from channelsq.layers import codec
from channelsq.layers.wire import CONTENT_TYPE, is_expired
from channelsq.message import Message
from channelsq.transport.consuming import ConsumingChannel
from channelsq.worker.execution import report_done
from channelsq.worker.lean import lean_of
from channelsq.worker.setup import log_unrouted, tasks_of

logger = logging.getLogger("channelsq.worker")

Handler = Callable[..., Any]


def strategy(task: Any, app: Any, consumer: Any, **options: Any) -> Handler:
    """The strategy of :class:`channelsq.worker.task.ChannelTask`; see Celery's ``celery.worker.strategy``."""
    channel = task.channel
    layer = task.layer
    tasks = tasks_of(app)[layer.alias]
    lean = lean_of(app, consumer, tasks, tasks_of(app).values())

    def on_message(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any) -> Any:
        content, embed = _content(message, channel)
        mine = Message(content, channel, layer)
        if is_expired(message.headers) and not _is_redelivered(message):
            logger.warning(
                "channel %s: a message expired before a worker took it",
                channel,
                extra={"action": "message_expired", "channel": channel},
            )
            report_done(mine)
            return ack(logger, consumer.connection_errors)
        resolved = tasks.resolve(mine)
        if resolved is None:
            log_unrouted(mine)
            return ack(logger, consumer.connection_errors)
        target, kwargs, ordered = resolved
        logger.debug(
            "%s -> %s [%s]",
            channel,
            target.name,
            message.headers.get("id"),
            extra={"action": "message_received", "channel": channel},
        )
        if not ordered:
            report_done(mine)
        payload = [[channel, content], kwargs, embed]
        if lean is not None and not callbacks and lean.take(message, target, payload, mine):
            return None
        # Celery reads a message's parts from these again and again; the content itself stays out of its log.
        message.headers = {
            **message.headers,
            "task": target.name,
            "argsrepr": f"({channel!r}, {sorted(content)})",
            "kwargsrepr": repr(kwargs),
        }
        message.body = codec.dumps(payload)
        message._decoded_cache = payload
        if not target.acks_late and isinstance(message.channel, ConsumingChannel):
            ack = _acknowledge_first(message, ack)
        return consumer.strategies[target.name](message, body, ack, reject, callbacks)

    return on_message


def _acknowledge_first(message: Any, ack: Handler) -> Handler:
    """``ack``, but Redis knows when it returns: what runs at most once must not begin before."""

    def acknowledge(*args: Any) -> Any:
        message.channel.acknowledge_now(message.delivery_tag)
        return ack(*args)

    return acknowledge


def _is_redelivered(message: Any) -> bool:
    """Whether a worker had taken it before: then it was read in time, and its worker was lost with it."""
    return bool(message.headers.get("redelivered") or (message.delivery_info or {}).get("redelivered"))


def _content(message: Any, channel: str) -> tuple[dict[str, Any], Any]:
    """The content of a channel's task message; raises InvalidTaskError, which Celery logs and rejects."""
    try:
        if message.content_type == CONTENT_TYPE:  # nearly always, and quicker than asking Kombu
            (sent_to, content), _, embed = codec.loads(message.body)
        else:
            (sent_to, content), _, embed = message.payload
    except (TypeError, ValueError):
        sent_to = content = embed = None
    if sent_to != channel or not isinstance(content, dict):
        raise InvalidTaskError(
            f"channel {channel!r} got a Celery task message that is not a channel's; "
            f"send to it with Channel({channel!r}).send({{...}})"
        )
    return content, embed
