"""Running one consumer on one message: what is sent when, and what its exceptions do."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from celery.exceptions import Reject, Retry, WorkerShutdown, WorkerTerminate

from channelsq import names
from channelsq.exceptions import ChannelFull, ChannelSocketException, ChannelsqError, ConsumeLater
from channelsq.layers.base import Send
from channelsq.layers.wire import done_message
from channelsq.message import Message, pending_message_store
from channelsq.signals import consumer_finished, consumer_started

logger = logging.getLogger("channelsq.worker")

#: Message key: how often ConsumeLater has put this message back.  Consumers do not see it.
ATTEMPTS_KEY = "channelsq.attempts"

#: Seconds that a message waits after its first ConsumeLater; it doubles with each, up to the last.
_FIRST_WAIT, _LONGEST_WAIT = 0.05, 5.0


def run_consumer(consumer: Callable[[Message], Any], message: Message, name: str, sender: object | None = None) -> None:
    """Run ``consumer(message)`` as one unit.

    What it sends goes out together once it has returned, and not at all if it raises.  Whatever the outcome,
    short of one that will run it again, the interface server that waits to hand out the socket's next message
    is told, in the same write.

    Args:
        consumer: called with the message.
        message: what to handle.
        name: the consumer's name, for the log.
        sender: the sender of ``consumer_started`` and ``consumer_finished``; ``consumer`` if left out.

    Raises:
        Exception: what the consumer raised, except ConsumeLater and ChannelSocketException, which are
            acted upon here.
        RuntimeError: it raised SystemExit, which is a failure as any other.
    """
    sender = sender or consumer
    attempts = message.content.pop(ATTEMPTS_KEY, 0)
    report = done_report(message)  # now, as consumers may change the message
    with pending_message_store.holding() as held:
        try:
            try:
                consumer_started.send(sender=sender, environ={})
                _call(consumer, message, name)
            finally:
                consumer_finished.send(sender=sender)
        except ConsumeLater:
            held.clear()
            requeued = False
            try:
                requeued = _requeue(message, attempts, name)
            finally:
                if not requeued:
                    _tell(message, report)
            return
        except (Retry, Reject) as error:
            held.clear()
            if isinstance(error, Reject) and not getattr(error, "requeue", False):
                _tell(message, report)
            raise
        except Exception:
            held.clear()
            _tell(message, report)
            raise
        except BaseException:
            held.clear()
            raise
        if report is not None:
            held.append((message.channel_layer, report))
        try:
            pending_message_store.send_and_flush()
        except ChannelFull:
            raise  # what else there was to send, the report with it, has been sent
        except Exception:
            _tell(message, report)
            raise


def _call(consumer: Callable[[Message], Any], message: Message, name: str) -> None:
    try:
        consumer(message)
    except ChannelSocketException as effect:
        effect.run(message)
    except (WorkerShutdown, WorkerTerminate):
        raise
    except SystemExit as error:
        # Celery has no answer to it: it ends a solo worker, takes a thread's place in the prefetch window for
        # good, and ends one prefork process after the other, as the message comes again each time.
        raise RuntimeError(f"{name} raised SystemExit({error.code!r}); a consumer cannot end its worker") from error


def _requeue(message: Message, attempts: Any, name: str) -> bool:
    """Put the message back for later; False if that has been done too often, and it is dropped."""
    layer = message.channel_layer
    attempts = attempts if isinstance(attempts, int) and attempts >= 0 else 0
    if attempts >= layer.consume_later_limit:
        logger.error(
            "%s raised ConsumeLater on one message from %s %d times; the message was dropped "
            "(the limit is CONFIG['consume_later_limit'])",
            name,
            message.channel.name,
            attempts + 1,
            extra={"action": "consume_later_exhausted", "channel": message.channel.name},
        )
        return False
    content = {**message.content, ATTEMPTS_KEY: attempts + 1}
    delay = min(_FIRST_WAIT * 2**attempts, _LONGEST_WAIT)
    layer.dispatch((layer.prepare(message.channel.name, content, delay=delay),))
    return True


def done_report(message: Message) -> Send | None:
    """The prepared send that tells a socket's interface server that ``message`` is done with; or None.

    Only WebSocket messages are handed out one at a time; they are those with an ``order``.
    """
    order = message.content.get("order")
    if message.reply_channel is None or order is None or not names.is_process_channel(message.reply_channel.name):
        return None
    if type(order) is int and 0 <= order < 2**63:  # nothing about it can be wrong
        return Send(message.reply_channel.name, done_message(order), done=order)
    return message.reply_channel.prepare({"done": order})


def report_done(message: Message) -> None:
    """Tell the interface server now; a failure is logged, as the caller has something worse to say."""
    _tell(message, done_report(message))


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
