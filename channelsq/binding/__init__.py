"""Data binding: changes of models go out to groups, and messages from clients change models."""

from channelsq.binding.base import Binding

__all__ = ["Binding"]
