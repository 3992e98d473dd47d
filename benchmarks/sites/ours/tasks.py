"""Celery tasks: one that sends as fast as it can, and a live one."""

from __future__ import annotations

import json
import time

import redis
from celery import shared_task

from benchmarks.sites.common import REDIS
from benchmarks.sites.ours.sending import Sending
from channelsq.live import progress

#: The key for the task's result.
ANSWER = "bench:answer"


@shared_task
def publish(kind: str, seconds: float, target: str) -> None:
    """Measure inside the worker, and store the result for the sender."""
    answer = Sending().rate(kind, seconds, target)
    with redis.Redis.from_url(REDIS) as client:
        client.rpush(ANSWER, json.dumps(answer))


@shared_task
def report(reports: int, pause: float) -> None:
    """Report so often, with the time as the text."""
    for number in range(1, reports + 1):
        time.sleep(pause)
        progress(number, reports, repr(time.time()))
