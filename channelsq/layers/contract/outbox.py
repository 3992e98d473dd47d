"""The messages that a consumer sends, kept for brokers that can send them and acknowledge in one write."""

from __future__ import annotations

from contextvars import ContextVar


class Outbox:
    """The messages of one consumer, to be sent in one write with the acknowledgement of its message.

    A source whose broker can do that has its own subclass, which its layer's ``settle()`` fills.

    Args:
        layer: the layer of the consumer's message; None if it is unknown.
    """

    __slots__ = ("layer",)

    def __init__(self, layer: object | None = None) -> None:
        self.layer = layer


#: While this is set, a consumer's sends are collected here instead of being sent.
collected_here: ContextVar[Outbox | None] = ContextVar("channelsq_outbox", default=None)
