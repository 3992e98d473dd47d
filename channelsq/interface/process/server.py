"""The interface server: uvicorn's server with our start and our shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from types import FrameType
from typing import Any, Protocol

import uvicorn

from channelsq.asgi import ChannelLayerWrapper
from channelsq.interface.basis.config import ConfigError, InterfaceConfig
from channelsq.interface.basis.counters import Counters
from channelsq.interface.basis.log_fields import extra
from channelsq.interface.basis.packages import check_packages
from channelsq.interface.basis.sockets import bind, cannot_listen, check_unix_socket, url_of
from channelsq.interface.basis.uvicorn_config import uvicorn_config
from channelsq.interface.basis.uvicorn_state_internals import ServerState
from channelsq.interface.context.server_context import ServerContext
from channelsq.interface.http.asgi_application import DirectApp
from channelsq.interface.http.http_app import HttpApp
from channelsq.interface.http.uvicorn_http import HttpProtocol
from channelsq.interface.pages.status_pages import StatusPages
from channelsq.interface.process.drain import Drain
from channelsq.interface.supervision.peers import Peers
from channelsq.interface.websocket.websocket_protocol import WebSocketProtocol

logger = logging.getLogger("channelsq.interface")

#: Approximate upper bound of the files that a process opens beside its clients' connections.
OTHER_FILES = 200

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Companion(Protocol):
    """A component that runs beside the server in its process, such as an embedded worker."""

    def start(self) -> None:
        """Start; called before the server listens."""

    def stop(self) -> None:
        """Stop, and return when stopped; called after the server has ended."""


class InterfaceServer(uvicorn.Server):
    """A server for HTTP and WebSocket clients that runs until it is told to stop.

    Args:
        config: the interface's settings.
        layer: the channel layer for clients' messages.
        sockets: bound sockets to listen on, instead of those that ``config`` names; closed at the end.
        on_listening: called with this server, in its event loop, when clients can connect.
        install_signals: whether SIGTERM and SIGINT stop it; only possible in the main thread.
        peers: the processes that serve together with this one.

    Raises:
        ConfigError: a required package is missing, or too old.
    """

    def __init__(
        self,
        config: InterfaceConfig,
        layer: ChannelLayerWrapper,
        *,
        sockets: Sequence[socket.socket] = (),
        on_listening: Callable[[InterfaceServer], None] | None = None,
        install_signals: bool = True,
        peers: Peers | None = None,
    ) -> None:
        check_packages()
        self.context = ServerContext(config, layer, peers)
        self._status = StatusPages(self.context)
        self._settings = config
        self._on_listening = on_listening
        self._install_signals = install_signals
        self._sockets = list(sockets)
        self._at_once = False
        #: The address, such as ``http://127.0.0.1:8000``; empty before the server listens.
        self.url = ""
        super().__init__(
            uvicorn_config(
                DirectApp(self.context) if config.http == "direct" else HttpApp(self.context),
                keep_alive_timeout=config.keep_alive_timeout,
                uds=config.unix_socket,
                http=functools.partial(HttpProtocol, self.context, self._status),
                ws=self._make_websocket,
                workers=1,
            )
        )

    @property
    def stats(self) -> Counters:
        """The events so far."""
        return self.context.stats

    def stop(self) -> None:
        """Shut down as on SIGTERM; returns at once.  Safe to call from any thread, also before :meth:`run`."""
        self.should_exit = True

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until :meth:`stop` or a signal; return when everything is closed.

        Raises:
            ConfigError: the server cannot listen on its address.
        """
        self._sockets = sockets or self._sockets
        if self._settings.unix_socket is not None and not self._sockets:
            check_unix_socket(self._settings.unix_socket)
        elif not self._sockets:
            self._sockets = bind(self._settings.host, self._settings.port)
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
        return WebSocketProtocol(self.context, server_state)

    # -- called by uvicorn ------------------------------------------------------------------

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Connect to the channel layer, then listen."""
        await self.context.start()
        try:
            await super().startup(sockets)
            self.url = self._find_url()
        except OSError as error:
            await self.context.stop()
            raise ConfigError(self._cannot_listen(error)) from None
        await self._status.join()
        logger.info("clients' messages go to the channel layer %s", self.context.layer.described, extra=extra("layer"))
        logger.info("channelsq interface listening on %s", self.url, extra=extra("listening"))
        if self._on_listening is not None:
            self._on_listening(self)

    def _cannot_listen(self, error: OSError) -> str:
        if not self._sockets:
            return cannot_listen(str(self._settings.unix_socket), error, "--unix-socket")
        # If another process listens on the port that both have bound, asyncio raises this and uvloop closes the socket.
        taken = OSError(errno.EADDRINUSE, "") if error.errno == errno.EBADF else error
        return cannot_listen(f"{self._settings.host}:{self._settings.port}", taken, "--port")

    def _find_url(self) -> str:
        if not self._sockets:
            return f"unix:{self._settings.unix_socket}"
        return url_of(self._settings.host, self._sockets[0])

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Let signals stop the server, and restore their handlers afterwards.

        uvicorn raises the signal again at its end, which would kill the process before the server's companions have
        stopped.
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
        # Ctrl-C: a user at a terminal does not wait for the drain.
        self._at_once = number == signal.SIGINT
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the clients' connections, and tell the workers, in bounded time.  See :class:`Drain`."""
        drain = Drain(self.context, self.server_state, lambda: self.force_exit)
        if self._at_once:
            drain.skip_waits()
        await drain.run(self._stop_listening)

    def _stop_listening(self) -> None:
        for server in self.servers:
            server.close()
        for each in self._sockets:
            each.close()


def serve(
    config: InterfaceConfig,
    layer: ChannelLayerWrapper,
    *,
    companions: Sequence[Companion] = (),
    sockets: Sequence[socket.socket] = (),
    on_listening: Callable[[InterfaceServer], None] | None = None,
    install_signals: bool = True,
    peers: Peers | None = None,
) -> InterfaceServer:
    """Run an interface server until it is stopped; blocks.

    From a thread that is not the main one::

    serve(config, layer, on_listening=remember, install_signals=False)

    ``remember`` gets the server, whose ``url`` is set by then.  Any thread may call its ``stop()``.  To be able to stop
    it before it listens, create an :class:`InterfaceServer` and call ``run()``.

    Args:
        config: the interface's settings.
        layer: the channel layer.
        companions: started before the server listens, stopped in reverse order after it has ended.
        sockets: bound sockets to listen on, instead of those that ``config`` names; closed at the end.
        on_listening: called in the server's event loop when clients can connect.
        install_signals: whether SIGTERM and SIGINT stop it.
        peers: the processes that serve together with this one.

    Raises:
        ConfigError: the server cannot listen on its address.
    """
    server = InterfaceServer(
        config, layer, sockets=sockets, on_listening=on_listening, install_signals=install_signals, peers=peers
    )
    started: list[Companion] = []
    try:
        for companion in companions:
            companion.start()
            started.append(companion)
        server.run()
    finally:
        for companion in reversed(started):
            # A consumer that hangs must not keep the process alive.
            stopper = threading.Thread(target=companion.stop, daemon=True)
            stopper.start()
            stopper.join(config.limits.end_companions / len(started))
    return server


def run(
    config: InterfaceConfig,
    layer: ChannelLayerWrapper,
    *,
    companions: Sequence[Companion] = (),
    sockets: Sequence[socket.socket] = (),
    on_listening: Callable[[InterfaceServer], None] | None = None,
    peers: Peers | None = None,
) -> None:
    """Run an interface server in the main thread until SIGTERM or SIGINT; see :func:`serve`."""
    _raise_file_limit(config.max_connections + OTHER_FILES)
    serve(config, layer, companions=companions, sockets=sockets, on_listening=on_listening, peers=peers)


def _raise_file_limit(wanted: int) -> None:
    """Raise this process' limit of open files to the needed number, as far as the system allows."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    possible = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < possible:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
            soft = possible
    if soft != resource.RLIM_INFINITY and soft < wanted:
        logger.warning(
            "this process may open %d files, but needs %d for --max-connections %d and its other files: raise "
            "`ulimit -Hn`, or lower --max-connections",
            soft, wanted, wanted - OTHER_FILES,
            extra={"action": "few_files"},
        )  # fmt: skip
