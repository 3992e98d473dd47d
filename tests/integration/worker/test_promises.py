"""Celery's promises of tasks hold for consumers on each of its pools; one worker a pool is asked for all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from celery import Celery
from websockets.sync.client import connect

from tests.support.brokers import Broker, LayerClient, assert_echo_sends_events, operator
from tests.support.demo import fresh_redis
from tests.support.project import Project
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120), pytest.mark.ways(r"redis-streams gevent")]

WAYS = [
    "redis-streams gevent",
    "redis-streams threads",
    "redis-streams prefork",
    "redis-streams solo",
    pytest.param("rabbitmq gevent", marks=pytest.mark.rabbitmq),
]

#: Consumers that may run at once.
AT_ONCE = 12


class Site:
    """The test project with one worker.

    Args:
        directory: an existing, empty one.
        broker: of Celery, and of the layer.
        pool: the worker's.
    """

    def __init__(self, directory: Path, broker: Broker, pool: str) -> None:
        self.broker = broker
        self.pool = pool
        env = {key: value for key, value in broker.env.items() if key != "DJANGO_SETTINGS_MODULE"}
        self.project = Project(directory, broker.url, {**env, "TEST_CAPACITY": "1000"})
        self.at_once = 1 if pool == "solo" else AT_ONCE

    def start(self) -> None:
        """Start interface server and worker."""
        self.project.start_interface()
        threads = ("--channel-threads", str(self.at_once))
        self.project.start_worker("-P", self.pool, "-c", "2" if self.pool == "prefork" else str(self.at_once), *threads)

    @property
    def is_prefork(self) -> bool:
        """True if consumers run in a process of their own."""
        return self.pool == "prefork"


@pytest.fixture(scope="module", params=WAYS)
def site(request: pytest.FixtureRequest, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    kind, pool = request.param.split()
    groups = fresh_redis(redis_url)
    url = groups.replace("redis:", "redis-streams:") if kind != "rabbitmq" else request.getfixturevalue("rabbitmq_url")
    made = Site(tmp_path_factory.mktemp("promises"), Broker(url, groups), pool)
    try:
        made.start()
        yield made
    finally:
        made.project.stop()


@pytest.fixture
def client(site: Site) -> Iterator[LayerClient]:
    client = LayerClient(site.broker)
    yield client
    client.close()


@pytest.fixture
def app(site: Site) -> Iterator[Celery]:
    with operator(site.broker) as app:
        yield app


def told(answers: Any) -> Any:
    """The answer of the one worker to a control command."""
    ((answer,),) = [list(each.values()) for each in answers]
    return answer


def asked(app: Celery, command: str, *args: Any) -> Any:
    """Return the worker's answer to ``inspect``."""
    found = wait_until(lambda: getattr(app.control.inspect(timeout=3, limit=1), command)(*args), "an answer", 20)
    (answer,) = found.values()
    return answer


# -- sockets, views and ordinary tasks


def test_sockets_groups_views_and_tasks(site: Site, app: Celery) -> None:
    with connect(f"{site.project.ws_url}/chat/lobby/") as socket:
        socket.send("hello")
        assert socket.recv(20) == "lobby: hello"
        assert httpx.get(f"{site.project.url}/", trust_env=False).text == "hello"
        assert socket.recv(20) == "from a view"
        app.send_task("tests.project.tasks.push", ("room", "from a task"))
        assert socket.recv(20) == "from a task"


def test_consumers_that_wait_run_at_once_beside_tasks(site: Site, client: LayerClient, app: Celery) -> None:
    for number in range(site.at_once):
        client.send("slow", {"seconds": 1, "order": number})
    answers = [client.receive() for _ in range(site.at_once)]
    assert [sorted(set(answer) - {"pid"}) for answer in answers] == [["started"]] * site.at_once
    if site.pool != "solo":
        app.send_task("tests.project.tasks.write", ("tasks", "beside"))
        site.project.wait_for_record("tasks", "beside")
    answers = [client.receive() for _ in range(2 * site.at_once)]
    assert max(answer.get("running", 0) for answer in answers) == site.at_once
    where = "12 greenlets of the worker" if site.pool == "gevent" else "process" if site.is_prefork else "thread"
    assert where in site.project.worker.output


# -- tries and outcomes


def test_a_retry_is_the_same_message(site: Site, client: LayerClient) -> None:
    client.send("bound", {"order": 2})
    answer = client.receive()
    assert (answer["retries"], answer["task"]) == (2, "tests.project.consumers.bound")
    assert client.receive() == {"done": 2}
    assert site.project.recorded("bound").count(answer["id"]) == 3
    client.send("flaky", {"key": client.reply_channel, "order": 3})
    assert client.receive()["tries"] == 3
    assert client.receive() == {"done": 3}
    client.send("later", {"key": f"later {client.reply_channel}", "until": 3, "order": 4})
    assert client.receive()["tries"] == 3
    assert client.receive() == {"done": 4}


def test_failed_rejected_and_ignored(site: Site, client: LayerClient) -> None:
    for order, channel in enumerate(("fail", "rejected", "ignored", "leave")):
        client.send(channel, {"order": order})
        assert client.receive() == {"done": order}
    assert client.nothing()


def test_signals(client: LayerClient) -> None:
    for on in (True, False):
        client.send("listen", {"on": on})
        client.receive()
        client.send("echo", {"value": 1})
        client.receive()
        client.send("prerun")
        assert ("tests.project.consumers.echo" in client.receive()["prerun"]) is on


def test_what_celery_says_of_the_running_task(client: LayerClient) -> None:
    client.send("request")
    answer = client.receive()
    assert answer["id"] == answer["message_id"] == answer["current"]
    assert answer["args"] == [answer["routing_key"]] == ["request"]
    assert answer["called_directly"] is False
    assert answer["name"] == "tests.project.consumers.request"


# -- inspect and control


def test_delay_inspect_and_revoke(client: LayerClient, app: Celery) -> None:
    client.send("echo", {"value": "delayed", "order": 9}, delay=300)
    client.send("echo", {"value": "soon"}, delay=0.3)
    assert client.receive()["echo"] == "soon"

    def scheduled() -> list[str]:
        return [each["request"]["id"] for each in asked(app, "scheduled")]

    # The other one may still be listed.
    wait_until(lambda: len(scheduled()) == 1, "the delayed message alone")
    (identity,) = scheduled()
    assert asked(app, "query_task", identity)[identity][0] == "scheduled"
    told(app.control.revoke(identity, reply=True, timeout=5, limit=1))
    assert identity in asked(app, "revoked")
    client.send("echo", {"value": "delayed less", "order": 10}, delay=2)
    (identity,) = wait_until(lambda: set(scheduled()) - {identity}, "the other one")
    told(app.control.revoke(identity, reply=True, timeout=5, limit=1))
    assert client.receive() == {"done": 10}  # so that its socket goes on
    assert client.nothing()


def test_inspect_and_terminate(site: Site, client: LayerClient, app: Celery) -> None:
    for number in range(site.at_once + 1):
        client.send("slow", {"seconds": 0, "until": "inspected.go", "order": number})
    for _ in range(site.at_once):
        assert "started" in client.receive()
    active = asked(app, "active")
    assert [each["name"] for each in active] == ["tests.project.consumers.slow"] * site.at_once
    # Of its content only the keys: cookies and tokens do not belong on an operator's screen.
    assert active[0]["args"] == "('slow', ['reply_channel', 'seconds', 'until', 'order'])"
    assert "inspected.go" not in str(active)
    if site.pool != "solo" and site.broker.url.startswith("redis"):  # whose one thread runs a consumer
        assert [each["name"] for each in asked(app, "reserved")] == ["tests.project.consumers.slow"]
    answer = told(app.control.revoke(active[0]["id"], terminate=True, reply=True, timeout=5, limit=1))
    assert "cannot be terminated" in answer["error"]
    site.project.let_go("inspected")
    done, finished = 0, 0
    while (done, finished) != (site.at_once + 1, site.at_once + 1):
        answer = client.receive()
        done, finished = done + ("done" in answer), finished + ("finished" in answer)
    stats = asked(app, "stats")
    assert stats["total"]["tests.project.consumers.slow"] > site.at_once
    assert "echo" in stats["Channel layers"]["reads"]["default"]
    assert {"celery", "echo", "websocket.receive"} <= {each["name"] for each in asked(app, "active_queues")}


def test_channels_are_read_no_more_and_again(client: LayerClient, app: Celery) -> None:
    assert "ok" in told(app.control.cancel_consumer("echo", reply=True, timeout=5, limit=1))
    assert "echo" not in {each["name"] for each in asked(app, "active_queues")}
    client.send("books")
    client.receive()  # since then it reads other channels alone
    client.send("echo", {"value": 1})
    client.send("slow", {"seconds": 0})
    assert [sorted(client.receive())[0] for _ in range(2)] == ["pid", "finished"]
    assert client.nothing()
    assert "ok" in told(app.control.add_consumer("echo", reply=True, timeout=5, limit=1))
    assert client.receive()["echo"] == 1


def test_a_rate_limit_by_control(client: LayerClient, app: Celery) -> None:
    name = "tests.project.consumers.echo"
    assert "ok" in told(app.control.rate_limit(name, "1/m", reply=True, timeout=5, limit=1))
    try:
        for value in range(2):
            client.send("echo", {"value": value})
        assert client.receive()["echo"] == 0
        client.send("request")  # overtakes the second one
        assert "routing_key" in client.receive()
        assert client.nothing()
        # So Flower takes a limit away; the one that waits need not wait for the minute.
        assert "ok" in told(app.control.rate_limit(name, "0", reply=True, timeout=5, limit=1))
        client.send("echo", {"value": 2})
        assert sorted(client.receive()["echo"] for _ in range(2)) == [1, 2]
    finally:
        none: Any = None  # takes the limit away, which celery-types leaves out
        told(app.control.rate_limit(name, none, reply=True, timeout=5, limit=1))
    client.send("echo", {"value": 3})
    assert client.receive()["echo"] == 3


def test_a_time_limit_by_control(site: Site, client: LayerClient, app: Celery) -> None:
    """A pool that cannot keep it says so; a channel process hands its messages over."""
    name = "tests.project.consumers.slow"
    answer = told(app.control.time_limit(name, hard=1, reply=True, timeout=5, limit=1))
    try:
        if not site.is_prefork:
            assert "enforces no time limits" in answer["error"]
            return
        assert "ok" in answer
        client.send("slow", {"seconds": 60, "order": 1})
        assert "started" in client.receive()
        assert client.receive(30) == {"done": 1}
        site.project.worker.wait_for_output("Hard time limit .* exceeded")
    finally:
        told(app.control.time_limit(name, reply=True, timeout=5, limit=1))


def test_events(client: LayerClient, app: Celery) -> None:
    assert_echo_sends_events(app, client)


# -- its end, which is the last of these tests


def test_warm_shutdown_finishes_what_runs(site: Site, client: LayerClient) -> None:
    worker = site.project.worker
    client.send("slow", {"seconds": 1, "order": 1})
    assert "started" in client.receive()
    assert worker.terminate() == 0
    assert "finished" in client.receive()
    assert client.receive() == {"done": 1}
    said = worker.output
    assert "poll_failed" not in said
    assert "reading failed" not in said
    assert "failed in the worker" not in said
    assert json.dumps(site.project.interface.output).count("Traceback") == 0
