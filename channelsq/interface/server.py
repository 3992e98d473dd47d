"""The interface server: uvicorn's, with our start and our end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import logging
import os
import signal
import socket
import stat
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from types import FrameType
from typing import Any, Protocol, cast

import uvicorn
from uvicorn.server import ServerState

from channelsq.asgi import ChannelLayerWrapper
from channelsq.interface.config import ConfigError, InterfaceConfig
from channelsq.interface.direct import DirectApp
from channelsq.interface.http import HttpApp
from channelsq.interface.hub import Hub
from channelsq.interface.logs import extra
from channelsq.interface.stats import Stats
from channelsq.interface.uvicorn_http import HttpProtocol
from channelsq.interface.websocket import WebSocketProtocol

logger = logging.getLogger("channelsq.interface")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Companion(Protocol):
    """Something that runs beside the server in its process, such as an embedded worker."""

    def start(self) -> None:
        """Called before the server listens."""

    def stop(self) -> None:
        """Called when the server has ended; returns when it has stopped."""


class InterfaceServer(uvicorn.Server):
    """Serves HTTP and WebSocket clients until it is told to stop.

    Args:
        config: the interface's settings.
        layer: the channel layer to hand messages to.
        sockets: bound ones to listen on, instead of those that ``config`` names; closed at the end.
        on_listening: called with this server, in its event loop, when clients can connect.
        install_signals: whether SIGTERM and SIGINT stop it; only possible in the main thread.
    """

    def __init__(
        self,
        config: InterfaceConfig,
        layer: ChannelLayerWrapper,
        *,
        sockets: Sequence[socket.socket] = (),
        on_listening: Callable[[InterfaceServer], None] | None = None,
        install_signals: bool = True,
    ) -> None:
        self.hub = Hub(config, layer)
        self._settings = config
        self._on_listening = on_listening
        self._install_signals = install_signals
        self._sockets = list(sockets)
        #: Where it listens, such as ``http://127.0.0.1:8000``; empty before it does.
        self.url = ""
        super().__init__(
            uvicorn.Config(
                DirectApp(self.hub) if config.http == "direct" else HttpApp(self.hub),
                uds=config.unix_socket,
                http=cast("type[asyncio.Protocol]", functools.partial(HttpProtocol, self.hub)),
                ws=cast("type[asyncio.Protocol]", self._make_websocket),
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=config.keep_alive_timeout,  # type: ignore[arg-type]  # it goes to call_later
                workers=1,
            )
        )

    @property
    def stats(self) -> Stats:
        """What happened so far."""
        return self.hub.stats

    def stop(self) -> None:
        """End as on SIGTERM; returns at once.  Safe to call from any thread, also before :meth:`run`."""
        self.should_exit = True

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until :meth:`stop` or a signal; returns when everything is closed.

        Raises:
            ConfigError: it cannot listen where it should.
        """
        self._sockets = sockets or self._sockets
        if self._settings.unix_socket is not None and not self._sockets:
            _check_unix_socket(self._settings.unix_socket)
        elif not self._sockets:
            self._sockets = _bind(self._settings.host, self._settings.port)
        try:
            super().run(self._sockets or None)
        finally:
            for each in self._sockets:
                each.close()

    def _make_websocket(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> WebSocketProtocol:
        return WebSocketProtocol(self.hub, server_state)

    # -- called by uvicorn ------------------------------------------------------------------

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Reach the channel layer, then listen."""
        await self.hub.start()
        try:
            await super().startup(sockets)
        except OSError as error:
            await self.hub.stop()
            raise ConfigError(_cannot_listen(str(self._settings.unix_socket), error, "--unix-socket")) from None
        self.url = self._find_url()
        logger.info("channelsq interface listening on %s", self.url, extra=extra("listening"))
        if self._on_listening is not None:
            self._on_listening(self)

    def _find_url(self) -> str:
        if not self._sockets:
            return f"unix:{self._settings.unix_socket}"
        port = self._sockets[0].getsockname()[1]
        host = self._settings.host
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Let signals stop the server, and give them back afterwards.

        uvicorn raises the signal again at its end, which would kill the process before it has stopped
        what runs beside the server.
        """
        if not self._install_signals or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.should_exit and number == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse new clients, take leave of those there are, and tell the workers; bounded in time."""
        hub, limits = self.hub, self.hub.limits
        began = hub.loop.time()
        hub.ending = True
        logger.info(
            "stopping: %d connections, %d WebSockets",
            hub.connections,
            len(hub.sockets),
            extra=extra("stopping"),
        )
        for server in self.servers:
            server.close()
        for each in sockets or []:
            each.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self._wait(lambda: not self.server_state.connections, began + limits.end_answers)
        for task in list(self.server_state.tasks):
            task.cancel()
        for connection in list(self.server_state.connections):
            connection.transport.abort() if not isinstance(connection, WebSocketProtocol) else connection.abort()
        await self._wait(
            lambda: not self.server_state.connections and not self.server_state.tasks, began + limits.end_answers + 1
        )
        await self._wait(lambda: not hub.untold(), began + limits.end_ordered)
        if left := hub.untold():
            logger.warning("%d WebSockets end without waiting for their workers", left, extra=extra("let_go"))
        for each_socket in list(hub.sockets):
            each_socket.let_go()
        await self._wait(lambda: hub.link.idle, began + limits.end_all)
        await hub.stop()
        logger.info("stopped after %.1f s", hub.loop.time() - began, extra=extra("stopped"))

    async def _wait(self, condition: Callable[[], bool], until: float) -> None:
        while not condition() and not self.force_exit and self.hub.loop.time() < until:
            await asyncio.sleep(0.02)


def serve(
    config: InterfaceConfig,
    layer: ChannelLayerWrapper,
    *,
    companions: Sequence[Companion] = (),
    sockets: Sequence[socket.socket] = (),
    on_listening: Callable[[InterfaceServer], None] | None = None,
    install_signals: bool = True,
) -> InterfaceServer:
    """Run an interface server until it is stopped; blocks.

    From a thread that is not the main one::

        serve(config, layer, on_listening=remember, install_signals=False)

    ``remember`` gets the server, whose ``url`` is known then and whose ``stop()`` may be called from any
    thread.  To be able to stop it before it listens, make an :class:`InterfaceServer` and ``run()`` it.

    Args:
        config: the interface's settings.
        layer: the channel layer.
        companions: started before the server listens, stopped in reverse order after it has ended.
        sockets: bound ones to listen on, instead of those that ``config`` names; closed at the end.
        on_listening: called in the server's event loop when clients can connect.
        install_signals: whether SIGTERM and SIGINT stop it.

    Raises:
        ConfigError: it cannot listen where it should.
    """
    server = InterfaceServer(config, layer, sockets=sockets, on_listening=on_listening, install_signals=install_signals)
    started: list[Companion] = []
    try:
        for companion in companions:
            companion.start()
            started.append(companion)
        server.run()
    finally:
        for companion in reversed(started):
            # A consumer that hangs must not keep the process.
            stopper = threading.Thread(target=companion.stop, daemon=True)
            stopper.start()
            stopper.join(config.limits.end_companions / len(started))
    return server


def run(config: InterfaceConfig, layer: ChannelLayerWrapper, *, companions: Sequence[Companion] = ()) -> None:
    """Run an interface server in the main thread until SIGTERM or SIGINT; see :func:`serve`."""
    _raise_file_limit(config.max_connections + 200)
    serve(config, layer, companions=companions)


def _raise_file_limit(wanted: int) -> None:
    """Allow this process as many open sockets as it is to serve, as far as it may."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    possible = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < possible:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))


def _bind(host: str, port: int) -> list[socket.socket]:
    """Sockets bound to every address of ``host``, all to the same port."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ConfigError(f"--host {host!r} is not an address of this machine: {error.strerror}") from None
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            try:
                bound = socket.socket(family, kind, protocol)
            except OSError:
                continue  # the name has an address of a family that this machine does not speak
            sockets.append(bound)
            if os.name == "posix":
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind((address[0], port, *address[2:]))
            bound.setblocking(False)
            port = bound.getsockname()[1]
    except OSError as error:
        for bound in sockets:
            bound.close()
        raise ConfigError(_cannot_listen(f"{host}:{port}", error, "--port")) from None
    if not sockets:
        raise ConfigError(f"--host {host!r} is not an address of this machine")
    return sockets


def _cannot_listen(where: str, error: OSError, option: str) -> str:
    remedies = {
        errno.EADDRINUSE: f"stop what uses it, or choose another with {option}",
        errno.EACCES: f"choose one that this user may use with {option}",
        errno.EADDRNOTAVAIL: "choose an address of this machine with --host",
    }
    remedy = remedies.get(error.errno or 0, f"choose another with {option}")
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    return f"cannot listen on {where}: {reason}; {remedy}"


def _check_unix_socket(path: str) -> None:
    """Make sure that ``path`` is free, or a socket that nobody listens on any more."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return  # not there, or the attempt to listen will say what is wrong
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"--unix-socket {path!r} is a file that is no socket; choose another path")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except OSError:
            return
    raise ConfigError(_cannot_listen(path, OSError(errno.EADDRINUSE, ""), "--unix-socket"))
