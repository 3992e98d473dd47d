"""Where Channels 1 has ``HttpClient``."""

from channelsq.test.websocket import HttpClient

__all__ = ["HttpClient"]
