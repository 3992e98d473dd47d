"""``celery -A project worker`` as users run it, on real brokers."""

from __future__ import annotations

import bz2
import lzma
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from celery import Celery
from kombu import Connection

from channelsq.layers import KombuChannelLayer
from channelsq.layers.wire import decompression
from tests.support.brokers import Broker, LayerClient, assert_echo_sends_events, make_broker, operator
from tests.support.processes import Process, Processes
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120), pytest.mark.ways(r"^(?!.*\[rabbitmq(\]|-))")]


@pytest.fixture(
    scope="module",
    params=[
        "redis",
        "redis-streams",
        pytest.param("rabbitmq", marks=pytest.mark.rabbitmq),
        pytest.param("rabbitmq beside streams quiet", marks=pytest.mark.rabbitmq),
    ],
)
def broker(request: pytest.FixtureRequest) -> Broker:
    """Return a broker whose worker logs nothing of each message, so that consumers run without Celery's tracer."""
    return make_broker(request)


@pytest.fixture(scope="module")
def worker(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One worker for the tests that leave it as it was; without events where it is to be quiet."""
    events = [] if broker.quiet else ["-E"]
    directory = tmp_path_factory.mktemp("worker")
    running = Processes(directory)
    env = {**broker.env, "TEST_DATABASE": str(directory / "db.sqlite3")}
    level = "WARNING" if broker.quiet else "INFO"
    yield running.worker(*events, env=env, app="tests.project", loglevel=level)
    running.stop()


@pytest.fixture
def client(broker: Broker) -> Iterator[LayerClient]:
    client = LayerClient(broker)
    yield client
    client.close()


@pytest.fixture
def app(broker: Broker) -> Iterator[Celery]:
    """A Celery app on the same broker, for what operators and producers do."""
    with operator(broker) as app:
        yield app


# -- routing and results ---------------------------------------------------------------------------


def test_a_message_becomes_its_consumers_task(worker: Process, client: LayerClient, broker: Broker) -> None:
    client.send("websocket.receive", {"path": "/chat/lobby/", "text": "hi", "order": 1})
    assert client.receive()["text"] == "lobby: hi"
    assert client.receive() == {"done": 1}
    assert broker.quiet != ("Task tests.project.consumers.receive[" in worker.output)


def test_bytes_survive(worker: Process, client: LayerClient) -> None:
    value = {"raw": bytes(range(256)), "nested": [b"\xff", {"x": b""}]}
    client.send("echo", {"value": value})
    assert client.receive()["echo"] == value


def test_every_consumer_is_a_registered_task(worker: Process, app: Celery) -> None:
    registered = wait_until(lambda: app.control.inspect(timeout=1).registered(), "an answer")
    names = {name for tasks in registered.values() for name in tasks}
    assert {
        "tests.project.consumers.receive",
        "tests.project.consumers.echo",
        "channelsq.handler.ViewConsumer",
        "tests.project.tasks.push",
    } <= names
    queues = wait_until(lambda: app.control.inspect(timeout=1).active_queues(), "an answer")
    consumed = {queue["name"] for node in queues.values() for queue in node}
    assert {"celery", "http.request", "websocket.connect", "websocket.receive", "echo"} <= consumed
    stats: Any = wait_until(lambda: app.control.inspect(timeout=1).stats(), "an answer")
    assert next(iter(stats.values()))["Channel layers"]["reads"]["default"]


def test_where_consumers_run_by_default(worker: Process, client: LayerClient) -> None:
    client.send("echo", {"value": 1})
    answer = client.receive()
    assert answer["thread"].startswith("channelsq-default-")
    assert answer["pid"] != worker.pid
    assert "(prefork)" in worker.output  # the team's pool stays what it was
    assert "consumers run in a process of 8 threads" in worker.output


def test_ordinary_tasks_run_and_push_to_groups(worker: Process, client: LayerClient, app: Celery) -> None:
    client.send("websocket.connect", {"path": "/chat/lobby/", "order": 0})
    assert [client.receive() for _ in range(2)] == [{"accept": True}, {"done": 0}]
    app.send_task("tests.project.tasks.push", ("room", "from a task"))
    assert client.receive() == {"text": "from a task"}


def test_http_falls_to_djangos_views_and_views_push(worker: Process, client: LayerClient) -> None:
    client.send("websocket.connect", {"path": "/chat/lobby/", "order": 0})
    assert [client.receive() for _ in range(2)] == [{"accept": True}, {"done": 0}]
    client.send(
        "http.request",
        {
            "http_version": "1.1", "method": "GET", "path": "/", "query_string": b"", "scheme": "http",
            "headers": [[b"host", b"localhost"]], "client": ["127.0.0.1", 1], "server": ["127.0.0.1", 80],
        },
    )  # fmt: skip
    answers = [client.receive() for _ in range(2)]
    assert {"text": "from a view"} in answers
    (response,) = [answer for answer in answers if "status" in answer]
    assert (response["status"], response["content"]) == (200, b"hello")


def test_signals(worker: Process, client: LayerClient) -> None:
    """Also for receivers that come and go while the worker runs."""
    for on in (True, False):
        client.send("listen", {"on": on})
        client.receive()
        client.send("echo", {"value": 1})
        client.receive()
        client.send("prerun")
        assert ("tests.project.consumers.echo" in client.receive()["prerun"]) is on


def test_what_celery_says_of_the_running_task(worker: Process, client: LayerClient) -> None:
    client.send("request", {"order": 1})
    answer = client.receive()
    assert answer["id"] == answer["message_id"] == answer["current"]
    assert answer["args"] == [answer["routing_key"]] == ["request"]
    assert answer["called_directly"] is False
    assert "@" in answer["hostname"]
    assert answer["name"] == "tests.project.consumers.request"


def test_celerys_books_are_kept(worker: Process, client: LayerClient) -> None:
    """Channels are in books of their own, of which Celery counts the total alone."""
    client.send("books")
    before = client.receive()
    for channel, content in (("echo", {"value": 1}), ("fail", {}), ("rejected", {"order": 1})):
        client.send(channel, content)
    assert client.receive()["echo"] == 1
    assert client.receive() == {"done": 1}

    def after() -> bool:
        client.send("books")
        books = client.receive()
        return (
            books["active"] == []
            and (books["requests"], books["reserved"]) == (before["requests"], before["reserved"])
            and books["total"] == before["total"] + 1
        )

    wait_until(after, "one message in the books")


# -- failures and retries ----------------------------------------------------------------------------


def test_a_failing_consumer_sends_nothing_and_is_reported(worker: Process, client: LayerClient) -> None:
    client.send("fail", {"order": 7})
    assert client.receive() == {"done": 7}
    assert client.nothing()
    worker.wait_for_output(r"Task tests\.project\.consumers\.fail\[.*\] raised unexpected: RuntimeError")


def test_autoretry(worker: Process, client: LayerClient) -> None:
    client.send("flaky", {"key": client.reply_channel, "order": 2})
    # What the failed attempts sent is dropped, and only the last one reports the message done.
    assert client.receive()["tries"] == 3
    assert client.receive() == {"done": 2}
    assert client.nothing()


def test_explicit_retry_of_a_bound_consumer(worker: Process, client: LayerClient) -> None:
    client.send("bound", {"order": 2})
    answer = client.receive()
    assert (answer["retries"], answer["task"]) == (2, "tests.project.consumers.bound")
    assert client.receive() == {"done": 2}


def test_consume_later(worker: Process, client: LayerClient) -> None:
    client.send("later", {"key": client.reply_channel, "until": 4, "order": 5})
    answer = client.receive()
    assert answer["tries"] == 4
    assert answer["keys"] == ["key", "order", "reply_channel", "until"]
    assert client.receive() == {"done": 5}


def test_reject(worker: Process, client: LayerClient) -> None:
    client.send("rejected", {"order": 1})
    assert client.receive() == {"done": 1}


def test_unordered_routes_report_at_once(worker: Process, client: LayerClient) -> None:
    client.send("unordered", {"seconds": 0.1, "order": 1})
    assert client.receive() == {"done": 1}
    assert "started" in client.receive()


def test_an_unrouted_message_is_logged_and_loses_nothing_else(worker: Process, client: LayerClient) -> None:
    seen = len(worker.output)
    client.send("picky", {"path": "/other/", "order": 3})
    client.send("echo", {"value": 1})
    answers = [client.receive(), client.receive()]
    assert {"done": 3} in answers
    assert any("echo" in answer for answer in answers)
    worker.wait_for_output(r"ERROR.*channel picky: no route claims a message .*path '/other/'", after=seen)


# -- hostile and stale messages ------------------------------------------------------------------------


EVIL = b"cposix\nsystem\n(S'touch {}'\ntR."


def foreign(trap: str) -> dict[str, dict[str, Any]]:
    """Return messages that do not belong on a channel; code that is run leaves a file at ``trap``."""
    arguments = [["echo", {"value": "forged"}], {}, {}]
    packed = {"content_type": "application/x-msgpack", "content_encoding": "binary"}
    pickled = EVIL.replace(b"{}", trap.encode())
    as_json = {"content_type": "application/json", "content_encoding": "utf-8"}
    return {
        "garbage": {"body": b"\xc1 not msgpack", **packed},
        "pickle": {"body": pickled, "content_type": "application/x-python-serialize", "content_encoding": "binary"},
        "pickle as data": {"body": pickled, "content_type": "application/data", "content_encoding": "binary"},
        "pickle said to be msgpack": {"body": pickled, **packed},
        "compressed pickle": {
            "body": zlib.compress(pickled),
            "content_type": "application/x-python-serialize",
            "content_encoding": "binary",
            "headers": {"compression": "application/x-gzip"},
        },
        "yaml": {
            "body": f"!!python/object/apply:os.system ['touch {trap}']".encode(),
            "content_type": "application/x-yaml",
            "content_encoding": "utf-8",
        },
        "unknown type": {"body": b"x", "content_type": "application/x-nobody-knows", "content_encoding": "utf-8"},
        "unknown encoding": {"body": b"[]", "content_type": "application/json", "content_encoding": "nobody-knows"},
        "extension": {"body": b"\x93\x92\xa4echo\xd4\x01x\x80\x80", **packed},
        "no arguments": {"body": b"[[], {}, {}]", **as_json},
        "other channel": {"body": b'[["other", {}], {}, {}]', **as_json},
        "no dict": {"body": b'[["echo", "text"], {}, {}]', **as_json},
        "no list": {"body": b'"text"', **as_json},
        "no id": {"body": msgpack.packb(arguments), **packed, "headers": {"id": None}},
        "bad reply channel": {"body": msgpack.packb([["echo", {"reply_channel": "a b"}], {}, {}]), **packed},
        "reply channel of a number": {"body": msgpack.packb([["echo", {"reply_channel": 5}], {}, {}]), **packed},
        "no embed": {"body": msgpack.packb([["echo", {}], {}, [1]]), **packed},
    }


def test_foreign_messages_do_no_harm(worker: Process, client: LayerClient, broker: Broker, tmp_path: Path) -> None:
    """Each is one line in the log, and nothing else: no code is run, the worker goes on."""
    seen = len(worker.output)
    trap = tmp_path / "trap"
    messages = foreign(str(trap))
    with Connection(broker.url) as connection:
        producer = connection.Producer()
        for kind, message in messages.items():
            headers = {"task": "echo", "id": kind, **message.pop("headers", {})}
            producer.publish(message.pop("body"), exchange="", routing_key="echo", headers=headers, **message)
    refused = "channel echo: a message was refused"
    worker.wait_for(lambda: worker.output[seen:].count(refused) >= len(messages), "a line for each")
    client.send("echo", {"value": "still here"})
    assert client.receive()["echo"] == "still here"
    assert client.nothing()
    assert worker.output[seen:].count(refused) == len(messages)
    assert not trap.exists()
    assert "Traceback" not in worker.output[seen:]


@pytest.mark.ways(r"redis-streams|(redis|quiet)-application/x-gzip")
@pytest.mark.parametrize("way", ["application/x-gzip", "application/x-bz2", "application/x-lzma", "nobody knows"])
def test_a_compression_bomb(worker: Process, client: LayerClient, broker: Broker, way: str) -> None:
    """Kombu unpacks what says that it is packed before anybody sees it; not over 64 MiB of it."""
    seen = len(worker.output)
    pack: Any = {"application/x-bz2": bz2.compress, "application/x-lzma": lzma.compress}.get(way, zlib.compress)
    with Connection(broker.url) as connection:
        connection.Producer().publish(
            pack(b"\0" * (decompression.LIMIT + 1)),
            exchange="",
            routing_key="echo",
            content_type="application/x-msgpack",
            content_encoding="binary",
            headers={"task": "echo", "id": "0", "compression": way},
        )
    if way.startswith("application/"):
        worker.wait_for_output("a compressed message was not unpacked: it is incomplete, or has over", after=seen)
        worker.wait_for_output("channel echo: a message was refused", after=seen)
        assert "Traceback" not in worker.output[seen:]
    else:
        worker.wait_for_output("channel echo: a message was refused", after=seen)
    client.send("echo", {"value": "still here"})
    assert client.receive()["echo"] == "still here"


@pytest.mark.parametrize("broker", ["redis"], indirect=True)  # the others expire it before a worker sees it
def test_an_expired_message_is_not_handled(worker: Process, client: LayerClient, broker: Broker) -> None:
    seen = len(worker.output)
    expired = KombuChannelLayer(url=broker.url, groups_url=broker.groups_url)
    expired.expiry = -1  # by more than the worker's idea of the server's clock may be wrong
    expired.send("echo", {"value": "old", "reply_channel": client.reply_channel})
    expired.close()
    client.send("echo", {"value": "new"})
    assert client.receive()["echo"] == "new"
    assert client.nothing()
    worker.wait_for_output("channel echo: a message expired", after=seen)


# -- Celery's own controls -------------------------------------------------------------------------------


def test_events(worker: Process, client: LayerClient, app: Celery) -> None:
    assert_echo_sends_events(app, client)


def test_rate_limit(worker: Process, client: LayerClient, broker: Broker) -> None:
    for value in (1, 2):
        client.send("rated", {"value": value})
    assert client.receive()["value"] == 1
    received = r"Task tests\.project\.consumers\.rated\[[^]]+\] received"
    if not broker.quiet:
        worker.wait_for(lambda: len(re.findall(received, worker.output)) == 2, "the second message")
    # One a minute: what came after the second message overtakes it.
    client.send("echo", {"value": "overtook"})
    assert client.receive()["echo"] == "overtook"
    assert client.nothing()


def test_delay_and_revoke(worker: Process, client: LayerClient, app: Celery) -> None:
    client.send("echo", {"value": "delayed", "order": 9}, delay=300)

    def scheduled(besides: str = "") -> str | None:
        nodes = app.control.inspect(timeout=1).scheduled() or {}
        waiting = [item["request"] for items in nodes.values() for item in items]
        echoes = (each["id"] for each in waiting if each["name"].endswith(".echo"))  # others wait for a rate limit
        return next((identity for identity in echoes if identity != besides), None)

    identity = wait_until(scheduled, "the delayed message to be scheduled", timeout=20)
    assert client.nothing()
    client.send("echo", {"value": "soon"}, delay=0.3)
    assert client.receive()["echo"] == "soon"
    app.control.revoke(identity, reply=True)
    client.send("echo", {"value": "delayed less", "order": 10}, delay=5)
    other = wait_until(lambda: scheduled(identity), "the other one to be scheduled", timeout=20)
    app.control.revoke(other, reply=True)
    assert client.receive() == {"done": 10}  # so that its socket goes on
    assert client.nothing()


def test_messages_of_a_newer_interface_server(worker: Process, client: LayerClient) -> None:
    unheard: dict[str, Any] = {"unheard": {"of": [1, b"2"]}, "channelsq.unheard": None}
    client.send("websocket.receive", {"path": "/chat/tea/", "text": "hi", "order": 1, **unheard})
    assert client.receive()["text"] == "tea: hi"
    assert client.receive() == {"done": 1}
    request = {
        "http_version": "1.1", "method": "POST", "scheme": "http", "path": "/own/", "query_string": b"",
        "root_path": "", "headers": [[b"host", b"localhost"]], "client": None, "server": None,
        "body": b"12345", "body_channel": None,
    }  # fmt: skip
    client.send("http.request", {**request, "channelsq.wire": 2, **unheard})
    answer = client.receive()
    assert (answer["status"], b'"body": 5' in answer["content"], len(answer["attempt"])) == (200, True, 1)
