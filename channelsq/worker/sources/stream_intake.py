"""From a stream's entry to the request of a consumer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import redis
from kombu.transport.virtual import Message as KombuMessage

from channelsq.core.wire_version import teller
from channelsq.delivery.ending import is_end
from channelsq.layers.wire import codec
from channelsq.message import Message
from channelsq.transport import dead_letters
from channelsq.transport.away import ServerAway
from channelsq.transport.payloads import ForeignPayload, NewerPayload, decode_compact
from channelsq.transport.streams import Entry
from channelsq.transport.streams_channel import Channel
from channelsq.worker.running.execution import report_done
from channelsq.worker.running.guard import unhandled
from channelsq.worker.running.task_profile import TaskProfile
from channelsq.worker.sources.consumer_request import Request
from channelsq.worker.sources.intake import LEFT, Intake
from channelsq.worker.sources.stream_request import StreamRequest

#: The first byte of a message in the transport's compact form: a msgpack list of four.
_COMPACT = 0x94

_NONE_ALIVE = "", -1

#: The errors that Redis, or the way to it, raises while it is away.
_LOST = redis.ConnectionError, redis.TimeoutError, ServerAway


class StreamIntake(Intake[Entry]):
    """Makes requests of the entries of one layer; see :class:`Intake`."""

    # Of the poll:
    _channel: Channel
    _now = 0
    _alive: tuple[str, int] = _NONE_ALIVE
    # Of the entry:
    _is_over = False

    def take(self, channel: Channel, entries: Iterable[Entry]) -> list[Request]:
        """Return the requests of entries, which the channel holds from now on.

        An entry that cannot be handled is acknowledged, or becomes a dead letter, and is logged; it does not stop the
        others.

        Raises:
            redis.ConnectionError, redis.TimeoutError, ServerAway: an entry could not become a dead letter; the next
                poll returns it again.
        """
        self._channel = channel
        self._now = channel.server_time()
        self._alive = _NONE_ALIVE
        self._look()
        taken: list[Request] = []
        entries = list(entries)
        for place, entry in enumerate(entries):
            try:
                request = self._take_compact(entry) or self._take_any(entry)
            except BaseException as error:  # of whatever a message can hold
                if isinstance(error, _LOST):
                    channel.unread(entries[place:])
                    if taken:
                        return taken
                    raise
                if is_end(error):
                    raise
                unhandled(error, channel.queue_of(entry.key), None)
                channel.stream_qos.drop(entry)
                continue
            if request is not None and self._admit(request):
                taken.append(request)
        return taken

    def _take_compact(self, entry: Entry) -> Request | None:
        """Return the request of a message as layers send it; None if it is something else, or is not to be run."""
        key, identity, data, redelivered, _ = entry
        if not data or data[0] != _COMPACT or redelivered:
            return None
        queue = self._channel.queue_of(key)
        try:
            name, message_id, body, lifetime = decode_compact(data)
            (sent_to, content), _, _ = codec.loads(body)
        except (ForeignPayload, TypeError, ValueError):
            return None
        channel = self._channels.get(queue)
        if name != queue or sent_to != channel or message_id is None or type(content) is not dict:
            return None
        if self._signing is not None and not self._signing.is_signed(queue, message_id, body):
            return None
        if lifetime is not None:
            # An entry that was found to be alive, and its lifetime: a younger one with the same is alive, too.
            oldest, same = self._alive
            if lifetime != same or identity < oldest:
                if int(identity.partition("-")[0]) + lifetime <= self._now:
                    return None
                self._alive = identity, lifetime
        try:
            mine = Message(content, channel, self._layer)
            resolved = self._layer.router.resolve(mine)
        except (TypeError, ValueError):  # none of ours has such a value
            return None
        if resolved is None:
            return None
        route, kwargs = resolved
        mine.id = message_id
        if not route.ordered:
            report_done(mine)
        return self._make(self._plan(self._tasks.task_of(route.consumer)), entry, mine, {**kwargs} if kwargs else {})

    def _take_any(self, entry: Entry) -> Request | None:
        """Return the request of whatever message; None if it is not to be run, which is dealt with."""
        self._is_over = False
        payload = self._channel.open(entry)
        if payload is None:
            return None
        message = KombuMessage(payload, channel=self._channel, accept=self.accept)
        return self._read(entry, message, self._channel.queue_of(entry.key))

    # -- what the broker knows

    def _make(
        self,
        plan: TaskProfile,
        held: Entry,
        mine: Message,
        kwargs: dict[str, Any],
        headers: dict[str, Any] | None = None,
    ) -> Request:
        return StreamRequest(plan, self._channel, held, mine, kwargs, self._events, headers)

    def _drop(self, held: Entry) -> None:
        self._channel.stream_qos.drop(held)

    def _set_aside(self, held: Entry, message: Any, reason: str) -> None:
        dead_letters.set_aside(message, reason)

    def _leave(self, held: Entry) -> bool:
        channel = self._channel
        return self.newer.hold(held.tag, lambda: channel.give_back_fetched([held]))

    def on_newer(self, entry: Entry, error: NewerPayload) -> None:
        """Deal with an entry whose form only a newer worker can read."""
        queue = self._channel.queue_of(entry.key)
        if self._leave(entry):
            teller.tell(queue, error, LEFT)
        else:
            dead_letters.keep_newer(self._channel, entry, error)

    def on_expired(self, entry: Entry) -> bool:
        """Have an entry whose time is over read all the same, as its sender waits for its outcome."""
        self._is_over = True
        return False

    def _was_delivered(self, held: Entry) -> bool:
        return held.redelivered

    def _has_expired(self, held: Entry) -> bool:
        return self._is_over
