"""``manage.py channels``: the state of a site's channels and processes, and two actions on them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from channelsq import conf
from channelsq.asgi import channel_layers
from channelsq.core.names import check_group_name
from channelsq.exceptions import ChannelsqError
from channelsq.operations.actions import LayerActions
from channelsq.operations.page import page_of
from channelsq.operations.screens import Screen, moments
from channelsq.operations.snapshot import Wanted, as_dict, take
from channelsq.operations.tables import Line, Page
from channelsq.version import __version__

#: The default number of seconds between two pages.
_EVERY = 2.0


class Command(BaseCommand):
    """The command that shows channels, workers, interface servers and groups, purges channels, replays dead letters."""

    help = (
        "Shows channels with their waiting messages and consumers, workers, interface servers and groups. "
        "`purge CHANNEL...` deletes waiting messages, `replay ID...` puts dead letters back into their channels."
    )

    #: None, as their warnings would precede the JSON.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the action and the options."""
        parser.add_argument(
            "action", nargs="?", choices=("show", "purge", "replay"), default="show", help="Default: show."
        )
        parser.add_argument("names", nargs="*", metavar="NAME", help="Channels to purge, or ids of dead letters.")
        parser.add_argument("--layer", action="append", metavar="ALIAS", help="Of this layer; may be repeated (show).")
        parser.add_argument("--json", action="store_true", dest="as_json", help="Print JSON.")
        parser.add_argument(
            "--watch",
            nargs="?",
            type=_positive(float),
            const=_EVERY,
            metavar="SECONDS",
            help=f"Show it again and again (every {_EVERY:g} s), until Ctrl-C; with --json one object a line.",
        )
        parser.add_argument("--count", type=_positive(int), metavar="N", help="End --watch after this number of times.")
        parser.add_argument("--group", metavar="NAME", help="Show the members of this group.")
        parser.add_argument("--sockets", action="store_true", help="Show open WebSockets with their paths.")
        parser.add_argument("--no-groups", action="store_false", dest="groups", help="Leave groups out.")
        parser.add_argument(
            "--limit", type=_positive(int), default=20, metavar="N", help="Groups, members, sockets shown (20)."
        )
        parser.add_argument("--inspect", action="store_true", help="Ask the workers over Celery's broker, too.")
        parser.add_argument("--all", action="store_true", dest="every", help="Replay all dead letters of the layer.")
        parser.add_argument(
            "--yes", "--noinput", "--no-input", action="store_false", dest="interactive", help="Do not ask."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the action.

        Raises:
            CommandError: the arguments do not fit, or an action failed.
        """
        aliases = _aliases(options["layer"])
        if options["action"] == "show":
            if options["names"]:
                raise CommandError("show takes no names; `channels --group NAME` shows a group's members")
            self._show(aliases, options)
            return
        if len(aliases) != 1 and options["layer"] is None:
            aliases = [conf.DEFAULT_CHANNEL_LAYER]
        if len(aliases) != 1:
            raise CommandError(f"{options['action']} is for one layer; name one with --layer")
        actions = LayerActions(aliases[0], self.stdout, interactive=options["interactive"])
        try:
            if options["action"] == "purge":
                actions.purge(options["names"])
            else:
                actions.replay(options["names"], every=options["every"])
        except ChannelsqError as error:
            raise CommandError(str(error)) from error

    def _show(self, aliases: Sequence[str], options: dict[str, Any]) -> None:
        if options["group"] is not None:
            try:
                check_group_name(options["group"])
            except TypeError as error:
                raise CommandError(str(error)) from error
        wanted = Wanted(options["limit"], options["groups"], options["group"], options["sockets"], options["inspect"])
        try:
            if options["watch"] is not None:
                self._watch(aliases, wanted, options)
            elif self._once(aliases, wanted, options["as_json"]):
                sys.exit(1)
        except KeyboardInterrupt:
            pass

    def _once(self, aliases: Sequence[str], wanted: Wanted, as_json: bool) -> bool:
        """Show one page; return whether a layer could not be read."""
        snapshot = take(aliases, wanted)
        if as_json:
            self.stdout.write(json.dumps(as_dict(snapshot), indent=2))
        else:
            Screen(self.stdout).show(page_of(snapshot))
        return snapshot.has_problem

    def _watch(self, aliases: Sequence[str], wanted: Wanted, options: dict[str, Any]) -> None:
        every = options["watch"]
        if options["as_json"]:
            for _ in moments(every, options["count"]):
                self.stdout.write(json.dumps(as_dict(take(aliases, wanted))))
            return

        def page(height: int | None) -> Page:
            snapshot = take(aliases, wanted)
            now = timezone.localtime(snapshot.time).strftime("%Y-%m-%d %H:%M:%S")
            head = Line(f"channelsq {__version__}  {now}  every {every:g} s, Ctrl-C ends", "dim")
            return [head, *page_of(snapshot, height)]

        Screen(self.stdout).watch(page, every, options["count"])


def _aliases(chosen: Sequence[str] | None) -> list[str]:
    """Return the chosen layers; raise CommandError for an unknown one."""
    try:
        known = list(channel_layers.configs)
    except ChannelsqError as error:
        raise CommandError(str(error)) from error
    for alias in chosen or ():
        if alias not in known:
            raise CommandError(f"CHANNEL_LAYERS has no layer {alias!r}; it has {', '.join(known) or 'none'}")
    return [alias for alias in known if alias in (chosen or known)]


def _positive(kind: type[float]) -> Callable[[str], float]:
    """Return a parser of numbers above 0."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = kind(0)
        if not 0 < value < 1_000_000:
            raise argparse.ArgumentTypeError(f"give a number above 0, not {text!r}")
        return value

    return read
