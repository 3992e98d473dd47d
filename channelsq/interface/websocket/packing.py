"""Client messages packed for workers without a dict, with the same bytes as the layer produces from the dict.

The layer checks and packs any message.  Of a socket's message only the order and the payload change; the common part is
packed once.
"""

from __future__ import annotations

from channelsq.exceptions import MessageTooLarge
from channelsq.layers.wire import codec
from channelsq.layers.wire.wire_forms import TIMED_KEY

_ORDER, _TEXT, _BYTES = codec.dumps("order"), codec.dumps("text"), codec.dumps("bytes")


class FramePacker:
    """A packer of one socket's ``websocket.receive`` messages.

    Args:
        reply_channel, path, root_path: those of the socket, with which an earlier message of it was packed.
        timed: whether workers must report how long their consumers take.
    """

    __slots__ = ("_head",)

    def __init__(self, reply_channel: str, path: str, root_path: str = "", *, timed: bool = False) -> None:
        head: dict[str, object] = {TIMED_KEY: True} if timed else {}
        head.update({"reply_channel": reply_channel, "path": path})
        if root_path:
            head["root_path"] = root_path
        packed = b"".join(codec.dumps(key) + codec.dumps(value) for key, value in head.items())
        # A short map: the pairs of the head, the order and the payload.
        self._head = b"%c%b%b" % (0x80 | (len(head) + 2), packed, _ORDER)

    def pack(self, payload: str | bytes, order: int, limit: int) -> bytes:
        """Return the message with ``payload`` as its text or bytes.

        Args:
            payload: text must be encodable as UTF-8.

        Raises:
            MessageTooLarge: it would be over ``limit`` bytes.
        """
        if type(payload) is str:
            data, key, short = payload.encode(), _TEXT, True
        else:
            assert type(payload) is bytes
            data, key, short = payload, _BYTES, False
        size = len(data)
        if short and size < 32:
            length = b"%c" % (0xA0 | size)
        elif size < 256:
            length = b"%c%c" % (0xD9 if short else 0xC4, size)
        elif size < 65536:
            length = b"%c%b" % (0xDA if short else 0xC5, size.to_bytes(2, "big"))
        else:
            length = b"%c%b" % (0xDB if short else 0xC6, size.to_bytes(4, "big"))
        packed = b"%b%b%b%b%b" % (
            self._head,
            b"%c" % order if order < 128 else codec.dumps(order),
            key,
            length,
            data,
        )
        if len(packed) > limit:
            raise MessageTooLarge(len(packed), limit)
        return packed
