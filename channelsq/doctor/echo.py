"""A test of a message's whole way: a WebSocket client, an interface server, the broker, a worker, and back."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from channelsq import conf
from channelsq.asgi import ChannelLayerWrapper
from channelsq.doctor import probe
from channelsq.doctor.findings import Finding, error, ok
from channelsq.interface.basis.config import ConfigError, InterfaceConfig
from channelsq.interface.basis.limits import Limits
from channelsq.interface.process.server import Companion, InterfaceServer, serve

#: The number of echoed frames.
_FRAMES = 10

#: Seconds for the interface server to listen, and to stop.
_STARTS_WITHIN, _ENDS_WITHIN = 10.0, 10.0

#: The limits of a server with one client, which does not wait for it at the end.
_LIMITS = Limits(end_begun=0.1, end_answers=0.5, end_ordered=0.5, end_all=1.0)

_NO_WORKER = "Start a worker that consumes websocket.connect and websocket.receive: `celery -A <app> worker`."


@contextmanager
def temporary_interface(layer: ChannelLayerWrapper, timeout: float) -> Iterator[str]:
    """Run an interface server on a free port of 127.0.0.1; yield its URL for WebSockets.

    A layer in this process's memory has its worker here, too.

    Args:
        layer: the layer for its messages.
        timeout: seconds that it waits for a worker.

    Raises:
        ConfigError: it cannot listen.
        TimeoutError: it does not listen in time.
    """
    companions: list[Companion] = []
    if layer.in_process:
        from channelsq.worker.embedded import EmbeddedWorker  # which needs the project's Celery app

        companions.append(EmbeddedWorker(layer, threads=1))
    listening = threading.Event()
    servers: list[InterfaceServer] = []
    errors: list[BaseException] = []

    def remember(server: InterfaceServer) -> None:
        servers.append(server)
        listening.set()

    def run() -> None:
        config = InterfaceConfig(
            host="127.0.0.1", port=0, layer=layer.alias, accept_timeout=timeout, drain_window=0, limits=_LIMITS
        )
        try:
            serve(config, layer, companions=companions, on_listening=remember, install_signals=False)
        except BaseException as failure:
            errors.append(failure)
        finally:
            listening.set()

    thread = threading.Thread(target=run, name="channelsq-doctor-interface", daemon=True)
    thread.start()
    try:
        if not listening.wait(_STARTS_WITHIN):
            raise TimeoutError(f"the interface server did not listen within {_STARTS_WITHIN:g} s")
        if errors:
            raise errors[0]
        yield servers[0].url.replace("http://", "ws://")
    finally:
        for server in servers:
            server.stop()
        thread.join(_ENDS_WITHIN)


def check_echo(layer: ChannelLayerWrapper, timeout: float, url: str | None = None) -> Iterator[Finding]:
    """Send frames through an interface server, the layer's broker and a worker, and yield the result.

    Args:
        layer: the layer.
        timeout: seconds that a worker may take.
        url: the URL of a running interface server, also behind a proxy; None for a temporary one.
    """
    try:
        if url is not None:
            yield _echo(layer, url, timeout, f"the interface server at {url}")
        else:
            with temporary_interface(layer, timeout) as here:
                yield _echo(layer, here, timeout, "an interface server of the doctor's own")
    except (ConfigError, TimeoutError) as failure:
        yield error(
            "echo",
            f"An interface server could not be run here: {failure}",
            "Name one that runs: doctor --url ws://127.0.0.1:8000.",
            layer.alias,
        )


def _echo(layer: ChannelLayerWrapper, url: str, timeout: float, way: str) -> Finding:
    address = f"{url.rstrip('/')}/{probe.new_path()}"
    try:
        began = time.perf_counter()
        with connect(address, open_timeout=timeout, close_timeout=1, additional_headers=_headers(url)) as socket:
            opened = time.perf_counter() - began
            times, worker = _exchange(socket, timeout)
    except TimeoutError:
        return error("echo", f"No worker answered within {timeout:g} s, by way of {way}.", _NO_WORKER, layer.alias)
    except InvalidStatus as refused:
        return _refused(layer, refused.response.status_code, timeout, way)
    except (OSError, WebSocketException, ValueError) as failure:
        return error(
            "echo",
            f"The WebSocket by way of {way} failed: {failure}",
            "Start the interface server, or correct --url; a proxy must pass Upgrade and Connection on.",
            layer.alias,
        )
    median = statistics.median(times) * 1000
    inside = ", with a worker inside as the layer is in this process's memory" if layer.in_process else ""
    return ok(
        "echo",
        f"A frame came back after {median:.2f} ms (median of {_FRAMES}; opening took {opened * 1000:.1f} ms), by way "
        f"of {way} and the worker process {worker}{inside}.",
        layer.alias,
        median_ms=round(median, 3),
        longest_ms=round(max(times) * 1000, 3),
        opening_ms=round(opened * 1000, 3),
        worker=worker,
    )


def _exchange(socket: ClientConnection, timeout: float) -> tuple[list[float], str]:
    times: list[float] = []
    answer: dict[str, Any] = {}
    for number in range(_FRAMES):
        began = time.perf_counter()
        socket.send(str(number))
        answer = json.loads(socket.recv(timeout=timeout))
        if answer.get("echo") != str(number):
            raise ValueError(f"{number} was sent, and {answer.get('echo')!r} came back")
        times.append(time.perf_counter() - began)
    return times, str(answer.get("worker"))


def _refused(layer: ChannelLayerWrapper, status: int, timeout: float, way: str) -> Finding:
    text, remedy = {
        403: (
            "refused it",
            "Give all processes the same SECRET_KEY, and update workers that are older than this command.",
        ),
        404: ("knows no such page", "Name the address of the interface server, or have the proxy pass the path on."),
        503: ("has no room or no broker", "Look at the other findings, and whether workers keep up."),
        504: (f"got no answer from a worker within {timeout:g} s", _NO_WORKER),
    }.get(status, (f"answered with {status}", "Name the address of an interface server: doctor --url."))
    return error("echo", f"The WebSocket failed: {way} {text} (HTTP {status}).", remedy, layer.alias, status=status)


def _headers(url: str) -> dict[str, str]:
    """Return the headers that the interface server requires."""
    if not conf.requires_origin():
        return {}
    hosts = [host for host in settings.ALLOWED_HOSTS if host != "*"]
    return {"Origin": f"https://{hosts[0].lstrip('.')}" if hosts else url.replace("ws", "http", 1)}
