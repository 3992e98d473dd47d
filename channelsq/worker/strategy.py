"""A channel's message on its way into the worker: find its route, become its consumer's task.

Celery asks a task's *strategy* what to do with each message.  This one gives the message the name and arguments
of the consumer's task and hands it to that task's own strategy, so that from there on Celery does what it does
for every task: events, revokes, rate limits, time limits, retries, acknowledgement.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from celery.worker import state
from kombu.exceptions import ContentDisallowed

from channelsq.ending import is_end
from channelsq.layers import codec
from channelsq.layers.signing import HEADER, Refused, Signing
from channelsq.layers.wire import CONTENT_TYPE, EXPIRES_HEADER, is_expired, raw_body
from channelsq.message import Message
from channelsq.transport import burial
from channelsq.transport.codec import DEATHS
from channelsq.transport.consuming import ConsumingChannel
from channelsq.worker.consumers import log_unrouted, tasks_of
from channelsq.worker.execution import report_done
from channelsq.worker.guard import unhandled

logger = logging.getLogger("channelsq.worker")

Handler = Callable[..., Any]

#: Headers of a signed message that are taken although the signature does not cover them.
_HARMLESS = (
    "lang", "id", "root_id", "parent_id", "eta", "expires", "ignore_result", "origin", "redelivered", "argsrepr",
    "kwargsrepr", "task", DEATHS, EXPIRES_HEADER,
)  # fmt: skip


def strategy(task: Any, app: Any, consumer: Any, **options: Any) -> Handler:
    """The strategy of :class:`channelsq.worker.task.ChannelTask`; see Celery's ``celery.worker.strategy``."""
    channel = task.channel
    layer = task.layer
    tasks = tasks_of(app)[layer.alias]
    signing = layer.channel_layer.signing
    clock = layer.channel_layer.expiry_clock
    solo = type(consumer.pool).__module__.endswith(".solo")

    def on_message(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any) -> Any:
        if solo and state.active_requests:
            # The signal handler of a cold shutdown reads the connection in the middle of a consumer; what it finds
            # there is not begun, and goes back with the connection.
            return None
        try:
            if signing is not None:
                _check_signature(message, task.name, signing)
            content, embed = _content(message, channel)
            mine = Message(content, channel, layer)
            resolved = tasks.resolve(mine)
        except Refused as error:  # which is logged
            return _set_aside(message, f"{error}, where CONFIG['signing'] asks for it", consumer, reject)
        except (TypeError, ValueError) as error:
            logger.error(
                "channel %s: a message was refused: %s", channel, error,
                extra={"action": "foreign_message_refused", "channel": channel},
            )  # fmt: skip
            return _set_aside(message, str(error), consumer, reject)
        if is_expired(message.headers, clock) and not _is_redelivered(message):
            logger.warning(
                "channel %s: a message expired before a worker took it",
                channel,
                extra={"action": "message_expired", "channel": channel},
            )
            report_done(mine)
            return ack(logger, consumer.connection_errors)
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
        # Celery reads a message's parts from these again and again; the content itself stays out of its log.
        message.headers = {
            **message.headers,
            "task": target.name,
            "argsrepr": f"({channel!r}, {sorted(content)})",
            "kwargsrepr": repr(kwargs),
        }
        if signing is not None:
            message.headers[HEADER] = signing.call(target.name, message.headers["id"], payload[0], kwargs)
        message.body = codec.dumps(payload)
        message._decoded_cache = payload
        if not target.acks_late and isinstance(message.channel, ConsumingChannel):
            ack = _acknowledge_first(message, ack)
        try:
            return consumer.strategies[target.name](message, body, ack, reject, callbacks)
        except BaseException as error:
            if is_end(error) or (isinstance(error, Exception) and not isinstance(error, MemoryError)):
                raise
            # Of a receiver of one of Celery's signals, say.
            unhandled(error, target.name, mine)
            return ack(logger, consumer.connection_errors)

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


def _check_signature(message: Any, queue: str, signing: Signing) -> None:
    """Look at a message's signature, which covers its body and id; other headers are kept if they can do no harm.

    Raises:
        Refused: it is not as it must be.
    """
    headers = message.headers
    signing.check_task(queue, headers.get("id"), raw_body(message) if message.content_type == CONTENT_TYPE else b"")
    message.headers = {name: headers[name] for name in _HARMLESS if name in headers}
    if "retries" in headers:
        message.headers["retries"] = 0  # further tries are the consumer's task's


def _set_aside(message: Any, reason: str, consumer: Any, reject: Handler) -> Any:
    """Have a message handled by nobody: a dead letter, where the broker's transport keeps those; else rejected."""
    if isinstance(message.channel, ConsumingChannel):
        return burial.set_aside(message, reason)
    return reject(logger, consumer.connection_errors)


def _content(message: Any, channel: str) -> tuple[dict[str, Any], Any]:
    """The content of a channel's task message, and its embed.

    Raises:
        ValueError: it is none.
    """
    try:
        if message.content_type == CONTENT_TYPE:  # nearly always, and quicker than asking Kombu
            (sent_to, content), _, embed = codec.loads(message.body)
        else:
            (sent_to, content), _, embed = message.payload
    except ContentDisallowed as error:  # pickle, say
        raise ValueError(str(error)) from None
    except Exception:  # whatever a decoder raises
        sent_to = content = embed = None
    if (
        sent_to != channel
        or not isinstance(content, dict)
        or not isinstance(embed, dict)
        or not isinstance(message.headers.get("id"), str)
    ):
        raise ValueError(f"it is no message of a channel, which Channel({channel!r}).send({{...}}) makes")
    embed.pop("channelsq", None)
    return content, embed
