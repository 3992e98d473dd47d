"""HTTP without the channel: Django's own ASGI application in the interface server's process (``--http direct``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, ASGISendEvent, Scope

from channelsq.interface.asking import Asking, Refused

if TYPE_CHECKING:
    from channelsq.interface.hub import Hub


class DirectApp:
    """Answers each request with Django's views, here; nothing of it is published.

    Args:
        hub: what all connections share.
    """

    def __init__(self, hub: Hub) -> None:
        from django.core.asgi import get_asgi_application

        self._hub = hub
        self._django: Any = get_asgi_application()

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer one request."""
        assert scope["type"] == "http"
        hub = self._hub
        hub.stats.count("http.requests")
        asking = Asking(hub, scope)
        sent = _Sent(send)
        try:
            if hub.ending:
                start, content = asking.refuse(Refused(503, "ending", "the server is shutting down"))
                await sent({"type": "http.response.start", "status": start.status, "headers": start.headers,
                            "trailers": False})  # fmt: skip
                await sent({"type": "http.response.body", "body": content, "more_body": False})
                return
            client = tuple(asking.client) if asking.client else None
            theirs = {**scope, "root_path": hub.config.root_path, "client": client, "scheme": asking.scheme}
            await self._django(theirs, receive, sent)
        finally:
            asking.log_access(sent.status, sent.size)


class _Sent:
    """What was sent, for the log."""

    def __init__(self, send: ASGISendCallable) -> None:
        self._send = send
        self.status: int | None = None
        self.size = 0

    async def __call__(self, event: ASGISendEvent) -> None:
        if event["type"] == "http.response.start":
            self.status = event["status"]
        elif event["type"] == "http.response.body":
            self.size += len(event.get("body", b""))
        await self._send(event)
