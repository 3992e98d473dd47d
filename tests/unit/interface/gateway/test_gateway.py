"""A gateway on the layer of one machine: clients' messages, answers, sends and receipts, pages, and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from channelsq.asgi import ChannelLayerWrapper
from channelsq.interface.basis.command_line import ConfigError
from channelsq.interface.basis.limits import Limits
from channelsq.interface.gateway import Gateway, GatewayConfig, HttpRequest, HttpResponse, Rejected, TryLater, Unsure
from channelsq.interface.gateway.command import run_gateway
from channelsq.layers import IPCChannelLayer

LIMITS = Limits(end_begun=0.1, disconnect_patience=0.2)


class Pigeons(Gateway):
    """Sends out by putting into a list."""

    protocol = "pigeon"
    consumes = ("pigeon.send",)
    receipts = "pigeon.status"
    trouble = ""

    def __init__(self, config: GatewayConfig, layer: ChannelLayerWrapper) -> None:
        super().__init__(config, layer)
        self.flown: list[Any] = []
        self.answers: list[Any] = []

    async def carry(self, channel: str, content: dict[str, Any]) -> dict[str, Any] | None:
        match content["text"]:
            case "no":
                raise Rejected("it is too heavy", "42")
            case "perhaps":
                raise Unsure("it flew away")
            case "later" if not self.flown:
                self.flown.append("waits")
                raise TryLater("it sleeps", 0.01)
        self.flown.append(content["text"])
        return {"id": "p1"}

    async def http(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(200, b"coo") if request.path == "/coo" else await super().http(request)

    def problem(self) -> str:
        return self.trouble

    async def answer(self, content: dict[str, Any]) -> None:
        """Handle an answer."""
        self.answers.append(content["text"])


def serve(folder: Path, visit: Callable[[Pigeons, IPCChannelLayer], Awaitable[None]], **config: Any) -> Pigeons:
    """Run a gateway and a visitor in one loop, and then its shutdown."""
    layer = IPCChannelLayer(path=folder / "ipc", capacity=2)

    async def run() -> Pigeons:
        given = GatewayConfig(port=0, limits=LIMITS, rate=0, drain_window=2, publish_timeout=0.2, **config)
        gateway = Pigeons(given, ChannelLayerWrapper(layer, "default", []))
        listening = asyncio.Event()
        running = asyncio.ensure_future(gateway.run(on_listening=lambda _: listening.set(), install_signals=False))
        await asyncio.wait([running, asyncio.ensure_future(listening.wait())], return_when=asyncio.FIRST_COMPLETED)
        try:
            async with asyncio.timeout(20):
                await visit(gateway, layer)
        finally:
            gateway.stop()
            await running
        return gateway

    try:
        return asyncio.run(run())
    finally:
        layer.close()


async def take(layer: IPCChannelLayer, channel: str) -> dict[str, Any]:
    """Return the next message of a channel."""
    while True:
        _, message = await asyncio.to_thread(layer.receive, [channel], True)
        if message is not None:
            return message


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def test_a_message_is_published_once_and_answered(tmp_path: Path) -> None:
    async def visit(gateway: Pigeons, layer: IPCChannelLayer) -> None:
        assert await gateway.publish("pigeon.receive", {"text": "coo"}, answer=gateway.answer, once="1")
        assert not await gateway.publish("pigeon.receive", {"text": "coo"}, answer=gateway.answer, once="1")
        message = await take(layer, "pigeon.receive")
        await asyncio.to_thread(layer.send, message["reply_channel"], {"text": "who?"})
        await until(lambda: gateway.answers == ["who?"])
        assert await asyncio.to_thread(layer.receive, ["pigeon.receive"]) == (None, None)

    gateway = serve(tmp_path, visit)
    assert gateway.stats["gateway.published"] == gateway.stats["gateway.duplicates"] == 1


def test_a_full_channel_and_a_large_message_are_told_to_the_client(tmp_path: Path) -> None:
    async def visit(gateway: Pigeons, layer: IPCChannelLayer) -> None:
        for _ in range(2):
            await gateway.publish("pigeon.receive", {"text": "coo"})
        with pytest.raises(TryLater, match=r"the channel pigeon\.receive is full") as full:
            await gateway.publish("pigeon.receive", {"text": "coo"}, answer=gateway.answer)
        assert full.value.after == 5
        with pytest.raises(Rejected, match="too large"):
            await gateway.publish("other", {"text": "x" * 2_000_000})

    gateway = serve(tmp_path, visit)
    assert gateway.stats["gateway.published"] == 2
    assert len(gateway._mailbox) == 0


def test_each_fate_has_a_receipt(tmp_path: Path) -> None:
    async def visit(gateway: Pigeons, layer: IPCChannelLayer) -> None:
        receipts = []
        for text in ("later", "no", "perhaps"):
            await gateway.send_later("pigeon.send", {"text": text, "reference": text})
            receipts.append(await take(layer, "pigeon.status"))
        told = [(each["reference"], each.get("status"), each.get("code", "")) for each in receipts]
        assert told == [("later", "sent", ""), ("no", "failed", "42"), ("perhaps", "unknown", "")]
        assert receipts[0]["id"] == "p1"
        assert gateway.flown == ["waits", "later"]

    gateway = serve(tmp_path, visit)
    assert gateway.stats["gateway.sends_failed"] == gateway.stats["gateway.sends_unknown"] == 1


def test_its_pages(tmp_path: Path) -> None:
    async def visit(gateway: Pigeons, layer: IPCChannelLayer) -> None:
        async with httpx.AsyncClient(base_url=gateway.url, trust_env=False, timeout=20) as http:
            assert (await http.get("/coo")).text == "coo"
            assert (await http.get("/else")).status_code == 404
            assert (await http.get("/-/health/live")).text == "live\n"
            assert (await http.post("/-/health/live")).status_code == 405
            while (await http.get("/-/health/ready")).text != "ready\n":  # until it reads pigeon.send
                await asyncio.sleep(0.01)
            gateway.trouble = "the dovecote is closed"
            ready = await http.get("/-/health/ready")
            assert (ready.status_code, ready.text) == (503, "the dovecote is closed\n")
            assert ready.headers["cache-control"] == "no-store"
            page = (await http.get("/-/metrics")).text
            assert 'channelsq_gateway_info{protocol="pigeon"' in page
            assert "channelsq_gateway_processes 1.0" in page
            assert "channelsq_gateway_broker_reachable 1.0" in page

    gateway = serve(tmp_path, visit, metrics=True)
    assert gateway._problem() == "the server is shutting down"


def test_a_gateway_without_metrics_has_no_page_of_them(tmp_path: Path) -> None:
    async def visit(gateway: Pigeons, layer: IPCChannelLayer) -> None:
        async with httpx.AsyncClient(base_url=gateway.url, trust_env=False, timeout=20) as http:
            assert (await http.get("/-/metrics")).status_code == 404

    serve(tmp_path, visit)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--workers", "2"], "--workers 2 cannot be used: this gateway serves in one process"),
        (["--port", "high"], "--port cannot be 'high': give a port number"),
        (["--nothing"], "unrecognized arguments: --nothing; see"),
    ],
)
def test_options_that_cannot_be_used_are_one_line(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_gateway(Pigeons, argv) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"channelsq pigeon gateway: {said}")


def test_an_address_that_is_taken_is_an_error(tmp_path: Path) -> None:
    async def visit(gateway: Pigeons, layer: IPCChannelLayer) -> None:
        port = int(gateway.url.rpartition(":")[2])
        other = Pigeons(GatewayConfig(port=port), gateway.layer)
        with pytest.raises(ConfigError, match="address already in use"):
            await other.run(install_signals=False)

    serve(tmp_path, visit)
