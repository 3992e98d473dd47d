"""A source on a Redis of its own, polled by hand: what it makes requests of, holds back, and gives back."""

from __future__ import annotations

import pickle
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from time import monotonic
from typing import Any

import msgpack
import pytest
import redis
from celery import Celery, signals
from celery.worker import state

from channelsq import Channel, consumer, route
from channelsq.core import wire_version
from channelsq.layers.stream_source import StreamSource
from channelsq.layers.wire import codec
from channelsq.layers.wire.encryption import Encryption
from channelsq.redis_core.compact import encode_compact
from channelsq.transport.dead_letter_store import DeadLetter, DeadLetters
from channelsq.transport.payloads import encode
from channelsq.worker.sources import held_messages, newer
from channelsq.worker.sources.consumer_request import Request
from channelsq.worker.sources.crew import LEAST, PREFETCH, Crew
from tests.support.fakes.workers import FakeEvents
from tests.support.sources import app_with_source
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.timeout(60)]

THREADS = 2
CREDIT = max(LEAST, THREADS * PREFETCH)

#: Delayed messages, which may all begin without another being done.
MANY = THREADS * PREFETCH

#: The contents of the messages that a consumer has had.
handled: list[Any] = []


def job(message: Any, **kwargs: Any) -> None:
    handled.append(message.content.get("n"))


@consumer(rate_limit="20/s")
def limited(message: Any) -> None:
    job(message)


@consumer(time_limit=5)
def bounded(message: Any) -> None:
    job(message)


@consumer(bind=True, max_retries=3)
def retried(task: Any, message: Any) -> None:
    job(message)
    if task.request.retries < 2:
        raise task.retry(countdown=0.1)


ROUTING = [
    route("job", job),
    route("limited", limited),
    route("bounded", bounded),
    route("retried", retried),
    route("picky", job, path="^/here/(?P<room>[a-z]+)$"),
]


class Site:
    """A layer on the test's Redis, and a worker's crew that does not run by itself."""

    def __init__(self, url: str, **config: Any) -> None:
        self._stack = ExitStack()
        self.prefix = uuid.uuid4().hex
        broker, limits = config.pop("broker", "memory://"), config.pop("pool_keeps_limits", False)
        self.app, self.tasks = self._stack.enter_context(
            app_with_source(ROUTING, url, broker, prefix=self.prefix, **config)
        )
        self.layer = self.tasks.layer
        self.redis = self._stack.enter_context(redis.Redis.from_url(url.replace("redis-streams:", "redis:")))
        channels = {"default": self.tasks.channels}
        self.crew = Crew(self.app, "worker@here", channels, THREADS, FakeEvents(), None,
                         pool_keeps_limits=limits)  # fmt: skip
        self.source = self.crew.readers["default"]
        held_messages.clear()
        handled.clear()
        self.poll(0.01)  # joins

    def close(self) -> None:
        self.crew.close()
        held_messages.clear()
        for key in self.redis.scan_iter(f"*{self.prefix}*"):
            self.redis.delete(key)
        self._stack.close()

    def queue(self, channel: str) -> str:
        return str(self.layer.queue(channel).name)

    def send(self, channel: str, delay: float | None = None, **content: Any) -> None:
        Channel(channel, channel_layer=self.layer).send(content, immediately=True, delay=delay)

    def write(self, channel: str, data: bytes) -> None:
        """Write to a channel's stream, as anyone with the broker's password may."""
        self.redis.xadd(f"stream:{self.queue(channel)}", {"m": data})

    def compact(self, channel: str, lifetime: int | None = 60_000, sent_to: str | None = None, **content: Any) -> bytes:
        body = b"\x93\x92" + codec.dumps(sent_to or channel) + codec.dumps(content) + b"\x80\x80"
        return encode_compact(self.queue(channel), uuid.uuid4().hex, body, lifetime)

    def poll(self, seconds: float = 1.0) -> list[Request]:
        return self.source.poll(seconds)

    def take(self, number: int = 1) -> list[Request]:
        """Poll until there are so many requests."""
        found: list[Request] = []

        def enough() -> bool:
            found.extend(self.poll(0.2))
            return len(found) >= number

        wait_until(enough, f"{number} requests")
        return found

    def length(self, channel: str) -> int:
        """Return how many entries there are, after what is settled was sent."""
        self.source.settle()
        source = self.source.source
        assert isinstance(source, StreamSource)
        assert source._channel is not None
        source._channel.look_for_answer()
        return int(self.redis.xlen(f"stream:{self.queue(channel)}"))

    def dead(self) -> list[DeadLetter]:
        with self.layer.channel_layer.open_connection() as connection:  # type: ignore[attr-defined]
            return [letter for letter in DeadLetters(connection).all() if letter.queue.startswith(self.prefix)]


@pytest.fixture
def make_site(redis_url: str) -> Iterator[Callable[..., Site]]:
    with ExitStack() as stack:

        def make(**config: Any) -> Site:
            site = Site(redis_url.rsplit("/", 1)[0].replace("redis:", "redis-streams:") + "/5", **config)
            stack.callback(site.close)
            return site

        yield make


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    return make_site()


# -- what becomes a request


def test_a_message_becomes_a_request_and_is_acknowledged_when_it_has_run(site: Site) -> None:
    site.send("job", n=1)
    (request,) = site.take()
    assert request.args == ["job", {"n": 1}]
    assert request.name == f"{__name__}.job"
    assert request.delivery_info["routing_key"] == site.queue("job")
    assert list(held_messages.reserved) == [request.id]
    assert site.length("job") == 1
    request.run()
    assert handled == [1]
    assert wait_until(lambda: site.length("job") == 0, "it is acknowledged")
    assert (held_messages.reserved, held_messages.active()) == ({}, [])


def test_they_come_in_the_order_in_which_they_were_sent_up_to_the_credit(site: Site) -> None:
    for number in range(CREDIT + 3):
        site.send("job", n=number)
    requests = site.take(CREDIT)
    assert [request.args[1]["n"] for request in requests] == list(range(CREDIT))
    assert not site.source.has_credit()
    requests[0].run()
    assert site.source.has_credit()
    assert [request.args[1]["n"] for request in site.take()] == [CREDIT]


def test_the_routes_arguments(site: Site) -> None:
    site.send("picky", path="/here/tea", n=1)
    (request,) = site.take()
    assert request.kwargs == {"room": "tea"}


@pytest.mark.parametrize("lifetime", [None, 60_000], ids=["for ever", "for a minute"])
def test_an_expired_message_is_dropped_and_its_socket_goes_on(
    site: Site, lifetime: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    socket = site.layer.new_channel("websocket.send.p!")
    site.write("job", site.compact("job", 1, n=1, reply_channel=socket, order=7))
    sent = site.redis.time()
    wait_until(lambda: site.redis.time() > (sent[0], sent[1] + 2000), "its time is over")
    site.write("job", site.compact("job", lifetime, n=2))
    assert [request.args[1] for request in site.take()] == [{"n": 2}]
    assert wait_until(lambda: site.length("job") == 1, "the expired one is acknowledged")
    assert [each.message for each in caplog.records if each.__dict__.get("action") == "message_expired"] == [
        "channel job: a message expired before a worker took it"
    ]
    told = wait_until(lambda: site.layer.receive([socket])[1], "the socket's interface server is told")
    assert told["done"] == 7


def test_a_message_that_no_route_claims_is_dropped(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.send("picky", path="/elsewhere", n=1)
    wait_until(lambda: site.poll(0.1) or "no route claims a message" in caplog.text, "it is told of")
    assert held_messages.reserved == {}
    assert wait_until(lambda: site.length("picky") == 0, "it is acknowledged")


@pytest.mark.parametrize(
    "data",
    [b"", b"\x81", b"\x94\xa3job\xa1a\xc4", b"nonsense"],
    ids=["empty", "a map", "cut", "no msgpack"],
)
def test_what_is_no_message_of_kombus_is_dropped(site: Site, data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    site.write("job", data)
    site.send("job", n=1)
    assert [request.args[1] for request in site.take()] == [{"n": 1}]
    assert "is not a message of Kombu's and was dropped" in caplog.text
    assert wait_until(lambda: site.length("job") == 1, "it is acknowledged")


def _payload(task: object, arguments: object, **more: Any) -> bytes:
    properties = {"delivery_info": {"exchange": "", "routing_key": "x"}, "correlation_id": "id"}
    return encode(
        {
            "body": codec.dumps(arguments),
            "content-type": "application/x-msgpack",
            "content-encoding": "binary",
            "headers": {"task": task, "id": "id", "lang": "py"},
            "properties": properties,
            **more,
        }
    )


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda site: site.compact("job", sent_to="other"), "no message of a channel"),
        (lambda site: _payload(site.queue("job"), [["job", []], {}, {}]), "no message of a channel"),
        (lambda site: _payload("a.task", [[1, 2], {}, {}]), "for the task 'a.task', which is no consumer"),
        (lambda site: _payload(f"{__name__}.job", [[1], {}, {}]), "are not a channel and its message"),
        (
            lambda site: _payload(site.queue("job"), None, body=pickle.dumps([]), **{
                "content-type": "application/x-python-serialize"}),
            "pickle",
        ),
        (
            lambda site: _payload(f"{__name__}.job", [["job", {}], {}, {}], headers={
                "task": f"{__name__}.job", "id": "id", "eta": "soon"}),
            "the header eta is 'soon'",
        ),
    ],
    ids=["another channel's", "no content", "a task", "wrong arguments", "pickle", "eta"],
)  # fmt: skip
def test_a_foreign_message_becomes_a_dead_letter(
    site: Site, make: Callable[[Site], bytes], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    site.write("job", make(site))
    site.send("job", n=1)
    assert [request.args[1] for request in site.take()] == [{"n": 1}]  # the others are not held up
    assert "channel job: a message was refused" in caplog.text
    (letter,) = site.dead()
    assert reason in letter.reason
    assert site.length("job") == 1


def test_signed_messages(make_site: Callable[..., Site], caplog: pytest.LogCaptureFixture) -> None:
    site = make_site(signing=True)
    site.send("job", n=1)
    site.write("job", site.compact("job", n=2))
    site.write("job", _payload(f"{__name__}.job", [["job", {"n": 3}], {}, {}]))
    assert [request.args[1] for request in site.take()] == [{"n": 1}]
    assert wait_until(lambda: site.poll(0.1) or len(site.dead()) == 2, "the others are dead letters") is True
    assert all("CONFIG['signing'] asks for it" in letter.reason for letter in site.dead())


def test_encrypted_messages(make_site: Callable[..., Site], caplog: pytest.LogCaptureFixture) -> None:
    site = make_site(symmetric_encryption_keys=["new" * 20, "old" * 20])
    site.send("job", n=1)
    site.write("job", site.compact("job", n=2))
    site.write("job", site.compact("job", **Encryption(site.prefix, [b"wrong" * 20]).sealed_content("job", {"n": 3})))
    site.write("job", site.compact("job", **_sealed(site, "job", b"old" * 20, n=4)))
    site.write("job", _payload(f"{__name__}.job", [["job", {"n": 5}], {}, {}]))
    assert [request.args[1] for request in site.take(2)] == [{"n": 1}, {"n": 4}]
    assert wait_until(lambda: site.poll(0.1) or len(site.dead()) == 3, "the others are dead letters") is True
    reasons = sorted(letter.reason for letter in site.dead())
    assert reasons[0].startswith("it cannot be decrypted: none of CONFIG['symmetric_encryption_keys'] is its key")
    assert reasons[1:] == ["it is not encrypted, where CONFIG['symmetric_encryption_keys'] asks for it"] * 2
    assert caplog.text.count("was refused") == 3


def test_encrypted_messages_without_the_keys(site: Site) -> None:
    site.write("job", site.compact("job", **_sealed(site, "job", b"k" * 32, n=1)))
    site.send("job", n=2)
    assert [request.args[1] for request in site.take()] == [{"n": 2}]
    (letter,) = site.dead()
    assert letter.reason == "it is encrypted, and CONFIG['symmetric_encryption_keys'] is missing here"


def test_a_retry_is_encrypted(make_site: Callable[..., Site]) -> None:
    """Its arguments are on the broker again, and are decrypted again."""
    site = make_site(symmetric_encryption_keys=["k" * 32])
    site.send("retried", n=1)
    for tries in (1, 2, 3):
        (request,) = site.take()
        assert request.args[1] == {"n": 1}
        assert not [data for data in _stored(site, "retried") if b"\xa1n" in data]
        request.run()
        assert len(handled) == tries
    assert wait_until(lambda: site.length("retried") == 0, "it is acknowledged")
    assert site.dead() == []


def _sealed(site: Site, channel: str, key: bytes, **content: Any) -> dict[str, Any]:
    """Return the content of an encrypted message."""
    return Encryption(site.prefix, [key]).sealed_content(site.queue(channel), content)


def _stored(site: Site, channel: str) -> list[bytes]:
    """Return the data of a channel's entries."""
    return [fields[b"m"] for _, fields in site.redis.xrange(f"stream:{site.queue(channel)}")]


# -- what is not run


def test_a_revoked_message_is_not_run(site: Site) -> None:
    site.send("job", n=1)
    (request,) = site.take()
    state.revoked.add(request.id)
    try:
        request.run()
    finally:
        state.revoked.discard(request.id)
    assert handled == []
    assert wait_until(lambda: site.length("job") == 0, "it is acknowledged")
    assert held_messages.reserved == {}


def test_a_worker_that_was_told_to_end_takes_nothing_more(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.send("job", n=1)
    monkeypatch.setattr(state, "should_stop", 0)
    for _ in range(5):  # one poll may only look for what dead consumers held
        assert site.poll(0.05) == []
    monkeypatch.setattr(state, "should_stop", None)
    (request,) = site.take()
    assert request.delivery_info["redelivered"] is False


def test_what_is_given_back_comes_again_and_says_so(site: Site) -> None:
    site.send("job", n=1)
    requests = site.take()
    site.source.give_back(requests)
    assert held_messages.reserved == {}
    (again,) = site.take()
    assert (again.args, again.id) == (requests[0].args, requests[0].id)
    assert again.delivery_info["redelivered"] is True


def test_the_end_gives_back_what_waits(site: Site) -> None:
    site.send("job", n=1, delay=30)
    site.send("job", n=2)
    assert len(site.take()) == 1
    assert len(held_messages.scheduled) == 1
    site.crew.close()
    assert site.redis.xlen(f"stream:{site.queue('job')}") == 2
    assert held_messages.scheduled == {}
    assert {request.args[1]["n"] for request in site.take(1)} == {2}


def test_receivers_of_task_received(site: Site) -> None:
    received = []

    def receive(request: Any, **kwargs: Any) -> None:
        received.append(request.id)

    signals.task_received.connect(receive)
    try:
        site.send("job", n=1)
        (request,) = site.take()
    finally:
        signals.task_received.disconnect(receive)
    assert received == [request.id]


# -- what waits


def test_a_delay(site: Site) -> None:
    began, found = monotonic(), list[Any]()
    for number in range(MANY + 2):
        site.send("job", n=number, delay=2)
    site.send("job", n="now")

    def all_came() -> bool:
        found.extend(request.args[1]["n"] for request in site.poll(0.1))
        return len(found) == MANY + 3

    wait_until(all_came, "all came")
    assert found == ["now", *range(MANY + 2)]
    assert monotonic() - began > 2
    assert held_messages.scheduled == {}


def test_a_rate_limit_that_has_taken_all_credit_goes_on(site: Site) -> None:
    number = CREDIT + 6
    for n in range(number):
        site.send("limited", n=n)
    site.crew.start()
    try:
        began = monotonic()
        wait_until(lambda: len(handled) == number, "all are handled", timeout=20)
        assert monotonic() - began > (number - 2) / 20
        assert sorted(handled) == list(range(number))
    finally:
        site.crew.stop()
        site.crew.wait()


def test_another_try_goes_to_the_layer(site: Site) -> None:
    site.send("retried", n=1)
    site.crew.start()
    try:
        wait_until(lambda: handled == [1, 1, 1], "three tries")
        wait_until(lambda: site.length("retried") == 0, "nothing is left")
    finally:
        site.crew.stop()
        site.crew.wait()
    assert _celerys_queue(site.app) == 0


def _celerys_queue(app: Celery) -> int:
    with app.connection_for_write() as connection:
        channel: Any = connection.default_channel
        return int(channel.queue_declare("celery").message_count)


def test_a_consumers_task_that_is_called_goes_to_celerys_broker(site: Site) -> None:
    task = site.app.tasks[f"{__name__}.job"]
    before = _celerys_queue(site.app)
    task.apply_async(("job", {"n": 1}))
    assert _celerys_queue(site.app) == before + 1
    assert site.length("job") == 0


# -- time limits, where the pool keeps them


def test_a_consumer_with_a_time_limit_is_handed_to_celerys_pool(make_site: Callable[..., Site]) -> None:
    site = make_site(pool_keeps_limits=True)
    before = _celerys_queue(site.app)
    site.send("bounded", n=1)
    site.send("job", n=2)
    by_name = {request.name.rpartition(".")[2]: request for request in site.take(2)}
    assert by_name["bounded"].profile.is_handed_over
    assert not by_name["job"].profile.is_handed_over
    by_name["bounded"].run()
    assert handled == []
    assert _celerys_queue(site.app) == before + 1
    assert wait_until(lambda: site.length("bounded") == 0, "it is acknowledged")


def test_what_cannot_be_handed_over_is_given_back(
    make_site: Callable[..., Site], caplog: pytest.LogCaptureFixture
) -> None:
    site = make_site(pool_keeps_limits=True, broker="redis://127.0.0.1:1/0")
    site.send("bounded", n=1)
    (request,) = site.take()
    request.run()
    assert "was not handed over" in caplog.text
    (again,) = site.take()
    assert again.id == request.id
    assert site.dead() == []


# -- which channels


def test_a_channel_is_read_no_more_and_again(site: Site) -> None:
    site.source.cease("job")
    site.poll(0.01)
    site.send("job", n=1)
    assert site.poll(0.1) == []
    site.source.read("job")
    assert [request.args[1] for request in site.take()] == [{"n": 1}]


def test_a_layer_that_is_read_later(site: Site) -> None:
    channels = site.tasks.channels
    crew = Crew(site.app, "worker@here", {}, THREADS, FakeEvents(), None)
    crew.read("default", "job")
    crew.read("default", "limited")
    try:
        site.send("job", n=1)
        site.send("limited", n=2)
        wait_until(lambda: sorted(handled) == [1, 2], "both to be handled")
        assert {"job", "limited"} < set(channels)
    finally:
        crew.stop()
        crew.wait()
        crew.close()


def test_what_runs_while_the_last_channel_is_left_is_acknowledged(site: Site) -> None:
    site.send("job", n=1)
    (request,) = site.take()
    for channel in site.tasks.channels:
        site.source.cease(channel)
    site.poll(0.01)
    request.run()
    site.poll(0.01)
    assert site.redis.xlen(f"stream:{site.queue('job')}") == 0


# -- what needs a newer worker


NEWER_FORM = msgpack.packb([2, {"a": "form"}, b"of the next release"])


def _newer(form: str) -> Callable[[Site], bytes]:
    if form == "compact":
        return lambda site: NEWER_FORM
    return lambda site: _payload(
        site.queue("job"), None, headers={"task": site.queue("job"), "id": "id", "channelsq_needs": 2}
    )


@pytest.fixture
def shortly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have such messages held for a short time."""
    monkeypatch.setattr(newer, "HELD", 0.2)


def test_fields_that_nobody_knows_are_ignored(site: Site) -> None:
    form = [*msgpack.unpackb(site.compact("job", n=1, unheard=[1])), {"unheard": 1}]
    site.write("job", msgpack.packb(form))
    site.redis.xadd(f"stream:{site.queue('job')}", {"m": site.compact("job", n=2), "x": 60_000, "unheard": "1"})
    assert [request.args[1] for request in site.take(2)] == [{"n": 1, "unheard": [1]}, {"n": 2}]
    assert site.dead() == []


@pytest.mark.parametrize("form", ["compact", "headers"])
def test_a_message_for_a_newer_worker_is_held_and_given_back(
    site: Site, shortly: None, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    site.write("job", _newer(form)(site))
    site.send("job", n=1)
    key = f"stream:{site.queue('job')}"
    before = {identity for identity, _ in site.redis.xrange(key)}
    assert [request.args[1] for request in site.take()] == [{"n": 1}]  # the others are not held up
    (line,) = [record.getMessage() for record in caplog.records if getattr(record, "action", "") == "newer_wire"]
    assert "is left to newer workers: it needs wire version 2, and channelsq" in line
    wait_until(
        lambda: site.poll(0.05) or {identity for identity, _ in site.redis.xrange(key)} - before, "it to be given back"
    )
    assert site.dead() == []
    assert "Traceback" not in caplog.text


def test_it_is_read_again_only_when_it_was_held(site: Site) -> None:
    site.write("job", NEWER_FORM)
    key = f"stream:{site.queue('job')}"
    ((first, _),) = site.redis.xrange(key)
    began = monotonic()
    wait_until(lambda: site.poll(0.01) or site.redis.xrange(key)[0][0] != first, "it to be given back", 30)
    assert monotonic() - began >= newer.HELD


def test_one_that_the_worker_can_read_after_its_update(
    site: Site, shortly: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"task": site.queue("job"), "id": "id", "channelsq_needs": 2}
    site.write("job", _payload(site.queue("job"), [["job", {"n": 1}], {}, {}], headers=headers))
    site.send("job", n=2)
    assert [request.args[1] for request in site.take()] == [{"n": 2}]
    monkeypatch.setattr(wire_version, "WIRE_VERSION", 2)
    assert [request.args[1] for request in site.take()] == [{"n": 1}]


def test_more_than_a_few_become_dead_letters(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newer, "MOST", 3)
    for _ in range(5):
        site.write("job", NEWER_FORM)
    site.send("job", n=1)
    assert len(site.take()) == 1
    assert wait_until(lambda: len(letters := site.dead()) == 2 and letters, "dead letters")
    assert all("needs wire version 2" in letter.reason for letter in site.dead())
    assert {letter.data for letter in site.dead()} == {NEWER_FORM}


def test_the_end_gives_back_what_needs_a_newer_worker(site: Site) -> None:
    site.write("job", NEWER_FORM)
    site.send("job", n=1)
    (request,) = site.take()
    request.run()
    site.crew.close()
    key = f"stream:{site.queue('job')}"
    assert [fields[b"m"] for _, fields in site.redis.xrange(key)] == [NEWER_FORM]
    assert site.redis.xpending(key, "kombu")["pending"] == 0
