"""Somebody on the demo site without a browser: logs in by HTTP and chats by WebSocket."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from websockets import Origin
from websockets.sync.client import ClientConnection, connect

from tests.support.demo import PASSWORD


class Visitor:
    """One user with cookies.

    Args:
        url: where the site's server listens, such as ``http://127.0.0.1:8000``.
        host: the name that the user's browser has asked for; ``url``'s if left out.
        behind_https: whether there is a proxy in front that speaks HTTPS with the user.
    """

    def __init__(self, url: str, host: str | None = None, *, behind_https: bool = False) -> None:
        self.url = url
        self.headers = {"Host": host or url.partition("://")[2]}
        self.origin = f"{'https' if behind_https else 'http'}://{self.headers['Host']}"
        if behind_https:
            self.headers["X-Forwarded-Proto"] = "https"
        self._client = httpx.Client(base_url=url, timeout=30, trust_env=False)

    def close(self) -> None:
        """Give back the connections."""
        self._client.close()

    def _with_cookies(self, **more: str) -> dict[str, str]:
        # Not left to the client, which keeps secure cookies from the plain connection behind a proxy.
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in self._client.cookies.jar)
        return {**self.headers, **({"Cookie": cookies} if cookies else {}), **more}

    def get(self, path: str) -> httpx.Response:
        """Get a page."""
        return self._client.get(path, headers=self._with_cookies())

    def post(self, path: str, **fields: str) -> httpx.Response:
        """Get a page, and send its form with ``fields``."""
        page = self.get(path)
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
        assert token, f"{path} has no form:\n{page.status_code} {page.text}"
        data = {"csrfmiddlewaretoken": token[1], **fields}
        headers = self._with_cookies(Referer=f"{self.origin}{path}", Origin=self.origin)
        return self._client.post(path, data=data, headers=headers)

    def log_in(self, name: str = "alice") -> None:
        """Log in as one of the demo's users."""
        answer = self.post("/accounts/login/", username=name, password=PASSWORD)
        assert answer.status_code == 302, answer.text

    @contextmanager
    def room(self, slug: str = "lobby") -> Iterator[ChatSocket]:
        """The socket of a room's page; its welcome has been read."""
        headers = {key: value for key, value in self._with_cookies().items() if key != "Host"}
        with connect(
            f"ws://{self.headers['Host']}/chat/{slug}/",
            sock=socket.create_connection(("127.0.0.1", int(self.url.rpartition(":")[2])), timeout=10),
            origin=Origin(self.origin),
            additional_headers=headers,
            proxy=None,
        ) as connection:
            room = ChatSocket(connection)
            room.wait_for(type="welcome")
            yield room


class ChatSocket:
    """A room's socket."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def say(self, text: str) -> None:
        """Send a message."""
        self.connection.send(json.dumps({"type": "message", "text": text}))

    def wait_for(self, timeout: float = 20.0, **expected: Any) -> dict[str, Any]:
        """Read frames until one has all of ``expected``; TimeoutError if none comes."""
        deadline = time.monotonic() + timeout
        while True:
            frame: dict[str, Any] = json.loads(self.connection.recv(timeout=max(0, deadline - time.monotonic())))
            if expected.items() <= frame.items():
                return frame

    def echo(self, text: str) -> None:
        """Say something, and wait until the server has shown it to the room."""
        self.say(text)
        self.wait_for(type="message", text=text)
