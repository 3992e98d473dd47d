"""The doctor's look at one Redis: each trouble is made on a server of the test's own."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from channelsq.doctor import redis_examination
from channelsq.doctor.findings import Finding, Level
from channelsq.doctor.redis_examination import ServerExamination
from channelsq.layers import KombuChannelLayer, RedisChannelLayer
from channelsq.layers.redis_servers import redis_servers
from tests.support.old_redis import old_redis
from tests.support.ports import free_port
from tests.support.sentinels import Sentinels
from tests.support.servers import RedisServer, running_redis

pytestmark = pytest.mark.redis

USER = "+@read +@write +@scripting +@transaction +@connection +info +time"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_redis(tmp_path_factory.mktemp("redis")) as made:
        yield made


@pytest.fixture
def client(server: RedisServer) -> Iterator[Any]:
    with redis.Redis(port=server.port, decode_responses=True) as client:
        before = {
            name: client.config_get(name)[name] for name in ("maxmemory", "maxmemory-policy", "maxclients", "save")
        }
        yield client
        client.execute_command("REPLICAOF", "NO", "ONE")
        client.flushall()
        for name, value in before.items():
            client.config_set(name, value)


def examine(url: str, kind: type[KombuChannelLayer] = RedisChannelLayer, **config: Any) -> dict[str, Finding]:
    layer = kind(url=url, **config)
    try:
        found = [each for one in redis_servers(layer) for each in ServerExamination("default", one)()]
    finally:
        layer.close()
    return {each.check: each for each in found}


def test_a_server_in_order(server: RedisServer, client: Any) -> None:
    found = examine(server.url)
    assert {check: each.level for check, each in found.items() if each.level is not Level.OK} == {
        "redis.persistence": Level.WARNING
    }
    assert client.keys() == []  # what was tried is gone
    client.config_set("save", "3600 1")
    assert examine(server.url)["redis.persistence"].level is Level.OK


def test_a_server_that_evicts(server: RedisServer, client: Any) -> None:
    client.config_set("maxmemory-policy", "allkeys-lru")
    assert examine(server.url)["redis.policy"].level is Level.WARNING
    client.config_set("maxmemory", "100mb")
    policy = examine(server.url)["redis.policy"]
    assert policy.level is Level.ERROR
    assert policy.remedy == "Set maxmemory-policy to noeviction."
    client.config_set("maxmemory", client.info("memory")["used_memory"] + 1_000_000)
    for number in range(200):
        client.set(f"key{number}", "x" * 10_000)
    assert examine(server.url)["redis.evicted"].data["evicted"] > 0


def test_a_server_that_is_full(server: RedisServer, client: Any) -> None:
    client.set("much", "x" * 1_000_000)
    client.config_set("maxmemory", int(client.info("memory")["used_memory"] * 0.99))
    found = examine(server.url)
    assert found["redis.memory"].level is Level.ERROR
    assert found["redis.writes"].level is Level.ERROR
    assert "redis.rights" not in found


def test_few_connections_are_left(server: RedisServer, client: Any) -> None:
    with redis.Redis(port=server.port, single_connection_client=True) as other:
        other.ping()
        client.config_set("maxclients", 3)
        clients = examine(server.url)["redis.clients"]
        assert clients.level is Level.WARNING
        assert clients.data["maxclients"] == 3


def test_a_replica(server: RedisServer, client: Any) -> None:
    client.execute_command("REPLICAOF", "127.0.0.1", "1")
    found = examine(server.url)
    assert found["redis.role"].level is Level.ERROR
    assert found["redis.writes"].level is Level.ERROR


def test_clocks_that_differ(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = time.time() + 60
    monkeypatch.setattr(time, "time", lambda: ahead)
    clock = examine(server.url)["redis.clock"]
    assert clock.level is Level.WARNING
    assert 50 < clock.data["seconds"] < 70
    assert "ahead of" in clock.text


def test_an_old_server(tmp_path: Path) -> None:
    with old_redis(tmp_path) as url:
        found = examine(url)
        assert found["redis.version"].level is Level.ERROR
        assert "Redis 6.2.14" in found["redis.version"].text
        assert examine(url, KombuChannelLayer)["redis.version"].level is Level.OK


# -- rights -----------------------------------------------------------------------------------------


@pytest.fixture
def user(server: RedisServer, client: Any) -> Iterator[Callable[[str], str]]:
    """Make a user with rights, as ``ACL SETUSER`` takes them; gives the URL for it."""

    def make(rights: str) -> str:
        client.execute_command("ACL", "SETUSER", "few", "reset", "on", ">s3cr3tpassw0rd", *rights.split())
        return f"redis://few:s3cr3tpassw0rd@127.0.0.1:{server.port}/0"

    yield make
    client.execute_command("ACL", "DELUSER", "few")


def test_rights_that_are_enough(user: Callable[[str], str], client: Any) -> None:
    url = user(f"~channelsq:* ~stream:* ~stream-lease:* ~stream-dead:* {USER} -client")
    found = examine(url)
    assert found["redis.rights"].level is Level.OK
    assert found["redis.unblock"].level is Level.WARNING
    assert client.keys() == []
    found = examine(
        user(f"~mine:channelsq:* ~channelsq:* ~mine:stream* {USER}"),
        transport_options={"global_keyprefix": "mine:"},
    )
    assert found["redis.rights"].level is Level.OK
    assert "redis.unblock" not in found


@pytest.mark.parametrize(
    ("rights", "remedy"),
    [
        (f"~* {USER} -xgroup -eval", "+eval +xgroup|create +xgroup|createconsumer +xgroup|delconsumer"),
        (f"~* {USER} -@transaction", "+multi"),
        (f"~* {USER} -script|exists", "+script|exists"),
        (f"~channelsq:* ~stream:* {USER}", "~stream-lease:* ~stream-dead:*"),
        (f"~stream* {USER}", "~channelsq:group:* ~channelsq:member:* ~channelsq:sockets:*"),
    ],
    ids=["commands", "transactions", "scripts", "keys", "groups"],
)
def test_rights_that_lack(user: Callable[[str], str], client: Any, rights: str, remedy: str) -> None:
    url = user(rights)
    found = examine(url)["redis.rights"]
    assert found.level is Level.ERROR
    assert found.remedy.startswith(f"ACL SETUSER few {remedy}")
    assert "s3cr3t" not in f"{found.text}{found.remedy}{dict(found.data)}"
    assert client.keys() == []
    # The remedy is one.
    client.execute_command(*found.remedy.split())
    assert examine(url)["redis.rights"].level is Level.OK


@pytest.mark.parametrize(
    ("rights", "remedy"),
    [
        (f"~* {USER}", ""),
        (f"~* {USER} -lpush -watch", "+lpush +watch"),
        (f"~channelsq* {USER}", "~unacked ~unacked_index ~unacked_mutex"),
    ],
    ids=["enough", "commands", "keys"],
)
def test_rights_that_kombus_own_transport_needs(user: Callable[[str], str], rights: str, remedy: str) -> None:
    url = user(rights)
    found = examine(url, KombuChannelLayer)["redis.rights"]
    assert found.remedy == (remedy and f"ACL SETUSER few {remedy}")
    assert found.level is (Level.ERROR if remedy else Level.OK)


def test_info_and_config_may_be_forbidden(user: Callable[[str], str]) -> None:
    found = examine(user(f"~* {USER} -info"))
    assert found["redis.info"].level is Level.WARNING
    assert found["redis.rights"].level is Level.OK
    assert "cannot be asked" in examine(user(f"~* {USER} -config"))["redis.persistence"].text


def test_a_wrong_password(server: RedisServer) -> None:
    found = examine(f"redis://few:s3cr3tpassw0rd@127.0.0.1:{server.port}/0")["redis.reachable"]
    assert found.level is Level.ERROR
    assert "user and password" in found.remedy
    assert "s3cr3t" not in found.text


def test_the_rights_are_those_that_the_sources_use() -> None:
    """Every command in the package's scripts is tried."""
    root = Path(redis_examination.__file__).parent.parent
    used = subprocess.run(
        ["grep", "-rhoE", r"redis\.p?call\('[A-Z]+", "--include=*.lua", str(root)],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    commands = {each.partition("'")[2] for each in used}
    source = (root / "doctor" / "rights.py").read_text()
    assert {command for command in commands if f'"{command}"' not in source} == set()


def test_sentinels(sentinels: Sentinels) -> None:
    found = examine(sentinels.url)
    assert found["redis.sentinels"].text == "3 sentinels name the primary 'mymaster'."
    assert found["redis.role"].data["replicas"] == 2
    first, _, _ = sentinels.url.partition(";")
    one = examine(f"{first}/0?master_name=mymaster")
    assert one["redis.sentinels"].level is Level.WARNING
    assert one["redis.sentinels"].text == "The URL names 1 sentinel."
    away = examine(sentinels.url.replace(str(sentinels.ports[1]), str(free_port())))
    assert away["redis.sentinels"].level is Level.WARNING
    assert away["redis.sentinels"].text.startswith("2 of 3 sentinels name the primary 'mymaster': 127.0.0.1:")
    wrong = examine(sentinels.url.replace("mymaster", "theirmaster"))
    assert "correct master_name" in wrong["redis.reachable"].text
