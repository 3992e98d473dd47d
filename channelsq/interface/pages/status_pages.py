"""The interface server's own pages: liveness, readiness and metrics.

The server answers them itself, without a worker, below ``--status-path``: ``/-/health/live``, ``/-/health/ready`` and,
if enabled, ``/-/metrics`` in the text format of Prometheus.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, Scope

from channelsq.interface.basis.optional_packages import import_with
from channelsq.interface.context.server_context import ServerContext

if TYPE_CHECKING:
    from channelsq.interface.pages.scrape import Scrape

#: Returns status, content type and content.
Page = Callable[[], Awaitable[tuple[int, bytes, bytes]]]

_TEXT = b"text/plain; charset=utf-8"


class StatusPages:
    """The pages of one interface server.

    Args:
        context: the state that all connections share.

    Raises:
        ConfigError: metrics are enabled, but prometheus_client is not installed.
    """

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._pages: dict[str, Page] = {}
        self._scrape: Scrape | None = None
        base = context.config.status_path
        if base:
            self._pages = {f"{base}/health/live": self._live, f"{base}/health/ready": self._ready}
            if context.config.metrics:
                self._scrape = import_with(
                    "prometheus_client",
                    "channelsq.interface.pages.scrape.Scrape",
                    needed_by="--metrics",
                    extra="metrics",
                    otherwise="omit --metrics",
                )(context)
                self._pages[f"{base}/metrics"] = self._metrics

    async def join(self) -> None:
        """Share this process' metrics with the processes that serve together with it."""
        if self._scrape is not None:
            await self._scrape.join()

    def has(self, raw_path: bytes) -> bool:
        """Return whether a path is one of the pages.

        Args:
            raw_path: the path as the client wrote it.  A path with escapes is none of the pages: a proxy that restricts
                access to them may compare the written form.
        """
        return raw_path.decode("latin-1") in self._pages

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer a request for one of the pages."""
        assert scope["type"] == "http"
        if scope["method"] in ("GET", "HEAD"):
            status, content_type, body = await self._pages[scope["path"]]()
            headers = [(b"cache-control", b"no-store")]
        else:
            status, content_type, body = 405, _TEXT, b"405 Method Not Allowed\n"
            headers = [(b"allow", b"GET, HEAD")]
        headers += [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers, "trailers": False})
        body = b"" if scope["method"] == "HEAD" else body
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def _live(self) -> tuple[int, bytes, bytes]:
        return 200, _TEXT, b"live\n"

    async def _ready(self) -> tuple[int, bytes, bytes]:
        if self._context.draining:
            return 503, _TEXT, b"the server is shutting down\n"
        if not self._context.link.reachable:
            return 503, _TEXT, b"the broker cannot be reached\n"
        problem = self._context.unconsumed.unready(self._context.loop.time())
        if problem is not None:
            text, useless = problem
            return (503, _TEXT, f"{text}\n".encode()) if useless else (200, _TEXT, f"ready, but {text}\n".encode())
        return 200, _TEXT, b"ready\n"

    async def _metrics(self) -> tuple[int, bytes, bytes]:
        assert self._scrape is not None
        return 200, self._scrape.content_type, await self._scrape.page()
