"""Channel layers that keep what they were asked to do, refuse it, or take their time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from channelsq.exceptions import ChannelFull
from channelsq.layers import InMemoryChannelLayer
from channelsq.layers.contract.layer_contract import BaseChannelLayer
from channelsq.layers.contract.layer_values import Send


class RecordingLayer(InMemoryChannelLayer):
    """An in-memory layer that keeps each write, and who joins what."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        #: The targets of each dispatch.
        self.writes: list[list[str]] = []
        #: Each target, with whether it is a group.
        self.targets: list[tuple[str, bool]] = []
        #: Each membership that was added: group, channel.
        self.joined: list[tuple[str, str]] = []

    def dispatch(self, sends: Sequence[Send]) -> None:
        self.writes.append([send.target for send in sends])
        self.targets += [(send.target, send.group) for send in sends]
        super().dispatch(sends)

    def group_add(self, group: str, channel: str) -> None:
        self.joined.append((group, channel))
        super().group_add(group, channel)


class RecordingSettlementsLayer(InMemoryChannelLayer):
    """A layer that keeps which messages came with the acknowledgement of another, and which at once."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[str] = []
        self._settling = False

    def settle(self, sends: Any) -> None:
        self._settling = True
        super().settle(sends)
        self._settling = False

    def dispatch(self, sends: Any) -> None:
        self.sent.append("with the acknowledgement" if self._settling else "at once")
        super().dispatch(sends)


class FakeFullLayer(InMemoryChannelLayer):
    """A layer that refuses the first sends of a response, and then has room."""

    refusals = 0

    def dispatch(self, sends: Any) -> None:
        if self.refusals and sends[0].target.startswith("http.response."):
            self.refusals -= 1
            raise ChannelFull(sends[0].target, 1)
        super().dispatch(sends)


class FakeRemoteLayer(InMemoryChannelLayer):
    """A layer of an application's own, on something that Celery does not know."""

    @property
    def in_process(self) -> bool:
        return False


class FakePackingLayer(InMemoryChannelLayer):
    """A layer that packs in its own way."""

    def prepare(self, channel: str, message: dict[str, Any], *, delay: float = 0.0) -> Send:
        return super().prepare(channel, {**message, "own": True}, delay=delay)


class FakeSlowLayer(InMemoryChannelLayer):
    """A layer whose broker takes its time to count: until ``go`` is set."""

    asked = 0

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self.go = threading.Event()

    def depth(self, channel: str) -> int:
        self.asked += 1
        self.go.wait(30)
        return super().depth(channel)


class FakeSilentLayer(InMemoryChannelLayer):
    """A layer that cannot tell how many messages wait."""

    def depth(self, channel: str) -> int | None:  # type: ignore[override]  # other layers may
        return BaseChannelLayer.depth(self, channel)


class FakeBrokenLayer(InMemoryChannelLayer):
    """A layer that fails to tell how many messages wait."""

    def depth(self, channel: str) -> int:
        raise ValueError("never heard of it")
