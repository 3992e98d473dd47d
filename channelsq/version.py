"""The version of channelsq."""

__version__ = "0.1.0"
