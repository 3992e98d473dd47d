"""The interface server's limits, with and without an option.

``docs/reference/limits.md`` describes the effect of each limit.
"""

from __future__ import annotations

from dataclasses import dataclass

from channelsq.interface.basis.common_options import KEEP_ALIVE_TIMEOUT, MAX_HEADER_SIZE
from channelsq.interface.basis.server_options import TIME, TIME_OR_OFF, Option, integer, seconds, size

_GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits without an option, which only tests change; sizes in bytes, times in seconds."""

    #: Requests of one connection that wait for the responses to earlier ones.
    pipelined: int = 64
    #: Bytes of a body that ``http.request`` itself carries, and each chunk after it.
    body_chunk: int = 256 * 1024
    #: Bytes of all request bodies together that are kept on disk for another run, until their responses begin.
    body_kept: int = _GIB
    #: Seconds for which a response may stall after another run of its request was refused.
    doubt: float = 5.0
    #: Messages of one socket that wait for a worker before the server stops reading the socket.
    backlog_messages: int = 16
    backlog_bytes: int = 1024 * 1024
    #: Seconds for which a full channel or a lost broker may delay one message of a socket: as long as workers may be
    #: away in a deploy.  In that time every open socket wants to publish a message, and the channel has room for few.
    #: The server stops reading the socket meanwhile, so that it costs no memory.
    publish_patience: float = 60.0
    #: Seconds for which a request, or a socket's connect, may wait for room in its full channel before it gets 503.
    room_patience: float = 5.0
    #: The same for a disconnect, for which no client waits.
    disconnect_patience: float = 60.0
    #: Seconds until a byte of a pending response is sent ahead to a client that has closed its sending side.  Most
    #: responses come sooner, and a simple client may take the first bytes for the whole response.
    half_closed: float = 1.0
    #: Seconds without an answer after which the server checks whether a worker consumes a channel, and for which no
    #: worker may consume it before the server is not ready.  Workers are away for less time when they restart.
    answer_patience: float = 3.0
    worker_grace: float = 20.0
    #: Bytes of an incomplete message that count as a sign of life; a hostile client may send fewer, one at a time.
    lively: int = 4096
    #: Seconds that a client may take to answer a close frame.
    close_timeout: float = 5.0
    #: Interval of this process' heartbeat, and the time for which a heartbeat is valid: then other servers clean up for
    #: it.
    heartbeat_every: float = 10.0
    heartbeat_lifetime: float = 30.0
    #: At shutdown, for connected clients that have not sent a request yet, and for handshakes that a worker handles.
    end_begun: float = 2.0
    #: Then, counted from the closing of the sockets: HTTP responses and answers to close frames, the ordered delivery
    #: of sockets' messages, publishing.
    end_answers: float = 6.0
    end_ordered: float = 8.0
    end_all: float = 10.0
    #: Seconds that the server's companions may take to stop after it.
    end_companions: float = 6.0


LIMIT_OPTIONS: tuple[Option, ...] = (
    Option(
        "max_connections",
        integer(1, 10_000_000, "give a number of connections, 1 or more"),
        "the largest number of clients at once; more get 503",
        "NUMBER",
    ),
    Option(
        "max_connections_per_client",
        integer(0, 10_000_000, "give a number of connections, or 0 for no limit"),
        "the largest number of connections of one address, an IPv6 /64 as one; with --proxy-headers of requests and "
        "WebSockets of a forwarded address; more get 429; an address that is not public counts only if it was "
        "forwarded; 0 for no limit",
        "NUMBER",
    ),
    MAX_HEADER_SIZE,
    Option(
        "header_timeout",
        seconds(zero=False, remedy=TIME),
        "the longest time for a client to send them before it gets 408",
        "SECONDS",
    ),
    KEEP_ALIVE_TIMEOUT,
    Option(
        "max_body_size",
        size(1024 * _GIB, zero="for no limit"),
        "the largest body of a request; larger ones get 413; 0 for no limit",
        "BYTES",
    ),
    Option(
        "min_body_rate",
        size(_GIB, zero="for no limit"),
        "the lowest average rate of a body, in bytes a second, after --header-timeout, while the server waits for it; "
        "slower ones get 408; 0 for no limit",
        "BYTES",
    ),
    Option(
        "response_queue",
        size(_GIB),
        "drop an HTTP client when more of a response than this waits for it",
        "BYTES",
    ),
    Option(
        "max_message_size",
        size(_GIB),
        "the largest WebSocket message that a client may send, after decompression; larger ones get close code 1009",
        "BYTES",
    ),
    Option(
        "max_message_rate",
        integer(0, 10_000_000, "give a number of frames a second, or 0 for no limit"),
        "frames a second above which a WebSocket is read more slowly; a control frame or empty fragment counts as 10; "
        "0 for no limit",
        "NUMBER",
    ),
    Option(
        "max_byte_rate",
        size(1024 * _GIB, zero="for no limit"),
        "bytes a second, after decompression, above which a WebSocket is read more slowly; 0 for no limit",
        "BYTES",
    ),
    Option(
        "send_queue",
        size(_GIB),
        "close a WebSocket with 1013 when more than this waits for it",
        "BYTES",
    ),
    Option(
        "idle_timeout",
        seconds(zero=True, remedy=TIME_OR_OFF),
        "close a WebSocket with 1001 when no message went either way for this long; 0 for never",
        "SECONDS",
    ),
)
