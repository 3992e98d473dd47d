"""What a client sends, packed for the workers without a dict between: the same bytes as the layer makes of the dict.

The layer checks and packs whatever it is given.  Of a socket's message all is known but its order and its payload,
and what is the same in all of them is packed once.
"""

from __future__ import annotations

from channelsq.exceptions import MessageTooLarge
from channelsq.layers.wire import codec
from channelsq.layers.wire.wire_forms import TIMED_KEY

_ORDER, _TEXT, _BYTES = codec.dumps("order"), codec.dumps("text"), codec.dumps("bytes")


class FramePacker:
    """Packs the ``websocket.receive`` messages of one socket.

    Args:
        reply_channel, path, root_path: the socket's, which a message of it could be packed with before.
        timed: whether workers are to say how long their consumers take.
    """

    __slots__ = ("_head",)

    def __init__(self, reply_channel: str, path: str, root_path: str = "", *, timed: bool = False) -> None:
        head: dict[str, object] = {TIMED_KEY: True} if timed else {}
        head.update({"reply_channel": reply_channel, "path": path})
        if root_path:
            head["root_path"] = root_path
        packed = b"".join(codec.dumps(key) + codec.dumps(value) for key, value in head.items())
        # A short map: what is in the head, the order and the payload.
        self._head = b"%c%b%b" % (0x80 | (len(head) + 2), packed, _ORDER)

    def pack(self, payload: str | bytes, order: int, limit: int) -> bytes:
        """The message with ``payload`` as its text or bytes.

        Args:
            payload: if it is text, then text that UTF-8 can carry.

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
