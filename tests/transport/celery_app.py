"""A tiny Celery project on the broker that the environment names; its tasks write down that they ran."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import redis
from celery import Celery, Task

import channelsq.transport  # noqa: F401  (registers the URL schemes)

records = redis.Redis(port=int(os.environ["REDIS_PORT"]), db=1, decode_responses=True)

app = Celery("tiny", broker=f"redis-streams://127.0.0.1:{os.environ['REDIS_PORT']}/0")
app.conf.update(
    broker_transport_options={
        "lease": float(os.environ.get("LEASE", "30")),
        "max_deaths": int(os.environ.get("MAX_DEATHS", "5")),
    },
    broker_connection_retry_on_startup=True,
    task_ignore_result=True,
    worker_hijack_root_logger=False,
)


# Not shared: other tests' apps must not get these tasks.
@app.task(shared=False)
def ran(name: str, number: int, seconds: float = 0.0) -> None:
    """Acknowledged before it runs, as Celery does by default."""
    if seconds:
        time.sleep(seconds)
    records.hincrby(name, str(number), 1)


@app.task(shared=False, acks_late=True, reject_on_worker_lost=True)
def late(name: str, number: int, seconds: float = 0.0) -> None:
    """Acknowledged when it is done."""
    if seconds:
        time.sleep(seconds)
    records.hincrby(name, str(number), 1)


@app.task(shared=False, bind=True, max_retries=3)
def third_time(self: Task[Any, Any], name: str, number: int) -> None:
    """Fails twice."""
    if self.request.retries < 2:
        raise self.retry(countdown=0.1)
    records.hincrby(name, str(number), 1)


@app.task(shared=False, acks_late=True, reject_on_worker_lost=True)
def kill(name: str, number: int) -> None:
    """Ends its process as a fault in C code, or the kernel for want of memory, would."""
    records.hincrby(name, str(number), 1)
    os.kill(os.getpid(), signal.SIGKILL)
