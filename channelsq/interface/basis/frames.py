"""WebSocket frames: those of a server, and the usual ones of clients (RFC 6455, section 5.2)."""

from __future__ import annotations

#: First bytes of a whole message in one frame: FIN with the opcode, and RSV1 for a compressed message.
TEXT, BYTES, COMPRESSED = 0x81, 0x82, 0x40


def frame(first: int, payload: bytes) -> bytes:
    """Return an unmasked frame, as a server sends it."""
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65536:
        return bytes((first, 126, size >> 8, size & 0xFF)) + payload
    return bytes((first, 127)) + size.to_bytes(8, "big") + payload
