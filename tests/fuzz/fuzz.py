"""Fuzzes one target, in ``.venv-fuzz``: ``python -m tests.fuzz.fuzz frames corpus -max_total_time=60``."""

from __future__ import annotations

import os
import sys

import atheris

with atheris.instrument_imports(include=["channelsq", "websockets", "uvicorn.protocols"]):
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
