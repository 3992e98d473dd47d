"""``receive`` on a Kombu broker: it reads one queue after the other, without a consumer."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from typing import Any, NamedTuple

from kombu import Queue

from channelsq.core import names
from channelsq.core.wire_version import NewerWire, check_headers, teller
from channelsq.layers.contract.layer_values import Received
from channelsq.layers.contract.membership_notes import is_note
from channelsq.layers.kombu_broker.broker_access import KombuBroker
from channelsq.layers.kombu_broker.kombu_listener import log_foreign
from channelsq.layers.wire import codec
from channelsq.layers.wire.signing import Refused
from channelsq.layers.wire.wire_forms import (
    CONTENT_TYPE,
    is_expired,
    open_body,
    open_envelope,
    open_task_body,
    raw_body,
)

logger = logging.getLogger("channelsq.layers.kombu_broker.kombu_receiver")

#: The most messages that wait in this process for readers of one process's channels.
MOST_WAITING = 10_000

#: Seconds between reads of empty queues: the first, and the longest.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.02


class _Waiting(NamedTuple):
    deadline: float
    channel: str
    packed: bytes


class KombuReceiver:
    """The reader of one layer's channels, for shells, tests and code that waits for an answer.

    A process's queue carries envelopes for all of its ``!`` channels.  Messages for other channels than the requested
    one wait in an inbox until they expire, or :data:`MOST_WAITING` newer ones arrive.
    """

    def __init__(self, layer: KombuBroker) -> None:
        self._layer = layer
        self._lock = threading.Lock()
        self._inboxes: dict[str, deque[_Waiting]] = {}

    def clear(self) -> None:
        """Delete the messages in the inbox."""
        with self._lock:
            self._inboxes.clear()

    def receive(self, wanted: list[str], timeout: float) -> Received:
        """See :meth:`BaseChannelLayer.receive`; wait at most ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        pause = _FIRST_PAUSE
        closed = self._layer.closed
        while True:
            random.shuffle(wanted)  # so that no channel starves another
            for channel in wanted:
                try:
                    found = self._receive_one(channel)
                except Exception:  # Kombu raises many errors for a connection that is closed while it works
                    if self._layer.closed == closed:
                        raise
                    return None, None
                if found is not None:
                    return found
            left = deadline - time.monotonic()
            if left <= 0:
                return None, None
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    def _receive_one(self, channel: str) -> tuple[str, dict[str, Any]] | None:
        process = names.is_process_channel(channel)
        if process:
            found = self._from_inbox(channel)
            if found is not None:
                return found
        queue, protection = self._layer.queue(channel), self._layer.protection
        with self._layer.opened(queue) as opened:
            while (message := _next(opened)) is not None:
                if is_expired(message.headers, self._layer.expiry_clock):
                    continue
                try:
                    check_headers(message.headers)
                    if process:
                        self._to_inbox(channel, open_body(message, queue.name, protection))
                        found = self._from_inbox(channel)
                        if found is not None:
                            return found
                    elif names.is_single_reader(channel):
                        return channel, codec.unpack(open_body(message, queue.name, protection))
                    else:
                        body = raw_body(message)
                        protection.check_task(queue.name, message.headers.get("id"), body)
                        return channel, protection.open_content(queue.name, open_task_body(body))
                except Refused:
                    continue
                except NewerWire as error:
                    teller.tell(queue.name, error, "was dropped, as receive() had taken it off the queue")
                except ValueError as error:
                    log_foreign(queue, error)
        return None

    def _to_inbox(self, channel: str, body: bytes) -> None:
        entries = open_envelope(body)
        now = time.monotonic()
        deadline = now + self._layer.expiry
        with self._lock:
            inbox = self._inboxes.setdefault(names.process_part(channel), deque())
            for entry in entries:
                inbox.extend(
                    _Waiting(deadline, recipient, entry.packed)
                    for recipient in entry.channels
                    if not is_note(recipient)
                )
            while inbox and inbox[0].deadline <= now:
                inbox.popleft()
            dropped = len(inbox) - MOST_WAITING
            for _ in range(dropped):
                inbox.popleft()
        if dropped > 0:
            logger.warning(
                "%d dropped of the messages to channels like %s: this process read them from the broker, and no code "
                "asked for them",
                dropped,
                channel,
                extra={"action": "unread_message_dropped"},
            )

    def _from_inbox(self, channel: str) -> tuple[str, dict[str, Any]] | None:
        now = time.monotonic()
        with self._lock:
            inbox = self._inboxes.get(names.process_part(channel), deque())
            for waiting in inbox:
                if waiting.deadline > now and (channel[-1] == "!" or waiting.channel == channel):
                    inbox.remove(waiting)
                    return waiting.channel, codec.unpack(waiting.packed)
        return None


def _next(queue: Queue) -> Any:
    """Return the next readable message of an opened queue; None if there is none."""
    while True:
        try:
            return queue.get(no_ack=True, accept=[CONTENT_TYPE])
        except KeyError as error:  # a compression that Kombu does not know
            log_foreign(queue, error)
