"""Running one consumer on one message: what is sent when, and what its exceptions do."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import Any

from celery.exceptions import Reject, Retry

from channelsq.core import names
from channelsq.delivery import attempts
from channelsq.delivery.attempts import NotAgain
from channelsq.delivery.ending import failure_of
from channelsq.delivery.pending import Pending, held_here
from channelsq.diagnostics import misuse
from channelsq.exceptions import (
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

#: Message key: how often ConsumeLater has put this message back.  Consumers do not see it.
ATTEMPTS_KEY = "channelsq.attempts"

_NO_KWARGS: Mapping[str, Any] = MappingProxyType({})

#: Makes a named tuple of a tuple that has all of its fields.
_tuple = tuple.__new__

#: Seconds that a message waits after its first ConsumeLater; it doubles with each, up to the last.
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

    What it sends goes out together once it has returned, and not at all if it raises; but what tells of committed
    changes goes out in both cases.  Whatever the outcome,
    short of one that will run it again, the interface server that waits to hand out the socket's next message
    is told, in the same write; if it failed, so is the one whose HTTP client waits for an answer, or whose WebSocket
    waits to be accepted.

    Args:
        consumer: called with the message and ``kwargs``.
        message: what to handle.
        name: the consumer's name, for the log.
        sender: the sender of ``consumer_started`` and ``consumer_finished``; ``consumer`` if left out.
        kwargs: the route's.
        rerun: the consumer's option of that name, see :func:`channelsq.options.consumer`.

    Raises:
        Exception: what the consumer raised, except ConsumeLater, ChannelSocketException, DenyConnection and, where
            there is an HTTP client, ResponseLater, which are acted upon here.
        RuntimeError: it raised what would end or block its worker, see :func:`channelsq.delivery.ending.failure_of`.
        TypeError: it is an ``async def``, or returned a coroutine.
        SystemExit: its worker ends; the message is to be run again.
    """
    sender = sender or consumer
    tries = message.content.pop(ATTEMPTS_KEY, 0)
    if tries:
        message._run.was_put_back = True
    is_request = message.channel_name == names.HTTP_REQUEST
    if is_request or attempts.HANDED_KEY in message.content:
        attempts.identify(message)
    is_timed = message.content.pop(TIMED_KEY, None) is True
    report = done_report(message)  # now, as consumers may change the message
    on_failure = _failed(message, report) or _unanswered(message)
    begun = time.perf_counter() if is_timed else 0.0
    held = Pending()
    held.message = message
    token = held_here.set(held)
    try:
        admitted = True
        if is_request or rerun is False:
            admitted = _admit(message, rerun, sender)
        try:
            # Sending a signal costs something, even if nobody listens.
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
        if isinstance(error, Exception):  # else the worker ends, and the message comes again
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
                if message.channel_layer in held.refused:  # else it has been sent
                    _tell(message, on_failure)
            if error is raised:
                raise
            raise error from raised
        if is_request or rerun is False:
            attempts.end(message)
    finally:
        held.closed = True
        held_here.reset(token)


def _refuse_coroutine(returned: object, name: str) -> None:
    """Raise TypeError for what an ``async def`` returns."""
    if isinstance(returned, Coroutine):
        returned.close()
        raise TypeError(f"{name} is a coroutine function (async def); a consumer is a plain function, as workers are")


def _admit(message: Message, rerun: bool | None, sender: object) -> bool:
    """Return whether a message that may have been run before is to be run; act upon it if not."""
    try:
        attempts.admit(message, rerun, marks_itself=getattr(sender, "marks_run", False))
    except NotAgain as refusal:
        refusal.run(message)
        return False
    return True


def _is_for_http(message: Message) -> bool:
    """Whether an HTTP client waits for the answer to a message."""
    reply_channel = message.reply_channel
    return reply_channel is not None and (
        message.channel_name == names.HTTP_REQUEST or reply_channel.name.startswith("http.")
    )


def _comes_again(error: Exception) -> bool:
    """Whether what a consumer raised has its message handled once more."""
    return isinstance(error, Retry) or (isinstance(error, Reject) and bool(getattr(error, "requeue", False)))


def _requeue(message: Message, tries: Any, name: str, *, is_timed: bool) -> bool:
    """Put the message back for later; False if that has been done too often, and it is dropped."""
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
    """The prepared send that tells a socket's interface server that ``message`` is done with; or None.

    Only WebSocket messages are handed out one at a time; they are those with an ``order``.
    """
    order, reply_channel = message.content.get("order"), message.reply_channel
    if reply_channel is None or order is None or not names.is_process_channel(reply_channel.name):
        return None
    if type(order) is int and 0 <= order < 2**63:
        return _tuple(Send, (reply_channel.name, done_message(order), False, 0.0, order, None))
    return None  # of a server that is dead, which nobody waits for; or of nobody's


def _timed(report: Send | None, seconds: float) -> Send | None:
    """A report that says how long the consumer took, too."""
    if report is None or report.done is None:
        return report
    return Send(report.target, timed_done_message(report.done, seconds))


def _failed(message: Message, report: Send | None) -> Send | None:
    """Return the report about a consumer that failed; of a connect it says so, as nothing will accept the socket."""
    if report is None or message.channel_name != names.WEBSOCKET_CONNECT:
        return report
    return Send(report.target, FAILED_CONNECT)


def _unanswered(message: Message) -> Send | None:
    """The prepared send that tells an HTTP client's interface server to wait no longer; or None."""
    reply_channel = message.reply_channel
    if message.channel_name != names.HTTP_REQUEST or reply_channel is None:
        return None
    if not names.is_process_channel(reply_channel.name):
        return None
    return reply_channel.prepare({"content": b"", "more_content": False, "abort": True})


def report_done(message: Message) -> None:
    """Tell the interface server now that a WebSocket's next message need not wait for this one.

    A failure is logged.
    """
    _tell(message, done_report(message))


def report_failed(message: Message) -> None:
    """Tell the interface server now that no consumer has handled a message, or will.

    Its socket goes on, or is refused if the message is its connect; its HTTP client waits no longer.  A failure is
    logged, as the caller has something worse to say.
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
