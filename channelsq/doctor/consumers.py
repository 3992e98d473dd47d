"""The processes of a site, the channels that its workers consume, and their depths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from channelsq import conf
from channelsq.asgi import ChannelLayerWrapper
from channelsq.core.wire_version import WIRE_VERSION, Announced
from channelsq.doctor.findings import Finding, error, not_applicable, ok, warning
from channelsq.doctor.project import routed_channels
from channelsq.operations.workers import INSPECT_ERRORS, Worker, announced, inspected, merged
from channelsq.version import __version__

#: The number of names in a text.
_LISTED = 10

#: The first parts of the names of the interface server's channels.
_EVENTS = ("http.", "websocket.")

#: The part of a channel's capacity from which it is reported.
_FULL = 0.8


class ConsumersExamination:
    """The examination of the processes that serve one layer.

    Args:
        layer: the layer.
        timeout: seconds that workers have to answer.
    """

    def __init__(self, layer: ChannelLayerWrapper, timeout: float) -> None:
        self._layer = layer
        self._alias = layer.alias
        self._timeout = timeout
        #: True if it is known that no worker consumes the layer.
        self.none_consume = False

    def __call__(self) -> Iterator[Finding]:
        """Check them.

        Raises:
            BrokerUnavailable: the Redis of the groups, or the broker, does not answer.
        """
        if self._layer.in_process:
            yield not_applicable("consumers", "The layer's workers are in the one process that has it.", self._alias)
            return
        announcements = announced(self._layer)
        answers, problem = {}, None
        try:
            answers = inspected(conf.celery_app(), min(self._timeout, 1.0))
        except INSPECT_ERRORS as failure:
            problem = failure
        workers = merged([(self._alias, each) for each in announcements or ()], answers)
        workers = [each for each in workers if self._alias in each.channels]
        yield from self._check_interfaces(announcements)
        yield from self._check_versions(announcements, workers)
        yield from self._check_answers(workers, problem)
        # The interface server's channels first, as a text may not list all.
        channels = sorted(routed_channels(self._alias), key=lambda channel: not channel.startswith(_EVENTS))
        yield from self._check_channels(channels, workers)
        yield from self._check_depths(channels)

    def _check_interfaces(self, announcements: Sequence[Announced] | None) -> Iterator[Finding]:
        if announcements is None:
            yield not_applicable("interfaces", "Interface servers announce themselves in Redis alone.", self._alias)
            return
        servers = [each for each in announcements if each.kind == "interface" and not each.protocol]
        if servers:
            places = _listed([f"{each.name} ({each.host}:{each.pid})" if each.host else each.name for each in servers])
            text = f"{_number(len(servers), 'interface server runs', 'interface servers run')}: {places}."
            yield ok("interfaces", text, self._alias, interfaces=[each.name for each in servers])
        elif self._alias != conf.DEFAULT_CHANNEL_LAYER:
            yield not_applicable("interfaces", "No interface server hands messages to this layer.", self._alias)
        else:
            yield warning(
                "interfaces",
                "No interface server runs.",
                "Start one: `python -m channelsq.interface`.",
                self._alias,
                interfaces=[],
            )

    def _check_versions(
        self, announcements: Sequence[Announced] | None, workers: Sequence[Worker]
    ) -> Iterator[Finding]:
        interfaces = [each for each in announcements or () if each.kind == "interface"]
        others = interfaces + [each.announced for each in workers]
        strange = [str(each) for each in others if not each.is_understood]
        mixed = [str(each) for each in others if each.is_understood and each.version != __version__]
        if strange:
            yield error(
                "versions",
                f"This process (channelsq {__version__}, wire version {WIRE_VERSION}) does not understand "
                f"{_listed(strange)}.",
                "Update one release at a time, see docs/how-to/run/upgrading.md.",
                self._alias,
            )
        elif mixed:
            yield warning(
                "versions",
                f"A mixed deploy: beside channelsq {__version__} there are {_listed(mixed)}, which it understands.",
                "Finish the deploy.",
                self._alias,
            )
        elif others:
            yield ok("versions", f"All processes have channelsq {__version__}.", self._alias)

    def _check_answers(self, workers: Sequence[Worker], problem: Exception | None) -> Iterator[Finding]:
        if problem is not None:
            yield warning(
                "inspect",
                f"Workers could not be asked over Celery's broker: {problem}",
                "Correct the broker's URL, see celery.broker.",
                self._alias,
            )
            return
        silent = [each.name for each in workers if not each.answers]
        if silent:
            yield warning(
                "inspect",
                f"Announced, but silent when asked over Celery's broker: {_listed(silent)}.",
                "They may be busy (-P solo), gone for less than 30 s, or without worker_enable_remote_control.",
                self._alias,
                silent=silent,
            )

    def _check_channels(self, channels: Sequence[str], workers: Sequence[Worker]) -> Iterator[Finding]:
        consumers = {
            channel: [each.name for each in workers if channel in (each.channels[self._alias] or ())]
            for channel in channels
        }
        missing = [channel for channel, names in consumers.items() if not names]
        unknown = [each.name for each in workers if each.channels[self._alias] is None]
        if not workers:
            self.none_consume = True
            yield error(
                "consumers",
                f"No worker runs, so no process consumes {_listed(channels)}.",
                "Start one: `celery -A <app> worker`.",
                self._alias,
                consumers=consumers,
            )
        elif missing and unknown:
            yield warning(
                "consumers",
                f"It is not known whether {_listed(unknown)} read {_listed(missing)}.",
                "Let them answer over Celery's broker, or update them.",
                self._alias,
                consumers=consumers,
            )
        elif missing:
            yield error(
                "consumers",
                f"No worker consumes {_listed(missing)}; there are {_listed([each.name for each in workers])}.",
                "Correct -Q and -X of the workers, or start one for these channels.",
                self._alias,
                consumers=consumers,
            )
        else:
            yield ok("consumers", _described(consumers), self._alias, consumers=consumers)

    def _check_depths(self, channels: Sequence[str]) -> Iterator[Finding]:
        depths = {channel: self._layer.channel_layer.depth(channel) for channel in channels}
        known = {channel: depth for channel, depth in depths.items() if depth is not None}
        if not known:
            yield not_applicable("depths", "The layer cannot tell how many messages wait.", self._alias)
            return
        full = {
            channel: f"{channel} ({depth} of {self._layer.capacity_of(channel)})"
            for channel, depth in known.items()
            if depth >= _FULL * self._layer.capacity_of(channel)
        }
        if full:
            refused = any(known[channel] >= self._layer.capacity_of(channel) for channel in full)
            make = error if refused else warning
            yield make(
                "depths",
                f"{'Full' if refused else 'Nearly full'}: {_listed(list(full.values()))}.",
                "Start more workers, or more of their threads (CONFIG['threads']); raise channel_capacity for bursts.",
                self._alias,
                depths=known,
            )
        else:
            waiting = _number(sum(known.values()), "message waits", "messages wait")
            yield ok("depths", f"{waiting} for workers.", self._alias, depths=known)


def _described(consumers: dict[str, list[str]]) -> str:
    """Return which workers consume which channels, each set of workers once."""
    by_workers: dict[tuple[str, ...], list[str]] = {}
    for channel, names in consumers.items():
        by_workers.setdefault(tuple(names), []).append(channel)
    parts = [f"{_listed(channels)} by {_listed(names)}" for names, channels in by_workers.items()]
    return f"Consumed are {'; '.join(parts)}." if parts else "The routing has no channel for workers."


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")


def _number(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"
