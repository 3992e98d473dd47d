"""Compression with permessage-deflate (RFC 7692), so that a message is compressed once for all its receivers.

The server keeps no context between messages (``server_no_context_takeover``, which a server may choose for every
client).  A compressed message is then the same for every client with the same window, and a client that only receives
costs no memory.  A client may keep its context; the server creates its counterpart when the client first sends a
compressed message.
"""

from __future__ import annotations

import zlib
from typing import Any

from channelsq.interface.basis.frames import COMPRESSED, frame

#: Compression saves too little on shorter messages.
_WORTH = 100

#: One for each negotiated window; each message ends with a full flush, so that no later message refers to it.
_compressors: dict[int, Any] = {}


def compressed_frame(first: int, payload: bytes, bits: int) -> bytes:
    """Return the frame of a message for clients with a window of ``bits``; a small message is not compressed.

    Args:
        first: TEXT or BYTES.
    """
    if len(payload) < _WORTH:
        return frame(first, payload)
    compressor = _compressors.get(bits)
    if compressor is None:
        compressor = _compressors[bits] = zlib.compressobj(wbits=-bits, memLevel=5)
    data = (compressor.compress(payload) + compressor.flush(zlib.Z_FULL_FLUSH))[:-4]
    return frame(first | COMPRESSED, data) if len(data) < len(payload) else frame(first, payload)
