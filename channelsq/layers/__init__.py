"""Channel layers: how messages travel and where groups are kept.

:class:`InMemoryChannelLayer` lives in one process, :class:`IPCChannelLayer` on one machine;
:class:`KombuChannelLayer` speaks to any broker that Kombu knows; :class:`RedisChannelLayer` is it with Redis for both
messages and groups.
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
    # Imported when first asked for: the contract alone needs neither Kombu nor a Redis client.
    from importlib import import_module

    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
