"""``manage.py runworker``: the Celery worker, with options of Channels 1."""

from __future__ import annotations

import fnmatch
import logging
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from channelsq import conf
from channelsq.asgi import channel_layers
from channelsq.worker.running.consumer_tasks import tasks_of
from channelsq.worker.setup import install

if TYPE_CHECKING:
    from celery import Celery


class Command(BaseCommand):
    """The command that runs a Celery worker on the channels, and on the app's ordinary queues."""

    help = "Runs a worker: the same as `celery -A <app> worker`, with channels chosen by pattern."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options of Channels 1's runworker that have a meaning here."""
        parser.add_argument(
            "--layer",
            "--alias",
            metavar="ALIAS",
            help="Consume only the channels of this entry of CHANNEL_LAYERS (default: every layer that this "
            "worker can read); ordinary Celery queues are then left to others, unless it is the default layer.",
        )
        parser.add_argument(
            "--only-channels",
            action="append",
            metavar="PATTERN",
            help="Consume only channels that match (globs such as 'websocket.*'; may be given again); "
            "ordinary Celery queues are then left to others.",
        )
        parser.add_argument(
            "--exclude-channels",
            action="append",
            metavar="PATTERN",
            help="Do not consume channels that match (globs; may be given again).",
        )
        parser.add_argument(
            "--threads",
            "--concurrency",
            type=int,
            metavar="N",
            help="How many consumers run at once (default: as many as the pool has threads, 8 with prefork).",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until stopped."""
        app = conf.known_celery_app()
        if app is None:
            raise CommandError(
                "Django has loaded no Celery app, so there is none to run a worker of: make one in the project's "
                "celery.py, and import it in the __init__.py beside it: from .celery import app as celery_app"
            )
        install(app)
        argv = ["worker", "--loglevel", "INFO" if options["verbosity"] else "WARNING"]
        argv += _queues(app, options["layer"], options["only_channels"], options["exclude_channels"])
        if options["threads"] is not None:
            if options["threads"] < 1:
                raise CommandError(f"--threads must be 1 or more, not {options['threads']}")
            argv += ["--channel-threads", str(options["threads"])]
        if options["verbosity"] >= 2:
            logging.getLogger("channelsq").setLevel(logging.DEBUG)
        app.worker_main(argv)


def _queues(app: Celery, alias: str | None, only: list[str] | None, exclude: list[str] | None) -> list[str]:
    """Return the worker option -Q or -X that selects the chosen channels."""
    layer = channel_layers[alias or conf.DEFAULT_CHANNEL_LAYER]
    tasks = tasks_of(app)
    if layer.in_process and (alias or not tasks):
        raise CommandError(
            f"the channel layer {layer} lives inside one process, so a worker of its own would never see a "
            "message; set REDIS_URL (or CHANNEL_LAYERS to another layer), or use `manage.py runserver`."
        )
    if alias and alias not in tasks:
        raise CommandError(f"the channel layer {layer} is on no broker that a Celery worker can read.")
    every = [(each.layer, channel) for each in tasks.values() for channel in each.channels]
    chosen = [
        (each, channel)
        for each, channel in every
        if (alias is None or each.alias == alias)
        and _matches(channel, only, default=True)
        and not _matches(channel, exclude, default=False)
    ]
    is_for_channels_alone = bool(only) or alias not in (None, conf.DEFAULT_CHANNEL_LAYER)
    if len(chosen) == len(every) and not is_for_channels_alone:
        return []
    if not chosen:
        names = sorted({channel for each, channel in every if alias is None or each.alias == alias})
        raise CommandError(f"no channel is left to consume; the routing has {', '.join(names)}")
    if is_for_channels_alone:
        return ["-Q", ",".join(each.queue(channel).name for each, channel in chosen)]
    return ["-X", ",".join(each.queue(channel).name for each, channel in every if (each, channel) not in chosen)]


def _matches(channel: str, patterns: list[str] | None, *, default: bool) -> bool:
    if not patterns:
        return default
    return any(fnmatch.fnmatchcase(channel, pattern) for pattern in patterns)
