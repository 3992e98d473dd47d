"""Settings that both projects have: production's, with nothing in them that would be measured besides."""

from __future__ import annotations

import os

#: The Redis of the one stack that this process belongs to.
REDIS = os.environ["BENCH_REDIS"]

SECRET_KEY = "for the benchmarks alone"
DEBUG = False
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "benchmarks.sites.urls"

#: The channel that only collects: nobody reads it, so it needs room.
SINK = "bench.sink"
SINK_CAPACITY = 10_000_000
