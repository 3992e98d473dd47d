"""``manage.py runserver``: interface server and workers in one process, for development."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib.staticfiles.management.commands.runserver import Command as DjangoRunserver
from django.core.management.base import CommandError, CommandParser

from channelsq import conf
from channelsq.asgi import ChannelLayerWrapper, channel_layers
from channelsq.core import logs
from channelsq.handler import ViewConsumer
from channelsq.interface.basis.config import ConfigError, InterfaceConfig
from channelsq.interface.basis.packages import check_packages
from channelsq.interface.process.server import serve
from channelsq.staticfiles import StaticFilesConsumer
from channelsq.worker.embedded import EmbeddedWorker, in_process_layers
from channelsq.worker.threaded import ThreadedCeleryWorker


class Command(DjangoRunserver):
    """Django's runserver on channelsq's interface server; options, checks, banner and autoreload are Django's."""

    help = "Starts a development server: interface server and worker threads in one process."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add Django's options, and those that leave out one half."""
        super().add_arguments(parser)
        parser.add_argument(
            "--noworker",
            action="store_false",
            dest="run_worker",
            help="Do not run workers in this process; needs a broker, and workers elsewhere.",
        )
        parser.add_argument(
            "--nointerface",
            action="store_false",
            dest="run_interface",
            help="Do not listen for HTTP and WebSockets, only run workers; needs a broker.",
        )

    def handle(self, *args: Any, **options: Any) -> str | None:
        """Refuse options that cannot work, then run Django's command."""
        self.run_interface = options["run_interface"]
        if not (options["run_worker"] and options["run_interface"]):
            if not (options["run_worker"] or options["run_interface"]):
                raise CommandError("--noworker and --nointerface together leave nothing to run.")
            layer = channel_layers[conf.DEFAULT_CHANNEL_LAYER]
            if layer.in_process:
                raise CommandError(
                    f"the channel layer {layer} lives inside one process, so interface and workers cannot run "
                    "apart; set REDIS_URL (or CHANNEL_LAYERS to another layer) to use --noworker or --nointerface."
                )
        if options["run_interface"]:
            try:
                check_packages()
            except ConfigError as error:
                raise CommandError(str(error)) from error
        return super().handle(*args, **options)

    def get_handler(self, *args: Any, **options: Any) -> Any:
        """Return the consumer of HTTP requests that no route claims; Django's ``inner_run`` passes it on."""
        self.server_cls = _server_class(self, options)
        if options["use_static_handler"] and (settings.DEBUG or options["insecure_serving"]):
            return StaticFilesConsumer(insecure=options["insecure_serving"])
        return ViewConsumer()

    def on_bind(self, server_port: int) -> None:
        """Print Django's banner, and one line about the layer."""
        layer = channel_layers[conf.DEFAULT_CHANNEL_LAYER]
        if self.run_interface:
            super().on_bind(server_port)
            self.stdout.write(f"channelsq: {_describe(layer)}\n")
        else:
            self.stdout.write(f"channelsq: workers alone, channel layer {layer.described}\n")


def _describe(layer: ChannelLayerWrapper) -> str:
    if layer.in_process:
        return "in-memory channel layer; interface server and workers run in this process"
    return f"channel layer {layer.described}"


def _server_class(command: Command, options: dict[str, Any]) -> type:
    """Return a class with the interface of Django's ``WSGIServer``, which ``runserver`` drives."""

    class Server:
        daemon_threads = True

        def __init__(self, address: tuple[str, int], handler: object, ipv6: bool = False) -> None:
            self.layer = channel_layers[conf.DEFAULT_CHANNEL_LAYER]
            self.host, self.server_port = address
            self.socket: socket.socket | None = None
            if options["run_interface"]:
                self.socket = _bind(address, ipv6)
                self.server_port = self.socket.getsockname()[1]

        def set_app(self, http_consumer: Callable[..., Any]) -> None:
            # The first call decides which consumer handles unclaimed HTTP requests.
            self.layer.router.check_default(http_consumer)

        def serve_forever(self) -> None:
            # Celery's loggers report failing consumers, channelsq's each message.
            details = logging.DEBUG if options["verbosity"] >= 2 else logging.WARNING
            logs.show({"channelsq": details, "celery": logging.WARNING})
            _show_requests()
            workers = _workers(self.layer) if options["run_worker"] else []
            for worker in workers:
                worker.start()
            try:
                if self.socket is not None:
                    config = InterfaceConfig(host=self.host, port=self.server_port, access_log=True)
                    serve(config, self.layer, sockets=[self.socket])
                elif workers:
                    workers[0].wait()
            finally:
                for worker in workers:
                    worker.stop()

    return Server


def _workers(layer: ChannelLayerWrapper) -> list[EmbeddedWorker | ThreadedCeleryWorker]:
    """Return the workers of every layer that this process can consume, that of ``layer`` first."""
    embedded: list[EmbeddedWorker | ThreadedCeleryWorker] = [EmbeddedWorker(each) for each in in_process_layers()]
    if not layer.in_process:
        return [ThreadedCeleryWorker(conf.celery_app()), *embedded]
    return sorted(embedded, key=lambda worker: worker.layer is not layer)  # type: ignore[union-attr]


def _bind(address: tuple[str, int], ipv6: bool) -> socket.socket:
    """Return a listening socket, bound here so that Django can report a taken port as usual."""
    bound = socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(1024)
        bound.set_inheritable(False)
    except OSError:
        bound.close()
        raise
    return bound


def _show_requests() -> None:
    """Log a line for each request with the handlers of Django's runserver, unless LOGGING has its own."""
    logger = logging.getLogger("channelsq.access")
    if logger.handlers:
        return
    logger.setLevel(logging.INFO)
    theirs: logging.Logger | None = logging.getLogger("django.server")
    while theirs is not None and not theirs.handlers:
        theirs = theirs.parent if theirs.propagate else None
    if theirs is not None:
        logger.propagate = False
        for handler in theirs.handlers:
            logger.addHandler(handler)
