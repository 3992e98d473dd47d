"""The module of Channels 1 that has ``HttpClient``."""

from channelsq.test.websocket import HttpClient

__all__ = ["HttpClient"]
