"""Data binding: changes of models are sent to groups, and messages from clients change models."""

from channelsq.binding.base import Binding

__all__ = ["Binding"]
