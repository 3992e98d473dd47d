"""A site whose messages are signed, and somebody who can read and write everything on its broker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import msgpack
import pytest
import redis
from celery import Celery
from kombu import Connection, Exchange, Queue
from websockets.sync.client import ClientConnection, connect

from channelsq.redis_core.compact import encode_compact
from channelsq.transport.dead_letter_store import DeadLetters
from tests.support.brokers import Broker, make_broker, operator
from tests.support.demo import fresh_redis
from tests.support.project import Project
from tests.support.protected import assert_protected_messages_pass
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120), pytest.mark.ways(r"^(?!.*\[redis(?!-streams))")]


@pytest.fixture(
    scope="module",
    params=[
        "redis",
        "redis-streams",
        pytest.param("rabbitmq", marks=pytest.mark.rabbitmq),
    ],
)
def broker(request: pytest.FixtureRequest) -> Broker:
    broker = make_broker(request)
    with redis.Redis.from_url(broker.groups_url) as client:
        client.flushdb()
    return broker


@pytest.fixture(scope="module")
def project(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    project = Project(tmp_path_factory.mktemp("signed"), broker.groups_url, {**broker.env, "TEST_SIGNING": "require"})
    try:
        project.start("--metrics")
        yield project
        assert "Traceback" not in project.worker_output + project.interface.output
    finally:
        project.stop()


@pytest.fixture
def app(broker: Broker) -> Iterator[Celery]:
    with operator(broker) as app:
        yield app


@pytest.fixture
def victim(project: Project) -> Iterator[ClientConnection]:
    with connect(f"{project.ws_url}/chat/tea/", open_timeout=30, proxy=None) as socket:
        socket.send("hello")
        assert socket.recv(timeout=30) == "tea: hello"
        yield socket


@pytest.fixture
def channel(victim: ClientConnection, broker: Broker) -> str:
    """The victim's reply channel, which the attacker has read from Redis."""
    with redis.Redis.from_url(broker.groups_url) as client:
        (found,) = client.smembers("channelsq:group:{room}")
    return str(found.decode())


def is_well(victim: ClientConnection) -> bool:
    """Return whether the victim is served, and has got no other message meanwhile."""
    victim.send("still here")
    return victim.recv(timeout=30) == "tea: still here"


def publish(broker: Broker, queue: str, body: bytes, *, temporary: bool = False, **headers: Any) -> None:
    declared = Queue(queue, Exchange(""), routing_key=queue, expires=300.0 if temporary else None)
    with Connection(broker.url) as connection:
        connection.Producer().publish(
            body,
            exchange="",
            routing_key=queue,
            content_type="application/x-msgpack",
            content_encoding="binary",
            headers=headers,
            declare=[declared] if temporary else [],
        )


def metric(project: Project, name: str) -> float:
    page = httpx.get(f"{project.url}/-/metrics", trust_env=False).text
    return next((float(line.split()[1]) for line in page.splitlines() if line.startswith(name)), 0.0)


# -- all of it works -------------------------------------------------------------------------------


def test_everything_works_signed(project: Project) -> None:
    """Frames, retries, requests with bodies in parts, responses with credits."""
    assert_protected_messages_pass(project)


# -- nothing can be forged -------------------------------------------------------------------------


def forged_frame(channel: str, **content: Any) -> bytes:
    message = {"reply_channel": channel, "path": "/chat/tea/", "order": 99, "text": "forged", **content}
    return msgpack.packb([["websocket.receive", message], {}, {}])  # type: ignore[no-any-return]


def test_a_forged_message(project: Project, broker: Broker, victim: ClientConnection, channel: str) -> None:
    seen = len(project.worker_output)
    publish(broker, "websocket.receive", forged_frame(channel), task="websocket.receive", id="forged-1", lang="py")
    project.worker.wait_for_output("a message for websocket.receive was refused: it is not signed", after=seen)
    body = forged_frame(channel)[:-1] + b"\x81\xa9channelsq\xc4\x28" + bytes(40)
    publish(broker, "websocket.receive", body, task="websocket.receive", id="forged-2", lang="py")
    project.worker.wait_for_output("its signature is wrong", after=seen)
    assert is_well(victim)
    if "streams" in broker.url:
        with Connection(broker.url) as connection:
            letters = {letter.task_id: letter for letter in DeadLetters(connection).all("websocket.receive")}
        assert letters["forged-1"].reason == "it is not signed, where CONFIG['signing'] asks for it"
        assert letters["forged-2"].reason.startswith("its signature is wrong")


def test_a_forged_reply(project: Project, broker: Broker, victim: ClientConnection, channel: str) -> None:
    counter = 'channelsq_replies_dropped_total{reason="unsigned"}'
    before = metric(project, counter)
    message = msgpack.packb({"text": "forged"})
    envelope = msgpack.packb([[[channel], message, None, None]])
    queue = channel.partition("!")[0]
    for body in (envelope, b"\xc1" + bytes(40) + envelope):
        if "streams" in broker.url:
            with redis.Redis.from_url(broker.groups_url) as client:
                client.xadd(f"stream:{queue}", {"m": encode_compact(None, None, body, None)})
        publish(broker, queue, body, temporary=True)
    wait_until(lambda: metric(project, counter) == before + 2, "both to be counted")
    assert "was refused: its signature is wrong" in project.interface.output
    assert is_well(victim)


@pytest.mark.parametrize("way", ["by name", "starmap", "group", "callback"])
def test_a_consumer_called_past_its_channel(
    project: Project, victim: ClientConnection, channel: str, app: Celery, way: str
) -> None:
    """By its name; and by tasks that anybody may call, which call it in turn."""
    seen = len(project.worker_output)
    name = "tests.project.consumers.receive"
    content = {"reply_channel": channel, "path": "/chat/tea/", "order": 99, "text": "forged"}
    arguments = ["websocket.receive", content]
    called = app.signature(name, args=arguments, kwargs={"room": "tea"}, immutable=True)
    if way == "by name":
        called.apply_async(queue="celery")
    elif way == "starmap":
        called = app.signature(name, kwargs={"room": "tea"})
        app.send_task("celery.starmap", kwargs={"task": called, "it": [arguments]}, queue="celery")
    elif way == "group":
        called.set(task_id="forged", queue="celery")
        result = [["group-id", None], [[["forged", None], None]]]
        app.send_task("celery.group", args=[[called], result, "group-id", []], queue="celery")
    else:
        app.send_task("celery.accumulate", args=[1], link=called.set(queue="celery"), queue="celery")
    project.worker.wait_for_output(f"a message for {name} was refused: it is not signed", after=seen)
    assert is_well(victim)


@pytest.mark.parametrize("broker", ["redis-streams"], indirect=True)  # anybody can read along
def test_a_message_that_was_recorded(project: Project, broker: Broker, victim: ClientConnection, channel: str) -> None:
    """It cannot be moved to another channel, nor get another id.  As it was it can be replayed, as docs say."""
    key = "stream:websocket.receive"
    with (
        redis.Redis.from_url(broker.groups_url) as client,
        redis.Redis.from_url(broker.groups_url, client_name="recorder") as recorder,
        ThreadPoolExecutor(1) as threads,
    ):
        last = client.xinfo_stream(key)["last-generated-id"]
        recording = threads.submit(recorder.xread, {key: last}, block=20_000)
        wait_until(
            lambda: any(each["name"] == "recorder" and "b" in each["flags"] for each in client.client_list()),
            "the recorder",
        )
        victim.send("recorded")
        assert victim.recv(timeout=30) == "tea: recorded"
        [(_, [(_, fields)])] = recording.result(30)
        _, identity, body, expiration = msgpack.unpackb(fields[b"m"])
        seen = len(project.worker_output)
        for queue, number in (("websocket.connect", identity), ("websocket.receive", "another"), ("echo", identity)):
            forged = msgpack.packb([queue, number, body.replace(b"websocket.receive", queue.encode()), expiration])
            client.xadd(f"stream:{queue}", {"m": forged})
            project.worker.wait_for_output(f"a message for {queue} was refused: its signature is wrong", after=seen)
            seen = len(project.worker_output)
        assert is_well(victim)
        client.xadd(key, {"m": fields[b"m"]})
        assert victim.recv(timeout=30) == "tea: recorded"


@pytest.mark.ways("prefork")
@pytest.mark.parametrize("pool", ["prefork", "solo", "gevent"])
def test_other_pools(redis_url: str, tmp_path_factory: pytest.TempPathFactory, pool: str) -> None:
    """The rest of this file is about threads."""
    url = fresh_redis(redis_url)
    env = {"TEST_BROKER": url.replace("redis:", "redis-streams:"), "TEST_GROUPS": url, "TEST_SIGNING": "require"}
    project = Project(tmp_path_factory.mktemp(pool), url, env)
    try:
        project.start_interface()
        project.start_worker("-P", pool, "-c", "2")
        with connect(f"{project.ws_url}/greet/bob/", open_timeout=30, proxy=None) as socket:
            for failures in (0, 1):
                socket.send(json.dumps({"failures": failures}))
                assert json.loads(socket.recv(timeout=30))["retries"] == failures
        assert "was refused" not in project.worker_output + project.interface.output
    finally:
        project.stop()


def test_switching_it_on_while_processes_run(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """In the phase "sign", both those that do not sign yet and those that require it already are understood."""
    url = fresh_redis(redis_url)
    env = {"TEST_BROKER": url.replace("redis:", "redis-streams:"), "TEST_GROUPS": url}
    project = Project(tmp_path_factory.mktemp("phases"), url, env)

    def served() -> None:
        with connect(f"{project.ws_url}/chat/tea/", open_timeout=30, proxy=None) as socket:
            assert is_well(socket)
        assert httpx.post(f"{project.url}/own/", content=b"x" * 600_000, trust_env=False).json()["body"] == 600_000

    try:
        project.start_interface()
        project.env["TEST_SIGNING"] = "sign"
        project.start_worker()
        served()
        project.worker.wait_for_output("was accepted although it is not signed")
        project.interface.stop()
        project.start_interface()
        served()
        project.env["TEST_SIGNING"] = "require"
        project.worker.stop()
        project.start_worker()
        served()
        output = project.worker_output + project.interface.output
        assert "was refused" not in output
        assert "was taken" not in output
    finally:
        project.stop()
