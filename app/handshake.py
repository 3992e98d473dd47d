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
from channelsq.security.websockets import AllowedHostsOnlyOriginValidator


def request_of(message: Message) -> AsgiRequest:
    """The handshake as a Django request; raises DenyConnection if it is none, or is for a host that is not ours."""
    try:
        request = AsgiRequest(message)
        request.get_host()  # checked against ALLOWED_HOSTS
    except (ValueError, SuspiciousOperation) as error:
        raise DenyConnection(f"no proper handshake: {error}") from error
    return request


class own_pages_only(AllowedHostsOnlyOriginValidator):
    """Lets in the pages of the host that they open a socket to, and those of CSRF_TRUSTED_ORIGINS.

    ``allowed_hosts_only`` by itself does where ALLOWED_HOSTS names this site alone.  On Heroku it names the
    sites of others, too.
    """

    def validate_origin(self, message: Message, origin: str) -> bool:
        if origin in settings.CSRF_TRUSTED_ORIGINS:
            return True
        return super().validate_origin(message, origin) and urlsplit(origin).netloc == request_of(message).get_host()


def user_of(request: AsgiRequest) -> User:
    """The user that is logged in; raises DenyConnection if nobody is."""
    engine = import_module(settings.SESSION_ENGINE)
    request.session = engine.SessionStore(request.COOKIES.get(settings.SESSION_COOKIE_NAME))
    user = get_user(request)
    if not isinstance(user, User):
        raise DenyConnection("nobody is logged in")
    return user
