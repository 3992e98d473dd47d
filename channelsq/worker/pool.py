"""The pool that a worker gets when nobody chose one: threads.

Consumers mostly wait, for the database and for the broker, so threads serve more of them in less memory than
processes do.  ``-P``/``--pool``, ``-c``/``--concurrency`` and the settings ``worker_pool`` and
``worker_concurrency`` are respected.
"""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from channelsq import conf

#: Threads of a worker whose concurrency nobody chose.
DEFAULT_THREADS = 8


def choose(sender: Any = None, **kwargs: Any) -> None:
    """Receiver of ``worker_init``, which Celery sends just before it makes the pool."""
    if _chosen(sender, "pool", "worker_pool"):
        return
    sender.pool_cls = "threads"
    if not _chosen(sender, "concurrency", "worker_concurrency"):
        sender.concurrency = DEFAULT_THREADS


def _chosen(worker: Any, option: str, setting: str) -> bool:
    context = click.get_current_context(silent=True)
    while context is not None:
        source = context.get_parameter_source(option) if option in context.params else None
        if source is not None and source is not ParameterSource.DEFAULT:
            return True
        context = context.parent
    return conf.is_chosen(worker.app, setting)
