"""``manage.py channels``: the site's interface servers and workers, and the versions that they have."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from channelsq.asgi import channel_layers
from channelsq.exceptions import BrokerUnavailable, InvalidChannelLayerError
from channelsq.layers import KombuChannelLayer
from channelsq.version import __version__
from channelsq.wire_version import WIRE_VERSION, Announced

_HEADINGS = ("LAYER", "PROCESS", "NAME", "CHANNELSQ", "WIRE")

#: Shown for the version of a process that announces none.
_UNKNOWN = "?"


class Command(BaseCommand):
    """Lists the processes of the site."""

    help = (
        "Lists the interface servers and workers that live, with the version of channelsq and of the wire that each "
        "has, and says whether they understand each other. Layers whose groups are in no Redis have no list."
    )

    #: None, as their warnings would stand in front of the JSON.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options."""
        parser.add_argument("--json", action="store_true", dest="as_json", help="Print JSON.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do it.

        Raises:
            CommandError: a layer cannot be used, or its Redis does not answer.
        """
        found: list[tuple[str, Announced]] = []
        for alias in channel_layers.configs:
            try:
                layer = channel_layers[alias].channel_layer
                presence = layer.presence if isinstance(layer, KombuChannelLayer) else None
                found += [(alias, each) for each in (() if presence is None else presence.announced())]
            except (InvalidChannelLayerError, BrokerUnavailable) as error:
                raise CommandError(str(error)) from error
        if options["as_json"]:
            self.stdout.write(
                json.dumps(
                    [
                        {"layer": alias, "kind": each.kind, "name": each.name, "wire": each.wire}
                        | {"version": each.version or None}
                        | {"streaming": each.streaming, "streaming_limit": each.streaming_limit}
                        for alias, each in found
                    ]
                )
            )
            return
        self._list(found)

    def _list(self, found: list[tuple[str, Announced]]) -> None:
        if not found:
            self.stdout.write("no interface server and no worker is announced")
            return
        rows = [_HEADINGS]
        rows += [(alias, each.kind, each.name, each.version or _UNKNOWN, str(each.wire)) for alias, each in found]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS) - 1)]
        for row in rows:
            self.stdout.write(
                "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])
            )
        for alias, each in found:
            if each.streaming is not None:
                limit = "any number" if each.streaming_limit is None else each.streaming_limit
                self.stdout.write(
                    f"{alias}: {each.name} runs {each.streaming} streaming responses, of {limit} that it may run"
                )
        wires = sorted({each.wire for _, each in found})
        if wires[-1] - wires[0] > 1:
            self.stdout.write(
                f"wire versions {wires[0]} and {wires[-1]} do not understand each other: update one release at a time"
            )
        elif len({each.version for _, each in found}) > 1:
            self.stdout.write("a mixed deploy: these versions understand each other")
        if any(not each.is_understood for _, each in found):
            self.stdout.write(
                f"this command's channelsq {__version__} (wire version {WIRE_VERSION}) does not understand all of them"
            )
