"""permessage-deflate (RFC 7692), so that a message is compressed once for all clients that it goes to.

The server keeps no context from one message to the next (``server_no_context_takeover``, which a server may
choose whatever the client offers).  A compressed message is then the same for every client with the same window,
and nothing is kept for a client that only receives.  A client may keep its context; what is needed to follow it
is made when it first sends something compressed.
"""

from __future__ import annotations

import zlib
from typing import Any

from channelsq.interface.basis.frames import COMPRESSED, frame

#: Shorter messages hardly become smaller.
_WORTH = 100

#: One for each window that was negotiated; each message ends with a full flush, after which nothing refers to it.
_compressors: dict[int, Any] = {}


def compressed_frame(first: int, payload: bytes, bits: int) -> bytes:
    """A message as a frame for clients with a window of ``bits``; a small message is left as it is.

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
