"""Delayed sends: a handle that cancels one, and the channel of those to groups and clients.

Cancelling and delivering claim the same record of the layer, so that exactly one of them succeeds.  A message without a
record is delivered: nothing is written for a send until it is cancelled or delivered.
"""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

from channelsq.asgi import ChannelLayerWrapper, channel_layers
from channelsq.delivery.pending import pending_message_store
from channelsq.exceptions import InvalidChannelLayerError
from channelsq.layers.contract.layer_values import Send, check_delay

if TYPE_CHECKING:
    from channelsq.core.contracts import MessageLike
    from channelsq.layers.groups.records import RecordStore

__all__ = ["DelayedSend", "cancel"]

#: The channel of delayed messages to groups and to clients; every worker's routing has it.
CHANNEL = "channelsq.delayed"

#: Key of a delayed message: the id of its handle.  Consumers do not see it.
ID_KEY = "channelsq.delayed"

#: The field of a record, and its values.
_STATE, _LEFT, _CANCELLED = "state", b"left", b"cancelled"

#: Seconds that a claim is kept after the last moment at which the message may wait: a dead worker's message is
#: redelivered later.
_KEPT_AFTER = 3600.0


class DelayedSend:
    """A delayed send, returned by ``send(…, delay=seconds)`` of a channel or a group.

    Args:
        layer: the layer of the send.
        delay: seconds until the message may be delivered.

    Raises:
        ValueError: ``delay`` is something else.
    """

    def __init__(self, layer: ChannelLayerWrapper, delay: float) -> None:
        #: The id for :func:`channelsq.delayed.cancel`, in any process of the site.
        self.id = f"{uuid.uuid4().hex}.{int((time.time() + check_delay(delay)) * 1000):x}.{layer.alias}"
        self._layer = layer

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        return f"DelayedSend({self.id!r})"

    def cancel(self) -> bool:
        """Cancel the send; return True if the message will not be delivered, False if it has left.

        It takes effect at once, also in a transaction.

        Raises:
            InvalidChannelLayerError: the layer has no place for records.
            BrokerUnavailable: the layer does not answer.
        """
        return _cancel(self._layer, self.id)


def cancel(handle_id: str) -> bool:
    """Cancel a delayed send from any process; see :meth:`DelayedSend.cancel`.

    Args:
        handle_id: the handle's.

    Raises:
        ValueError: ``handle_id`` is not the id of a handle.
        InvalidChannelLayerError: there is no such layer, or it has no place for records.
        BrokerUnavailable: the layer does not answer.
    """
    _, alias = _parts(handle_id)
    return _cancel(channel_layers[alias], handle_id)


def _parts(handle_id: object) -> tuple[float, str]:
    """Return when a message is due, in seconds of the Unix clock, and the alias of its layer."""
    try:
        name, due, alias = str(handle_id).split(".", 2)
        found = int(due, 16) / 1000, alias
    except (ValueError, OverflowError):
        name = ""
    if len(name) != 32:
        raise ValueError(f"{handle_id!r:.200} is not the id of a delayed send")
    return found


def _records(layer: ChannelLayerWrapper) -> RecordStore:
    records: RecordStore | None = layer.channel_layer.records
    if records is None:
        raise InvalidChannelLayerError(
            f"the layer {layer.alias!r} has no place for records, so its delayed sends cannot be cancelled: set "
            f"CHANNEL_LAYERS[{layer.alias!r}]['CONFIG']['groups_url'] to a Redis"
        )
    return records


def _cancel(layer: ChannelLayerWrapper, handle_id: str) -> bool:
    records = _records(layer)
    kept = layer.channel_layer.expiry + _KEPT_AFTER
    left = _parts(handle_id)[0] - time.time()
    if left < -kept:
        return False  # the record of its delivery has ended
    return _claim(records, handle_id, _CANCELLED, max(0.0, left) + kept) == _CANCELLED


def _claim(records: RecordStore, handle_id: str, state: bytes, seconds: float) -> bytes | None:
    """Set the state of a delayed send, unless it has one; return its state."""
    return records.change(f"delayed:{handle_id}", _STATE, lambda value: state if value is None else None, seconds)


def may_leave(layer: ChannelLayerWrapper, handle_id: object) -> bool:
    """Return whether a delayed message that is due is delivered: False if it was cancelled.

    Args:
        layer: the layer.
        handle_id: the value of :data:`ID_KEY`.

    Raises:
        BrokerUnavailable: the layer does not answer.
    """
    records = layer.channel_layer.records
    if records is None:
        return True
    return _claim(records, str(handle_id), _LEFT, layer.channel_layer.expiry + _KEPT_AFTER) != _CANCELLED


def marked(content: Any, handle: DelayedSend) -> Any:
    """Return the content of a delayed message with the id of its handle, if the layer can cancel it."""
    if not isinstance(content, dict) or handle._layer.channel_layer.records is None:
        return content
    return {**content, ID_KEY: handle.id}


def forwarded(handle: DelayedSend, target: str, content: dict[str, Any], delay: float, *, is_group: bool) -> Send:
    """Return the delayed send that a worker forwards to a group, or to a channel that no worker reads.

    Args:
        handle: the handle.
        target: the name of the group or channel.
        content: the message; it is checked.
        delay: seconds until the message may be delivered.
        is_group: whether ``target`` is a group.
    """
    outer = {"group" if is_group else "channel": target, "content": content}
    return handle._layer.prepare(CHANNEL, marked(outer, handle), delay=delay)


def deliver(message: MessageLike) -> None:
    """Forward a message that is due; the consumer of :data:`CHANNEL`."""
    layer, content = message.channel_layer, message.content
    group = content.get("group")
    if group is None:
        send = layer.prepare(content["channel"], content["content"])
    else:
        send = layer.prepare_group(group, content["content"])
    pending_message_store.hold(layer, send)
