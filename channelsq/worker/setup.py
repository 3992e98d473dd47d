"""Making a Celery app consume the project's channels."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from celery import Celery, bootsteps, signals

from channelsq import broker, conf, names, shutdown
from channelsq.asgi import channel_layers, check_queues_apart
from channelsq.conf import DEFAULT_CHANNEL_LAYER
from channelsq.exceptions import ChannelsqError
from channelsq.layers import decompression
from channelsq.layers.eviction import warn_of_eviction
from channelsq.layers.kombu import KombuChannelLayer
from channelsq.layers.urls import shown
from channelsq.message import Message
from channelsq.signals import worker_process_ready, worker_ready
from channelsq.utils import name_that_thing
from channelsq.worker import connection, database, dead, heartbeats, pool
from channelsq.worker.execution import report_done
from channelsq.worker.task import ConsumerTask, make_channel_task, make_consumer_task

if TYPE_CHECKING:
    from channelsq.asgi import ChannelLayerWrapper
    from channelsq.routing import Consumer

logger = logging.getLogger("channelsq.worker")


class ConsumerTasks:
    """The tasks of one layer's consumers.

    Args:
        app: the Celery app that gets them.
        layer: the layer whose routing is read.
        http_consumer: what gets HTTP requests that no route claims, instead of Django's views.
    """

    def __init__(self, app: Celery, layer: ChannelLayerWrapper, http_consumer: Consumer | None = None) -> None:
        self.app = app
        self.layer = layer
        layer.router.check_default(http_consumer)
        self._names: dict[int, str] = {}
        self._tasks: Any = app.tasks  # asking the app for it takes a lock
        taken = {name for name, task in app.tasks.items() if getattr(task, "layer", None) is not layer}
        for route in layer.router.routes():
            if id(route.consumer) in self._names:
                continue
            # Two consumers may share a dotted path (made in a loop, or one class under several as_route());
            # every process reads the same routing in the same order, so a number tells them apart everywhere.
            base = name = name_that_thing(route.consumer)
            number = 1
            while name in taken:
                number += 1
                name = f"{base}#{number}"
            taken.add(name)
            self._names[id(route.consumer)] = name
            if name not in app.tasks:
                make_consumer_task(app, layer, route.consumer, name)

    @property
    def channels(self) -> list[str]:
        """The channels that workers consume: all routed ones but reply and single-reader channels."""
        return sorted(
            channel
            for channel in self.layer.router.channels
            if not names.is_process_channel(channel) and not names.is_single_reader(channel)
        )

    def resolve(self, message: Message) -> tuple[ConsumerTask, dict[str, Any], bool] | None:
        """The task for ``message``, its route's keyword arguments and whether it is ordered; None if unrouted."""
        resolved = self.layer.router.resolve(message)
        if resolved is None:
            return None
        route, kwargs = resolved
        return self.task_of(route.consumer), {**kwargs}, route.ordered

    def task_of(self, consumer: Consumer) -> ConsumerTask:
        """The task of a route's consumer."""
        return self._tasks[self._names[id(consumer)]]  # type: ignore[no-any-return]


def log_unrouted(message: Message) -> None:
    """Say that no route claims ``message``, and report it done so that its socket goes on."""
    logger.error(
        "channel %s: no route claims a message with keys %s%s; it was dropped",
        message.channel.name,
        sorted(message.content),
        f" and path {message['path']!r}" if "path" in message else "",
        extra={"action": "unrouted", "channel": message.channel.name},
    )
    report_done(message)


def consumed(app: Celery) -> list[ChannelLayerWrapper]:
    """The layers that ``app``'s workers consume: all that are on its broker.

    Raises:
        InvalidChannelLayerError: the settings of one cannot be used.
    """
    url = conf.celery_broker_url(app)
    layers = [channel_layers[alias] for alias in channel_layers.configs]
    return [layer for layer in layers if not layer.in_process and layer.is_on(url)]


_installed: set[int] = set()


def install(app: Celery) -> None:
    """Make ``app``'s workers consume the channels of every layer on ``app``'s broker.  Safe to call again.

    Raises:
        InvalidChannelLayerError, InvalidRouting: the settings or a routing cannot be used.
    """
    if id(app) in _installed or not channel_layers.configs:
        return
    _installed.add(id(app))
    broker.lend(app)
    layers = consumed(app)
    check_queues_apart(layers)
    signals.celeryd_init.connect(_refuse_unusable_layers, weak=False)
    if not layers:
        return
    decompression.bound()
    app.conf.accept_content = [*{*app.conf.accept_content, "json", "msgpack"}]
    for layer in layers:
        tasks = ConsumerTasks(app, layer)
        for channel in tasks.channels:
            make_channel_task(app, layer, channel)
            app.amqp.queues.select_add(layer.queue(channel))
        _tasks_of.setdefault(id(app), {})[layer.alias] = tasks
    dead.install(app)
    signals.task_revoked.connect(_on_revoked, weak=False)
    signals.task_failure.connect(_on_failure, weak=False)
    signals.worker_init.connect(_on_init, weak=False)
    signals.worker_init.connect(pool.choose, weak=False)
    signals.worker_shutting_down.connect(_on_shutting_down, weak=False)
    app.steps["worker"].add(_Shutdown)
    signals.worker_init.connect(connection.install, weak=False)
    signals.worker_init.connect(database.keep_connections, weak=False)
    signals.worker_ready.connect(heartbeats.install, weak=False)
    signals.worker_ready.connect(_on_ready, weak=False)
    signals.worker_process_init.connect(_on_process_ready, weak=False)


def install_or_refuse(app: Celery) -> None:
    """:func:`install`, but settings that cannot be used end a worker of this process with their message alone.

    For where Celery discovers tasks: it would show the error below forty lines of its own.  Its other commands,
    such as ``beat`` and ``inspect``, need no channels and go on.
    """
    try:
        install(app)
    except (ChannelsqError, ValueError) as error:
        problem = f"channelsq: {error}"

        def refuse(**kwargs: Any) -> None:
            raise SystemExit(problem)

        signals.celeryd_init.connect(refuse, weak=False)


_tasks_of: dict[int, dict[str, ConsumerTasks]] = {}


def tasks_of(app: Celery) -> dict[str, ConsumerTasks]:
    """What :func:`install` made for ``app``, by the aliases of the layers that its workers consume."""
    return _tasks_of.get(id(app), {})


def _refuse_unusable_layers(**kwargs: Any) -> None:
    app = kwargs["instance"].app
    if tasks_of(app):
        for alias in channel_layers.configs:
            if alias not in tasks_of(app) and not channel_layers[alias].in_process:
                logger.warning(
                    "the channel layer %s is not on the broker %s, so this worker does not consume it",
                    channel_layers[alias],
                    shown(conf.celery_broker_url(app)),
                    extra={"action": "layer_not_consumed"},
                )
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
    if not hasattr(layer, "url"):
        raise SystemExit(f"channelsq: the channel layer {layer} is on no broker that a Celery worker can read.")
    raise SystemExit(
        f"channelsq: the channel layer {layer} and the Celery app's broker_url differ, so this worker would never see "
        f"the channels' messages. {conf.BROKER_REMEDY.format(url=shown(layer.url))}"
    )


def _message_of(sender: Any, args: Any) -> Message | None:
    if isinstance(sender, ConsumerTask) and isinstance(args, (list, tuple)) and len(args) >= 2:
        return Message(args[1], args[0], sender.layer)
    return None


def _on_revoked(sender: Any = None, request: Any = None, **kwargs: Any) -> None:
    message = _message_of(sender, getattr(request, "args", None))
    if message is not None:
        report_done(message)


def _on_failure(sender: Any = None, exception: Any = None, args: Any = None, **kwargs: Any) -> None:
    """A pool process that was killed, by a time limit or otherwise, could not report for itself."""
    from billiard.exceptions import TimeLimitExceeded, WorkerLostError

    if isinstance(exception, (TimeLimitExceeded, WorkerLostError)):
        message = _message_of(sender, args)
        if message is not None:
            report_done(message)


class _Shutdown(bootsteps.StartStopStep):
    """Notes a shutdown that no signal asked for: ``control shutdown``."""

    requires = ("celery.worker.components:Pool",)

    def stop(self, worker: Any) -> None:
        """See Celery's; called before the pool is, which waits for what runs."""
        shutdown.begin()


def _on_init(**kwargs: Any) -> None:
    shutdown.reset()


def _on_shutting_down(**kwargs: Any) -> None:
    shutdown.begin()


def _on_ready(sender: Any = None, **kwargs: Any) -> None:
    for tasks in tasks_of(sender.app).values() if sender is not None else ():
        layer = tasks.layer.channel_layer
        if isinstance(layer, KombuChannelLayer):  # not in the worker's event loop, as it waits for an answer
            threading.Thread(target=warn_of_eviction, args=(layer,), name="channelsq-eviction", daemon=True).start()
    pool.end_what_runs(sender)
    worker_ready.send(sender=sender)
    if "prefork" not in type(getattr(sender, "pool", None)).__module__:
        worker_process_ready.send(sender=sender)


def _on_process_ready(sender: Any = None, **kwargs: Any) -> None:
    worker_process_ready.send(sender=sender)
