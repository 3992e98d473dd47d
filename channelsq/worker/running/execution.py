"""Execution of one consumer on one message: the order of sends, and the effects of exceptions."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import Any

from celery.exceptions import Reject, Retry

from channelsq import delayed
from channelsq.core import names
from channelsq.delivery import attempts
from channelsq.delivery.attempts import NotAgain
from channelsq.delivery.ending import failure_of
from channelsq.delivery.pending import Pending, held_here
from channelsq.diagnostics import misuse
from channelsq.exceptions import (
    BrokerUnavailable,
    ChannelSocketException,
    ChannelsqError,
    ConsumeLater,
    DenyConnection,
    ResponseLater,
)
from channelsq.layers.contract.layer_values import Send
from channelsq.layers.wire.wire_forms import FAILED_CONNECT, TIMED_KEY, done_message, timed_done_message
from channelsq.message import Message
from channelsq.signals import consumer_finished, consumer_started

logger = logging.getLogger("channelsq.worker")

#: The message key of the number of times that ConsumeLater has requeued it.  Consumers do not see it.
ATTEMPTS_KEY = "channelsq.attempts"

_NO_KWARGS: Mapping[str, Any] = MappingProxyType({})

#: Creates a named tuple from a tuple of all its fields, at the least cost.
_tuple = tuple.__new__

#: Seconds that a message waits after its first ConsumeLater, and the maximum; the time doubles with each.
_FIRST_WAIT, _LONGEST_WAIT = 0.05, 5.0


def run_consumer(
    consumer: Callable[..., Any],
    message: Message,
    name: str,
    sender: object | None = None,
    kwargs: Mapping[str, Any] = _NO_KWARGS,
    rerun: bool | None = None,
) -> None:
    """Run ``consumer(message, **kwargs)`` as one unit.

    The consumer's messages are sent together after it has returned.  If it raises, they are dropped, except messages
    about committed changes.  Unless the message will run again, the same write tells the socket's interface server that
    it may deliver the next message.  If the consumer failed, the report also ends the wait of an HTTP client for its
    response, or of a WebSocket for its handshake.

    Args:
        consumer: called with the message and ``kwargs``.
        message: the message.
        name: the consumer's name, for the log.
        sender: the sender of ``consumer_started`` and ``consumer_finished``; ``consumer`` if left out.
        kwargs: the route's keyword arguments.
        rerun: the consumer's option of that name, see :func:`channelsq.options.consumer`.

    Raises:
        Exception: the consumer's exception, except ConsumeLater, ChannelSocketException, DenyConnection and, for HTTP
            clients, ResponseLater, which this function handles.
        RuntimeError: the consumer's exception would end or block its worker; see
            :func:`channelsq.delivery.ending.failure_of`.
        TypeError: the consumer is an ``async def``, or returned a coroutine.
        Reject: a delayed message could not be claimed or put back, as the broker is away; it is redelivered.
        SystemExit: the worker ends; the message will run again.
    """
    sender = sender or consumer
    tries = message.content.pop(ATTEMPTS_KEY, 0)
    if tries:
        message._run.was_put_back = True
    delayed_id = message.content.pop(delayed.ID_KEY, None)
    is_request = message.channel_name == names.HTTP_REQUEST
    if is_request or attempts.HANDED_KEY in message.content:
        attempts.identify(message)
    is_timed = message.content.pop(TIMED_KEY, None) is True
    report = done_report(message)  # prepared now, as consumers may change the message
    on_failure = _failed(message, report) or _unanswered(message)
    begun = time.perf_counter() if is_timed else 0.0
    held = Pending()
    held.message = message
    token = held_here.set(held)
    try:
        admitted = delayed_id is None or _claim(message, delayed_id, tries)
        if admitted and (is_request or rerun is False):
            admitted = _admit(message, rerun, sender)
        try:
            # Sending a signal takes time even without receivers.
            if admitted and consumer_started.receivers:
                consumer_started.send(sender=sender, environ={}, message=message)
            if admitted:
                returned = consumer(message, **kwargs)
                if returned is not None:
                    _refuse_coroutine(returned, name)
                    misuse.returned(name, returned)
        except NotAgain as refusal:
            refusal.run(message)
        except (ChannelSocketException, DenyConnection) as effect:
            effect.run(message)
        except ResponseLater:
            if not _is_for_http(message):
                raise
        finally:
            if is_timed:
                seconds = time.perf_counter() - begun
                report, on_failure = _timed(report, seconds), _timed(on_failure, seconds)
            if admitted and consumer_finished.receivers:
                consumer_finished.send(sender=sender, message=message)
    except BaseException as raised:
        error = failure_of(raised, name)
        held.fail()
        if isinstance(error, Exception):  # otherwise the worker ends, and the message is redelivered
            attempts.end(message, at_once=_comes_again(error))
        if not isinstance(error, ConsumeLater):
            if isinstance(error, Exception) and not _comes_again(error):
                _tell(message, on_failure)
            if error is raised:
                raise
            raise error from raised
        requeued = False
        try:
            requeued = _requeue(message, tries, name, is_timed=is_timed)
        except BrokerUnavailable as away:
            if delayed.ID_KEY in message.content:  # it has not run, as the broker was away before
                requeued = True
                raise Reject(str(away), requeue=True) from away
            raise
        finally:
            if not requeued:
                _tell(message, on_failure)
    else:
        if report is not None:
            held.hold(message.channel_layer, report)
        try:
            held.settle()
        except BaseException as raised:
            error = failure_of(raised, name)
            if isinstance(error, Exception):
                attempts.end(message)
                if message.channel_layer in held.refused:  # otherwise the report has been sent
                    _tell(message, on_failure)
            if error is raised:
                raise
            raise error from raised
        if is_request or rerun is False:
            attempts.end(message)
    finally:
        held.closed = True
        held_here.reset(token)


def _claim(message: Message, delayed_id: object, tries: Any) -> bool:
    """Return whether a delayed message may run; False if its send was cancelled.

    Raises:
        ConsumeLater: the layer's records are not available; the message waits for them.
    """
    try:
        return delayed.may_leave(message.channel_layer, delayed_id)
    except BrokerUnavailable as error:
        if isinstance(tries, int) and tries < message.channel_layer.consume_later_limit:
            message.content[delayed.ID_KEY] = delayed_id
            raise ConsumeLater from error
        logger.warning(
            "%s: a delayed message is delivered, whether or not it was cancelled: %s",
            message.channel.name, error, extra={"action": "delayed_unclaimed", "channel": message.channel.name},
        )  # fmt: skip
        return True


def _refuse_coroutine(returned: object, name: str) -> None:
    """Raise TypeError if a consumer returned a coroutine."""
    if isinstance(returned, Coroutine):
        returned.close()
        raise TypeError(f"{name} is a coroutine function (async def); a consumer is a plain function, as workers are")


def _admit(message: Message, rerun: bool | None, sender: object) -> bool:
    """Return whether a message that may have run before must run; apply the refusal if not."""
    try:
        attempts.admit(message, rerun, marks_itself=getattr(sender, "marks_run", False))
    except NotAgain as refusal:
        refusal.run(message)
        return False
    return True


def _is_for_http(message: Message) -> bool:
    """Return whether an HTTP client waits for the response to a message."""
    reply_channel = message.reply_channel
    return reply_channel is not None and (
        message.channel_name == names.HTTP_REQUEST or reply_channel.name.startswith("http.")
    )


def _comes_again(error: Exception) -> bool:
    """Return whether a consumer's exception makes its message run again."""
    return isinstance(error, Retry) or (isinstance(error, Reject) and bool(getattr(error, "requeue", False)))


def _requeue(message: Message, tries: Any, name: str, *, is_timed: bool) -> bool:
    """Requeue the message with a delay; return False if the limit is reached and the message is dropped."""
    layer = message.channel_layer
    tries = tries if isinstance(tries, int) and tries >= 0 else 0
    if tries >= layer.consume_later_limit:
        logger.error(
            "%s raised ConsumeLater on one message from %s %d times; the message was dropped "
            "(the limit is CONFIG['consume_later_limit'])",
            name,
            message.channel.name,
            tries + 1,
            extra={"action": "consume_later_exhausted", "channel": message.channel.name},
        )
        return False
    content = {**attempts.restore(message, message.content), ATTEMPTS_KEY: tries + 1}
    if is_timed:
        content[TIMED_KEY] = True
    delay = min(_FIRST_WAIT * 2**tries, _LONGEST_WAIT)
    layer.dispatch((layer.prepare(message.channel.name, content, delay=delay),))
    return True


def done_report(message: Message) -> Send | None:
    """Return the send that reports ``message`` as done to the socket's interface server; or None.

    Only WebSocket messages are delivered one at a time; they have an ``order``.
    """
    order, reply_channel = message.content.get("order"), message.reply_channel
    if reply_channel is None or order is None or not names.is_process_channel(reply_channel.name):
        return None
    if type(order) is int and 0 <= order < 2**63:
        return _tuple(Send, (reply_channel.name, done_message(order), False, 0.0, order, None, None))
    return None  # no interface server sends such an order and waits for it


def _timed(report: Send | None, seconds: float) -> Send | None:
    """Return a report with the consumer's duration added."""
    if report is None or report.done is None:
        return report
    return Send(report.target, timed_done_message(report.done, seconds))


def _failed(message: Message, report: Send | None) -> Send | None:
    """Return the report of a failed consumer; for a connect it reports that the socket is not accepted."""
    if report is None or message.channel_name != names.WEBSOCKET_CONNECT:
        return report
    return Send(report.target, FAILED_CONNECT)


def _unanswered(message: Message) -> Send | None:
    """Return the send that ends an interface server's wait for an HTTP response; or None."""
    reply_channel = message.reply_channel
    if message.channel_name != names.HTTP_REQUEST or reply_channel is None:
        return None
    if not names.is_process_channel(reply_channel.name):
        return None
    return reply_channel.prepare({"content": b"", "more_content": False, "abort": True})


def report_done(message: Message) -> None:
    """Report now that a WebSocket's message is done, so that the next one can follow.

    A failure of the send is logged.
    """
    _tell(message, done_report(message))


def report_failed(message: Message) -> None:
    """Report now that no consumer has handled a message, or will.

    The socket continues, or is refused if the message is its connect; an HTTP client stops waiting.  A failure of the
    send is only logged, as the caller reports a more important error.
    """
    _tell(message, _failed(message, done_report(message)) or _unanswered(message))


def _tell(message: Message, report: Send | None) -> None:
    if report is None:
        return
    try:
        message.channel_layer.settle((report,))
    except ChannelsqError as error:
        logger.error(
            "%s: could not report a message as done: %s",
            message.reply_channel,
            error,
            extra={"action": "report_failed", "channel": message.channel.name},
        )
