"""Bindings are for good; here those of a block end with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db.models.signals import post_delete, post_save, pre_delete, pre_save

from channelsq.binding.base import BindingMetaclass


@contextmanager
def forgotten_afterwards() -> Iterator[None]:
    """Forget the binding classes that are defined within the block."""
    signals = (pre_save, post_save, pre_delete, post_delete)
    receivers, classes = [list(signal.receivers) for signal in signals], list(BindingMetaclass.binding_classes)
    try:
        yield
    finally:
        for signal, before in zip(signals, receivers, strict=True):
            signal.receivers = before
            signal.sender_receivers_cache.clear()
        BindingMetaclass.binding_classes[:] = classes
