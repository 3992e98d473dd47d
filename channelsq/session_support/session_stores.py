"""Session stores: Django's session engines, with keys that belong to sockets."""

from __future__ import annotations

import functools
from importlib import import_module
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.sessions.backends import signed_cookies
from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError
from django.utils.crypto import salted_hmac

from channelsq.exceptions import InvalidSessionEngine
from channelsq.session_support.django_session_internals import set_key

_SALT = "channelsq.sessions"


class ChannelSession(SessionBase):
    """The session of a socket, over any engine.

    Its key is derived from its reply channel and never changes, so the session is created when it is first saved, and
    loaded at its first use.  A session that has expired or was deleted is empty, and can be written again.

    Args:
        keys: the session's key, then its keys under Django's SECRET_KEY_FALLBACKS.
    """

    def __init__(self, *keys: str) -> None:
        super().__init__(keys[0])
        self.keys_of_old_secrets = keys[1:]
        self.fixed_key = keys[0]

    def load(self) -> dict[str, Any]:
        """Return the session's data; ``{}`` if there is none."""
        for key in (self.fixed_key, *self.keys_of_old_secrets):
            set_key(self, key)
            if found := super().load():
                break
        set_key(self, self.fixed_key)  # engines reset it if there is no session
        return found

    def save(self, must_create: bool = False) -> None:
        """Save the session, whether or not it exists.

        Raises:
            CreateError: ``must_create``, and the session exists.
        """
        if must_create:
            super().save(must_create=True)
            return
        try:
            super().save()
        except UpdateError:
            try:
                super().save(must_create=True)
            except CreateError:  # another consumer of the socket has created it at this moment
                super().save()

    def flush(self) -> None:
        """Delete the session's data; the key stays."""
        super().flush()
        set_key(self, self.fixed_key)

    def cycle_key(self) -> None:
        """Do nothing: the key is secret, so there is no reason to change it."""

    # Engines have their own asynchronous methods, which would bypass the methods above.

    async def aload(self) -> dict[str, Any]:
        """Call :meth:`load` without blocking the event loop."""
        return await sync_to_async(self.load)()

    async def asave(self, must_create: bool = False) -> None:
        """Call :meth:`save` without blocking the event loop."""
        await sync_to_async(self.save)(must_create)

    async def aflush(self) -> None:
        """Call :meth:`flush` without blocking the event loop."""
        await sync_to_async(self.flush)()

    async def acycle_key(self) -> None:
        """Do nothing."""


class BrowserSession(SessionBase):
    """The session of a browser, over any engine; a consumer cannot change its key.

    Django changes the key when it renews a session that an old secret had signed, but the browser would not learn the
    new one.
    """

    def cycle_key(self) -> None:
        """Do nothing."""

    async def acycle_key(self) -> None:
        """Do nothing."""


@functools.cache
def _store(kind: type[SessionBase], engine: str) -> Any:
    store: type[SessionBase] = import_module(engine).SessionStore
    if kind is ChannelSession and issubclass(store, signed_cookies.SessionStore):
        raise InvalidSessionEngine(
            f"{engine!r} keeps sessions in cookies, but a socket cannot set a cookie: name another "
            "engine for channel sessions in CHANNEL_SESSION_ENGINE, such as 'django.contrib.sessions.backends.db'"
        )
    return type("SessionStore", (kind, store), {"__module__": store.__module__})


def session_for_reply_channel(reply_channel: str) -> ChannelSession:
    """Return the session of the socket with this reply channel, kept by ``CHANNEL_SESSION_ENGINE``.

    Args:
        reply_channel: the channel's *name*.

    Raises:
        InvalidSessionEngine: the engine keeps its sessions in cookies.
    """
    engine = getattr(settings, "CHANNEL_SESSION_ENGINE", None) or settings.SESSION_ENGINE
    secrets = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    session: ChannelSession = _store(ChannelSession, engine)(*[_key(reply_channel, secret) for secret in secrets])
    return session


def _key(reply_channel: str, secret: str | bytes) -> str:
    # The channel's name must not reveal the key: as a cookie the key would be the socket's user.
    digest = salted_hmac(_SALT, reply_channel, secret=secret, algorithm="sha256").hexdigest()
    return f"chn{digest[:29]}"


def browser_session(session_key: str) -> SessionBase:
    """Return the session that Django's views have under ``session_key``."""
    session: SessionBase = _store(BrowserSession, settings.SESSION_ENGINE)(session_key)
    return session


def is_in_cookie(session: SessionBase) -> bool:
    """Return whether the session itself is the cookie, which only a view can set."""
    return isinstance(session, signed_cookies.SessionStore)


def save_browser_session(session: SessionBase) -> bool:
    """Save a consumer's changes to a browser's session.

    Returns:
        False if the change is lost because the session was deleted meanwhile, for example by a logout.

    Raises:
        InvalidSessionEngine: the session is a cookie, which a consumer cannot set.
    """
    if is_in_cookie(session):
        raise InvalidSessionEngine(
            f"SESSION_ENGINE {settings.SESSION_ENGINE!r} keeps sessions in cookies, which a consumer cannot set: "
            "change the session in a view, or use another engine"
        )
    if session.session_key is None:
        return session.is_empty()
    try:
        session.save()
    except UpdateError:
        return False
    return True
