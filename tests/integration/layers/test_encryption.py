"""A site whose messages are encrypted: everything works, and the broker shows nothing that people write."""

from __future__ import annotations

from collections.abc import Iterator

import msgpack
import pytest
import redis
from websockets.sync.client import ClientConnection, connect

from channelsq.layers.wire import codec
from channelsq.layers.wire.encryption import Encryption
from channelsq.management.commands.deadletters import _summary
from channelsq.redis_core.compact import encode_compact
from channelsq.transport.dead_letter_store import _letter
from tests.support.brokers import Broker, LayerClient, make_broker
from tests.support.project import Project
from tests.support.protected import assert_protected_messages_pass
from tests.support.sites import Site, ask, socket_on
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.timeout(120), pytest.mark.ways(r"^(?!.*\[redis\])")]

KEY, OLD = "a key of this site that is long enough", "the key that this site had before"


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("redis-streams", marks=pytest.mark.redis),
        pytest.param("rabbitmq", marks=[pytest.mark.rabbitmq, pytest.mark.redis]),
    ],
)
def broker(request: pytest.FixtureRequest) -> Broker:
    broker = make_broker(request)
    with redis.Redis.from_url(broker.groups_url) as client:
        client.flushdb()
    return broker


@pytest.fixture(scope="module")
def project(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    env = {**broker.env, "TEST_ENCRYPTION": f"{KEY},{OLD}"}
    project = Project(tmp_path_factory.mktemp("encrypted"), broker.groups_url, env)
    try:
        project.start("--metrics")
        yield project
        assert "Traceback" not in project.worker_output + project.interface.output
    finally:
        project.stop()


def chat(project: Project) -> ClientConnection:
    return connect(f"{project.ws_url}/chat/tea/", open_timeout=30, proxy=None)


def test_everything_works(project: Project) -> None:
    """Frames, groups, retries, requests with bodies in parts, responses with credits."""
    with chat(project) as socket:
        socket.send("hello")
        assert socket.recv(timeout=30) == "tea: hello"
    assert_protected_messages_pass(project)


@pytest.mark.parametrize("broker", ["redis-streams"], indirect=True)
def test_nothing_that_people_write_is_on_the_broker(project: Project, broker: Broker) -> None:
    """MONITOR shows all that passes Redis."""
    secret = "a-secret-that-nobody-else-reads"
    seen: list[str] = []
    with redis.Redis.from_url(broker.groups_url) as client, client.monitor() as monitor, chat(project) as socket:
        socket.send(secret)
        assert socket.recv(timeout=30) == f"tea: {secret}"
        client.get("the end")
        for command in monitor.listen():
            seen.append(command["command"])
            if "the end" in seen[-1]:
                break
    assert any("stream:websocket.receive" in each for each in seen), "the frame went this way"
    assert not [each for each in seen if secret in each]


@pytest.mark.parametrize("broker", ["redis-streams"], indirect=True)
def test_what_is_not_encrypted_is_refused(project: Project, broker: Broker) -> None:
    """Messages to workers, and replies to clients, of which the server counts each."""
    with chat(project) as socket, redis.Redis.from_url(broker.groups_url) as client:
        socket.send("one")
        assert socket.recv(timeout=30) == "tea: one"
        (channel,) = (member.decode() for member in client.smembers("channelsq:group:{room}"))
        queue, seen = channel.partition("!")[0], len(project.worker_output)
        message = {"reply_channel": channel, "path": "/chat/tea/", "order": 99, "text": "forged"}
        body = msgpack.packb([["websocket.receive", message], {}, {}])
        client.xadd("stream:websocket.receive", {"m": encode_compact("websocket.receive", "1", body, None)})
        text = "a message for websocket.receive was refused: it is not encrypted"
        project.worker.wait_for_output(text, after=seen)
        envelope = msgpack.packb([[[channel], msgpack.packb({"text": "forged"}), None, None]])
        client.xadd(f"stream:{queue}", {"m": encode_compact(None, None, envelope, None)})
        wait_until(lambda: project.counted("replies_dropped_total", reason="undecrypted") == 1, "the count")
        socket.send("two")
        assert socket.recv(timeout=30) == "tea: two"


@pytest.mark.redis
@pytest.mark.parametrize("broker", ["redis beside streams"], indirect=True)
def test_a_consumer_in_celerys_pool(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A time limit is the pool's, so the message is handed over through Celery's broker, encrypted."""
    env = {**broker.env, "TEST_ENCRYPTION": KEY}
    project = Project(tmp_path_factory.mktemp("prefork"), broker.groups_url, env)
    client = LayerClient(broker, symmetric_encryption_keys=[KEY])
    try:
        project.start_worker("-P", "prefork", "-c", "1")
        client.send("hostile.limited_answer", {"seconds": 0, "order": 1})
        assert str(client.receive(30)["process"]).startswith("ForkPoolWorker")
        assert client.receive() == {"done": 1}
        assert "was refused" not in project.worker_output
    finally:
        client.close()
        project.stop()


@pytest.mark.parametrize("signing", [False, True])
def test_a_site_on_one_machine(tmp_path_factory: pytest.TempPathFactory, signing: bool) -> None:
    directory = tmp_path_factory.mktemp("ipc")
    config = {"path": str(directory / "ipc"), "symmetric_encryption_keys": [KEY], "signing": signing}
    layers = {
        "default": {"BACKEND": "channelsq.layers.IPCChannelLayer", "CONFIG": config},
        "other": {"BACKEND": "channelsq.layers.InMemoryChannelLayer"},
    }
    site = Site(layers, directory / "logs", TEST_MARKS=str(directory))
    try:
        _, url = site.interface()
        worker = site.worker("-P", "threads")
        with socket_on(url) as socket:
            assert ask(socket, "where") == f"default default {worker.pid}"
            assert ask(socket, "fail") == "retried on default"
            site.run("shell", "-c", "from channelsq import Group; Group('room').send({'text': 'from the shell'})")
            assert socket.recv(timeout=30) == "from the shell"
        assert "was refused" not in worker.output
    finally:
        site.processes.stop()


def test_dead_letters_are_shown_decrypted() -> None:
    """``manage.py deadletters`` shows keys and values, if it has the keys."""
    encryption = Encryption("channelsq", [KEY.encode()])
    content = codec.unpack(encryption.content("jobs", codec.dumps({"text": "hello"})))
    body = msgpack.packb([["jobs", content], {}, {}])
    letter = _letter("jobs", "1-0", {b"m": encode_compact("jobs", "1", body, None), b"d": b"5"})
    assert _summary(letter, encryption) == "text"
    assert _summary(letter).startswith("(is encrypted with another key")


def test_the_check_tells_of_malformed_keys(tmp_path_factory: pytest.TempPathFactory) -> None:
    """``manage.py check`` fails, and shows no key."""
    config = {"url": "redis://127.0.0.1:1/0", "symmetric_encryption_keys": ["too short"]}
    layers = {
        "default": {"BACKEND": "channelsq.layers.RedisChannelLayer", "CONFIG": config},
        "other": {"BACKEND": "channelsq.layers.InMemoryChannelLayer"},
    }
    site = Site(layers, tmp_path_factory.mktemp("check") / "logs")
    try:
        check = site.manage("check")
        assert check.wait(60) == 1
        assert "channelsq.E001" in check.output
        assert "CONFIG['symmetric_encryption_keys'][0] has 9 characters" in check.output
        assert "too short" not in check.output
    finally:
        site.processes.stop()
