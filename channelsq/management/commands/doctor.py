"""``manage.py doctor``: checks whether the site works, and suggests remedies."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from channelsq.doctor.command import Doctor, add_arguments


class Command(BaseCommand):
    """The command that examines settings, brokers, workers and the whole way of a message."""

    help = (
        "Checks settings, Celery app, brokers, Redis, workers and this machine, and sends an echo through interface "
        "server, broker and worker. Each finding has its remedy; the exit code is 1 if a problem keeps the site from "
        "working."
    )

    #: None: they are among the findings.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options."""
        add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the checks, and exit with 1 if a finding has the failing level."""
        code = Doctor(options, self.stdout).run()
        if code:
            sys.exit(code)
