"""Ordinary tasks of Celery's, beside the consumers."""

from __future__ import annotations

import os
from pathlib import Path

from celery import shared_task


@shared_task(name="chaos.write")
def write(line: str) -> None:
    """Write a line down."""
    with (Path(os.environ["CHAOS_JOURNAL"]) / f"tasks-{os.getpid()}").open("a") as file:
        file.write(f"{line}\n")
