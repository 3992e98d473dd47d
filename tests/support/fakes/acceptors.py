"""A worker that lets sockets in, and does nothing else."""

from __future__ import annotations

import threading

from channelsq.layers.contract.layer_contract import BaseChannelLayer
from tests.support.waiting import wait_until


class FakeAcceptor:
    """A thread that takes one connect off the layer, accepts it, and reports it done, within a block."""

    def __init__(self, layer: BaseChannelLayer) -> None:
        self.layer = layer
        self._thread: threading.Thread | None = None

    def __enter__(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        assert self._thread is not None
        self._thread.join(10)

    def _run(self) -> None:
        message = wait_until(lambda: self.layer.receive(["websocket.connect"])[1], "a connect")
        assert message is not None
        self.layer.send(message["reply_channel"], {"accept": True})
        self.layer.send(message["reply_channel"], {"done": 0})
