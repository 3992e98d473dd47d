"""The interface server's settings: command line, then environment, then default."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from channelsq.interface.basis.command_line import ConfigError, parser_of, read_values
from channelsq.interface.basis.common_options import (
    DRAIN_DELAY,
    HOST,
    LAYER,
    METRICS,
    VERBOSITY,
    WORKERS,
    port,
    status_path_option,
)
from channelsq.interface.basis.limits import LIMIT_OPTIONS, Limits
from channelsq.interface.basis.server_options import (
    TIME,
    TIME_OR_OFF,
    Option,
    root_path,
    seconds,
    socket_path,
    switch,
    who_answers,
)

__all__ = ["OPTIONS", "PROGRAM", "ConfigError", "InterfaceConfig", "parser", "read_config"]

PROGRAM = "python -m channelsq.interface"


@dataclass(frozen=True, slots=True)
class InterfaceConfig:
    """The settings of one interface server; times in seconds, sizes in bytes.

    ``python -m channelsq.interface --help`` describes each.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    layer: str = "default"
    unix_socket: str | None = None
    root_path: str = ""
    proxy_headers: bool = False
    http_timeout: float = 120.0
    accept_timeout: float = 20.0
    # Longer than the redelivery of a dead worker's message on streams: a lease of 30 s plus a third of it.
    order_timeout: float = 45.0
    ping_interval: float = 20.0
    ping_timeout: float = 30.0
    max_connections: int = 10_000
    # A tenth of all connections, so that no address takes them all, and enough for an office behind one address.
    max_connections_per_client: int = 1000
    max_header_size: int = 64 * 1024
    header_timeout: float = 20.0
    keep_alive_timeout: float = 5.0
    max_body_size: int = 100 * 1024 * 1024
    min_body_rate: int = 500
    response_queue: int = 8 * 1024 * 1024
    max_message_size: int = 1024 * 1024
    max_message_rate: int = 5000
    max_byte_rate: int = 16 * 1024 * 1024
    send_queue: int = 1024 * 1024
    idle_timeout: float = 0.0
    drain_delay: float = 0.0
    drain_window: float = 8.0
    workers: int = 0
    access_log: bool = False
    http: str = "channel"
    status_path: str = "/-"
    metrics: bool = False
    verbosity: int = 1
    limits: Limits = field(default_factory=Limits)


OPTIONS: tuple[Option, ...] = (
    HOST,
    port("port", "port to listen on; PORT is read too, as Heroku sets it"),
    LAYER,
    Option(
        "unix_socket",
        socket_path,
        "listen on this socket file instead of a host and port",
        "PATH",
        shown_default="none",
    ),
    Option("root_path", root_path, "the path under which a proxy mounts the site", "PATH", shown_default="none"),
    Option(
        "http",
        who_answers,
        "answer HTTP requests with the workers (channel), or with Django's views in this process (direct)",
        "WHO",
    ),
    Option(
        "proxy_headers",
        switch,
        "trust X-Forwarded-For (its last address) and X-Forwarded-Proto; "
        "only behind a proxy that sets them itself, as any client can send them",
    ),
    Option(
        "http_timeout",
        seconds(zero=False, remedy=TIME),
        "wait this long for a worker's answer, or its next part, before a request gets 504",
        "SECONDS",
    ),
    Option(
        "accept_timeout",
        seconds(zero=False, remedy=TIME),
        "wait this long for a worker to accept or refuse a WebSocket before it gets 504",
        "SECONDS",
    ),
    Option(
        "order_timeout",
        seconds(zero=False, remedy=TIME),
        "wait this long for a worker to finish a WebSocket's message before the next is handed out",
        "SECONDS",
    ),
    Option(
        "ping_interval",
        seconds(zero=True, remedy=TIME_OR_OFF),
        "the interval between pings of a WebSocket; 0 for never",
        "SECONDS",
    ),
    Option(
        "ping_timeout",
        seconds(zero=True, remedy=TIME_OR_OFF),
        "drop a WebSocket that leaves a ping unanswered for this long; 0 for never",
        "SECONDS",
    ),
    *LIMIT_OPTIONS,
    DRAIN_DELAY,
    Option(
        "drain_window",
        seconds(zero=True, remedy="give seconds above 0, or 0 to close all at once"),
        "on SIGTERM close the WebSockets one after another over this long, so that they do not all reconnect at once; "
        "at least 50 a second",
        "SECONDS",
    ),
    WORKERS,
    status_path_option("answer health/live and health/ready below this path, without a worker; none to disable them"),
    METRICS,
    Option("access_log", switch, "log a line for each HTTP request and the start and end of each WebSocket"),
    VERBOSITY,
)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options; every value stays text."""
    return parser_of(
        OPTIONS,
        InterfaceConfig(),
        program=PROGRAM,
        description="The interface server: serves HTTP and WebSocket clients on one port and hands what they "
        "send to workers through the channel layer. Settings come from DJANGO_SETTINGS_MODULE, else from "
        "the module that manage.py here names, else from config.settings.",
    )


def read_config(argv: Sequence[str], environ: Mapping[str, str]) -> InterfaceConfig:
    """Return the settings from a command line (without the program's name) and an environment.

    Raises:
        ConfigError: a value cannot be used, or an option is unknown.
        SystemExit: after ``--help``.
    """
    return InterfaceConfig(**read_values(OPTIONS, parser(), argv, environ))
