"""Ways in which a Redis server answers, and refuses: each begins, lasts, and ends."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import redis

from tests.support.ports import free_port
from tests.support.servers import RedisServer
from tests.support.waiting import wait_until

Refusal = Callable[[RedisServer], Any]

#: Options of a server that these need.
OPTIONS = ("--busy-reply-threshold", "100")


def _client(server: RedisServer, **options: Any) -> redis.Redis:
    return redis.Redis(port=server.port, decode_responses=True, **options)


@contextmanager
def readonly(server: RedisServer) -> Iterator[None]:
    """A managed failover: the master is a replica for a while."""
    with _client(server) as client:
        client.replicaof("127.0.0.1", free_port())
        try:
            yield
        finally:
            client.replicaof("NO", "ONE")


@contextmanager
def masterdown(server: RedisServer) -> Iterator[None]:
    """The same, and it does not answer reads either."""
    with _client(server) as client:
        client.config_set("replica-serve-stale-data", "no")
        with readonly(server):
            yield
        client.config_set("replica-serve-stale-data", "yes")


@contextmanager
def noreplicas(server: RedisServer) -> Iterator[None]:
    """Fewer replicas than it must have to write."""
    with _client(server) as client:
        client.config_set("min-replicas-to-write", 1)
        try:
            yield
        finally:
            client.config_set("min-replicas-to-write", 0)


@contextmanager
def full(server: RedisServer) -> Iterator[None]:
    """No memory left, and nothing may be evicted."""
    with _client(server) as client:
        client.config_set("maxmemory", 1)
        try:
            yield
        finally:
            client.config_set("maxmemory", 0)


@contextmanager
def misconf(server: RedisServer) -> Iterator[None]:
    """It cannot save, as on a full disk."""
    in_the_way = Path(server.directory) / "dump.rdb"
    in_the_way.unlink(missing_ok=True)
    in_the_way.mkdir()
    (in_the_way / "file").touch()

    def saved() -> str:
        state = client.info("persistence")
        return "" if state["rdb_bgsave_in_progress"] else str(state["rdb_last_bgsave_status"])

    with _client(server) as client:
        client.config_set("save", "3600 1000000")
        client.bgsave()
        wait_until(lambda: saved() == "err", "saving to fail")
        try:
            yield
        finally:
            (in_the_way / "file").unlink()
            in_the_way.rmdir()
            client.bgsave()
            wait_until(lambda: saved() == "ok", "saving to succeed")
            client.config_set("save", "")


@contextmanager
def busy(server: RedisServer) -> Iterator[None]:
    """A script runs and runs."""

    def loop() -> None:
        with _client(server, socket_timeout=None) as client, suppress(redis.RedisError):
            client.eval("while true do end", 0)

    def is_busy() -> bool:
        with _client(server) as client:
            try:
                client.get("x")
            except redis.ResponseError as error:
                return str(error).startswith("BUSY")
        return False

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        wait_until(is_busy, "the server to be busy")
        yield
    finally:
        with socket.create_connection(("127.0.0.1", server.port)) as plain:
            plain.sendall(b"SCRIPT KILL\r\n")
            plain.recv(100)
        thread.join(10)


@contextmanager
def wrongpass(server: RedisServer) -> Iterator[None]:
    """The password was changed, and every connection ends."""
    with _client(server) as client:
        client.config_set("requirepass", "another")
        client.execute_command("CLIENT", "KILL", "SKIPME", "yes")
        try:
            yield
        finally:
            client.config_set("requirepass", "")


@contextmanager
def maxclients(server: RedisServer) -> Iterator[None]:
    """Every connection ends, and there may be but one, which is another's."""
    with _client(server) as client:
        before = client.config_get("maxclients")["maxclients"]
        client.execute_command("CLIENT", "KILL", "SKIPME", "yes")
        client.config_set("maxclients", 1)
        client.execute_command("CLIENT", "KILL", "SKIPME", "yes")
        try:
            yield
        finally:
            client.config_set("maxclients", before)


@contextmanager
def loading(server: RedisServer) -> Iterator[None]:
    """It was restarted, and reads a file for a while."""
    with _client(server) as client:
        with client.pipeline(transaction=False) as pipe:
            for number in range(4000):
                pipe.set(f"ballast:{number}", "x")
            pipe.execute()
        with suppress(redis.ConnectionError):
            client.shutdown(save=True)
    assert server.process is not None
    server.process.wait()
    server.stop()
    before = list(server.options)
    # It looks at connections only so often while it loads.
    server.options += ["--key-load-delay", "1500", "--loading-process-events-interval-bytes", "1024"]
    server.start_loading()
    yield
    with _client(server, retry=None) as client:

        def loaded() -> bool:
            try:
                return not client.info("persistence")["loading"]
            except redis.ConnectionError:
                return False

        wait_until(loaded, "the file to be read", 30)
        client.config_set("key-load-delay", 0)
        client.delete(*(f"ballast:{number}" for number in range(4000)))
    server.options[:] = before


#: By what the server says.
REFUSALS: dict[str, Refusal] = {
    "READONLY": readonly,
    "MASTERDOWN": masterdown,
    "NOREPLICAS": noreplicas,
    "OOM": full,
    "MISCONF": misconf,
    "BUSY": busy,
    "WRONGPASS": wrongpass,
    "MAXCLIENTS": maxclients,
    "LOADING": loading,
}
