"""Recognition of images by their content: what a browser may show inline, and how large it is.

The name of a file and the type that its sender claims say nothing.  Only raster images count: SVG and HTML can hold
scripts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

#: The most pixels of an image that is shown in pages: decoding takes four bytes for each.
MOST_PIXELS = 40_000_000

#: The bytes at the beginning of a file that are read.
_HEAD = 256 * 1024


class Image(NamedTuple):
    """An image as its header describes it."""

    type: str
    width: int
    height: int


def recognise(file: Any) -> Image | None:
    """Return the image in a file; None for another file, a broken image, or one with too many pixels."""
    file.seek(0)
    head = file.read(_HEAD)
    file.seek(0)
    for image in _candidates(head):
        if 0 < image.width * image.height <= MOST_PIXELS:
            return image
    return None


def _candidates(head: bytes) -> Iterator[Image]:
    if head.startswith(b"\x89PNG\r\n\x1a\n") and head[12:16] == b"IHDR" and len(head) >= 24:
        yield Image("image/png", int.from_bytes(head[16:20]), int.from_bytes(head[20:24]))
    elif head[:6] in (b"GIF87a", b"GIF89a") and len(head) >= 10:
        yield Image("image/gif", int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little"))
    elif head.startswith(b"\xff\xd8\xff"):
        yield from _jpeg(head)
    elif head.startswith(b"RIFF") and head[8:12] == b"WEBP" and len(head) >= 30:
        yield from _webp(head)


def _jpeg(head: bytes) -> Iterator[Image]:
    """Follow the segments of a JPEG to the one with its size."""
    at = 2
    while at + 9 <= len(head) and head[at] == 0xFF:
        kind, length = head[at + 1], int.from_bytes(head[at + 2 : at + 4])
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            yield Image("image/jpeg", int.from_bytes(head[at + 7 : at + 9]), int.from_bytes(head[at + 5 : at + 7]))
            return
        at += 2 + max(length, 2)


def _webp(head: bytes) -> Iterator[Image]:
    """Read the size from the first chunk, of one of three kinds."""
    kind = head[12:16]
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(head[at : at + 3], "little") for at in (24, 27))
    elif kind == b"VP8L" and head[20] == 0x2F:
        bits = int.from_bytes(head[21:25], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif kind == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
        width, height = (int.from_bytes(head[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    else:
        return
    yield Image("image/webp", width, height)
