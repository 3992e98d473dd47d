"""What a consumer sends, kept until its message is acknowledged, where the broker can do both in one write."""

from __future__ import annotations

from contextvars import ContextVar


class Outbox:
    """What one consumer sent, to leave in one write with the acknowledgement of its message.

    A source whose broker can do that has a subclass of its own, which its layer's ``settle()`` fills.

    Args:
        layer: the layer that the message came by; None if that is not known.
    """

    __slots__ = ("layer",)

    def __init__(self, layer: object | None = None) -> None:
        self.layer = layer


#: What a consumer sends on its success goes in here instead of being sent, while this is set.
collected_here: ContextVar[Outbox | None] = ContextVar("channelsq_outbox", default=None)
