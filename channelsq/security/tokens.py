"""Tokens that open a WebSocket in a user's name, for clients that send no cookie.

A token is signed, lives for seconds (``CHANNEL_TOKEN_AGE``), and ends with the user's password.  A page gets one from
a view (:func:`token_view`) or the tag ``{% channel_token %}``.  It sends the token in the handshake, as the subprotocol
``channelsq.token.<token>`` beside the subprotocol ``channelsq``, or as ``?token=<token>``.  On the socket
:func:`channelsq.auth.channel_session_user_from_token` turns it into a user.

It is a bearer token: a client that has it may use it until it has expired, also more than once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs

from django.conf import settings
from django.contrib import auth
from django.core import signing
from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.utils.crypto import constant_time_compare

from channelsq import conf
from channelsq.core.names import TOKEN_SUBPROTOCOL
from channelsq.exceptions import InvalidToken
from channelsq.message import Message
from channelsq.security.websockets import header_values

__all__ = ["make_token", "read_token", "token_in", "token_view"]

_SALT = "channelsq.security.tokens"

#: The longest token; a longer one is refused unread.
_LONGEST = 2048


def _signer() -> signing.TimestampSigner:
    # A subprotocol is a token of HTTP (RFC 9110, section 5.6.2), which has no colon.
    return signing.TimestampSigner(sep=".", salt=_SALT)


def make_token(who: Any, *, path: str | None = None, backend: str | None = None) -> str:
    """Return a token for a user.

    Args:
        who: the user, or a view's request with a user.
        path: the path of the only socket that the token opens, such as ``"/chat/tea/"``; None for any socket.
        backend: the dotted path of the authentication backend that knows the user.  It may be left out, unless there
            are several and ``who`` is a user who was not logged in.

    Raises:
        ValueError: no user is logged in, or the backend is ambiguous.
    """
    user = who
    if isinstance(who, HttpRequest):
        user = getattr(who, "user", None)
        session = getattr(who, "session", None)
        if backend is None and session is not None:
            backend = session.get(auth.BACKEND_SESSION_KEY)
    if user is None or not user.is_authenticated:
        raise ValueError(f"there is no token for {user!r}: log the user in, or give a user to make_token()")
    value = [
        user._meta.pk.value_to_string(user),
        _backends().index(backend_of(user, backend, "make_token")),
        _digest(_auth_hash(user)),
        path,
    ]
    return _signer().sign_object(value)


def _backends() -> list[str]:
    return list(settings.AUTHENTICATION_BACKENDS)


def backend_of(user: Any, backend: str | None, caller: str) -> str:
    """Return the dotted path of the authentication backend that knows a user.

    Args:
        backend: the path, if it is known.
        caller: the function's name, for the error.

    Raises:
        ValueError: the backend is ambiguous.
    """
    backends = _backends()
    backend = backend or getattr(user, "backend", None) or (backends[0] if len(backends) == 1 else None)
    if backend not in backends:
        raise ValueError(
            f"{caller}(): {backend!r} is none of AUTHENTICATION_BACKENDS; say with backend= which of {backends} "
            "knows the user"
        )
    return backend


def _auth_hash(user: Any) -> str:
    """Return a value that changes with the user's password; the same as in a session."""
    make = getattr(user, "get_session_auth_hash", None)
    return str(make()) if make is not None else ""


def _digest(auth_hash: str) -> str:
    return hashlib.sha256(auth_hash.encode()).hexdigest()[:32]


def read_token(token: str, path: str | None = None) -> Any:
    """Return a token's user, with ``backend`` set as ``authenticate()`` does.

    Args:
        token: a result of :func:`make_token`.
        path: the path of the socket.

    Raises:
        InvalidToken: it was not made here, has expired, is for another path, or the user has a new password or may no
            longer log in.
    """
    if len(token) > _LONGEST:
        raise InvalidToken("it is too long")
    try:
        key, index, digest, bound_to = _signer().unsign_object(token, max_age=conf.token_age())
        backend = _backends()[index]
    except signing.SignatureExpired:
        raise InvalidToken("it has expired") from None
    except (signing.BadSignature, ValueError, TypeError, IndexError):
        raise InvalidToken("it was not made here") from None
    if bound_to is not None and bound_to != path:
        raise InvalidToken("it is for another path")
    user = _user(key, backend)
    if user is None:
        raise InvalidToken("its user may not log in any more")
    if not any(constant_time_compare(digest, _digest(each)) for each in _auth_hashes(user)):
        raise InvalidToken("its user has another password by now")
    user.backend = backend
    return user


def _user(key: str, backend: str) -> Any:
    model: Any = auth.get_user_model()
    return auth.load_backend(backend).get_user(model._meta.pk.to_python(key))


def _auth_hashes(user: Any) -> Iterable[str]:
    """Yield the user's hash, and its values under SECRET_KEY_FALLBACKS."""
    yield _auth_hash(user)
    yield from getattr(user, "get_session_auth_fallback_hash", tuple)()


def token_in(message: Message) -> str | None:
    """Return the token of a handshake, from its subprotocols, else from its URL.  None if there is none."""
    for value in header_values(message, b"sec-websocket-protocol"):
        for each in value.decode("latin-1").split(","):
            offered = each.strip()
            if offered.startswith(TOKEN_SUBPROTOCOL):
                return offered.removeprefix(TOKEN_SUBPROTOCOL)
    query = message.get("query_string") or b""
    found = parse_qs(query.decode("latin-1") if isinstance(query, bytes) else query, keep_blank_values=True)
    return found["token"][0] if "token" in found else None


def token_view(request: HttpRequest) -> HttpResponseBase:
    """Return a token for the logged-in user, as ``{"token": …}``; 403 without a login.  A view.

    With ``?path=`` the token opens that path alone.
    """
    if request.method not in ("GET", "HEAD"):
        return JsonResponse({"error": "GET, please"}, status=405, headers={"Allow": "GET, HEAD"})
    not_kept = {"Cache-Control": "no-store"}
    if not getattr(getattr(request, "user", None), "is_authenticated", False):
        return JsonResponse({"error": "not logged in"}, status=403, headers=not_kept)
    return JsonResponse({"token": make_token(request, path=request.GET.get("path"))}, headers=not_kept)
