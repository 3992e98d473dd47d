"""``receive`` in the site's file: one read of all requested channels, and a wait without polling."""

from __future__ import annotations

import time
from typing import Any

from channelsq.core import names
from channelsq.core.wire_version import NewerWire, teller
from channelsq.ipc.messages import Taken
from channelsq.ipc.store import Store
from channelsq.layers.contract.layer_values import Received
from channelsq.layers.ipc_broker.store_incoming import keep_newer, log_foreign, open_bare, open_message
from channelsq.layers.kombu_broker.broker_access import KombuBroker
from channelsq.layers.kombu_broker.kombu_receiver import KombuReceiver
from channelsq.layers.wire import codec
from channelsq.layers.wire.signing import Refused
from channelsq.layers.wire.wire_forms import open_task_body, raw_body


class StoreReceiver(KombuReceiver):
    """The reader of one layer's channels; see :class:`KombuReceiver`.

    Args:
        layer: the layer.
    """

    def __init__(self, layer: KombuBroker) -> None:
        super().__init__(layer)

    def receive_from(self, store: Store, wanted: list[str], timeout: float) -> Received:
        """See :meth:`BaseChannelLayer.receive`; wait at most ``timeout`` seconds."""
        queues = {self._layer.queue(channel).name: channel for channel in wanted}
        deadline, closed = time.monotonic() + timeout, self._layer.closed
        found = self._look(store, wanted, queues)
        if found is not None or not timeout:
            return found or (None, None)
        waiter = store.waiter(queues)
        try:
            while True:
                waiter.arm()
                found = self._look(store, wanted, queues)
                left = deadline - time.monotonic()
                if found is not None or left <= 0 or self._layer.closed != closed:
                    return found or (None, None)
                waiter.sleep(left)
        finally:
            waiter.close()

    def _look(self, store: Store, wanted: list[str], queues: dict[str, str]) -> tuple[str, dict[str, Any]] | None:
        for channel in wanted:
            if names.is_process_channel(channel) and (found := self._from_inbox(channel)) is not None:
                return found
        while some := store.take(list(queues), 1, held=False):
            for taken in some:
                found = None if taken.is_expired else self._open(store, taken, wanted, queues[taken.queue])
                if found is not None:
                    return found
        return None

    def _open(self, store: Store, taken: Taken, wanted: list[str], channel: str) -> tuple[str, dict[str, Any]] | None:
        protection = self._layer.protection
        try:
            if names.is_process_channel(channel):
                self._to_inbox(channel, open_bare(taken.payload, taken, protection))
                for each in wanted:
                    if names.is_process_channel(each) and (found := self._from_inbox(each)) is not None:
                        return found
                return None
            if names.is_single_reader(channel):
                return channel, codec.unpack(open_bare(taken.payload, taken, protection))
            message = open_message(taken)
            body = raw_body(message)
            protection.check_task(taken.queue, message.headers.get("id"), body)
            return channel, protection.open_content(taken.queue, open_task_body(body))
        except Refused:
            return None
        except NewerWire as error:
            if names.is_process_channel(channel):
                keep_newer(store, [(taken, error)])
            else:
                teller.tell(taken.queue, error, "was dropped, as receive() had taken it off the queue")
        except ValueError as error:
            log_foreign(taken.queue, error)
        return None
