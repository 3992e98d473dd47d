"""A process's listener on the site's file: the thread that reads its reply queue, a batch for each wake-up."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from channelsq.core.wire_version import NewerWire
from channelsq.ipc.messages import Taken
from channelsq.ipc.store import Store
from channelsq.layers.contract.layer_values import Deliver
from channelsq.layers.ipc_broker.store_errors import ERRORS, unavailable
from channelsq.layers.ipc_broker.store_incoming import keep_newer, log_foreign, open_bare
from channelsq.layers.kombu_broker.broker_access import QUEUE_EXPIRES, KombuBroker
from channelsq.layers.wire import codec
from channelsq.layers.wire.signing import Refused
from channelsq.layers.wire.wire_forms import open_envelope

logger = logging.getLogger("channelsq.layers")

#: The number of envelopes that are read at a time.
BATCH = 64

#: Seconds between two attempts to read an unusable file: the first, and the longest.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0


class StoreListener:
    """Reads one process's reply queue; continues by itself when the file is usable again.

    Args:
        layer: the layer.
        store: returns its store.
        queue: the reply queue's name.
        deliver: see :meth:`BaseChannelLayer.listen`.
    """

    def __init__(self, layer: KombuBroker, store: Callable[[], Store], queue: str, deliver: Deliver) -> None:
        self._layer = layer
        self._store = store
        self._queue = queue
        self._deliver = deliver
        self._stopping = threading.Event()
        #: Whether it can read the file, as far as is known.
        self.connected = False
        self._waiter = store().waiter([queue])
        self._thread = threading.Thread(target=self._run, name=f"channelsq-listen-{queue}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._waiter.interrupt()
        if threading.current_thread() is not self._thread:
            self._thread.join(5)

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while not self._stopping.is_set():
            store = self._store()
            try:
                self._listen(store)
            except ERRORS as error:
                if self.connected or pause == _FIRST_PAUSE:
                    logger.error(
                        "queue %s: %s; trying again until it is back", self._queue, unavailable(store.path, error),
                        extra={"action": "broker_lost"},
                    )  # fmt: skip
                    pause = _FIRST_PAUSE
                self.connected = False
                self._stopping.wait(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
        try:
            self._waiter.close()
        except ERRORS as error:  # other processes clean up for this one
            logger.debug("a waiter was not closed: %s", error)

    def _listen(self, store: Store) -> None:
        opened = -1
        while not self._stopping.is_set():
            self._waiter.arm()
            if opened != store.openings:
                opened = store.openings
                store.declare(self._queue, QUEUE_EXPIRES)
            if not self.connected:
                self.connected = True
                logger.info("queue %s: listening", self._queue, extra={"action": "broker_back"})
            taken = store.take([self._queue], BATCH, held=False)
            if taken:
                self._waiter.disarm()
                self._hand_out(store, taken)
            else:
                self._waiter.sleep(1.0)

    def _hand_out(self, store: Store, batch: list[Taken]) -> None:
        newer: list[tuple[Taken, NewerWire]] = []
        for taken in batch:
            if taken.is_expired:
                continue
            try:
                for entry in open_envelope(open_bare(taken.payload, taken, self._layer.protection)):
                    self._deliver(list(entry.channels), codec.unpack(entry.packed), entry.group)
            except Refused:
                continue
            except NewerWire as error:
                newer.append((taken, error))
                self._note_foreign()
            except ValueError as error:
                log_foreign(self._queue, error)
                self._note_foreign()
        if newer:
            keep_newer(store, newer)

    def _note_foreign(self) -> None:
        if self._layer.foreign_listener is not None:
            self._layer.foreign_listener()
