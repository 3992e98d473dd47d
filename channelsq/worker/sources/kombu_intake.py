"""From a message of Kombu's to the request of a consumer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from kombu import Message as KombuMessage

from channelsq.delivery.ending import is_end
from channelsq.layers.wire.wire_forms import is_expired
from channelsq.message import Message
from channelsq.worker.running.guard import unhandled
from channelsq.worker.running.task_profile import TaskProfile
from channelsq.worker.sources.consumer_request import Request
from channelsq.worker.sources.intake import Intake
from channelsq.worker.sources.kombu_request import Holder, KombuRequest


class Arrivals(Holder, Protocol):
    """The source as the intake of its messages knows it."""

    def errors(self) -> tuple[type[BaseException], ...]:
        """Return what the transport raises when the broker is lost."""

    def knows(self, message: KombuMessage) -> bool:
        """Return whether a message that came again needs no request."""

    def leave(self, message: KombuMessage) -> bool:
        """Hold a message that needs a newer worker; return False if too many are held."""


class KombuIntake(Intake[KombuMessage]):
    """Makes requests of Kombu's messages; see :class:`Intake`."""

    _source: Arrivals

    def take(self, source: Arrivals, messages: Iterable[KombuMessage]) -> list[Request]:
        """Return the requests of messages, which the source holds from now on.

        A message that cannot be handled is rejected, and logged; it does not stop the others.

        Raises:
            Exception: the transport's errors; none of the messages is held then.
        """
        self._source = source
        self._look()
        taken: list[Request] = []
        try:
            for message in messages:
                request = self._request_of(message)
                if request is not None and self._admit(request):
                    taken.append(request)
        except BaseException:
            for request in taken:
                request.abandon()
            raise
        return taken

    def refuse(self, message: KombuMessage, error: Exception) -> None:
        """Reject a message, and log why."""
        self._refuse(message, message, _queue_of(message), error)

    def _request_of(self, message: KombuMessage) -> Request | None:
        if self._source.knows(message):
            return None
        queue = _queue_of(message)
        try:
            return self._read(message, message, queue)
        except BaseException as error:  # of whatever a message can hold
            if is_end(error) or isinstance(error, self._source.errors()):
                raise
            unhandled(error, queue, None)
            self._drop(message)
            return None

    # -- what the broker knows

    def _make(
        self,
        plan: TaskProfile,
        held: KombuMessage,
        mine: Message,
        kwargs: dict[str, Any],
        headers: dict[str, Any] | None = None,
    ) -> Request:
        return KombuRequest(plan, self._source, held, mine, kwargs, self._events, headers)

    def _drop(self, held: KombuMessage) -> None:
        held.ack()

    def _set_aside(self, held: KombuMessage, message: Any, reason: str) -> None:
        held.reject()

    def _leave(self, held: KombuMessage) -> bool:
        return self._source.leave(held)

    def _was_delivered(self, held: KombuMessage) -> bool:
        return bool(held.headers.get("redelivered") or (held.delivery_info or {}).get("redelivered"))

    def _has_expired(self, held: KombuMessage) -> bool:
        clock = self._layer.channel_layer.expiry_clock
        # A message that was delivered before was read in time, and its worker was lost with it.
        return is_expired(held.headers, clock) and not self._was_delivered(held)


def _queue_of(message: KombuMessage) -> str:
    return str((message.delivery_info or {}).get("routing_key"))
