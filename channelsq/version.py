"""The version of channelsq."""

__version__ = "0.2.0"
