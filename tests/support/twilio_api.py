"""A local HTTP server that plays Twilio's API, and the signatures of Twilio's webhooks."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from tests.support.waiting import wait_until


class Call(NamedTuple):
    """A call of the API."""

    path: str
    authorization: str
    form: dict[str, list[str]]


class TwilioApi:
    """The server; each call takes the next of :attr:`answers`, or is answered with 201."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        #: Status, body and headers of the next answers.
        self.answers: list[tuple[int, Any, dict[str, str]]] = []
        #: Set while calls are answered.
        self.is_open = threading.Event()
        self.is_open.set()
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                api.calls.append(Call(self.path, self.headers.get("authorization", ""), parse_qs(body)))
                number = len(api.calls)
                status, told, headers = (
                    api.answers.pop(0) if api.answers else (201, {"sid": f"SM{number}", "status": "queued"}, {})
                )
                api.is_open.wait(30)
                text = json.dumps(told).encode()
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(text))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text)

            def handle(self) -> None:
                try:
                    super().handle()
                except ConnectionError:  # the gateway was killed
                    self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the library
                """Stay quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def wait_for_calls(self, count: int) -> list[Call]:
        """Wait until the API was called so often."""
        wait_until(lambda: len(self.calls) >= count, f"{count} calls of the API", 15)
        return self.calls

    def stop(self) -> None:
        """Stop the server."""
        self.is_open.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


def signature(token: str, url: str, fields: Mapping[str, str]) -> str:
    """Return a webhook's signature."""
    text = url
    for name in sorted(fields):
        text += name + fields[name]
    return base64.b64encode(hmac.digest(token.encode(), text.encode(), hashlib.sha1)).decode()
