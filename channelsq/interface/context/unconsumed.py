"""Detection of channels that no worker consumes while messages wait in them.

Workers announce the channels that they read in the Redis of the groups.  A program of another kind may read a channel
without an announcement.  A channel without an announced worker is therefore reported only if a message has waited in
it, untaken, while no message was answered.  A layer without announcements is judged by this waiting alone, after a
longer time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from channelsq import conf
from channelsq.core import names
from channelsq.exceptions import BrokerUnavailable
from channelsq.interface.basis.log_fields import extra
from channelsq.layers.contract.broker_urls import shown

if TYPE_CHECKING:
    from channelsq.asgi import ChannelLayerWrapper
    from channelsq.interface.basis.config import InterfaceConfig

logger = logging.getLogger("channelsq.interface")

#: The channels to which new requests and sockets are sent.
_DOORS = (names.HTTP_REQUEST, names.WEBSOCKET_CONNECT)

#: The least seconds between two checks, and the seconds for which the last sighting of a waiting message counts.
_EVERY, _FRESH = 1.0, 5.0

#: Seconds without an answer after which a layer without announcements is taken for a layer without workers.
_LONGER = 5.0

#: Seconds until a channel is reported again, which double up to the second value.
_AGAIN, _RAREST = 60.0, 3600.0


class Look(NamedTuple):
    """The result of one check of some channels."""

    #: The number of announced workers; None if the layer has no announcements.
    workers: int | None
    #: The channels that the workers read; None for all channels, as older workers do not name them.
    read: frozenset[str] | None
    #: The approximate number of waiting messages in each channel; channels of unknown depth are missing.
    depths: dict[str, int]

    def is_read(self, channel: str) -> bool:
        """Return whether a worker announces that it reads a channel."""
        return bool(self.workers) and (self.read is None or channel in self.read)


@dataclass
class _Mark:
    """A channel that no worker consumes: the start of the wait, and the time of its detection."""

    waiting: float
    since: float
    tell_again: float
    interval: float = _AGAIN


class Unconsumed:
    """The channels that no worker consumes; everything but the checks themselves runs in the event loop.

    Args:
        layer: the layer to which clients' messages are sent.
        config: the interface's settings.
    """

    def __init__(self, layer: ChannelLayerWrapper, config: InterfaceConfig) -> None:
        self._layer = layer
        self._is_direct = config.http == "direct"
        self._patience = config.limits.answer_patience
        self._grace = config.limits.worker_grace
        self._marks: dict[str, _Mark] = {}
        #: By channel, the start of its oldest message's wait for an answer, and the time of the last sighting.
        self._waiting: dict[str, tuple[float, float]] = {}
        #: Answers so far, by the channel of the answered message; the counted ones, and the time of the last increase.
        self.answers: Counter[str] = Counter()
        self._counted: dict[str, int] = {}
        self._last: dict[str, float] = {}
        #: Channels that announced workers were seen to read.
        self._seen: set[str] = set()
        self._read_now: set[str] = set()
        self._due = 0.0
        self._looking = False

    def waits(self, channel: str, since: float, now: float) -> None:
        """Record that a message of a channel has had no answer; times are the event loop's."""
        if now - since >= self._patience:
            before, seen = self._waiting.get(channel, (math.inf, 0.0))
            self._waiting[channel] = since if now - seen > _FRESH else min(since, before), now

    def on_tick(self, now: float) -> None:
        """Check, if it is time, whether workers consume the channels that have waited too long."""
        if now < self._due or self._looking:
            return
        self._due = now + _EVERY
        for channel, count in self.answers.items():
            if count != self._counted.get(channel):
                self._counted[channel] = count
                self._last[channel] = now
        self._waiting = {channel: times for channel, times in self._waiting.items() if now - times[1] < _FRESH}
        asked = [channel for channel in self._waiting if self._waited(channel, now) >= self._patience]
        asked += [channel for channel in self._marks if channel not in asked]
        if asked:
            self._looking = True
            loop = asyncio.get_running_loop()
            # A daemon: the process can exit while a broker does not respond.
            threading.Thread(target=self._run, args=(asked, loop), name="channelsq-looks", daemon=True).start()

    def unready(self, now: float) -> tuple[str, bool] | None:
        """Return the problem, and whether it makes the server useless for now; None without a problem."""
        if not self._marks:
            return None
        useless = (
            not self._is_direct
            and not self._read_now
            and any(now - mark.since >= self._grace for mark in self._marks.values())
            and all(now - self._last.get(channel, -math.inf) >= self._grace for channel in _DOORS)
        )
        return f"no worker consumes {', '.join(sorted(self._marks))}", useless

    def _waited(self, channel: str, now: float) -> float:
        """Return the seconds for which a channel has had a waiting message and no answer."""
        since, _ = self._waiting.get(channel, (now, now))
        return now - max(since, self._last.get(channel, -math.inf))

    # -- checks

    def _run(self, channels: list[str], loop: asyncio.AbstractEventLoop) -> None:
        found: Look | None = None
        try:
            found = look(self._layer, channels)
        except BrokerUnavailable:
            pass  # the link logs the reason
        except Exception as error:
            logger.warning("cannot tell which channels workers consume: %s", error, extra=extra("consumers_not_known"))
        # A closed loop raises RuntimeError: then no caller waits any more.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._on_look, channels, found, loop)

    def _on_look(self, channels: list[str], found: Look | None, loop: asyncio.AbstractEventLoop) -> None:
        self._looking = False
        if found is None:
            return
        now = loop.time()
        self._read_now = {channel for channel in _DOORS if found.is_read(channel)}
        for channel in channels:
            self._judge(channel, found, now)

    def _judge(self, channel: str, found: Look, now: float) -> None:
        mark = self._marks.get(channel)
        if found.is_read(channel):
            self._seen.add(channel)
            self._end(channel)
        elif mark is not None and self._last.get(channel, -math.inf) > mark.since:
            self._end(channel)
        elif found.depths.get(channel, 1) == 0:
            # The message was taken by a program that announces nothing, or it has expired.
            if mark is not None and not (found.workers is not None and channel in self._seen):
                self._end(channel)
        elif mark is not None:
            if now >= mark.tell_again:
                mark.interval = min(_RAREST, mark.interval * 2)
                mark.tell_again = now + mark.interval
                self._tell(channel, found, now - mark.waiting)
        elif (waited := self._waited(channel, now)) >= self._patience_with(channel, found):
            self._marks[channel] = _Mark(now - waited, now, now + _AGAIN)
            self._tell(channel, found, waited)

    def _patience_with(self, channel: str, found: Look) -> float:
        if found.workers is not None:
            return self._patience
        # Answers are counted for these channels only; without the count, busy workers would look like missing ones.
        return max(self._patience, _LONGER) if channel in _DOORS else math.inf

    def _end(self, channel: str) -> None:
        if self._marks.pop(channel, None) is not None:
            logger.info("%s is consumed again", channel, extra=extra("consumed_again"))

    def _tell(self, channel: str, found: Look, waited: float) -> None:
        app = conf.known_celery_app()
        start = f"celery -A {(app.main if app is not None else None) or '<project>'} worker"
        if found.workers is None:
            what = f"no message was taken from {channel} for {waited:.0f} s: no worker consumes it, or all are busy"
            remedy = f"start {start}"
        else:
            what = f"no worker consumes {channel}, where a message has waited for {waited:.0f} s"
            remedy = f"start {start}"
            if found.workers:
                what += f"; the {found.workers} announced workers read other channels"
                remedy += f" without -Q and -X, or with {channel} in -Q"
        layer = self._layer
        url = getattr(layer, "url", None)
        place = f", on {shown(url)} with the prefix {layer.prefix!r} as this server" if url else ""
        logger.warning("%s: %s%s", what, remedy, place, extra=extra("unconsumed"))


def look(layer: ChannelLayerWrapper, channels: list[str]) -> Look:
    """Return the consumers of some channels of a layer; blocks.

    Raises:
        BrokerUnavailable: the broker, or the Redis of the groups, does not answer.
    """
    channel_layer = layer.channel_layer
    presence = channel_layer.presence
    workers, read = None, None
    if presence is not None:
        announced = [each for each in presence.announced() if each.kind == "worker"]
        workers = len(announced)
        channel_sets = [each.channels for each in announced if each.channels is not None]
        read = frozenset().union(*channel_sets) if len(channel_sets) == workers else None
    depths = {channel: channel_layer.depth(channel) for channel in channels}
    return Look(workers, read, {channel: depth for channel, depth in depths.items() if depth is not None})
