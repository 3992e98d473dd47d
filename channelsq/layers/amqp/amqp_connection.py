"""A connection to RabbitMQ: py-amqp's handshake, heartbeats and close, with our own frames.

One thread reads; any thread may write.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from amqp.exceptions import RecoverableConnectionError

from channelsq.layers.amqp import amqp_frames
from channelsq.layers.amqp.amqp_frames import Frame, FrameReader
from channelsq.layers.kombu_broker.amqp_internals import SILENCE
from channelsq.layers.kombu_broker.broker_access import KombuBroker

#: Seconds between two checks of heartbeats.
_BEAT_EVERY = 0.5

#: The most bytes of one read.
_READ = 256 * 1024


class ChannelClosed(Exception):
    """RabbitMQ has closed an AMQP channel, because a request failed.

    Args:
        code: AMQP's code; 404 for a queue that does not exist, 406 for one with other arguments.
        text: RabbitMQ's text.
    """

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        super().__init__(f"{text}{_REMEDIES.get(code, '')}")


_REMEDIES = {
    403: "; give the user of the URL the right to configure, write and read in its virtual host",
    406: "; the queue exists with other arguments than CHANNEL_LAYERS['default']['CONFIG'] asks for: delete it while "
    "no process uses it (rabbitmqctl delete_queue), change CONFIG['prefix'], or write the former settings again",
}


class AmqpConnection:
    """An open connection.

    Args:
        layer: the layer on the broker.

    Raises:
        Exception: the transport's errors.
    """

    def __init__(self, layer: KombuBroker) -> None:
        #: Kombu's connection.
        self.kombu = layer.open_connection(listens=True)
        try:
            self.kombu.ensure_connection(max_retries=1, interval_start=0, interval_step=0, interval_max=0)
            self._amqp: Any = self.kombu.connection
            self._sock: Any = self._amqp.transport.sock
        except BaseException:
            self.kombu.collect()
            raise
        #: The size of the largest frame, in bytes.
        self.frame_max: int = self._amqp.frame_max
        #: Seconds for which the broker may leave a request unanswered.
        self.silence: float = self._amqp.read_timeout or SILENCE
        #: Called by the reader with whether RabbitMQ refuses messages now.
        self.on_blocked: Callable[[bool], None] = lambda is_blocked: None
        self._reader = FrameReader(self.frame_max)
        self._lock = threading.RLock()
        self._is_tls = hasattr(self._sock, "pending")
        self._poll = select.poll()
        self._poll.register(self._sock.fileno(), select.POLLIN)
        self._beaten = 0.0
        write = self._amqp.frame_writer

        def write_in_turn(*args: Any) -> Any:
            with self._lock:
                return write(*args)

        self._amqp.frame_writer = write_in_turn
        self._amqp.on_blocked = lambda reason: self.on_blocked(True)
        self._amqp.on_unblocked = lambda: self.on_blocked(False)

    @property
    def heartbeat(self) -> float:
        """Seconds between heartbeats; 0 for none."""
        return float(self._amqp.heartbeat or 0)

    def write(self, data: bytes) -> None:
        """Send frames; raise OSError if the connection is lost.  From any thread."""
        with self._lock:
            if self._amqp.transport is None:
                raise RecoverableConnectionError("the connection is closed")
            self._amqp.transport.write(data)
            self._amqp.bytes_sent += 1

    def read(self, seconds: float) -> list[Frame]:
        """Wait for frames, and return those of AMQP channels that have arrived.

        Raises:
            Exception: the transport's errors; the connection is lost.
        """
        found: list[Frame] = []
        if not (self._is_tls and self._sock.pending()) and not self._poll.poll(max(0.0, seconds) * 1000):
            self.beat()
            return found
        if self._is_tls:  # OpenSSL does not support two threads on one connection
            with self._lock:
                data = self._receive()
        else:
            data = self._receive()
        if not data:
            raise RecoverableConnectionError("RabbitMQ has closed the connection")
        for frame in self._reader.feed(data):
            self._amqp.bytes_recv += 1
            if frame.channel:
                found.append(frame)
            else:
                self._amqp.on_inbound_frame(frame)
        self.beat()
        return found

    def _receive(self) -> bytes:
        try:
            data: bytes = self._sock.recv(_READ)
        except (TimeoutError, BlockingIOError) as error:
            raise RecoverableConnectionError(f"RabbitMQ stopped in the middle of something: {error}") from error
        return data

    def beat(self) -> None:
        """Send a heartbeat if it is due; raise amqp.ConnectionForced if RabbitMQ sends none."""
        now = time.monotonic()
        if now - self._beaten > _BEAT_EVERY:
            self._beaten = now
            self.kombu.heartbeat_check()

    def call(self, request: bytes, *answers: tuple[int, int]) -> Frame:
        """Send a request and return its answer; nothing else may be sent on the connection meanwhile.

        Raises:
            ChannelClosed: RabbitMQ refuses the request.
            Exception: the transport's errors.
        """
        self.write(request)
        until = time.monotonic() + self.silence
        while True:
            for frame in self.read(until - time.monotonic()):
                if frame.type == amqp_frames.METHOD and frame.method in answers:
                    return frame
                check_closed(frame)
            if time.monotonic() > until:
                raise RecoverableConnectionError(f"RabbitMQ did not answer for {self.silence:g} s")

    def open_channel(self, number: int, *, confirms: bool = False) -> None:
        """Open an AMQP channel; with ``confirms`` RabbitMQ confirms what is published on it."""
        self.call(amqp_frames.method(number, amqp_frames.CHANNEL_OPEN, b"\0"), amqp_frames.CHANNEL_OPEN_OK)
        if confirms:
            self.call(amqp_frames.method(number, amqp_frames.CONFIRM_SELECT, b"\0"), amqp_frames.CONFIRM_SELECT_OK)

    def abort(self) -> None:
        """Make the reader notice that the connection is lost.  From any thread."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def collect(self) -> None:
        """Drop the connection, which may be half open, without an AMQP close."""
        with contextlib.suppress(Exception):
            self.kombu.collect()

    def say_goodbye(self) -> None:
        """Request that RabbitMQ closes the connection after it has read all that was sent.  From any thread."""
        with contextlib.suppress(Exception):
            self.write(amqp_frames.method(0, amqp_frames.CONNECTION_CLOSE, b"\0" * 7))

    def close(self) -> None:
        """Close the connection after RabbitMQ has read all that was sent; for the reading thread."""
        self.say_goodbye()
        until = time.monotonic() + 1.0
        with contextlib.suppress(Exception):
            while time.monotonic() < until:
                self.read(until - time.monotonic())
        self.collect()


def check_closed(frame: Frame) -> None:
    """Raise ChannelClosed if a frame closes its AMQP channel."""
    if frame.type == amqp_frames.METHOD and frame.method == amqp_frames.CHANNEL_CLOSE:
        raise ChannelClosed(*amqp_frames.read_close(frame.payload))
