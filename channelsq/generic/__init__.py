"""Consumers as classes: :class:`BaseConsumer`, and those of :mod:`channelsq.generic.websockets`."""

from channelsq.generic.base_consumer import BaseConsumer

__all__ = ["BaseConsumer"]
