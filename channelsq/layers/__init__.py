"""Channel layers: the transport of messages and the store of groups.

:class:`InMemoryChannelLayer` works within one process, :class:`IPCChannelLayer` within one machine.
:class:`KombuChannelLayer` uses any broker that Kombu supports; :class:`RedisChannelLayer` uses Redis for both messages
and groups.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from channelsq.layers.contract.layer_contract import BaseChannelLayer
    from channelsq.layers.ipc import IPCChannelLayer
    from channelsq.layers.kombu import KombuChannelLayer
    from channelsq.layers.memory import InMemoryChannelLayer
    from channelsq.layers.redis import RedisChannelLayer

__all__ = ["BaseChannelLayer", "IPCChannelLayer", "InMemoryChannelLayer", "KombuChannelLayer", "RedisChannelLayer"]

_HOME = {
    "BaseChannelLayer": "channelsq.layers.contract.layer_contract",
    "IPCChannelLayer": "channelsq.layers.ipc",
    "InMemoryChannelLayer": "channelsq.layers.memory",
    "KombuChannelLayer": "channelsq.layers.kombu",
    "RedisChannelLayer": "channelsq.layers.redis",
}


def __getattr__(name: str) -> Any:
    # Imported at first use: the contract alone needs neither Kombu nor a Redis client.
    from importlib import import_module

    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
