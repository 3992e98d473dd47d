"""The options that every interface server has, whatever its protocol."""

from __future__ import annotations

from channelsq.interface.basis.server_options import (
    TIME,
    TIME_OR_OFF,
    Option,
    alias,
    host,
    integer,
    seconds,
    size,
    status_path,
    switch,
)

HOST = Option("host", host, "address to listen on", "HOST", shown_default="127.0.0.1, or 0.0.0.0 if PORT is set")

LAYER = Option("layer", alias, "hand clients' messages to this entry of CHANNEL_LAYERS", "ALIAS")

MAX_HEADER_SIZE = Option(
    "max_header_size",
    size(16 * 1024**2),
    "the largest request line and headers together; larger ones get 431",
    "BYTES",
)

KEEP_ALIVE_TIMEOUT = Option(
    "keep_alive_timeout",
    seconds(zero=False, remedy=TIME),
    "close a connection on which no other request begins for this long",
    "SECONDS",
)

DRAIN_DELAY = Option(
    "drain_delay",
    seconds(zero=True, remedy=TIME_OR_OFF),
    "on SIGTERM accept clients for this long while health/ready says no, so that a load balancer notices",
    "SECONDS",
)

WORKERS = Option(
    "workers",
    integer(1, 256, "give a number of processes, 1 or more"),
    "the number of processes on the same ports; this process supervises them and, on SIGHUP, replaces them "
    "one after another",
    "NUMBER",
    shown_default="this process alone",
)

METRICS = Option("metrics", switch, "also answer metrics there, in the format of Prometheus")

VERBOSITY = Option(
    "verbosity",
    integer(0, 3, "give 0, 1, 2 or 3"),
    "0: errors, 1: also warnings and start-up, 2: also details, 3: also those of libraries",
    "LEVEL",
    short="-v",
)


def port(name: str, text: str) -> Option:
    """Return the option of a port.

    Args:
        name: the option's name.
        text: its description.
    """
    return Option(name, integer(0, 65535, "give a port number, 1 to 65535, or 0 for any free one"), text, "PORT")


def status_path_option(text: str) -> Option:
    """Return the option of the path of the server's own pages.

    Args:
        text: its description.
    """
    return Option("status_path", status_path, text, "PATH")
