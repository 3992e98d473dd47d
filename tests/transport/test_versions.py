"""Parts of Kombu's and redis-py's that differ between the versions that pyproject.toml allows."""

from __future__ import annotations

import ast
import subprocess
import sys
from typing import Any

import pytest
import redis

from channelsq.redis_io.blocking import take_connection
from channelsq.transport.kombu_channel_internals import KombuChannel
from tests.support.processes import ROOT
from tests.support.servers import RedisServer
from tests.support.versions import release
from tests.transport.broker import Peer, admin, queue

pytestmark = pytest.mark.redis

#: Names that not every allowed version of Kombu, or of redis-py, has alike, and the modules that use them.
VARIED = dict.fromkeys(
    [
        "_expires", "_flush_brpop_reauth", "_flush_listen_reauth", "keyprefix_binding_permanent",
        "maybe_refresh_binding_expiry", "maybe_reauth", "_maybe_update_queues_expire", "_get_publish_topics",
    ],
    "kombu_channel_internals.py",
) | {"get_connection": "blocking.py"}  # fmt: skip


@pytest.fixture
def peer(url: str) -> Any:
    with Peer(url) as made:
        yield made


def test_what_versions_differ_in_is_used_in_one_module() -> None:
    used = set()
    for path in (ROOT / "channelsq").rglob("*.py"):
        if path.parent.name == "sources":  # whose _expires is that of Celery's requests
            continue
        if path.name == "waiting_pool.py":  # whose get_connection passes on whatever it is called with
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in VARIED:
                used.add((path.name, VARIED[node.attr]))
    assert ("blocking.py", "blocking.py") in used  # the others are asked for by getattr()
    assert used <= {(name, name) for name in VARIED.values()}


def test_a_queues_expires_is_an_argument_and_is_known(peer: Peer, server: RedisServer) -> None:
    short = queue("short", expires=30.5)
    peer.publish(short, 1)
    assert peer.channel.queue_expires == {"short": 30500}
    with admin(server) as client:
        assert 0 < client.pttl("stream:short") <= 30500
    peer.forget_declared()
    queue("short")(peer.channel).declare()  # by somebody who wants it for good
    assert peer.channel.queue_expires == {}


def test_queues_are_consumed_in_their_order(url: str) -> None:
    names = [f"queue-{number}" for number in range(12)]
    with Peer(url, queue_order_strategy="priority") as peer:
        for name in reversed(names):
            peer.publish(queue(name), name)
        peer.consume(*map(queue, names), prefetch=1)
        assert list(peer.channel.active_queues) == names
        assert peer.receive(len(names)) == names


def test_a_deleted_queue_leaves_no_binding(peer: Peer, server: RedisServer) -> None:
    peer.publish(queue("gone"), 1)
    queue("gone")(peer.channel).delete()
    with admin(server) as client:
        assert [key for key in client.keys("_kombu.binding*") if key.endswith("gone")] == []


@pytest.mark.filterwarnings("error::DeprecationWarning")
def test_a_connection_is_taken_without_a_warning(server: RedisServer) -> None:
    pool = redis.ConnectionPool(port=server.port)
    connection = take_connection(pool)
    pool.release(connection)
    pool.disconnect()


def test_polls_wait_as_long_as_kombus() -> None:
    assert KombuChannel.brpop_timeout == 1
    if release("kombu") >= (5, 6):
        from kombu.transport.redis import Transport

        assert Transport.brpop_timeout == KombuChannel.brpop_timeout


def test_whatever_makes_a_celery_app_finds_the_transport() -> None:
    """By an entry point, as nothing of channelsq is imported there."""
    program = (
        "from celery import Celery; app = Celery('shop', broker='redis-streams://localhost/0'); "
        "print(type(app.connection().transport).__module__)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "channelsq.transport.streams_transport\n", done.stderr
