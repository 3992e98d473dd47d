"""The workers of a site: those that announce themselves in Redis, and those that answer ``celery inspect``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from celery import Celery
from kombu.exceptions import KombuError

from channelsq.asgi import ChannelLayerWrapper
from channelsq.core.bounded import within
from channelsq.core.wire_version import Announced

#: The key in ``inspect stats`` for the data of :class:`channelsq.worker.sources_step.Sources`.
_LABEL = "Channel layers"


@dataclass
class Worker:
    """One worker, as far as known."""

    name: str
    version: str = ""
    wire: int = 1
    host: str = ""
    pid: int = 0
    #: The place where its consumers run, in words.
    runs: str = ""
    #: The number of its streaming responses, and their limit; None if unknown.
    streaming: int | None = None
    streaming_limit: int | None = None
    #: The channels that it reads, by the layer's alias; None if unknown.
    channels: dict[str, tuple[str, ...] | None] = field(default_factory=dict)
    #: Whether it announces itself in the Redis of a layer's groups.
    is_announced: bool = False
    #: Whether it answered ``celery inspect``.
    answers: bool = False

    @property
    def announced(self) -> Announced:
        """Its versions, in the form of an announcement."""
        return Announced("worker", self.name, self.wire, self.version, self.host, self.pid)


def announced(layer: ChannelLayerWrapper) -> list[Announced] | None:
    """Return the processes that announce themselves on a layer; None if the layer does not support it.

    Raises:
        BrokerUnavailable: the Redis of the groups does not answer.
    """
    presence = layer.channel_layer.presence
    return None if presence is None else presence.announced()


def inspected(app: Celery, timeout: float) -> dict[str, dict[str, Any]]:
    """Return the answers of the workers that read channels, over Celery's broker, by worker name.

    Raises:
        OSError, kombu.exceptions.KombuError: the broker does not answer.
    """
    answers: Any = within(timeout + 5, lambda: app.control.inspect(timeout=timeout).stats()) or {}
    return {node: stats[_LABEL] for node, stats in answers.items() if isinstance(stats.get(_LABEL), dict)}


#: The errors of :func:`inspected` when Celery's broker is unavailable.
INSPECT_ERRORS = (OSError, KombuError)


def merged(announcements: Iterable[tuple[str, Announced]], answers: Mapping[str, Mapping[str, Any]]) -> list[Worker]:
    """Return the workers by name.

    Args:
        announcements: with the alias of their layer; those of interface servers are ignored.
        answers: a result of :func:`inspected`.
    """
    found: dict[str, Worker] = {}
    for alias, announcement in announcements:
        if announcement.kind == "worker":
            worker = found.setdefault(announcement.name, Worker(announcement.name))
            worker.version, worker.wire = announcement.version, announcement.wire
            worker.host, worker.pid = announcement.host, announcement.pid
            worker.runs, worker.is_announced = announcement.runs, True
            worker.streaming, worker.streaming_limit = announcement.streaming, announcement.streaming_limit
            worker.channels[alias] = announcement.channels
    for name, answer in answers.items():
        worker = found.setdefault(name, Worker(name))
        worker.answers = True
        worker.version = worker.version or str(answer.get("channelsq", ""))
        worker.wire = worker.wire if worker.is_announced else int(answer.get("wire", 1))
        worker.runs = worker.runs or str(answer.get("runs", ""))
        for alias, channels in dict(answer.get("reads", {})).items():
            worker.channels[alias] = tuple(channels)
    return sorted(found.values(), key=lambda worker: worker.name)
