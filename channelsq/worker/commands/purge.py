"""Support for channels in ``celery purge -Q``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import click
from celery import Celery


def install(command: click.Command) -> None:
    """Extend Celery's command: ``-Q`` may also name channels.  Repeated calls are harmless.

    Without ``-Q`` the command purges only the queues of Celery's broker, as usual.
    """
    callback = command.callback
    if callback is not None and not hasattr(callback, "channelsq"):
        command.callback = _wrapped(callback)


def _wrapped(callback: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(callback)
    def purge(*args: Any, force: bool, queues: list[str] | None, **options: Any) -> None:
        context = click.get_current_context()
        ours = _layers_of(context.obj.app, queues or ())
        for name in options.get("exclude_queues") or ():
            ours.pop(name, None)
        if ours:
            shown = ", ".join(sorted(ours))
            if not force:
                click.confirm(f"This will remove all messages from the channels {shown}.  Are you sure?", abort=True)
            number = sum(layer.purge(channel) for layer, channel in ours.values())
            context.obj.echo(f"Purged {number} messages from the channels {shown}.")
        theirs = [name for name in queues or () if name not in ours]
        if theirs or not queues:
            callback(*args, force=force, queues=theirs or None, **options)

    purge.channelsq = True  # type: ignore[attr-defined]
    return purge


def _layers_of(app: Celery, queues: Iterable[str]) -> dict[str, tuple[Any, str]]:
    """Return the layer and the channel of each queue that belongs to a channel."""
    wanted = set(queues)
    if not wanted:
        return {}
    app.loader.import_default_modules()
    from channelsq.worker.running.consumer_tasks import tasks_of  # needs Django's settings

    return {
        name: (tasks.layer.channel_layer, channel)
        for tasks in tasks_of(app).values()
        for channel in tasks.channels
        if (name := str(tasks.layer.queue(channel).name)) in wanted
    }
