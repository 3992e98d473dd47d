"""Benchmarks of channelsq beside Channels 4, in one run on one machine; ``python -m benchmarks --help``."""
