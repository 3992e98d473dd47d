"""Settings of both projects: production's, without anything that would add to the measurement."""

from __future__ import annotations

import os
from urllib.parse import unquote, urlsplit

#: The Redis of the one stack that this process belongs to.
REDIS = os.environ["BENCH_REDIS"]

SECRET_KEY = "for the benchmarks alone"
DEBUG = False
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "benchmarks.sites.urls"

#: The database of the rows with a query; the others have none.
DATABASES = {}
if url := os.environ.get("BENCH_DATABASE"):
    parts = urlsplit(url)
    DATABASES["default"] = {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": parts.hostname or "",
        "PORT": parts.port or "",
        "NAME": unquote(parts.path.removeprefix("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "CONN_MAX_AGE": 60,
    }

#: The channel that only collects: it has no reader, so it needs room.
SINK = "bench.sink"
SINK_CAPACITY = 10_000_000
