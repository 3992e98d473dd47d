"""Consumers as classes: :class:`BaseConsumer`, and the classes of :mod:`channelsq.generic.websockets`."""

from channelsq.generic.base_consumer import BaseConsumer

__all__ = ["BaseConsumer"]
