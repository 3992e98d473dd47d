"""Celery's worker, its events and a supervisor of processes, as far as sources of messages know them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from celery import Celery
from celery.worker import WorkController
from celery.worker.control import Panel


class FakeEvents:
    """Events that nobody asked for."""

    enabled = False

    def of(self, identity: str) -> None:
        """Return None, for nowhere."""


class RecordingDispatcher:
    """Celery's dispatcher of events, as far as a relay knows it."""

    def __init__(self, *, enabled: bool = True, groups: tuple[str, ...] = ()) -> None:
        self.enabled = enabled
        self.groups = set(groups)
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def send(self, kind: str, **fields: Any) -> None:
        self.sent.append((kind, fields))


class FakeLoopingWorker:
    """A worker, which is its own consumer, and an event loop that turns when it is told to."""

    def __init__(self, dispatcher: RecordingDispatcher | None) -> None:
        self.consumer = self
        self.event_dispatcher = dispatcher
        self._calls: list[Any] = []

    def call_soon(self, callback: Any) -> None:
        self._calls.append(callback)

    def turn(self) -> int:
        calls, self._calls = self._calls, []
        for callback in calls:
            callback()
        return len(calls)


class FakeBareWorker:
    """A worker before it has steps."""

    setup_queues = WorkController.setup_queues

    def __init__(self, app: Celery) -> None:
        self.app = app
        self.channelsq_sources = SimpleNamespace(described="consumers run in 2 threads", channels={"default": ["jobs"]})

    def startup_info(self, artlines: bool = True) -> str:
        return "banner"


class RecordingSupervisor:
    """A supervisor that keeps what it tells its processes."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []

    def tell(self, kind: str, **message: Any) -> None:
        self.told.append((kind, message))


class RecordingSources:
    """A worker's sources, with an answer of two processes."""

    def __init__(self, alias: str) -> None:
        self.supervisor: RecordingSupervisor | None = RecordingSupervisor()
        self.channels = {alias: ["jobs"]}
        self.answers: dict[str, list[Any]] = {}
        self.orders: list[tuple[str, ...]] = []
        self.pool_keeps_limits = True

    def ask(self, what: str) -> list[Any]:
        return self.answers.get(what, [])

    def read(self, alias: str, channel: str) -> None:
        self.orders.append(("read", alias, channel))

    def cease(self, alias: str, channel: str) -> None:
        self.orders.append(("cease", alias, channel))

    def tell_of_events(self) -> None:
        self.orders.append(("events",))


class FakeControlledWorker:
    """A worker as Celery's commands see it."""

    def __init__(self, app: Celery) -> None:
        self.sources = RecordingSources("default")
        self.app = app
        self.added: list[str] = []
        self.controller = SimpleNamespace(channelsq_sources=self.sources, stats=lambda: {"total": {"a.task": 2}})
        self.timer = SimpleNamespace(schedule=SimpleNamespace(queue=[]))
        self.event_dispatcher = SimpleNamespace(groups={"task"}, enabled=True)
        self.task_consumer = SimpleNamespace(queues=[])
        self.consumer = self
        self.hostname = "worker@here"
        self.tset = set

    def call_soon(self, function: Any, *args: Any, **kwargs: Any) -> None:
        function(*args, **kwargs)

    def add_task_queue(self, queue: str, *options: Any, **more: Any) -> None:
        self.added.append(queue)

    def cancel_task_queue(self, queue: str) -> None:
        self.added.remove(queue)

    def reset_rate_limits(self) -> None: ...

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return Panel.data[name](self, *args, **kwargs)
