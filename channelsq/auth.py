"""Users for consumers: ``message.user`` is the same as ``request.user`` in the views.

The decorators work on functions and on methods, as those of :mod:`channelsq.sessions`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from django.contrib import auth
from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from channelsq.core.names import WEBSOCKET_CONNECT
from channelsq.exceptions import InvalidToken
from channelsq.message import Message
from channelsq.security.tokens import backend_of, read_token, token_in
from channelsq.session_support.session_stores import is_in_cookie
from channelsq.sessions import channel_and_http_session, channel_session, http_session, message_in
from channelsq.users import join_later

if TYPE_CHECKING:
    from django.contrib.sessions.backends.base import SessionBase

__all__ = [
    "channel_and_http_session_user_from_http",
    "channel_session_user",
    "channel_session_user_from_http",
    "channel_session_user_from_token",
    "http_session_user",
    "log_in",
    "token_user",
    "transfer_user",
]

logger = logging.getLogger("channelsq.auth")

C = TypeVar("C", bound=Callable[..., Any])

_KEYS = (auth.BACKEND_SESSION_KEY, auth.SESSION_KEY, auth.HASH_SESSION_KEY)


def transfer_user(
    from_session: Mapping[str, Any] | SessionBase, to_session: MutableMapping[str, Any] | SessionBase
) -> None:
    """Copy the user of one session to another; do nothing if no user is logged in.

    Args:
        from_session: such as a view's ``request.session``.
        to_session: such as ``message.channel_session``.
    """
    if all(key in from_session for key in _KEYS):
        for key in _KEYS:
            to_session[key] = from_session[key]


def log_in(message: Message, user: Any, *, backend: str | None = None) -> None:
    """Set the user of the socket, for applications that authenticate by themselves, for example with their own token.

    The consumer then has ``message.user``, and the consumers of later messages have it by :func:`channel_session_user`
    until the user's password changes, or the user may no longer log in.

    Args:
        message: the message of a consumer with a channel session.
        user: the user; the caller must check whether they may log in.  With ``CHANNEL_USERS["join"]`` the socket joins
            their group, and leaves that of a user it had before.
        backend: the dotted path of the authentication backend that knows the user.  It may be left out, unless there
            are several backends and none of them has authenticated ``user``.

    Raises:
        ValueError: there is no channel session, the user is anonymous, or the backend is ambiguous.
    """
    session = getattr(message, "channel_session", None)
    if session is None:
        raise ValueError("log_in(): the consumer has no channel session; decorate it with @channel_session_user")
    if not getattr(user, "is_authenticated", False):
        raise ValueError(f"log_in(): {user!r} cannot be logged in: it is anonymous or not a user")
    before = session.get(auth.SESSION_KEY)
    _log_in(session, user, backend_of(user, backend, "log_in"))
    cast(Any, message).user = user
    join_later(message, before)


def _user_of(session: SessionBase | None) -> Any:
    """Return the user of a session, loaded at its first use; the anonymous user if there is none."""

    def look_up() -> Any:
        from django.contrib.auth.models import AnonymousUser

        if session is None:
            return AnonymousUser()
        request = HttpRequest()
        request.session = session
        modified = session.modified
        found = auth.get_user(request)
        if is_in_cookie(session):
            # Django may have emptied it, or renewed its hash.  Only a view can set the cookie, and does so next time.
            session.modified = modified
        return found

    return SimpleLazyObject(look_up)


def _join_on_connect(message: Message) -> None:
    """Let a new socket join its user's group, see :func:`channelsq.users.join_later`."""
    if message.channel_name == WEBSOCKET_CONNECT:
        join_later(message)


def channel_session_user(func: C) -> C:
    """Give a consumer ``message.user`` from ``message.channel_session``, where an earlier consumer has stored it.

    Errors as in :func:`channelsq.sessions.channel_session`.
    """

    @channel_session
    @functools.wraps(func)
    def with_user(*args: Any, **kwargs: Any) -> Any:
        message: Any = message_in(args, "channel_session_user")
        message.user = _user_of(message.channel_session)
        _join_on_connect(message)
        return func(*args, **kwargs)

    return cast(C, with_user)


def http_session_user(func: C) -> C:
    """Give a consumer ``message.user`` from ``message.http_session``; the anonymous user if that is None.

    Errors as in :func:`channelsq.sessions.http_session`.
    """

    @http_session
    @functools.wraps(func)
    def with_user(*args: Any, **kwargs: Any) -> Any:
        message: Any = message_in(args, "http_session_user")
        message.user = _user_of(message.http_session)
        _join_on_connect(message)
        return func(*args, **kwargs)

    return cast(C, with_user)


def channel_session_user_from_http(func: C) -> C:
    """Copy the browser's user to the socket's session; for ``websocket.connect``.

    The consumer has ``message.user`` and both sessions; the consumers after it need only
    :func:`channel_session_user`.  Errors as in the session decorators.
    """

    @http_session_user
    @channel_session
    @functools.wraps(func)
    def with_user(*args: Any, **kwargs: Any) -> Any:
        message: Any = message_in(args, "channel_session_user_from_http")
        if message.http_session is not None:
            transfer_user(message.http_session, message.channel_session)
        return func(*args, **kwargs)

    return cast(C, with_user)


def channel_and_http_session_user_from_http(func: C) -> C:
    """Act as :func:`channel_session_user_from_http`, and provide ``message.http_session`` on later messages, too.

    Errors as in the session decorators.
    """

    @http_session_user
    @channel_and_http_session
    @functools.wraps(func)
    def with_user(*args: Any, **kwargs: Any) -> Any:
        message: Any = message_in(args, "channel_and_http_session_user_from_http")
        if message.http_session is not None:
            transfer_user(message.http_session, message.channel_session)
            message.user = _user_of(message.http_session)
        return func(*args, **kwargs)

    return cast(C, with_user)


def _user_from_token(message: Message) -> Any:
    """Return the user of a handshake's token, or the anonymous user without one; log and raise InvalidToken."""
    from django.contrib.auth.models import AnonymousUser

    token = token_in(message)
    if token is None:
        return AnonymousUser()
    try:
        return read_token(token, message.get("path"))
    except InvalidToken as error:
        logger.info(
            "a WebSocket on %r was refused, its token is invalid: %s", message.get("path", ""), error,
            extra={"action": "token_refused", "connection": str(message.reply_channel)},
        )  # fmt: skip
        raise


def token_user(func: C) -> C:
    """Give a consumer of ``websocket.connect`` ``message.user`` from the handshake's token.

    Without a token it is the anonymous user.  See :mod:`channelsq.security.tokens`.

    Raises, when called:
        InvalidToken: the token is invalid; the handshake is refused with HTTP 403.
    """

    @functools.wraps(func)
    def with_user(*args: Any, **kwargs: Any) -> Any:
        message: Any = message_in(args, "token_user")
        message.user = _user_from_token(message)
        _join_on_connect(message)
        return func(*args, **kwargs)

    return cast(C, with_user)


def channel_session_user_from_token(func: C) -> C:
    """Act as :func:`token_user`, and store the user in the socket's session.

    On later messages act as :func:`channel_session_user`.  Errors as in these two.
    """

    @channel_session
    @functools.wraps(func)
    def with_user(*args: Any, **kwargs: Any) -> Any:
        message: Any = message_in(args, "channel_session_user_from_token")
        if message.channel_name == WEBSOCKET_CONNECT:
            user = _user_from_token(message)
            if user.is_authenticated:
                _log_in(message.channel_session, user, user.backend)
            message.user = user
            _join_on_connect(message)
        else:
            message.user = _user_of(message.channel_session)
        return func(*args, **kwargs)

    return cast(C, with_user)


def _log_in(session: SessionBase, user: Any, backend: str) -> None:
    """Store a user in a session, as Django's ``login`` does."""
    session[auth.SESSION_KEY] = user._meta.pk.value_to_string(user)
    session[auth.BACKEND_SESSION_KEY] = backend
    auth_hash = getattr(user, "get_session_auth_hash", None)
    session[auth.HASH_SESSION_KEY] = auth_hash() if auth_hash is not None else ""
