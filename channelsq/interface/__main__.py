"""The command ``python -m channelsq.interface``.

Like the management commands, this module stands above the packages that it combines.  It is the only module of
``channelsq.interface`` that imports ``channelsq.worker``, for layers that only this process can see.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from channelsq.exceptions import InvalidRouting
from channelsq.interface.basis.config import ConfigError, InterfaceConfig, read_config
from channelsq.interface.basis.packages import check_packages
from channelsq.interface.basis.project_setup import choose_settings, import_from_here, set_up, show_logs
from channelsq.interface.basis.sockets import passed_sockets
from channelsq.interface.supervision.supervised import Supervised
from channelsq.interface.supervision.supervisor import Address, Supervisor, Together

if TYPE_CHECKING:
    from channelsq.asgi import ChannelLayerWrapper

logger = logging.getLogger("channelsq.interface")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the interface server; return the exit code: 0, or 2 after a one-line error message."""
    import_from_here()
    given = sys.argv[1:] if argv is None else argv
    supervised = Supervised.take(os.environ)
    try:
        config = read_config(given, os.environ)
        choose_settings()
        check_packages()  # before these packages are imported
        if config.workers and supervised is None:
            show_logs(config.verbosity)
            sockets = passed_sockets()
            config = _listening_on(config, sockets)
            return Supervisor(_together(config, given), sockets).run()
        _run(config, supervised)
    except ConfigError as error:
        print(f"channelsq interface: {error}", file=sys.stderr)  # noqa: T201
        return 2
    return 0


def _together(config: InterfaceConfig, argv: Sequence[str]) -> Together:
    return Together(
        ["-m", "channelsq.interface", *argv],
        config.workers,
        [Address(config.host, config.port)],
        config.drain_delay + config.drain_window,
        config.unix_socket,
    )


def _listening_on(config: InterfaceConfig, sockets: Sequence[socket.socket]) -> InterfaceConfig:
    """Return the settings with the address of sockets that a service manager has passed, if there are any."""
    if not sockets:
        return config
    name = sockets[0].getsockname()
    if isinstance(name, (str, bytes)):
        return replace(config, unix_socket=None)
    return replace(config, unix_socket=None, host=name[0], port=name[1])


def _run(config: InterfaceConfig, supervised: Supervised | None) -> None:
    with set_up(config.verbosity):
        _serve(config, supervised)


def _serve(config: InterfaceConfig, supervised: Supervised | None) -> None:
    from channelsq.asgi import channel_layers
    from channelsq.interface.process.server import Companion, InterfaceServer, run
    from channelsq.interface.supervision.peers import Peers

    layer = channel_layers[config.layer]
    _check_routing(layer)
    companions: list[Companion] = []
    if layer.channel_layer.in_process:
        if config.workers > 1:
            raise ConfigError(
                f"--workers {config.workers} needs a channel layer that several processes share, which {layer} is not: "
                "set REDIS_URL, or another layer in CHANNEL_LAYERS; or leave --workers out"
            )
        from channelsq.worker.embedded import EmbeddedWorker, in_process_layers

        companions += [EmbeddedWorker(each) for each in in_process_layers()]
        logger.info(
            "the channel layer is in this process's memory, so the workers run in this process too; "
            "set REDIS_URL, or another layer in CHANNEL_LAYERS, to run them apart",
            extra={"action": "embedded_workers"},
        )
    if supervised is None:
        sockets = passed_sockets()
        run(_listening_on(config, sockets), layer, companions=companions, sockets=sockets)
        return

    def listening(server: InterfaceServer) -> None:
        supervised.when_alone(server.stop)
        supervised.say_ready()

    peers = Peers(supervised.number, supervised.folder) if config.metrics else None
    run(config, layer, companions=companions, sockets=supervised.listening(), on_listening=listening, peers=peers)


def _check_routing(layer: ChannelLayerWrapper) -> None:
    """In development, log a routing that keeps workers from starting; in production only workers read the routing."""
    from django.conf import settings

    if settings.DEBUG and not layer.in_process:
        try:
            _ = layer.router
        except InvalidRouting as error:
            logger.error("no worker can start: %s", error, extra={"action": "bad_routing"})


if __name__ == "__main__":
    sys.exit(main())
