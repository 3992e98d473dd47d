"""Runs of a message: each has an id, and one that must not be repeated is not begun twice.

A message is delivered again when its worker died, so the consumer of an HTTP request may run twice.  Three rules keep
that from showing:

* Each part of an answer carries the id of the run that made it, so that the interface server never joins the parts of
  two runs (docs/wire.md, "Attempts").  A message that hands the answering on carries the id, too.
* Before a request is run again the worker asks the interface server, which refuses if the client has left or if a
  part of an answer has left, and else sends the body again from its beginning.
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
#: server of a higher version as ever.
WIRE_KEY = "channelsq.wire"

#: Servers of this version and later number parts, look at the ids of their runs, and answer ``again``.
_NUMBERS_PARTS = 1

#: Key of a message that hands an answer on: the ids of the runs that it comes from.  Consumers do not see it.
HANDED_KEY = "channelsq.attempt"

#: Key of a part of an answer: the ids of the runs that it comes from, ``{message id: run id}``.
ATTEMPT = "attempt"

#: Key of a part of a body or of an answer: its number, from 0.
PART = "part"

#: How many runs an answer is handed on through at most; the oldest are forgotten.
MOST_RUNS = 32

#: Seconds that an interface server may take to answer the question whether a request may run again.
ASK_TIMEOUT = 10.0


@dataclass(slots=True)
class Run:
    """One run of a message: of the few that something is known of, see :func:`admit`."""

    #: How often the consumer had Celery try again.
    retries: int = 0
    #: Whether ConsumeLater has put the message back before.
    was_put_back: bool = False
    #: Whether the worker looks after repetitions of the message.
    is_admitted: bool = False
    #: The consumer's option ``rerun``.
    rerun: bool | None = None
    #: The mark that says that the run has begun; None if there is none.
    mark: str | None = None
    #: Whether an interface server sends the body again, with numbers on its parts.
    is_numbered: bool = False


class NotAgain(ChannelsqError):
    """A message is not run again.

    Args:
        reason: for the log.
        lost: whether an HTTP client that still waits is answered with 502, since the run that had begun is dead.
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
    """Give this run of ``message`` an id, if an interface server looks at it, and take the keys out that say so."""
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
    """Return ``content`` with the ids of the runs that it comes from.

    Args:
        content: a message that is about to be sent.
        attempt: the ids, if it goes to the client that the runs answer.
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
    """Return ``content`` for another run of ``message``, with the keys that :func:`identify` took out.

    What this run has sent of an answer is never continued by that one, whatever id the copy of the message gets.
    """
    attempt = None if message.reply_channel is None else message.reply_channel.attempt
    if attempt is None:
        return content
    return {**content, WIRE_KEY: _NUMBERS_PARTS, HANDED_KEY: {**attempt, message.id: new_id()}}


# -- another run --------------------------------------------------------------------------------


def admit(message: MessageLike, rerun: bool | None, *, marks_itself: bool) -> None:
    """Have ``message`` run, unless it was run before and that must not be repeated.

    Args:
        message: of which :func:`identify` has taken note.
        rerun: the option ``rerun`` of the consumer; None for what the method of an HTTP request says.
        marks_itself: whether the consumer calls :func:`begin` itself, when it has read the request.

    Raises:
        NotAgain: it is not to be run.
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
    """Write down that the run of ``message`` begins, if it must not be repeated.

    Raises:
        NotAgain: an earlier run has begun.
        BrokerUnavailable: it could not be written.
    """
    run = message._run
    if not run.is_admitted or run.mark is not None or may_run_again(message):
        return
    mark = f"{message.id}.{run.retries}"
    began = message.channel_layer.begin(mark)
    if began is None:  # no place for marks: then each message that was delivered before counts as begun
        began = not message.is_redelivered
    if not began:
        raise NotAgain("an earlier run of it had begun", lost=message.is_redelivered)
    run.mark = mark


def end(message: MessageLike, *, at_once: bool = False) -> None:
    """Forget that the run of ``message`` began, now that the worker is done with the message.

    Args:
        at_once: whether the same message comes again on purpose.
    """
    run = message._run
    mark, run.mark = run.mark, None
    if mark is not None:
        try:
            message.channel_layer.end(mark, at_once=at_once)
        except ChannelsqError as error:  # it is forgotten by itself, later
            logger.warning("the mark of a message stays for a while: %s", error, extra={"action": "mark_left"})


def may_run_again(message: MessageLike) -> bool:
    """Return whether ``message`` may be begun although a run of it had begun."""
    if message._run.rerun is not None:
        return message._run.rerun
    if message.channel_name != names.HTTP_REQUEST:
        return True
    methods = conf.rerun_methods()
    return "*" in methods or str(message.content.get("method") or "GET").upper() in methods


def ask(message: MessageLike) -> None:
    """Ask the interface server whether another run may answer a request; its body is sent again from the beginning.

    Without an interface server that answers (an older one, a test's client) nothing happens.

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
    """Return the next message on ``channel``; None if there was none for so many seconds.

    Args:
        give_up: is asked about once a second whether to wait no longer.
    """
    deadline = time.monotonic() + seconds
    while True:
        _, message = layer.receive([channel], block=True)
        if message is not None or time.monotonic() >= deadline or give_up():
            return message
