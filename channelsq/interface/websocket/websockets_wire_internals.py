"""The sans-I/O parser of the library ``websockets``, with longer lines, and with its place in the stream known.

These are private parts of ``websockets``; ``tests/unit/interface/websocket/test_websockets_wire_internals.py`` pins
them.
"""

from __future__ import annotations

from typing import Any

from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol
from websockets.streams import StreamReader

#: The parser waits here for the first byte of a frame.
_BETWEEN_FRAMES = StreamReader.at_eof.__code__


class _LongLines(StreamReader):
    """A reader of lines up to a given length; websockets allows 8 KiB, but cookies may be longer."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def read_line(self, m: int, *args: Any) -> Any:
        return super().read_line(max(m, self._most), *args)


class Wire(ServerProtocol):
    """The parser, which also creates the outgoing frames.

    Args:
        max_line: the longest line of the handshake, in bytes.
        options: see websockets' ServerProtocol.
    """

    def __init__(self, *, max_line: int = 0, **options: Any) -> None:
        super().__init__(**options)
        if max_line:
            self.reader = _LongLines(max_line)
            self.parser = self.parse()  # restarted, with that reader
            next(self.parser)

    def recv_frame(self, frame: Frame) -> None:
        """Take a frame; called by the parser."""
        if frame.opcode is Opcode.CLOSE:
            # A close frame may come between a message's fragments (RFC 6455, section 5.4): the message is given up.
            self.current_size = self.cur_size = None  # the second one is its name in websockets before 16
        super().recv_frame(frame)


def is_between_frames(wire: ServerProtocol) -> bool:
    """Return whether the parser waits for the first byte of a frame."""
    generator: Any = wire.parser
    while (inner := generator.gi_yieldfrom) is not None:
        generator = inner
    return generator.gi_code is _BETWEEN_FRAMES


def what_is_wrong(wire: ServerProtocol) -> Exception | None:
    """Return the client's protocol error, in a frame or in the handshake; None without one."""
    return wire.parser_exc or wire.handshake_exc


def is_about_handshake(wire: ServerProtocol, error: Exception) -> bool:
    """Return whether ``error`` is about the handshake, not about a frame."""
    return wire.parser_exc is None and wire.handshake_exc is error
