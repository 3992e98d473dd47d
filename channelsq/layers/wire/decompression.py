"""Bounds on decompression: Kombu decompresses every message with a compression header before any check.

channelsq never compresses messages, but a Celery worker accepts compressed tasks.
"""

from __future__ import annotations

import bz2
import functools
import logging
import lzma
import zlib
from collections.abc import Callable
from typing import Any

from kombu import compression

logger = logging.getLogger("channelsq.layers.decompression")

#: The most bytes of a message after decompression.
LIMIT = 64 * 1024 * 1024

#: Each compression that Kombu knows and Python has: its type, compressor, factory of decompressors, other names.
_WAYS: list[tuple[str, Callable[[bytes], bytes], Callable[[], Any], list[str]]] = [
    ("application/x-gzip", zlib.compress, zlib.decompressobj, ["gzip", "zlib"]),
    ("application/x-bz2", bz2.compress, bz2.BZ2Decompressor, ["bzip2", "bzip"]),
    ("application/x-lzma", lzma.compress, lzma.LZMADecompressor, ["lzma", "xz"]),
]


@functools.cache
def bound() -> None:
    """Limit Kombu's decompression of a message to :data:`LIMIT` bytes, in this process from now on."""
    for kind, pack, decompressor, names in _WAYS:
        compression.register(pack, functools.partial(_unpack, decompressor), kind, aliases=names)


def _unpack(decompressor: Callable[[], Any], body: bytes) -> bytes:
    """Return ``b""`` if decompression fails; the reader then rejects the message."""
    unpacker = decompressor()
    problem: object = f"it is incomplete, or has over {LIMIT} bytes unpacked"
    try:
        unpacked: bytes = unpacker.decompress(body, LIMIT)
    except (zlib.error, lzma.LZMAError, OSError, EOFError, TypeError) as error:
        problem = error
    else:
        if unpacker.eof:
            return unpacked
    logger.error("a compressed message was not unpacked: %s", problem, extra={"action": "not_unpacked"})
    return b""
