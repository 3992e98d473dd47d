"""Ordinary Celery tasks in the same app."""

from __future__ import annotations

import time

from celery import shared_task

from channelsq import Group
from tests.project import live  # noqa: F401  # its tasks
from tests.project.records import record


@shared_task
def push(group: str, text: str) -> None:
    """Push to every browser in a group: what a Celery task cannot do elsewhere."""
    Group(group).send({"text": text})


@shared_task
def write(name: str, line: str, seconds: float = 0.0) -> None:
    """Take a while, and write a line into a record."""
    time.sleep(seconds)
    record(name, line)
