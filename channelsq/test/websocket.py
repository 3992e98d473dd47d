"""A client that acts as a browser's socket: with a path, headers, cookies, a session and a user."""

from __future__ import annotations

import copy
import json as json_module
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth import authenticate, login, logout
from django.contrib.sessions.backends.base import SessionBase
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.http.cookie import SimpleCookie

from channelsq.core.names import HTTP_REQUEST, WEBSOCKET_CONNECT, WEBSOCKET_DISCONNECT
from channelsq.session_support.session_stores import browser_session, session_for_reply_channel
from channelsq.test.base import Client


class WSClient(Client):
    """A client that acts as a browser's socket, or its HTTP requests, for consumers.

    Args:
        ordered: number the messages, as the interface server does.
        kwargs: see :class:`Client`.
    """

    def __init__(self, *, ordered: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        #: The number of the next message, if they are numbered.
        self.order = 0
        self._ordered = ordered
        self._headers: dict[str, Any] = {}
        self._cookies: dict[str, str] = {}
        self._session: SessionBase | None = None
        self._session_cookie = True

    # -- its user, headers and cookies

    def set_cookie(self, key: str, value: str) -> None:
        """Send a cookie with every message."""
        self._cookies[key] = value

    def get_cookies(self) -> dict[str, str]:
        """Return the cookies of the next message, with the session's until the first message was sent."""
        cookies = dict(self._cookies)
        if self._session_cookie and apps.is_installed("django.contrib.sessions"):
            key = self.session.session_key
            if key is not None:
                cookies[settings.SESSION_COOKIE_NAME] = key
        return cookies

    def set_header(self, key: str, value: Any) -> None:
        """Send a header with every message.

        Args:
            key: its name in lower case.
            value: str or bytes.

        Raises:
            ValueError: it is the cookie header.
        """
        if key.lower() == "cookie":
            raise ValueError("the cookie header is made of cookies: use set_cookie(name, value)")
        self._headers[key] = value

    @property
    def headers(self) -> dict[str, Any]:
        """The headers of the next message."""
        cookies: SimpleCookie = SimpleCookie(self.get_cookies())
        return {"cookie": cookies.output(header="", sep=";").strip().encode("ascii"), **copy.deepcopy(self._headers)}

    @property
    def session(self) -> SessionBase:
        """The browser's session, which is also the socket's; ``save()`` it after a change.

        Raises:
            ImproperlyConfigured: ``django.contrib.sessions`` is not installed.
        """
        if not apps.is_installed("django.contrib.sessions"):
            raise ImproperlyConfigured("a session needs 'django.contrib.sessions' in INSTALLED_APPS")
        if self._session is None:
            engine = getattr(settings, "CHANNEL_SESSION_ENGINE", None) or settings.SESSION_ENGINE
            if engine == settings.SESSION_ENGINE:
                self._session = session_for_reply_channel(self.reply_channel)
            else:
                self._session = browser_session("")
                self._session.create()
        return self._session

    def login(self, **credentials: Any) -> bool:
        """Log in as a view does; False if the credentials are wrong, the user is inactive, or there are no sessions."""
        if not apps.is_installed("django.contrib.sessions"):
            return False
        user = authenticate(**credentials)
        if user is None or not user.is_active:
            return False
        self._login(user)
        return True

    def force_login(self, user: Any, backend: str | None = None) -> None:
        """Log in a user without credentials.

        Args:
            user: a saved user.
            backend: the dotted path of an authentication backend; the first in the settings if left out.
        """
        user.backend = backend or settings.AUTHENTICATION_BACKENDS[0]
        self._login(user)

    def _login(self, user: Any) -> None:
        login(self._request(), user)
        self.session.save()

    def logout(self) -> None:
        """Log out."""
        logout(self._request())
        self.session.save()

    def _request(self) -> HttpRequest:
        request = HttpRequest()
        request.session = self.session
        return request

    # -- its messages

    def send(self, to: str, content: Mapping[str, Any] | None = None, text: Any = None, path: str = "/") -> None:
        """Send a message to a channel.

        Args:
            to: the channel's name.
            content: the message.  ``reply_channel``, ``path``, ``order`` and all other keys that the interface server
                sends to the channel are added.
            text: a frame's text; any value but a str is sent as JSON.
            path: may end with a query string, which only ``websocket.connect`` and ``http.request`` have.

        Raises:
            ValueError: the content has an ``order``, and this client numbers its messages.
        """
        if "?" in path and to != WEBSOCKET_CONNECT and not to.startswith("http."):
            path = path.partition("?")[0]
        super().send(to, self._get_content(content or {}, text, path, to))
        self._session_cookie = False

    def _get_content(
        self,
        content: Mapping[str, Any] = MappingProxyType({}),
        text: Any = None,
        path: str = "/",
        channel: str = WEBSOCKET_CONNECT,
    ) -> dict[str, Any]:
        """Return the whole next message.  Tests written for Channels 1 use this name."""
        path, _, query = path.partition("?")
        message: dict[str, Any] = {"reply_channel": self.reply_channel, "path": path}
        if channel in (WEBSOCKET_CONNECT, HTTP_REQUEST):
            message.update(self._request_facts(query, is_socket=channel == WEBSOCKET_CONNECT))
        elif channel == WEBSOCKET_DISCONNECT:
            message.update(code=1000, reason="")
        message.update(copy.deepcopy(dict(content)))
        if self._ordered:
            if "order" in message:
                raise ValueError("a client made with ordered=True numbers its messages itself: leave out 'order'")
            message["order"] = self.order
            self.order += 1
        said = message.get("text") if text is None else text
        if said is not None:
            message["text"] = said if isinstance(said, str) else json_module.dumps(said)
        return message

    def _request_facts(self, query: str, *, is_socket: bool) -> dict[str, Any]:
        """Return the interface server's data about a request, besides its path."""
        headers = {"host": "testserver", **self.headers}
        facts = {
            "scheme": "ws" if is_socket else "http",
            "query_string": query.encode(),
            "root_path": "",
            "headers": [[_as_bytes(name), _as_bytes(value)] for name, value in headers.items() if value != b""],
            "client": ["127.0.0.1", 50000],
            "server": ["testserver", 80],
        }
        if is_socket:
            return facts
        return {**facts, "http_version": "1.1", "method": "GET", "body": b"", "body_channel": None}

    def consume(self, channel: str, fail_on_none: bool = True, check_accept: bool = True) -> Any:
        """Act as :meth:`Client.consume`, and check the accept.

        Args:
            channel: the channel's name.
            fail_on_none: fail if there is no message, or no consumer for it.
            check_accept: fail if the first reply of ``websocket.connect``'s consumer is not the accept.

        Raises:
            AssertionError: there is no message or no consumer for it, or the socket was not accepted.
        """
        result = super().consume(channel, fail_on_none=fail_on_none)
        if channel == WEBSOCKET_CONNECT and check_accept:
            received = self.receive(json=False)
            if received != {"accept": True}:
                raise AssertionError(f"the socket was not accepted: its first message is {received!r}")
        return result

    def send_and_consume(  # type: ignore[override]
        self,
        channel: str,
        content: Mapping[str, Any] | None = None,
        text: Any = None,
        path: str = "/",
        fail_on_none: bool = True,
        check_accept: bool = True,
    ) -> Any:
        """Call :meth:`send`, then :meth:`consume`."""
        self.send(channel, content, text, path)
        return self.consume(channel, fail_on_none=fail_on_none, check_accept=check_accept)

    def receive(self, json: bool = True) -> Any:
        """Return the text of the next frame to this client, decoded.

        Args:
            json: decode text as JSON; otherwise return it unchanged.

        Returns:
            The text; the whole message if it has none, such as ``{"accept": True}``; None if there is no message.
        """
        content = super().receive()
        if not content:
            return None
        text = content.get("text", content)
        return json_module.loads(text) if json and isinstance(text, str) else text


def _as_bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


#: Another name for :class:`WSClient`.
HttpClient = WSClient
