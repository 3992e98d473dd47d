"""Small files for uploads: images of each type, and files that only claim to be images."""

from __future__ import annotations

import struct
import zlib


def png(width: int = 8, height: int = 6) -> bytes:
    """Return a valid PNG of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = (b"\0" + b"\x4f\x46\xe5" * width) * height
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


#: The beginnings of images of 3 by 2 pixels, as far as their sizes are read.
GIF = b"GIF89a" + struct.pack("<HH", 3, 2) + b"\0" * 20
JPEG = b"\xff\xd8\xff\xe0\0\x04ab" + b"\xff\xc0\0\x11\x08" + struct.pack(">HH", 2, 3) + b"\0" * 20
WEBP = b"RIFF\0\0\0\0WEBP"
WEBP_LOSSY = WEBP + b"VP8 \0\0\0\0\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 3, 2) + b"\0" * 8
WEBP_LOSSLESS = WEBP + b"VP8L\0\0\0\0\x2f" + struct.pack("<I", 2 | 1 << 14) + b"\0" * 8
WEBP_EXTENDED = WEBP + b"VP8X\x0a\0\0\0\0\0\0\0" + b"\x02\0\0" + b"\x01\0\0" + b"\0" * 8

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'
