"""A gateway's own pages: liveness, readiness and metrics, below ``--status-path``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from channelsq.interface.basis.counters import Counters
from channelsq.interface.basis.optional_packages import import_with
from channelsq.interface.gateway.gateway_config import GatewayConfig
from channelsq.interface.gateway.http_door import HttpRequest, HttpResponse
from channelsq.interface.supervision.peers import Peers

if TYPE_CHECKING:
    from channelsq.interface.gateway.gateway_metrics import GatewayMetrics


class GatewayPages:
    """The pages of one gateway.

    Args:
        config: its settings.
        protocol: its protocol.
        stats: its counters.
        problem: returns why the server is not ready; empty if it is.
        gauges: returns the current values of the gauges, by name.

    Raises:
        ConfigError: metrics are enabled, but prometheus_client is not installed.
    """

    def __init__(
        self,
        config: GatewayConfig,
        protocol: str,
        stats: Counters,
        problem: Callable[[], str],
        gauges: Callable[[], dict[str, float]],
    ) -> None:
        self._base = config.status_path
        self._problem = problem
        self._metrics: GatewayMetrics | None = None
        if config.metrics and self._base:
            self._metrics = import_with(
                "prometheus_client",
                "channelsq.interface.gateway.gateway_metrics.GatewayMetrics",
                needed_by="--metrics",
                extra="metrics",
                otherwise="omit --metrics",
            )(protocol, stats, gauges)

    async def join(self, peers: Peers) -> None:
        """Exchange metrics with the processes that serve together with this one, if there are any metrics."""
        if self._metrics is not None:
            await self._metrics.join(peers)

    def leave(self) -> None:
        """Stop answering these processes."""
        if self._metrics is not None:
            self._metrics.leave()

    async def answer(self, request: HttpRequest) -> HttpResponse | None:
        """Return the answer to a request for one of the pages; None for any other request."""
        if not self._base or not request.path.startswith(f"{self._base}/"):
            return None
        page = request.path.removeprefix(f"{self._base}/")
        if page not in ("health/live", "health/ready") and not (page == "metrics" and self._metrics is not None):
            return None
        if request.method not in ("GET", "HEAD"):
            return HttpResponse(405, b"405 Method Not Allowed\n", headers={"allow": "GET, HEAD"})
        headers = {"cache-control": "no-store"}
        if page == "health/live":
            return HttpResponse(200, b"live\n", headers=headers)
        if page == "health/ready":
            problem = self._problem()
            return HttpResponse(503 if problem else 200, f"{problem or 'ready'}\n".encode(), headers=headers)
        assert self._metrics is not None
        return HttpResponse(200, await self._metrics.page(), self._metrics.content_type, headers)
