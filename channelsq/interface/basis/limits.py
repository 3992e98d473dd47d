"""The interface server's limits: those with an option, and those without.

What happens at each is in ``docs/limits.md``.
"""

from __future__ import annotations

from dataclasses import dataclass

from channelsq.interface.basis.server_options import TIME, TIME_OR_OFF, Option, integer, seconds, size

_GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds without an option, which only tests change; sizes in bytes, times in seconds."""

    #: Requests of one connection that wait for the answers of those before them.
    pipelined: int = 64
    #: What of a body travels in ``http.request`` itself, and in each chunk after it.
    body_chunk: int = 256 * 1024
    #: Bytes of all bodies together that are kept, on disk, until their answers begin, for other runs of their requests.
    body_kept: int = _GIB
    #: How long an answer may stand still once another run of its request has been refused.
    doubt: float = 5.0
    #: Messages of one socket that wait for a worker, before the socket is not read any more.
    backlog_messages: int = 16
    backlog_bytes: int = 1024 * 1024
    #: How long a full channel or a lost broker may hold up one message of a socket: as long as workers may be
    #: away in a deploy, during which every open socket wants to hand on a message and the channel has room for few.
    #: The socket is not read meanwhile, so that it costs no memory.
    publish_patience: float = 60.0
    #: For how long a request, or a socket's connect, may wait for room in its full channel before it gets 503.
    room_patience: float = 5.0
    #: The same for a disconnect, which nobody waits for.
    disconnect_patience: float = 60.0
    #: How long an answer may take until a byte of it is sent ahead to a client that has ended its side: most come
    #: sooner, and a simple client may take what comes first for all.
    half_closed: float = 1.0
    #: After how long without an answer it is looked whether a worker consumes a channel at all, and for how long none
    #: may before the server is not ready: longer than workers are away when they are restarted.
    answer_patience: float = 3.0
    worker_grace: float = 20.0
    #: Bytes of a message that has not come whole that count as a sign of life; fewer may be dripped.
    lively: int = 4096
    #: How long a client may take to answer a close frame.
    close_timeout: float = 5.0
    #: How often this process says that it lives, and for how long that holds: then others tidy up after it.
    heartbeat_every: float = 10.0
    heartbeat_lifetime: float = 30.0
    #: At the end, for who has connected and not said yet what for, and for handshakes that a worker has.
    end_begun: float = 2.0
    #: Then, counted from when sockets are closed: HTTP answers and answers to close frames, the order of sockets'
    #: messages, publishing.
    end_answers: float = 6.0
    end_ordered: float = 8.0
    end_all: float = 10.0
    #: How long what runs beside the server may take to stop after it.
    end_companions: float = 6.0


LIMIT_OPTIONS: tuple[Option, ...] = (
    Option(
        "max_connections",
        integer(1, 10_000_000, "give a number of connections, 1 or more"),
        "how many clients may be connected at once; more get 503",
        "NUMBER",
    ),
    Option(
        "max_connections_per_client",
        integer(0, 10_000_000, "give a number of connections, or 0 for no limit"),
        "how many connections one address may have, an IPv6 /64 as one; with --proxy-headers how many requests and "
        "WebSockets a forwarded address; more get 429; an address that is not public counts only if it was forwarded; "
        "0 for no limit",
        "NUMBER",
    ),
    Option(
        "max_header_size",
        size(16 * 1024**2),
        "the largest request line and headers together; larger ones get 431",
        "BYTES",
    ),
    Option(
        "header_timeout",
        seconds(zero=False, remedy=TIME),
        "how long a client may take to send them before it gets 408",
        "SECONDS",
    ),
    Option(
        "keep_alive_timeout",
        seconds(zero=False, remedy=TIME),
        "close a connection on which no other request begins for this long",
        "SECONDS",
    ),
    Option(
        "max_body_size",
        size(1024 * _GIB, zero="for no limit"),
        "the largest body of a request; larger ones get 413; 0 for no limit",
        "BYTES",
    ),
    Option(
        "min_body_rate",
        size(_GIB, zero="for no limit"),
        "bytes a second that a body must bring on average, after --header-timeout, while it is waited for; "
        "slower ones get 408; 0 for no limit",
        "BYTES",
    ),
    Option(
        "response_queue",
        size(_GIB),
        "drop an HTTP client for which more of a response than this waits",
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
        "frames a second beyond which a WebSocket is read more slowly; a control frame or empty fragment counts as 10; "
        "0 for no limit",
        "NUMBER",
    ),
    Option(
        "max_byte_rate",
        size(1024 * _GIB, zero="for no limit"),
        "bytes a second, after decompression, beyond which a WebSocket is read more slowly; 0 for no limit",
        "BYTES",
    ),
    Option(
        "send_queue",
        size(_GIB),
        "close a WebSocket, with 1013, for which more than this waits",
        "BYTES",
    ),
    Option(
        "idle_timeout",
        seconds(zero=True, remedy=TIME_OR_OFF),
        "close a WebSocket, with 1001, on which no message went either way for this long; 0 for never",
        "SECONDS",
    ),
)
