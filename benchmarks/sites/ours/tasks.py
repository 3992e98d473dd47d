"""An ordinary Celery task that sends as fast as it can."""

from __future__ import annotations

import json

import redis
from celery import shared_task

from benchmarks.sites.common import REDIS
from benchmarks.sites.ours.sending import Sending

#: The key for the task's result.
ANSWER = "bench:answer"


@shared_task
def publish(kind: str, seconds: float, target: str) -> None:
    """Measure inside the worker, and store the result for the sender."""
    answer = Sending().rate(kind, seconds, target)
    with redis.Redis.from_url(REDIS) as client:
        client.rpush(ANSWER, json.dumps(answer))
