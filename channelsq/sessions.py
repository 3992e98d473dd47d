"""Sessions for consumers: a socket's own (``channel_session``) and the browser's (``http_session``).

The decorators work on functions, ``consumer(message, **kwargs)``, and on methods, ``method(self, message, **kwargs)``.
They may be nested; an inner one uses the session that an outer one has opened.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, TypeVar, cast, overload

from celery.exceptions import Reject, Retry
from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.core.exceptions import SuspiciousOperation

from channelsq import conf
from channelsq.delivery.ending import is_end
from channelsq.delivery.pending import pending_message_store
from channelsq.exceptions import ConsumeLater
from channelsq.http.request import AsgiRequest
from channelsq.message import Message
from channelsq.session_support.ordering import LET_THROUGH, MISSING, MessageOrder, requeue_messages, wait_channel_name
from channelsq.session_support.session_stores import browser_session, save_browser_session, session_for_reply_channel
from channelsq.utils import name_that_thing

__all__ = [
    "channel_and_http_session",
    "channel_session",
    "enforce_ordering",
    "http_session",
    "requeue_messages",
    "session_for_reply_channel",
    "wait_channel_name",
]

logger = logging.getLogger("channelsq.sessions")

C = TypeVar("C", bound=Callable[..., Any])


def message_in(args: tuple[Any, ...], decorator: str) -> Message:
    """Return the message in the arguments of a decorated consumer or method.

    Raises:
        ValueError: there is none.
    """
    for arg in args[:2]:
        if isinstance(arg, Message):
            return arg
    raise ValueError(
        f"@{decorator} is for consumers, which are called with a message (methods with self and a message), "
        f"not with {args[:2]!r}"
    )


def channel_session(func: C) -> C:
    """Give a consumer ``message.channel_session``, the session of the socket that sent the message.

    The session lasts from message to message.  It is loaded at its first use, and saved if it was changed, also if the
    consumer raises.

    Raises, when called:
        ValueError: the message has no ``reply_channel``.
        InvalidSessionEngine: the session engine cannot keep it.
    """

    @functools.wraps(func)
    def with_session(*args: Any, **kwargs: Any) -> Any:
        message: Any = message_in(args, "channel_session")
        if getattr(message, "channel_session", None) is None:
            if message.reply_channel is None:
                raise ValueError(
                    f"{message!r} has no reply_channel, and so no session: use @channel_session on consumers of "
                    "messages that come from a client"
                )
            message.channel_session = session_for_reply_channel(message.reply_channel.name)
        try:
            return func(*args, **kwargs)
        finally:
            session: SessionBase = message.channel_session
            if session.modified:
                if session.keys():
                    session.save()
                else:  # as after flush(): an empty session would be stored for as long as others
                    session.delete()
                session.modified = False  # an outer decorator then does not save it again

    return cast(C, with_session)


def http_session(func: C) -> C:
    """Give a consumer ``message.http_session``, the session that the browser has with Django's views; or None.

    The session is found by the session cookie or, unless ``CHANNEL_SESSION_KEY_IN_URL`` is False, by ``?session_key=``
    of the request or handshake, so on ``http.request`` and ``websocket.connect``.  It is saved if it was changed and
    the consumer succeeded.  A missing session is not created, as only a view can set the cookie.  If the session was
    deleted meanwhile, for example by a logout, the change is dropped.

    Raises, when called:
        ValueError: the message is neither a request nor from a socket.
        InvalidSessionEngine: the session was changed, but is stored in cookies.
    """

    @functools.wraps(func)
    def with_session(*args: Any, **kwargs: Any) -> Any:
        message: Any = message_in(args, "http_session")
        if not hasattr(message, "http_session"):
            message.http_session = _find_browser_session(message)
        result = func(*args, **kwargs)
        session: SessionBase | None = message.http_session
        if session is not None and session.modified:
            if not save_browser_session(session):
                logger.warning(
                    "a session was deleted while %s was handled; the change to it is lost", message.channel_name,
                    extra={"action": "session_gone", "channel": message.channel_name},
                )  # fmt: skip
            session.modified = False
        return result

    return cast(C, with_session)


def _find_browser_session(message: Message) -> SessionBase | None:
    try:
        request = AsgiRequest(_as_request(message))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{message!r} cannot be read as a request: {error}; @http_session is for http.request and websocket.connect"
        ) from error
    key = _key_in_url(request) or request.COOKIES.get(settings.SESSION_COOKIE_NAME)
    # No engine creates other keys, and a database may fail on them.
    return browser_session(key) if key and key.isascii() and key.isprintable() else None


def _key_in_url(request: AsgiRequest) -> str | None:
    if not conf.takes_session_key_in_url():
        return None
    try:
        return request.GET.get("session_key")
    except SuspiciousOperation:  # more parameters than Django reads
        return None


def _as_request(message: Message) -> Message:
    """Return the message without its body, which the search for a session must not read."""
    copy = message.copy()
    for key in ("body", "body_channel"):
        copy.content.pop(key, None)
    return copy


def channel_and_http_session(func: C) -> C:
    """Give a consumer both sessions; ``message.http_session`` also on the messages after ``websocket.connect``.

    Errors as in :func:`channel_session` and :func:`http_session`.
    """

    @http_session
    @channel_session
    @functools.wraps(func)
    def with_sessions(*args: Any, **kwargs: Any) -> Any:
        message: Any = message_in(args, "channel_and_http_session")
        known = settings.SESSION_COOKIE_NAME
        if message.http_session is not None:
            if known not in message.channel_session:
                message.channel_session[known] = message.http_session.session_key
        elif known in message.channel_session:
            message.http_session = browser_session(message.channel_session[known])
        return func(*args, **kwargs)

    return cast(C, with_sessions)


def _comes_again(error: BaseException) -> bool:
    """Return whether the message of a consumer that raised ``error`` runs again; later messages then wait for it."""
    return isinstance(error, (ConsumeLater, Retry)) or (
        isinstance(error, Reject) and bool(getattr(error, "requeue", False))
    )


@overload
def enforce_ordering(func: C, slight: bool = False) -> C: ...
@overload
def enforce_ordering(func: None = None, slight: bool = False) -> Callable[[C], C]: ...


def enforce_ordering(func: C | None = None, slight: bool = False) -> C | Callable[[C], C]:
    """Run the consumers of a socket's messages in order, one after another.

    All consumers of the socket's frames need it; the consumer of ``websocket.connect`` always runs before them.  A
    message that arrives early waits for those before it; a message that has not arrived after ``CHANNEL_ORDERING_WAIT``
    seconds counts as lost.  A redelivered message is handled again.  The consumer also gets
    ``message.channel_session``, saved before the next message is handled.

    Args:
        func: the consumer; left out in ``@enforce_ordering()``.
        slight: not supported: the consumer of ``websocket.connect`` always runs first, without a decorator.

    Raises:
        ValueError: ``slight``; when called: the message has no ``order`` or no ``reply_channel``.
    """
    if slight:
        raise ValueError(
            "enforce_ordering(slight=True) is gone: websocket.connect is always handled before the socket's other "
            "messages; leave the decorator out"
        )

    def decorate(consumer: C) -> C:
        # Inside, so that the next consumer finds the session as this one has saved it.
        with_session = channel_session(consumer)

        @functools.wraps(consumer)
        def in_order(*args: Any, **kwargs: Any) -> Any:
            message = message_in(args, "enforce_ordering")
            if message.reply_channel is None:
                raise ValueError(f"{message!r} has no reply_channel: @enforce_ordering is for messages of a client")
            if MISSING in message:
                MessageOrder(message).remind()
                return None
            if "order" not in message:
                raise ValueError(
                    f"{message!r} has no 'order': @enforce_ordering is for messages with an order, as those "
                    "of WebSockets"
                )
            order = int(message["order"])
            let_through = message.content.pop(LET_THROUGH, False)
            message_order = MessageOrder(message)
            if order > message_order.noted and not let_through:
                message_order.park()
                return None
            message_order.begin(order)
            try:
                result = with_session(*args, **kwargs)
                pending_message_store.send_and_flush()  # otherwise the next consumer's answers could overtake these
            except BaseException as error:
                if not (_comes_again(error) or is_end(error)):
                    message_order.passed(order)
                raise
            message_order.passed(order)
            return result

        return cast(C, in_order)

    return decorate if func is None else decorate(func)


def ordered_as_declared(owner: Any, handler: C) -> C:
    """Return a handler of a class, decorated according to the class's ``strict_ordering``.

    Raises:
        ValueError: the class has ``slight_ordering``, which is no longer needed.
    """
    if getattr(owner, "slight_ordering", False):
        raise ValueError(
            f"{name_that_thing(owner)}.slight_ordering: websocket.connect is always handled before the socket's other "
            "messages; leave the attribute out"
        )
    return enforce_ordering(handler) if owner.strict_ordering else handler
