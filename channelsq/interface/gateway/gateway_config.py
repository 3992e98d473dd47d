"""The options that all gateways share; a gateway adds its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from channelsq.interface.basis.command_line import parser_of, read_values
from channelsq.interface.basis.common_options import (
    DRAIN_DELAY,
    HOST,
    KEEP_ALIVE_TIMEOUT,
    LAYER,
    MAX_HEADER_SIZE,
    METRICS,
    VERBOSITY,
    WORKERS,
    port,
    status_path_option,
)
from channelsq.interface.basis.limits import Limits
from channelsq.interface.basis.server_options import (
    TIME,
    TIME_OR_OFF,
    Option,
    integer,
    seconds,
    size,
    switch,
)


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """The settings of one gateway; times in seconds, sizes in bytes.  A gateway's own settings are a subclass."""

    host: str = "127.0.0.1"
    port: int = 8080
    layer: str = "default"
    max_connections: int = 1000
    max_body_size: int = 1024 * 1024
    max_header_size: int = 64 * 1024
    request_timeout: float = 20.0
    keep_alive_timeout: float = 5.0
    publish_timeout: float = 5.0
    rate: float = 10.0
    sends: int = 16
    retry_time: float = 300.0
    reply_channels: int = 10_000
    reply_lifetime: float = 3600.0
    receipts: bool = True
    drain_delay: float = 0.0
    drain_window: float = 8.0
    workers: int = 0
    status_path: str = "/-"
    metrics: bool = False
    verbosity: int = 1
    limits: Limits = field(default_factory=Limits)


OPTIONS: tuple[Option, ...] = (
    HOST,
    port("port", "port for HTTP, that is for webhooks and the server's own pages; PORT is read too"),
    LAYER,
    Option(
        "max_connections",
        integer(1, 1_000_000, "give a number of connections, 1 or more"),
        "the largest number of clients at once, for each port; more are refused",
        "NUMBER",
    ),
    Option("max_body_size", size(1024**3), "the largest body of an HTTP request; larger ones get 413", "BYTES"),
    MAX_HEADER_SIZE,
    Option(
        "request_timeout",
        seconds(zero=False, remedy=TIME),
        "the longest time for a client to send a request before it gets 408",
        "SECONDS",
    ),
    KEEP_ALIVE_TIMEOUT,
    Option(
        "publish_timeout",
        seconds(zero=False, remedy=TIME),
        "wait this long for room in a full channel before a client is told to try later",
        "SECONDS",
    ),
    Option(
        "rate",
        seconds(zero=True, remedy="give messages a second, such as 10 or 0.5, or 0 for no limit"),
        "the largest number of messages a second that this process sends out; 0 for no limit",
        "NUMBER",
    ),
    Option(
        "sends",
        integer(1, 10_000, "give a number of messages, 1 or more"),
        "the largest number of messages that this process takes off the channel and sends out at once",
        "NUMBER",
    ),
    Option(
        "retry_time",
        seconds(zero=True, remedy=TIME_OR_OFF),
        "try again for this long to send a message that cannot be sent now",
        "SECONDS",
    ),
    Option(
        "reply_channels",
        integer(1, 10_000_000, "give a number of channels, 1 or more"),
        "the largest number of clients' messages that their reply channels can answer; more end the oldest",
        "NUMBER",
    ),
    Option(
        "reply_lifetime",
        seconds(zero=False, remedy=TIME),
        "for this long a message can be answered through its reply channel",
        "SECONDS",
    ),
    Option("receipts", switch, "publish the fate of messages that were sent out"),
    DRAIN_DELAY,
    Option(
        "drain_window",
        seconds(zero=True, remedy="give seconds above 0, or 0 to stop at once"),
        "on SIGTERM finish for this long what was begun; the rest is left to other processes",
        "SECONDS",
    ),
    WORKERS,
    status_path_option("answer health/live and health/ready below this path; none to disable them"),
    METRICS,
    VERBOSITY,
)


def read_gateway_config(
    protocol: str,
    config_class: type[GatewayConfig],
    options: Sequence[Option],
    argv: Sequence[str],
    environ: Mapping[str, str],
    program: str,
) -> GatewayConfig:
    """Return the settings of a gateway from a command line and an environment.

    Args:
        protocol: its protocol, which is in the names of its variables: ``CHANNELSQ_SMS_PORT``.
        config_class: the class of its settings.
        options: all its options.
        argv: the command line, without the program's name.
        environ: the environment.
        program: the command, for error texts.

    Raises:
        ConfigError: a value cannot be used, or an option is unknown.
        SystemExit: after ``--help``.
    """
    variables = f"CHANNELSQ_{protocol.upper()}_"
    parser = parser_of(
        options,
        config_class(),
        program=program,
        description=f"The interface server of the protocol {protocol}: it hands clients' messages to workers through "
        "the channel layer, and sends out what the application sends to its channels. Settings come from "
        "DJANGO_SETTINGS_MODULE, else from the module that manage.py here names, else from config.settings.",
        variables=variables,
    )
    return config_class(**read_values(options, parser, argv, environ, variables))
