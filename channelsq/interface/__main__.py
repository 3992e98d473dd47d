"""The command ``python -m channelsq.interface``.

Like the management commands, this module stands above the packages that it combines.  It is the only module of
``channelsq.interface`` that imports ``channelsq.worker``, for layers that only this process can see.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from channelsq.core import logs
from channelsq.core.settings_module import VARIABLE, find_settings
from channelsq.diagnostics.causes import explained
from channelsq.exceptions import InvalidRouting
from channelsq.interface.basis.config import ConfigError, InterfaceConfig, read_config
from channelsq.interface.basis.packages import check_packages
from channelsq.interface.process.supervised import Supervised
from channelsq.interface.process.supervisor import Supervisor

if TYPE_CHECKING:
    from channelsq.asgi import ChannelLayerWrapper

logger = logging.getLogger("channelsq.interface")

_LEVELS = (logging.ERROR, logging.INFO, logging.DEBUG, logging.DEBUG)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the interface server; return the exit code: 0, or 2 after a one-line error message."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    given = sys.argv[1:] if argv is None else argv
    supervised = Supervised.take(os.environ)
    try:
        config = read_config(given, os.environ)
        _find_settings()
        check_packages()  # before these packages are imported
        if config.workers and supervised is None:
            _configure_logging(config.verbosity)
            return Supervisor(config, given).run()
        _run(config, supervised)
    except ConfigError as error:
        print(f"channelsq interface: {error}", file=sys.stderr)  # noqa: T201
        return 2
    return 0


def _find_settings() -> None:
    found = find_settings(Path.cwd())
    if found is None:
        raise ConfigError(
            f"{VARIABLE} is not set, no manage.py here names one settings module, and there is no config.settings; "
            f"set {VARIABLE} to your settings module, or start in the folder of manage.py"
        )
    os.environ[VARIABLE] = found[0]


def _run(config: InterfaceConfig, supervised: Supervised | None) -> None:
    import django
    from django.conf import settings
    from django.core.exceptions import ImproperlyConfigured

    module = os.environ[VARIABLE]
    try:
        settings.configured or settings.INSTALLED_APPS  # noqa: B018
    except Exception as error:  # any error of the project's modules
        what = "be imported" if isinstance(error, ImportError) else "be used"
        raise ConfigError(f"the settings {module!r} ({VARIABLE}) cannot {what}: {explained(error)}") from error
    try:
        django.setup()
    except Exception as error:
        raise ConfigError(f"the apps in INSTALLED_APPS of {module!r} cannot be loaded: {explained(error)}") from error
    _configure_logging(config.verbosity)
    try:
        _serve(config, supervised)
    except ImproperlyConfigured as error:
        raise ConfigError(str(error)) from error


def _serve(config: InterfaceConfig, supervised: Supervised | None) -> None:
    from channelsq.asgi import channel_layers
    from channelsq.interface.presence.peers import Peers
    from channelsq.interface.process.server import Companion, InterfaceServer, run

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
        run(config, layer, companions=companions)
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


def _configure_logging(verbosity: int) -> None:
    library_level = logging.DEBUG if verbosity >= 3 else logging.WARNING
    logs.show(
        {
            "channelsq": _LEVELS[verbosity],
            "uvicorn": library_level,
            "websockets": library_level,
            # Consumers that run in this process log their failures to this logger.
            "celery": library_level,
            "django": logging.WARNING if verbosity else logging.ERROR,
        }
    )


if __name__ == "__main__":
    sys.exit(main())
