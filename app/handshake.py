"""The user and the origin of a handshake.

A WebSocket handshake is an HTTP request with the site's cookies, so Django's sessions and users work.
Browsers let *any* site open a socket to ours with those cookies, so the origin must be checked.
"""

from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import SuspiciousOperation

from channelsq.exceptions import DenyConnection
from channelsq.handler import AsgiRequest
from channelsq.message import Message
from channelsq.security.websockets import AllowedHostsOnlyOriginValidator


def request_of(message: Message) -> AsgiRequest:
    """Return the handshake as a Django request; raise DenyConnection if it is malformed or for another host."""
    try:
        request = AsgiRequest(message)
        request.get_host()  # checked against ALLOWED_HOSTS
    except (ValueError, SuspiciousOperation) as error:
        raise DenyConnection(f"no valid handshake: {error}") from error
    return request


class own_pages_only(AllowedHostsOnlyOriginValidator):
    """A validator that accepts pages of the host that they open a socket to, and those of CSRF_TRUSTED_ORIGINS.

    ``allowed_hosts_only`` is enough if ALLOWED_HOSTS names this site alone.  On Heroku it also names the sites of
    others.
    """

    def validate_origin(self, message: Message, origin: str) -> bool:
        if origin in settings.CSRF_TRUSTED_ORIGINS:
            return True
        return super().validate_origin(message, origin) and urlsplit(origin).netloc == request_of(message).get_host()


def user_of(message: Message) -> User:
    """Return the logged-in user of a handshake; raise DenyConnection without a login.

    Args:
        message: of a consumer with :func:`channelsq.auth.http_session_user`.
    """
    user: User = message.user
    if not user.is_authenticated:
        raise DenyConnection("not logged in")
    return user
