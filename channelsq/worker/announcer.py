"""Announcements of a worker's version and work, like the heartbeat of interface servers.

They show an operator (``manage.py channels``) the versions that run, the worker of each channel, and the number of
threads with streaming responses.  A new process finds out from them if it is incompatible with another.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

from channelsq.core.wire_version import log_others
from channelsq.exceptions import BrokerUnavailable
from channelsq.layers.groups.presence import Presence

if TYPE_CHECKING:
    from channelsq.asgi import ChannelLayerWrapper

logger = logging.getLogger("channelsq.worker")

#: Seconds between two announcements, until one expires, and between two if the content has changed.
EVERY, LIFETIME, SOON = 10.0, 30.0, 1.0


class Announcer:
    """A thread that announces a worker on each layer that keeps groups in Redis.

    Args:
        name: the worker's name.
        layers: the layers that it reads.
        describe: returns the content for a layer, by its alias, beside the version; called in the thread.
    """

    def __init__(
        self,
        name: str,
        layers: Iterable[ChannelLayerWrapper],
        describe: Callable[[str], Mapping[str, Any]] = lambda alias: {},
    ) -> None:
        self._name = name
        self._layers = list(layers)
        self._describe = describe
        #: The place of the announcements, by the layer's alias.
        self._places: dict[str, Presence] = {}
        self._compared: set[str] = set()
        #: The last announcement and the time of the next one, by the layer's alias.
        self._said: dict[str, tuple[Mapping[str, Any], float]] = {}
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start announcing on layers with groups in Redis."""
        for layer in self._layers:
            self.add(layer)

    def add(self, layer: ChannelLayerWrapper) -> None:
        """Announce the worker on one more layer, if the layer has groups in Redis."""
        # Read here and not in the thread, as the worker may fork.
        presence = layer.channel_layer.presence
        if presence is None:
            return
        self._places = {**self._places, layer.alias: presence}  # a new dict, as the thread may be reading the old one
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="channelsq-announcer", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop, and remove the announcement.  Repeated calls are harmless."""
        self._ended.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(1)  # the thread may end later: an unavailable Redis must not delay the worker

    def _run(self) -> None:
        while not self._ended.is_set():
            for alias, presence in self._places.items():
                self._announce(alias, presence)
            self._ended.wait(SOON)
        for presence in self._places.values():
            try:
                presence.leave_worker(self._name)
            except BrokerUnavailable as error:  # the announcement expires
                logger.debug("the worker is announced for a while: %s", error, extra={"action": "announcement_left"})

    def _announce(self, alias: str, presence: Presence) -> None:
        try:
            more, now = self._describe(alias), monotonic()
            before, due = self._said.get(alias, (None, 0.0))
            if more == before and now < due:
                return
            self._said[alias] = more, now + EVERY
            presence.beat_worker(self._name, LIFETIME, more)
            if alias not in self._compared:
                others = [each for each in presence.announced() if each.name != self._name]
                self._compared.add(alias)
                log_others(others, f"layer {alias}")
        except BrokerUnavailable as error:  # the sources log it
            logger.debug("the worker is not announced: %s", error, extra={"action": "not_announced"})
        except Exception:
            logger.exception("announcing failed", extra={"action": "announcement_failed"})
