"""What goes straight from the transport to its consumer, and what is delivered as ever."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from channelsq.layers import codec
from channelsq.transport.codec import encode_compact
from channelsq.transport.streams import Entry
from channelsq.worker.plan import Plan
from channelsq.worker.straight import Straight
from channelsq.worker.task import ChannelTask

NOW = 1_700_000_000_000
LIFETIME = 60_000


class QoS:
    """Notes what is delivered."""

    channel = None

    def __init__(self) -> None:
        self.delivered: dict[str, Any] = {}

    def deliver(self, message: Any, tag: str) -> None:
        self.delivered[tag] = message


class World:
    """A worker with one channel and one consumer, that starts nothing."""

    eventer = None

    def __init__(self) -> None:
        self.qos = self.stream_qos = QoS()
        self.now = NOW
        self.open = True
        self.may = True
        self.revoked: set[str] = set()
        self.started: list[Any] = []
        consumer = lambda message: None  # noqa: E731
        task = SimpleNamespace(name="consumer", run=consumer, acks_late=True, __trace__=None)
        self._plan = Plan.__new__(Plan)
        self._plan.task, self._plan.name = task, "consumer"
        route = SimpleNamespace(consumer=consumer, ordered=True)
        router = SimpleNamespace(resolve=lambda message: (route, {}) if self.routed else None)
        layer = SimpleNamespace(router=router, queue_prefix="", channel_layer=SimpleNamespace(signing=None))
        stands_for = ChannelTask.__new__(ChannelTask)
        stands_for.layer = layer  # type: ignore[misc,assignment]
        stands_for.channel = "jobs"  # type: ignore[misc]
        app = SimpleNamespace(tasks={"jobs": stands_for})
        tasks = SimpleNamespace(layer=layer, app=app, task_of=lambda consumer: task)
        self.routed = True
        self.straight = Straight(self, [tasks])  # type: ignore[arg-type,list-item]

    # as the broker's channel

    def server_time(self) -> int:
        return self.now

    # as Lean

    def is_open(self) -> bool:
        return self.open

    @property
    def has_revoked(self) -> bool:
        return bool(self.revoked)

    def is_revoked(self, identity: str) -> bool:
        return identity in self.revoked

    def may_take(self, task: Any) -> bool:
        return self.may

    def plan(self, task: Any) -> Any:
        return SimpleNamespace(name=self._plan.name, task=task, look=lambda: None)

    def start(self, request: Any) -> None:
        self.started.append(request.id)


@pytest.fixture
def world() -> World:
    return World()


def entry(identity: str, sent: int = NOW, lifetime: int | None = LIFETIME, number: int = 0, **content: Any) -> Entry:
    body = b"\x93\x92" + codec.dumps("jobs") + codec.dumps(content) + b"\x80\x80"
    return Entry("stream:jobs", f"{sent}-{number}", encode_compact("jobs", identity, body, lifetime))


def turn(world: World, *entries: Entry) -> list[bool]:
    take = world.straight(world)  # type: ignore[arg-type]
    assert take is not None
    return [take("jobs", each) for each in entries]


def test_a_message_goes_straight(world: World) -> None:
    assert turn(world, entry("a", text="hello")) == [True]
    assert world.started == ["a"]
    ((tag, request),) = world.qos.delivered.items()
    assert tag == entry("a").tag
    assert request.args == ["jobs", {"text": "hello"}]
    assert request.message.headers["id"] == "a"


@pytest.mark.parametrize("before", [0, 1, 2])
def test_an_expired_one_does_not_whatever_came_before(world: World, before: int) -> None:
    for number in range(before):
        assert turn(world, entry(f"alive {number}", NOW + number)) == [True]
    world.now = NOW + LIFETIME + 10
    fresh = entry("fresh", world.now)
    assert turn(world, entry("old", NOW), fresh, entry("older", NOW - 5), entry("short", world.now, -1)) == [
        False,
        True,
        False,
        False,
    ]
    assert turn(world, entry("old too", NOW + 10), entry("just alive", NOW + 11)) == [False, True]
    assert turn(world, entry("for ever", 1, None)) == [True]


def test_nothing_does_while_celery_has_more_to_do_with_messages(world: World) -> None:
    world.open = False
    assert world.straight(world) is None  # type: ignore[arg-type]


def test_what_celery_has_more_to_do_with_does_not(world: World) -> None:
    world.may = False
    assert turn(world, entry("a")) == [False]
    world.may = True
    assert turn(world, entry("a")) == [True]  # asked anew in each turn
    world.revoked.add("b")
    assert turn(world, entry("b"), entry("c")) == [False, True]
    world.routed = False
    assert turn(world, entry("d")) == [False]
    assert world.started == ["a", "c"]
    assert len(world.qos.delivered) == 1  # both had the same entry's id


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x81",
        encode_compact("other", "a", b"\x93\x92\xa4jobs\x80\x80\x80", None),
        encode_compact("jobs", None, b"\x93\x92\xa4jobs\x80\x80\x80", None),
        encode_compact("jobs", "a", b"\x93\x92\xa5other\x80\x80\x80", None),
        encode_compact("jobs", "a", b"\x93\x92\xa4jobs\x90\x80\x80", None),
        encode_compact("jobs", "a", b"\x92\x92\xa4jobs\x80\x80", None),
        encode_compact("jobs", "a", b"\xc1", None),
        b"\x94\xa4jobs\xa1a\xc4",
    ],
    ids=["empty", "a map", "other task", "no id", "other channel", "no content", "two parts", "no msgpack", "cut"],
)
def test_what_is_no_message_of_the_channel_does_not(world: World, data: bytes) -> None:
    assert turn(world, Entry("stream:jobs", f"{NOW}-0", data)) == [False]
    take = world.straight(world)  # type: ignore[arg-type]
    assert take is not None
    assert take("other", entry("a")) is False
    assert world.started == []
