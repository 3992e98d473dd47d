"""A site of static files and a WebSocket server, both in the test's process, for pages of the browser library."""

from __future__ import annotations

import contextlib
import http.server
import threading
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

from tests.support.ports import free_port
from tests.support.waiting import wait_until


class Site:
    """Serves static files and a page of a test's own; with a strict content security policy."""

    def __init__(self, root: Path) -> None:
        self.pages: dict[str, str] = {}
        site = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args, directory=str(root))

            def do_GET(self) -> None:
                if self.path not in site.pages:
                    super().do_GET()
                    return
                body = f"<!doctype html><link rel=icon href=data:,>{site.pages[self.path]}".encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)


class Peer:
    """A WebSocket server on a port of its own, which can go away and come back."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"ws://127.0.0.1:{self.port}/"
        self.sockets: list[ServerConnection] = []
        self.received: list[str | bytes] = []
        #: Code and reason of each socket that has ended.
        self.closed: list[tuple[int | None, str | None]] = []
        self.refuse = False
        self._server: Server | None = None

    def start(self) -> None:
        """Listen."""
        self._server = serve(self._handle, "127.0.0.1", self.port, process_request=self._check)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _check(self, connection: ServerConnection, request: Any) -> Any:
        return connection.respond(403, "no") if self.refuse else None

    def _handle(self, connection: ServerConnection) -> None:
        self.sockets.append(connection)
        with contextlib.suppress(ConnectionClosed):
            for data in connection:
                self.received.append(data)
        self.closed.append((connection.close_code, connection.close_reason))

    def socket(self, number: int = 0) -> ServerConnection:
        """The socket of the so many-th connection, once it is there."""
        wait_until(lambda: len(self.sockets) > number, f"connection {number}")
        return self.sockets[number]

    def stop(self) -> None:
        """Stop listening, and close every socket (1001)."""
        if self._server is not None:
            self._server.shutdown()
            self._server = None
