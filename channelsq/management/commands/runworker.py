"""``manage.py runworker``: the Celery worker, started the Channels way."""

from __future__ import annotations

import fnmatch
import logging
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from channelsq import conf
from channelsq.asgi import channel_layers
from channelsq.worker.setup import install, tasks_of


class Command(BaseCommand):
    """Runs a Celery worker on the channels, and on the app's ordinary queues."""

    help = "Runs a worker: the same as `celery -A <app> worker`, with channels chosen by pattern."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options of Channels 1's runworker that have a meaning here."""
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
            help="How many consumers run at once (default: 8, or worker_concurrency).",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until told to stop."""
        layer = channel_layers[conf.DEFAULT_CHANNEL_LAYER]
        if layer.in_process:
            raise CommandError(
                f"the channel layer {layer} lives inside one process, so a worker of its own would never see a "
                "message; set REDIS_URL (or CHANNEL_LAYERS to another layer), or use `manage.py runserver`."
            )
        app = conf.celery_app()
        install(app)
        channels = tasks_of(app).channels
        argv = ["worker", "--loglevel", "INFO" if options["verbosity"] else "WARNING"]
        if options["only_channels"] or options["exclude_channels"]:
            chosen = [
                channel
                for channel in channels
                if _matches(channel, options["only_channels"], default=True)
                and not _matches(channel, options["exclude_channels"], default=False)
            ]
            if not chosen:
                raise CommandError(f"no channel is left to consume; the routing has {', '.join(channels)}")
            if options["only_channels"]:
                argv += ["-Q", ",".join(chosen)]
            else:
                argv += ["-X", ",".join(sorted(set(channels) - set(chosen)))]
        if options["threads"] is not None:
            if options["threads"] < 1:
                raise CommandError(f"--threads must be 1 or more, not {options['threads']}")
            argv += ["--concurrency", str(options["threads"])]
        if options["verbosity"] >= 2:
            logging.getLogger("channelsq").setLevel(logging.DEBUG)
        app.worker_main(argv)


def _matches(channel: str, patterns: list[str] | None, *, default: bool) -> bool:
    if not patterns:
        return default
    return any(fnmatch.fnmatchcase(channel, pattern) for pattern in patterns)
