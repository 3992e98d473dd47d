"""The selection of channels that a worker reads: ``-Q`` and ``-X`` name Celery's queues and channels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from celery import Celery
from celery.utils.text import str_to_list

from channelsq.delayed import CHANNEL
from channelsq.worker.running.consumer_tasks import tasks_of


class Selection:
    """The channels that a worker reads.

    Args:
        app: the worker's Celery app.
        include: names of queues from ``-Q``; None for all.
        exclude: names of queues from ``-X``.
    """

    def __init__(self, app: Celery, include: Iterable[str] | None, exclude: Iterable[str] | None) -> None:
        self._app = app
        self._include = None if include is None else set(include)
        self._exclude = set(exclude or ())

    def of(self, alias: str) -> list[str]:
        """Return the channels of one layer, in order.

        A worker that reads a channel of a layer reads the layer's delayed messages, too, unless ``-X`` names them.
        """
        tasks = tasks_of(self._app)[alias]
        chosen = [channel for channel in tasks.channels if self._has(tasks.layer.queue(channel).name)]
        if chosen and CHANNEL not in chosen and tasks.layer.queue(CHANNEL).name not in self._exclude:
            chosen = sorted([*chosen, CHANNEL])
        return chosen

    def _has(self, queue: str) -> bool:
        return (self._include is None or queue in self._include) and queue not in self._exclude


def divide(instance: Any = None, **kwargs: Any) -> None:
    """Remove the channels' names from ``-Q`` and ``-X`` before Celery reads them; a receiver of ``celeryd_init``.

    If ``-Q`` names only channels, the worker consumes and declares nothing on Celery's broker.
    """
    if not hasattr(instance, "setup_queues"):  # a channel process; its worker has divided the names
        return
    select = instance.setup_queues

    def setup_queues(include: Any, exclude: Any = None) -> None:
        included, excluded = str_to_list(include) or None, str_to_list(exclude) or []
        ours = _queues(instance.app)
        instance.channelsq_selection = Selection(instance.app, included, excluded)
        known = instance.app.amqp.queues  # a layer on Celery's broker may have a queue of the same name
        theirs = [name for name in included or () if name not in ours or name in known]
        select(theirs, [name for name in excluded if name not in ours or name in known])
        if included and not theirs:
            known.deselect(tuple(known))  # an empty selection would mean all

    instance.setup_queues = setup_queues
    banner = instance.startup_info

    def startup_info(*args: Any, **options: Any) -> str:
        return f"{banner(*args, **options)}{_shown(instance)}"

    instance.startup_info = startup_info


def selection_of(worker: Any) -> Selection:
    """Return the channels that a worker reads: all if it was started without a command line."""
    chosen = getattr(worker, "channelsq_selection", None)
    return chosen if isinstance(chosen, Selection) else Selection(worker.app, None, None)


def _queues(app: Celery) -> set[str]:
    """Return the names of the channels' queues."""
    return {each.layer.queue(channel).name for each in tasks_of(app).values() for channel in each.channels}


def _shown(worker: Any) -> str:
    """Return the lines about channels for the worker's banner."""
    sources = worker.channelsq_sources
    lines = ["", " -------------- [channels]", f"                .> {sources.described}"]
    for alias, channels in sources.channels.items():
        lines.append(f"                .> {tasks_of(worker.app)[alias].layer.described}: {', '.join(channels)}")
    return "\n".join([*lines, ""])
