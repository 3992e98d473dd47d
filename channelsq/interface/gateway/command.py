"""The command of a gateway."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence

from channelsq.interface.basis.command_line import ConfigError
from channelsq.interface.basis.optional_packages import import_with
from channelsq.interface.basis.packages import check_packages
from channelsq.interface.basis.project_setup import choose_settings, import_from_here, set_up
from channelsq.interface.gateway.gateway import Gateway
from channelsq.interface.gateway.gateway_config import read_gateway_config


def run_gateway(gateway: type[Gateway], argv: Sequence[str] | None = None) -> int:
    """Run a gateway until SIGTERM or SIGINT; return the exit code: 0, or 2 after a one-line error message.

    Args:
        gateway: its class.
        argv: the command line without the program's name; that of this process if left out.
    """
    import_from_here()
    program = gateway.program or f"python {os.path.basename(sys.argv[0])}"
    try:
        config = read_gateway_config(
            gateway.protocol,
            gateway.config_class,
            gateway.options,
            sys.argv[1:] if argv is None else argv,
            os.environ,
            program,
        )
        choose_settings()
        check_packages()
        with set_up(config.verbosity):
            from channelsq.asgi import channel_layers

            layer = channel_layers[config.layer]
            if layer.channel_layer.in_process:
                raise ConfigError(
                    f"a gateway needs a channel layer that several processes share, which {layer} is not: set "
                    "REDIS_URL, or another layer in CHANNEL_LAYERS"
                )
            asyncio.run(gateway(config, layer).run())
    except ConfigError as error:
        return _refuse(gateway.protocol, error)
    return 0


def run_named(path: str, protocol: str, *, needs: str) -> int:
    """Run a gateway of channelsq's own; return the exit code as :func:`run_gateway`.

    Args:
        path: the import path of its class.
        protocol: its protocol, which is also the name of the extra that installs what it needs.
        needs: the package that it needs.
    """
    try:
        gateway = import_with(needs, path, needed_by="it", extra=protocol)
    except ConfigError as error:
        return _refuse(protocol, error)
    return run_gateway(gateway)


def _refuse(protocol: str, problem: object) -> int:
    print(f"channelsq {protocol} gateway: {problem}", file=sys.stderr)  # noqa: T201
    return 2
