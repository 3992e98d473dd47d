"""A real interface server and real workers under a test."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.test import TransactionTestCase
from django.test.utils import modify_settings

from channelsq.asgi import ChannelLayerWrapper, channel_layers
from channelsq.conf import DEFAULT_CHANNEL_LAYER
from channelsq.interface.basis.config import InterfaceConfig
from channelsq.interface.process.server import InterfaceServer
from channelsq.staticfiles import StaticFilesConsumer
from channelsq.test.layers import LayersMixin, installed, private_layer, remove, served
from channelsq.worker.embedded import EmbeddedWorker

#: Seconds for the interface server to listen, or to stop.
_PATIENCE = 30.0


class LiveServer:
    """An interface server in a thread.

    Args:
        layer: the layer for clients' messages.
        host: the address to listen on; the port is a free one.
    """

    def __init__(self, layer: ChannelLayerWrapper, host: str) -> None:
        self._listening = threading.Event()
        self._failure: BaseException | None = None
        self._server = InterfaceServer(
            InterfaceConfig(host=host, port=0), layer, on_listening=self._on_listening, install_signals=False
        )
        self._thread = threading.Thread(target=self._run, name="channelsq-live-server", daemon=True)

    def _on_listening(self, server: InterfaceServer) -> None:
        self._listening.set()

    def _run(self) -> None:
        try:
            self._server.run()
        except BaseException as error:
            self._failure = error
        finally:
            self._listening.set()

    @property
    def url(self) -> str:
        """Its URL, such as ``http://localhost:32768``."""
        return self._server.url

    def start(self) -> None:
        """Start the server; return when it listens.

        Raises:
            ConfigError: it cannot listen there.
        """
        self._thread.start()
        if not self._listening.wait(_PATIENCE):
            raise TimeoutError(f"the interface server did not listen within {_PATIENCE:g} s")
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Stop the server and close its sockets; return when it has stopped."""
        self._server.stop()
        self._thread.join(_PATIENCE)


class ChannelLiveServerTestCase(LayersMixin, TransactionTestCase):
    """A test case with an interface server and worker threads for each test, on the test's own database.

    Point a browser (Selenium, Playwright) or a WebSocket client at :attr:`live_server_url` and
    :attr:`live_server_ws_url`.  The channel layer is the default one with its ``TEST_CONFIG``, in memory if it has
    none; the test's group sends reach the sockets.  Any database works, also SQLite in memory.

    Raises, as the test's error:
        ImproperlyConfigured: there are several channel layers.
    """

    #: The address to listen on.
    host = "localhost"
    #: How many consumers run at once.
    worker_threads = 1
    #: Whether the static files of ``django.contrib.staticfiles`` are served, if that is installed.
    serve_static = True

    _live_server: LiveServer

    @property
    def live_server_url(self) -> str:
        """The URL of the site, such as ``http://localhost:32768``."""
        return self._live_server.url

    @property
    def live_server_ws_url(self) -> str:
        """The same for WebSockets, ``ws://…``."""
        return self.live_server_url.replace("http", "ws", 1)

    @contextlib.contextmanager
    def surroundings(self) -> Iterator[None]:
        """Run the layer, the workers and the interface server."""
        if len(channel_layers.configs) > 1:
            raise ImproperlyConfigured(
                "ChannelLiveServerTestCase serves one channel layer, and CHANNEL_LAYERS has "
                f"{', '.join(map(repr, channel_layers.configs))}: override it for the test"
            )
        with contextlib.ExitStack() as undo:
            undo.enter_context(modify_settings(ALLOWED_HOSTS={"append": self.host}))
            layer = undo.enter_context(private_layer(DEFAULT_CHANNEL_LAYER))
            undo.enter_context(installed([layer], self.layer_changes))
            undo.callback(remove, layer)
            undo.enter_context(_threads_ended())
            served.add(layer)
            undo.callback(served.discard, layer)
            static = self.serve_static and apps.is_installed("django.contrib.staticfiles")
            worker = EmbeddedWorker(
                layer,
                threads=self.worker_threads,
                http_consumer=StaticFilesConsumer(insecure=True) if static else None,
                shared_connections=undo.enter_context(_shared_connections()),
            )
            worker.start()
            undo.callback(worker.stop)
            self._live_server = LiveServer(layer, self.host)
            undo.callback(self._live_server.stop)
            self._live_server.start()
            yield


@contextlib.contextmanager
def _threads_ended() -> Iterator[None]:
    """Wait at the end for channelsq's threads that were started in the block.

    An interface server that stops does not wait for threads that are waiting for a broker.
    """
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + _PATIENCE
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("channelsq-"):
            thread.join(max(0.0, deadline - time.monotonic()))


@contextlib.contextmanager
def _shared_connections() -> Iterator[dict[str, Any]]:
    """Yield this thread's connections to databases in memory, for other threads to use."""
    shared = {
        connection.alias: connection
        for connection in connections.all()
        if connection.vendor == "sqlite" and connection.is_in_memory_db()  # type: ignore[attr-defined]
    }
    for connection in shared.values():
        connection.inc_thread_sharing()
    try:
        yield shared
    finally:
        for connection in shared.values():
            connection.dec_thread_sharing()
