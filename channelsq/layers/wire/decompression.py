"""Bounds on what Kombu unpacks: it does so with every message whose header says how, before anybody has asked for it.

No message of channelsq is compressed, but a Celery worker takes tasks that are.
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

#: Bytes that a compressed message may have, unpacked.
LIMIT = 64 * 1024 * 1024

#: Of each way that Kombu knows and Python has: its type, what packs, what makes a decompressor, other names.
_WAYS: list[tuple[str, Callable[[bytes], bytes], Callable[[], Any], list[str]]] = [
    ("application/x-gzip", zlib.compress, zlib.decompressobj, ["gzip", "zlib"]),
    ("application/x-bz2", bz2.compress, bz2.BZ2Decompressor, ["bzip2", "bzip"]),
    ("application/x-lzma", lzma.compress, lzma.LZMADecompressor, ["lzma", "xz"]),
]


@functools.cache
def bound() -> None:
    """Have Kombu unpack no more than :data:`LIMIT` bytes of a message, in this process from now on."""
    for kind, pack, decompressor, names in _WAYS:
        compression.register(pack, functools.partial(_unpack, decompressor), kind, aliases=names)


def _unpack(decompressor: Callable[[], Any], body: bytes) -> bytes:
    """Nothing, for what cannot be unpacked: whoever reads the message refuses it then, as any that is none."""
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
