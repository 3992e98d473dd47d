"""The sampler of the dashboard.

The frames of watching pages drive it: each asks whether a sample is due, and the worker that gets the first such frame
takes the turn, a record of the layer that at most one worker holds.  It takes the sample, sends it to all dashboards
and keeps the turn until the next sample is due.  So there is one sampler at a time however many workers and pages there
are, none without a page, and no process or message that could be lost: if a worker dies with the turn, the record
expires.
"""

from __future__ import annotations

import json
import time
import uuid
import zlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from channelsq import conf
from channelsq.asgi import ChannelLayerWrapper, channel_layers
from channelsq.contrib.dashboard.dashboard_sockets import GROUP, socket_on
from channelsq.contrib.dashboard.metrics_pages import longest_wait, read_pages
from channelsq.contrib.dashboard.rates import Reading, increase, kept
from channelsq.contrib.dashboard.sample_frames import frame_of, point_of
from channelsq.operations.snapshot import PATIENCE, Snapshot, Wanted, as_dict, take

if TYPE_CHECKING:
    from channelsq.layers.groups.records import RecordStore

#: The records: the turn, and the memory from sample to sample.
TURN, MEMORY = "channelsq.dashboard.turn", "channelsq.dashboard.memory"

#: The most points of the charts that are kept for pages which open later, and the seconds for which they are.
MOST_POINTS, REMEMBERED = 300, 300.0

#: The part of the interval for which the turn is kept: pages ask once an interval, and not to the millisecond.
_KEPT = 0.8

#: The fewest seconds between two searches for all groups.
GROUPS_EVERY = 10.0

#: The number of listed groups and sockets.
LIMIT = 20


@dataclass
class _Memory:
    """The stored results of the samples before.

    Args:
        readings: the last readings of the counters.
        points: the points of the charts.
        groups: the groups of each layer, by alias.
        groups_at: the time at which they were read.
    """

    readings: list[Reading]
    points: list[dict[str, Any]]
    groups: dict[str, Any]
    groups_at: float


class Sampler:
    """The sampler of one site, as any of its workers can run it.

    Args:
        layer: the layer of the dashboards' sockets.
        records: its records.
    """

    def __init__(self, layer: ChannelLayerWrapper, records: RecordStore) -> None:
        self._layer = layer
        self._records = records

    def history(self) -> list[dict[str, Any]]:
        """Return the last points of the charts, the oldest first.

        Raises:
            BrokerUnavailable: the records do not answer.
        """
        return self._recall().points

    def sample_if_due(self) -> bool:
        """Take a sample and send it to all dashboards, unless another worker does, or has just done; return whether.

        Raises:
            BrokerUnavailable: the records or the groups do not answer.
        """
        if not self._take_turn():
            return False
        chosen = conf.dashboard_settings()
        begun = time.monotonic()
        try:
            self._tell(self._sample(chosen))
        finally:
            left = chosen.every * _KEPT - (time.monotonic() - begun)
            self._records.write(TURN, {"by": b"done"}, max(0.05, left))
        return True

    def _take_turn(self) -> bool:
        """Return whether this call now has the turn; it ends by itself, should the worker die."""
        # Read first: a change that changes nothing would renew the record.
        if self._records.read(TURN):
            return False
        mine = uuid.uuid4().bytes
        longest = PATIENCE * len(channel_layers.configs) + longest_wait(conf.dashboard_settings().metrics) + 10
        return self._records.change(TURN, "by", lambda value: mine if value is None else None, longest) == mine

    def _sample(self, chosen: conf.DashboardSettings) -> dict[str, Any]:
        """Return the frame of a new sample, and remember what the next one needs."""
        memory = self._recall()
        now = time.time()
        with_groups = not 0 <= now - memory.groups_at < GROUPS_EVERY
        wanted = Wanted(LIMIT, with_groups, sockets=True, inside=self._layer.in_process)
        snapshot = take(list(channel_layers.configs), wanted)
        pages = read_pages(chosen.metrics)
        layers = as_dict(snapshot)["layers"]
        if with_groups:
            memory.groups, memory.groups_at = {each["layer"]: each["groups"] for each in layers}, now
        for each in layers:
            each["groups"] = memory.groups.get(each["layer"])
        reading = Reading(now, _sent(snapshot), {page.url: page.numbers for page in pages if not page.problem})
        memory.readings = [*kept(memory.readings, now, chosen.every), reading]
        grown = increase(memory.readings)
        before = [each for each in memory.points if abs(now - each["time"]) < REMEMBERED]
        # Workers' clocks differ a little, and charts run forwards.
        at = max(now, before[-1]["time"] + 0.01) if before else now
        point = point_of(at, layers, pages, grown)
        memory.points = [*before, point][-MOST_POINTS:]
        self._remember(memory)
        return frame_of(snapshot, layers, pages, grown, point)

    def _tell(self, frame: dict[str, Any]) -> None:
        """Send a frame to each dashboard whose user may see it now; close the others."""
        for channel in sorted(self._layer.group_channels(GROUP)):
            socket = socket_on(self._layer, channel)
            if socket.may_look:
                socket.send(**frame)
            else:
                socket.refuse()

    def _recall(self) -> _Memory:
        try:
            stored = self._records.read(MEMORY).get("samples")
            content = json.loads(zlib.decompress(stored)) if stored else {}
            return _Memory(
                [Reading(**each) for each in content.get("readings", ())],
                list(content.get("points", ())),
                dict(content.get("groups", {})),
                float(content.get("groups_at", 0.0)),
            )
        except (zlib.error, ValueError, TypeError, AttributeError):
            return _Memory([], [], {}, 0.0)  # of another version

    def _remember(self, memory: _Memory) -> None:
        self._records.write(MEMORY, {"samples": zlib.compress(json.dumps(asdict(memory)).encode(), 1)}, REMEMBERED)


def _sent(snapshot: Snapshot) -> dict[str, int]:
    """Return the messages that each channel has had, by layer and channel."""
    return {
        f"{layer.alias} {row.name}": row.state.sent
        for layer in snapshot.layers
        for row in layer.channels
        if row.state.sent is not None
    }
