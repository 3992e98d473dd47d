"""Installation into a Celery app, whose workers then consume the project's channels."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from celery import Celery, bootsteps, signals

from channelsq.asgi import channel_layers, check_queues_apart
from channelsq.conf import DEFAULT_CHANNEL_LAYER
from channelsq.delivery import shutdown
from channelsq.exceptions import ChannelsqError
from channelsq.layers.kombu_broker import worker_connection
from channelsq.layers.wire import decompression
from channelsq.message import Message
from channelsq.signals import worker_process_ready, worker_ready
from channelsq.worker import dead_reports, pool
from channelsq.worker.commands import control, selection
from channelsq.worker.connections.broker_lending import lend_broker
from channelsq.worker.running import database_connections
from channelsq.worker.running.consumer_task import ConsumerTask
from channelsq.worker.running.consumer_tasks import ConsumerTasks, tasks_of
from channelsq.worker.running.execution import report_failed
from channelsq.worker.sources_step import Sources

if TYPE_CHECKING:
    from channelsq.asgi import ChannelLayerWrapper

logger = logging.getLogger("channelsq.worker")


def consumed() -> list[ChannelLayerWrapper]:
    """Return the layers that workers consume.

    Raises:
        InvalidChannelLayerError: the settings of a layer cannot be used.
    """
    layers = [channel_layers[alias] for alias in channel_layers.configs]
    return [layer for layer in layers if layer.has_source]


_installed: set[int] = set()


def is_installed(app: Celery) -> bool:
    """Return whether :func:`install` was called for an app without an error."""
    return id(app) in _installed


def install(app: Celery) -> None:
    """Make ``app``'s workers consume the channels of layers, see :func:`consumed`.  Repeated calls are harmless.

    Raises:
        InvalidChannelLayerError, InvalidRouting: the settings or a routing cannot be used.
    """
    if id(app) in _installed or not channel_layers.configs:
        return
    lend_broker(app)
    layers = consumed()
    check_queues_apart(layers)
    tasks = {layer.alias: ConsumerTasks(app, layer) for layer in layers}
    # No errors from here on: after an error above, nothing is installed.
    _installed.add(id(app))
    signals.celeryd_init.connect(_refuse_unusable_layers, weak=False)
    if not layers:
        return
    decompression.bound()
    app.conf.accept_content = [*{*app.conf.accept_content, "json", "msgpack"}]
    tasks_of(app).update(tasks)
    dead_reports.install(app)
    signals.task_revoked.connect(_on_revoked, weak=False)
    signals.task_failure.connect(_on_failure, weak=False)
    signals.worker_init.connect(_on_init, weak=False)
    signals.worker_shutting_down.connect(_on_shutting_down, weak=False)
    app.steps["worker"].add(_Shutdown)
    signals.celeryd_init.connect(selection.divide, weak=False)
    app.steps["worker"].add(Sources)
    control.install()
    signals.worker_init.connect(worker_connection.install, weak=False)
    signals.worker_init.connect(database_connections.keep_connections, weak=False)
    signals.worker_ready.connect(_on_ready, weak=False)
    signals.worker_process_init.connect(_on_process_ready, weak=False)


def install_or_refuse(app: Celery) -> None:
    """Call :func:`install`; end a worker of this process with a short message if settings cannot be used.

    Celery calls this where it discovers tasks; it would show an exception below forty lines of its own traceback.  Its
    other commands, such as ``beat`` and ``inspect``, do not need channels and continue.
    """
    try:
        install(app)
    except (ChannelsqError, ValueError) as error:
        problem = f"channelsq: {error}"

        def refuse(**kwargs: Any) -> None:
            raise SystemExit(problem)

        signals.celeryd_init.connect(refuse, weak=False)


def _refuse_unusable_layers(**kwargs: Any) -> None:
    if tasks_of(kwargs["instance"].app):
        return
    # SystemExit, because Celery logs and swallows every other exception of a signal's receiver.
    aliases = channel_layers.configs
    layer = channel_layers[DEFAULT_CHANNEL_LAYER if DEFAULT_CHANNEL_LAYER in aliases else next(iter(aliases))]
    if layer.in_process:
        raise SystemExit(
            f"channelsq: the channel layer {layer} lives inside one process, so a worker of its own would never "
            "see a message.\nSet REDIS_URL (or CHANNEL_LAYERS to RedisChannelLayer, IPCChannelLayer or "
            "KombuChannelLayer) to run workers apart, or use `manage.py runserver` or `python -m channelsq.interface`, "
            "which run them inside."
        )
    raise SystemExit(f"channelsq: the channel layer {layer} is on no broker that a Celery worker can read.")


def _message_of(sender: Any, args: Any) -> Message | None:
    if isinstance(sender, ConsumerTask) and isinstance(args, (list, tuple)) and len(args) >= 2:
        return Message(args[1], args[0], sender.layer)
    return None


def _on_revoked(sender: Any = None, request: Any = None, **kwargs: Any) -> None:
    message = _message_of(sender, getattr(request, "args", None))
    if message is not None:
        report_failed(message)


def _on_failure(sender: Any = None, exception: Any = None, args: Any = None, **kwargs: Any) -> None:
    """Report the message of a pool process that was killed, for example by a time limit."""
    from billiard.exceptions import TimeLimitExceeded, WorkerLostError

    if isinstance(exception, (TimeLimitExceeded, WorkerLostError)):
        message = _message_of(sender, args)
        if message is not None:
            report_failed(message)


class _Shutdown(bootsteps.StartStopStep):
    """A step that records a shutdown without a signal: ``control shutdown``."""

    requires = ("celery.worker.components:Pool",)

    def stop(self, worker: Any) -> None:
        """Begin the shutdown, before the pool stops and waits for running tasks."""
        shutdown.begin()


def _on_init(**kwargs: Any) -> None:
    shutdown.reset()


def _on_shutting_down(**kwargs: Any) -> None:
    shutdown.begin()


def _on_ready(sender: Any = None, **kwargs: Any) -> None:
    for tasks in tasks_of(sender.app).values() if sender is not None else ():
        # In a thread, as the worker's event loop must not wait for the answer.
        warn = tasks.layer.channel_layer.warn_operator
        threading.Thread(target=warn, name="channelsq-eviction", daemon=True).start()
    sources = getattr(getattr(sender, "controller", None), "channelsq_sources", None)
    if sources is not None:
        sources.tell_of_events()
    pool.end_what_runs(sender)
    worker_ready.send(sender=sender)


def _on_process_ready(sender: Any = None, **kwargs: Any) -> None:
    worker_process_ready.send(sender=sender)
