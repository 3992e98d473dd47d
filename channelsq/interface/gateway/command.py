"""The command of a gateway."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence

from channelsq.interface.basis.command_line import ConfigError
from channelsq.interface.basis.optional_packages import import_with
from channelsq.interface.basis.packages import check_packages
from channelsq.interface.basis.project_setup import choose_settings, import_from_here, set_up, show_logs
from channelsq.interface.basis.server_options import flag_of
from channelsq.interface.gateway.gateway import Gateway
from channelsq.interface.gateway.gateway_config import GatewayConfig, read_gateway_config
from channelsq.interface.supervision.supervised import Supervised
from channelsq.interface.supervision.supervisor import Address, Supervisor, Together, this_program


def run_gateway(gateway: type[Gateway], argv: Sequence[str] | None = None) -> int:
    """Run a gateway until SIGTERM or SIGINT; return the exit code: 0, or 2 after a one-line error message.

    With ``--workers`` this process starts others by its own command line, which must call this function too.

    Args:
        gateway: its class.
        argv: the command line without the program's name; that of this process if left out.
    """
    import_from_here()
    supervised = Supervised.take(os.environ)
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
        if config.workers and supervised is None:
            return _supervise(gateway, config)
        with set_up(config.verbosity):
            from channelsq.asgi import channel_layers

            layer = channel_layers[config.layer]
            if layer.channel_layer.in_process:
                raise ConfigError(
                    f"a gateway needs a channel layer that several processes share, which {layer} is not: set "
                    "REDIS_URL, or another layer in CHANNEL_LAYERS"
                )
            asyncio.run(gateway(config, layer).run(supervised=supervised))
    except ConfigError as error:
        return _refuse(gateway.protocol, error)
    return 0


def _supervise(gateway: type[Gateway], config: GatewayConfig) -> int:
    """Run several processes of a gateway; return the exit code.

    Raises:
        ConfigError: the gateway or the system does not support several processes, or an address cannot be used.
    """
    if not gateway.serves_together:
        raise ConfigError(
            f"--workers {config.workers} cannot be used: this gateway serves in one process; leave it out, and start "
            "several with other ports, if its protocol lets them share the clients"
        )
    show_logs(config.verbosity)
    addresses = [
        Address(getattr(config, host), getattr(config, port), flag_of(port)) for host, port in gateway.addresses
    ]
    command = [*this_program(), *sys.argv[1:]]
    together = Together(command, config.workers, addresses, config.drain_delay + config.drain_window)
    return Supervisor(together).run()


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
