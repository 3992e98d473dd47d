"""Runs of a message: each has an id, and a run that must not be repeated never begins twice.

A message is redelivered when its worker died, so the consumer of an HTTP request may run twice.  Three rules hide this
from the client:

* Each part of an answer carries the id of its run, so that the interface server never joins the parts of two runs
  (docs/reference/wire.md, "Attempts").  A message that passes the answering on carries the id, too.
* Before a repeated run the worker asks the interface server.  The server refuses if the client has left or if a part
  of an answer has left; otherwise it sends the body again from its beginning.
* Before a run that must not be repeated the worker writes a mark; a later run that finds the mark does not begin.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from channelsq import conf
from channelsq.core import names
from channelsq.core.contracts import MessageLike
from channelsq.core.names import new_id
from channelsq.delivery.pending import held_here
from channelsq.exceptions import ChannelsqError, RequestAborted

if TYPE_CHECKING:
    from channelsq.asgi import ChannelLayerWrapper

logger = logging.getLogger("channelsq.worker")

#: Key of an ``http.request`` message: the version of the wire that the interface server reads.  A worker answers a
#: server of a higher version in the same way.
WIRE_KEY = "channelsq.wire"

#: Servers of this version and later number the parts, check the ids of runs, and answer ``again``.
_NUMBERS_PARTS = 1

#: Key of a message that passes an answer on: the ids of its runs.  Consumers do not see it.
HANDED_KEY = "channelsq.attempt"

#: Key of a part of an answer: the ids of its runs, ``{message id: run id}``.
ATTEMPT = "attempt"

#: Key of a part of a body or of an answer: its number, from 0.
PART = "part"

#: The most runs that an answer passes through; the oldest are dropped.
MOST_RUNS = 32

#: Seconds that an interface server may take to answer whether a request may run again.
ASK_TIMEOUT = 10.0


@dataclass(slots=True)
class Run:
    """The state of one run of a message, see :func:`admit`."""

    #: The number of Celery's retries.
    retries: int = 0
    #: Whether ConsumeLater has put the message back before.
    was_put_back: bool = False
    #: Whether the worker checks for repeated runs of the message.
    is_admitted: bool = False
    #: The consumer's option ``rerun``.
    rerun: bool | None = None
    #: The mark of a run that has begun; None if there is none.
    mark: str | None = None
    #: Whether an interface server sends the body again, with numbers on its parts.
    is_numbered: bool = False


class NotAgain(ChannelsqError):
    """A message must not run again.

    Args:
        reason: the reason, for the log.
        lost: whether a waiting HTTP client gets 502, since the run that had begun is dead.
    """

    def __init__(self, reason: str, *, lost: bool = False) -> None:
        self.lost = lost
        super().__init__(reason)

    def run(self, message: MessageLike) -> None:
        """Log the refusal, and tell the client's interface server."""
        reply_channel = message.reply_channel
        logger.warning(
            "%s: message %s is not run again: %s",
            message.channel.name,
            message.id,
            self,
            extra={
                "action": "not_run_again",
                "channel": message.channel.name,
                "connection": "" if reply_channel is None else reply_channel.name,
            },
        )
        if self.lost and reply_channel is not None and message.channel_name == names.HTTP_REQUEST:
            reply_channel.send({"content": b"", "more_content": False, "abort": True, "status": 502})


# -- ids of runs --------------------------------------------------------------------------------


def identify(message: MessageLike) -> None:
    """Add an id to this run of ``message`` if an interface server tracks it, and remove the keys that say so."""
    content = message.content
    handed = content.pop(HANDED_KEY, None)
    reply_channel = message.reply_channel
    if message.channel_name == names.HTTP_REQUEST:
        speaks = type(version := content.pop(WIRE_KEY, 0)) is int and version >= _NUMBERS_PARTS
    else:
        speaks = handed is not None
    if reply_channel is None or not speaks:
        return
    runs = dict(itertools.islice(handed.items(), MOST_RUNS - 1)) if isinstance(handed, dict) else {}
    runs[message.id] = new_id()
    reply_channel.attempt = runs


def stamp(content: dict[str, Any], attempt: dict[str, str] | None) -> dict[str, Any]:
    """Return ``content`` with the ids of its runs.

    Args:
        content: a message that is about to be sent.
        attempt: the ids, if the message goes to the client of these runs.
    """
    if attempt is not None:
        content = {**content, ATTEMPT: attempt}
    if "reply_channel" in content:
        pending = held_here.get()
        answering = None if pending is None or pending.message is None else pending.message.reply_channel
        if answering is not None and answering.attempt is not None and answering.name == content["reply_channel"]:
            content = {**content, HANDED_KEY: answering.attempt}
    return content


def restore(message: MessageLike, content: dict[str, Any]) -> dict[str, Any]:
    """Return ``content`` for another run of ``message``, with the keys that :func:`identify` removed.

    The other run never continues an answer of this one, whatever id the copy of the message gets.
    """
    attempt = None if message.reply_channel is None else message.reply_channel.attempt
    if attempt is None:
        return content
    return {**content, WIRE_KEY: _NUMBERS_PARTS, HANDED_KEY: {**attempt, message.id: new_id()}}


# -- another run --------------------------------------------------------------------------------


def admit(message: MessageLike, rerun: bool | None, *, marks_itself: bool) -> None:
    """Admit a run of ``message``, unless an earlier run must not be repeated.

    Args:
        message: a message after :func:`identify`.
        rerun: the consumer's option ``rerun``; None to decide by the method of an HTTP request.
        marks_itself: whether the consumer calls :func:`begin` itself, after it has read the request.

    Raises:
        NotAgain: the message must not run.
        BrokerUnavailable: the mark could not be written.
    """
    run = message._run
    run.is_admitted, run.rerun = True, rerun
    if message.channel_name == names.HTTP_REQUEST:
        if is_repeated(message):
            try:
                ask(message)
            except RequestAborted as error:
                raise NotAgain(str(error)) from None
        if marks_itself:
            return
    begin(message)


def is_repeated(message: MessageLike) -> bool:
    """Return whether a run of ``message`` may have begun before this one."""
    return message.is_redelivered or message._run.retries > 0 or message._run.was_put_back


def begin(message: MessageLike) -> None:
    """Write the mark of a run of ``message`` that must not be repeated.

    Raises:
        NotAgain: an earlier run has begun.
        BrokerUnavailable: the mark could not be written.
    """
    run = message._run
    if not run.is_admitted or run.mark is not None or may_run_again(message):
        return
    mark = f"{message.id}.{run.retries}"
    began = message.channel_layer.begin(mark)
    if began is None:  # without a place for marks, each redelivered message counts as begun
        began = not message.is_redelivered
    if not began:
        raise NotAgain("an earlier run of it had begun", lost=message.is_redelivered)
    run.mark = mark


def end(message: MessageLike, *, at_once: bool = False) -> None:
    """Delete the mark of a run of ``message``, which has ended.

    Args:
        at_once: whether the same message runs again on purpose.
    """
    run = message._run
    mark, run.mark = run.mark, None
    if mark is not None:
        try:
            message.channel_layer.end(mark, at_once=at_once)
        except ChannelsqError as error:  # it expires later
            logger.warning("the mark of a message stays for a while: %s", error, extra={"action": "mark_left"})


def may_run_again(message: MessageLike) -> bool:
    """Return whether ``message`` may run although an earlier run had begun."""
    if message._run.rerun is not None:
        return message._run.rerun
    if message.channel_name != names.HTTP_REQUEST:
        return True
    methods = conf.rerun_methods()
    return "*" in methods or str(message.content.get("method") or "GET").upper() in methods


def ask(message: MessageLike) -> None:
    """Ask the interface server whether another run may answer a request; the server then sends its body again.

    Do nothing without an interface server that answers (an older one, a test's client).

    Raises:
        RequestAborted: it may not: the client has left, or has been sent a part of an answer; or no server answers.
        BrokerUnavailable: the broker does not answer.
    """
    reply_channel = message.reply_channel
    if reply_channel is None or reply_channel.attempt is None:
        return
    layer = reply_channel.channel_layer
    answers = layer.new_channel("http.response.credit?")
    layer.dispatch((reply_channel.prepare({"again": True, "credit_channel": answers}),))
    answer = wait_for(layer, answers, ASK_TIMEOUT)
    if answer is None:
        raise RequestAborted(f"no interface server answered within {ASK_TIMEOUT:g} s whether it may run again")
    if answer.get("gone"):
        raise RequestAborted("its client has left, or has been sent a part of an answer")
    body_channel = answer.get("body_channel")
    if isinstance(body_channel, str):
        message.content["body_channel"] = body_channel
        message._run.is_numbered = True


def wait_for(
    layer: ChannelLayerWrapper, channel: str, seconds: float, give_up: Callable[[], bool] = lambda: False
) -> dict[str, Any] | None:
    """Return the next message on ``channel``; None if there was none within ``seconds``.

    Args:
        give_up: called about once a second; True ends the wait.
    """
    deadline = time.monotonic() + seconds
    while True:
        _, message = layer.receive([channel], block=True)
        if message is not None or time.monotonic() >= deadline or give_up():
            return message
