"""The heartbeats of one interface process: one on each server of the layer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from channelsq.asgi import ChannelLayerWrapper
from channelsq.interface.basis.limits import Limits
from channelsq.interface.link.replies import Delivery
from channelsq.interface.presence.heartbeat import Heartbeat, Lost
from channelsq.layers.contract.membership_notes import read_note
from channelsq.layers.shards.sharded_layer import ShardedChannelLayer
from channelsq.layers.shards.sharded_presence import ShardPresence


class Heartbeats:
    """The heartbeats of an interface server on the servers of its layer, see :class:`Heartbeat`.

    A server that is away keeps only its own heartbeat waiting.  A socket is recorded on its own server, a membership
    where its group is.  While a server is on standby, processes with other settings look for some groups on it; the
    members of these are kept on both servers.

    Args:
        heartbeats: one for each server.
        kept_on: returns the places of the servers that keep a group.
    """

    def __init__(self, heartbeats: Sequence[Heartbeat], kept_on: Callable[[str], Sequence[int]]) -> None:
        self._heartbeats = tuple(heartbeats)
        self._kept_on = kept_on

    def start(self) -> None:
        """Start."""
        for heartbeat in self._heartbeats:
            heartbeat.start()

    def stop(self) -> None:
        """Stop, as on an orderly shutdown; blocks for a moment."""
        stopping = [threading.Thread(target=heartbeat.stop, daemon=True) for heartbeat in self._heartbeats]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()

    def opened(self, channel: str, path: str) -> None:
        """Record an open socket; called in the event loop."""
        for heartbeat in self._heartbeats:
            heartbeat.opened(channel, path)

    def closed(self, channel: str) -> None:
        """Record that a socket is gone, and that its application was told."""
        for heartbeat in self._heartbeats:
            heartbeat.closed(channel)

    def on_reply(self, delivery: Delivery) -> None:
        """Record that a socket joined or left a group; see :class:`channelsq.interface.link.replies.Receiver`."""
        change = read_note(delivery.message)
        if change is not None:
            places = self._kept_on(change.group)
            for place in places:
                self._heartbeats[place].on_change(change, is_elsewhere=len(places) > 1)

    def on_done(self, order: int) -> None:
        """Do nothing; see :class:`channelsq.interface.link.replies.Receiver`."""

    def check_now(self) -> None:
        """Compare with the servers at once, as the connection to one was lost and is back."""
        for heartbeat in self._heartbeats:
            heartbeat.check_now()


def heartbeat_of(
    layer: ChannelLayerWrapper,
    limits: Limits,
    on_buried: Callable[[], None],
    root_path: str = "",
    announces: Mapping[str, Any] | None = None,
    on_restored: Callable[[Lost], None] = lambda lost: None,
) -> Heartbeat | Heartbeats | None:
    """Return the heartbeat of this process on a layer; None if the layer has no place for heartbeats.

    Args:
        layer: the channel layer.
        limits: see :class:`Heartbeat`, also for the others.
        on_buried: see there.
        root_path: see there.
        announces: see there.
        on_restored: see there.
    """
    channel_layer = layer.channel_layer
    if not isinstance(channel_layer, ShardedChannelLayer):
        presence = channel_layer.presence
        if presence is None:
            return None
        return Heartbeat(layer, presence, limits, on_buried, root_path, announces, on_restored=on_restored)
    placement = channel_layer.placement

    def on(place: int) -> Heartbeat:
        shard = ChannelLayerWrapper(channel_layer.shards[place], layer.alias, layer.routing)
        presence = ShardPresence(channel_layer, place)
        return Heartbeat(
            shard,
            presence,
            limits,
            on_buried,
            root_path,
            announces,
            is_recorded=lambda channel: placement.first(channel) == place,
            on_restored=on_restored,
        )

    return Heartbeats([on(place) for place in range(len(channel_layer.shards))], placement.kept_on)
