"""Channel layers: how messages travel and where groups are kept.

:class:`InMemoryChannelLayer` lives in one process; :class:`KombuChannelLayer` speaks to any broker that
Kombu knows; :class:`RedisChannelLayer` is it with Redis for both messages and groups.
"""

from channelsq.layers.base import BaseChannelLayer
from channelsq.layers.kombu import KombuChannelLayer
from channelsq.layers.memory import InMemoryChannelLayer
from channelsq.layers.redis import RedisChannelLayer

__all__ = ["BaseChannelLayer", "InMemoryChannelLayer", "KombuChannelLayer", "RedisChannelLayer"]
