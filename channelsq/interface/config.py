"""The interface server's settings: command line, then environment, then default."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NoReturn

PROGRAM = "python -m channelsq.interface"


class ConfigError(Exception):
    """A setting cannot be used; the text names its value and the remedy."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that need no option; sizes in bytes, times in seconds."""

    #: What a request line and its headers may take together.
    header_bytes: int = 64 * 1024
    #: How long a client may take to send them.
    header_timeout: float = 20.0
    #: What of a body travels in ``http.request`` itself, and in each chunk after it.
    body_chunk: int = 256 * 1024
    #: Parts of a response that wait for a slow client.
    response_queue: int = 8 * 1024 * 1024
    #: Messages of one socket that wait for a worker, before the socket is not read any more.
    backlog_messages: int = 16
    backlog_bytes: int = 1024 * 1024
    #: Frames that wait for a slow WebSocket client, or for the connection to be accepted.
    socket_queue: int = 1024 * 1024
    #: How long a full channel or a lost broker may hold up one message of a socket: as long as workers may be
    #: away in a deploy, during which every open socket wants to hand on a message and the channel has room for few.
    #: The socket is not read meanwhile, so that it costs no memory.
    publish_patience: float = 60.0
    #: The same for a disconnect, which nobody waits for.
    disconnect_patience: float = 60.0
    #: How long a client may take to answer a close frame.
    close_timeout: float = 5.0
    #: How often this process says that it lives, and for how long that holds: then others tidy up after it.
    heartbeat_every: float = 10.0
    heartbeat_lifetime: float = 30.0
    #: At the end, counted from its start: HTTP answers, the order of sockets' messages, publishing.
    end_answers: float = 8.0
    end_ordered: float = 12.0
    end_all: float = 15.0
    #: How long what runs beside the server may take to stop after it.
    end_companions: float = 6.0


@dataclass(frozen=True, slots=True)
class InterfaceConfig:
    """The settings of one interface server; times in seconds, sizes in bytes.

    See ``python -m channelsq.interface --help`` for what each does.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    layer: str = "default"
    unix_socket: str | None = None
    root_path: str = ""
    proxy_headers: bool = False
    http_timeout: float = 120.0
    accept_timeout: float = 20.0
    # Longer than a dead worker's message takes to come back on streams: a lease of 30 s and a third of one.
    order_timeout: float = 45.0
    ping_interval: float = 20.0
    ping_timeout: float = 30.0
    max_message_size: int = 1024 * 1024
    max_connections: int = 10_000
    access_log: bool = False
    http: str = "channel"
    status_path: str = "/-"
    metrics: bool = False
    verbosity: int = 1
    limits: Limits = field(default_factory=Limits)


def _integer(low: int, high: int, remedy: str) -> Callable[[str], int]:
    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ValueError(remedy) from None
        if not low <= value <= high:
            raise ValueError(remedy)
        return value

    return read


def _seconds(*, zero: bool, remedy: str) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ValueError(remedy) from None
        # Also refuses "nan", which compares false with everything.
        if not (0 < value <= 86_400 or (zero and value == 0)):
            raise ValueError(remedy)
        return value

    return read


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d{1,12})([kKmM]?)", text)
    value = int(match[1]) * {"": 1, "k": 1024, "m": 1024 * 1024}[match[2].lower()] if match else 0
    if not 1 <= value <= 1024**3:
        raise ValueError("give bytes, 1 to 1 GiB, such as 1048576, 64k or 1m")
    return value


def _switch(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off", ""):
        return False
    raise ValueError("give 1 or 0, true or false, yes or no, on or off")


def _host(text: str) -> str:
    if not text or any(c.isspace() or c == "/" for c in text):
        raise ValueError("give a host name or an IP address, such as 127.0.0.1, 0.0.0.0 or ::")
    return text.strip("[]")


def _path(text: str) -> str:
    if not text or "\0" in text or len(text.encode()) > 100:
        raise ValueError("give the path of a socket file, at most 100 bytes")
    return text


def _alias(text: str) -> str:
    if not text:
        raise ValueError("give a key of CHANNEL_LAYERS, such as default")
    return text


def _root_path(text: str) -> str:
    if text in ("", "/"):
        return ""
    if not re.fullmatch(r"(/[^/\s?#]+)+/?", text):
        raise ValueError("give a path that starts with a slash, such as /app")
    return text.rstrip("/")


def _http(text: str) -> str:
    if text not in ("channel", "direct"):
        raise ValueError("give channel, for the workers, or direct, for Django's views in this process")
    return text


def _status_path(text: str) -> str:
    if text.lower() in ("", "none"):
        return ""
    if not re.fullmatch(r"(/[^/\s?#]+)+", text):
        raise ValueError("give a path such as /-, or none to have no such pages")
    return text


_TIME = "give seconds above 0, such as 30"
_TIME_OR_OFF = "give seconds above 0, or 0 to turn it off"


@dataclass(frozen=True, slots=True)
class _Option:
    name: str
    read: Callable[[str], Any]
    help: str
    metavar: str | None = None
    short: str | None = None
    shown_default: str | None = None

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return "CHANNELSQ_" + self.name.upper()


OPTIONS: tuple[_Option, ...] = (
    _Option("host", _host, "address to listen on", "HOST", shown_default="127.0.0.1, or 0.0.0.0 if PORT is set"),
    _Option(
        "port",
        _integer(0, 65535, "give a port number, 1 to 65535, or 0 for any free one"),
        "port to listen on; PORT is read too, as Heroku sets it",
        "PORT",
    ),
    _Option("layer", _alias, "hand clients' messages to this entry of CHANNEL_LAYERS", "ALIAS"),
    _Option(
        "unix_socket", _path, "listen on this socket file instead of a host and port", "PATH", shown_default="none"
    ),
    _Option("root_path", _root_path, "the path under which a proxy mounts the site", "PATH", shown_default="none"),
    _Option(
        "http",
        _http,
        "who answers HTTP requests: channel, the workers; or direct, Django's views in this process",
        "WHO",
    ),
    _Option(
        "proxy_headers",
        _switch,
        "believe X-Forwarded-For (its last address) and X-Forwarded-Proto; "
        "only behind a proxy that sets them itself, as any client can send them",
    ),
    _Option(
        "http_timeout",
        _seconds(zero=False, remedy=_TIME),
        "wait this long for a worker's answer, or its next part, before a request gets 504",
        "SECONDS",
    ),
    _Option(
        "accept_timeout",
        _seconds(zero=False, remedy=_TIME),
        "wait this long for a worker to accept or refuse a WebSocket before it gets 504",
        "SECONDS",
    ),
    _Option(
        "order_timeout",
        _seconds(zero=False, remedy=_TIME),
        "wait this long for a worker to finish a WebSocket's message before the next is handed out",
        "SECONDS",
    ),
    _Option(
        "ping_interval",
        _seconds(zero=True, remedy=_TIME_OR_OFF),
        "ping a WebSocket that often; 0 for never",
        "SECONDS",
    ),
    _Option(
        "ping_timeout",
        _seconds(zero=True, remedy=_TIME_OR_OFF),
        "drop a WebSocket that leaves a ping unanswered for this long; 0 for never",
        "SECONDS",
    ),
    _Option(
        "max_message_size",
        _size,
        "the largest WebSocket message that a client may send, after decompression; larger ones get close code 1009",
        "BYTES",
    ),
    _Option(
        "max_connections",
        _integer(1, 10_000_000, "give a number of connections, 1 or more"),
        "how many clients may be connected at once; more get 503",
        "NUMBER",
    ),
    _Option(
        "status_path",
        _status_path,
        "answer health/live and health/ready below this path, without a worker; none for not at all",
        "PATH",
    ),
    _Option("metrics", _switch, "answer metrics there, too, in the format of Prometheus"),
    _Option("access_log", _switch, "log a line for each HTTP request and each WebSocket's begin and end"),
    _Option(
        "verbosity",
        _integer(0, 3, "give 0, 1, 2 or 3"),
        "0: errors, 1: and warnings and start-up, 2: and details, 3: and the libraries'",
        "LEVEL",
        short="-v",
    ),
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {PROGRAM} --help")


def parser() -> argparse.ArgumentParser:
    """The command's options; every value is left as text."""
    defaults = InterfaceConfig()
    result = _Parser(
        prog=PROGRAM,
        description="The interface server: serves HTTP and WebSocket clients on one port and hands what they "
        "send to workers through the channel layer. Settings come from DJANGO_SETTINGS_MODULE, else from "
        "config.settings.",
        epilog="An option on the command line counts before its environment variable.",
        allow_abbrev=False,
    )
    for option in OPTIONS:
        default = option.shown_default or _shown(getattr(defaults, option.name))
        text = f"{option.help} [env {option.variable}, default {default}]"
        flags = [option.short, option.flag] if option.short else [option.flag]
        if option.read is _switch:
            no = "--no-" + option.flag[2:]
            result.add_argument(*flags, dest=option.name, action="store_const", const="1", help=text)
            result.add_argument(no, dest=option.name, action="store_const", const="0", help=argparse.SUPPRESS)
        else:
            result.add_argument(*flags, dest=option.name, metavar=option.metavar, help=text)
    return result


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def read_config(argv: Sequence[str], environ: Mapping[str, str]) -> InterfaceConfig:
    """The settings from a command line (without the program's name) and an environment.

    Raises:
        ConfigError: a value cannot be used, or an option is unknown.
        SystemExit: after ``--help``.
    """
    given = vars(parser().parse_args(list(argv)))
    values: dict[str, Any] = {}
    port_variable = environ.get("PORT", "")
    for option in OPTIONS:
        text, source = given[option.name], option.flag
        if text is None:
            text, source = environ.get(option.variable), option.variable
        if text is None and option.name == "port" and port_variable:
            text, source = port_variable, "PORT"
        if text is None:
            continue
        try:
            values[option.name] = option.read(text)
        except ValueError as error:
            raise ConfigError(f"{source} cannot be {text!r}: {error}") from None
    if "host" not in values and port_variable:
        # A platform that chooses the port routes to it from outside this machine.
        values["host"] = "0.0.0.0"  # noqa: S104
    assert values.keys() <= {each.name for each in fields(InterfaceConfig)}
    return InterfaceConfig(**values)
