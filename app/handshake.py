"""Who opens a socket, and from where.

A WebSocket handshake is an HTTP request with the site's cookies, so Django's sessions and users work.
Browsers let *any* site open a socket to ours with those cookies, which is why the origin is looked at.
"""

from importlib import import_module
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.auth.models import User
from django.core.exceptions import SuspiciousOperation

from channelsq.exceptions import DenyConnection
from channelsq.handler import AsgiRequest
from channelsq.message import Message


def request_of(message: Message) -> AsgiRequest:
    """The handshake as a Django request; raises DenyConnection if it is none, or comes from another site."""
    try:
        request = AsgiRequest(message)
        host = request.get_host()  # checked against ALLOWED_HOSTS
    except (ValueError, SuspiciousOperation) as error:
        raise DenyConnection(f"no proper handshake: {error}") from error
    # Programs that are no browsers send no origin; they have no user's cookies that they could misuse.
    origin = request.META.get("HTTP_ORIGIN")
    if origin and urlsplit(origin).netloc != host and origin not in settings.CSRF_TRUSTED_ORIGINS:
        raise DenyConnection(f"origin {origin!r} is not {host!r}")
    return request


def user_of(request: AsgiRequest) -> User:
    """The user that is logged in; raises DenyConnection if nobody is."""
    engine = import_module(settings.SESSION_ENGINE)
    request.session = engine.SessionStore(request.COOKIES.get(settings.SESSION_COOKIE_NAME))
    user = get_user(request)
    if not isinstance(user, User):
        raise DenyConnection("nobody is logged in")
    return user
