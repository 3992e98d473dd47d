"""The extension permessage-deflate of the library ``websockets``, without its context for each client.

It is a private part of ``websockets``, as are the library's masks and its header parsers;
``tests/unit/interface/basis/test_deflate.py`` and ``tests/unit/interface/websocket/test_websockets_wire_internals.py``
pin them.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.frames import CTRL_OPCODES, Frame
from websockets.headers import parse_subprotocol
from websockets.typing import ExtensionParameter

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without a compiled module
    from websockets.utils import apply_mask

__all__ = ["SharedDeflate", "SharedDeflateFactory", "apply_mask", "parse_subprotocol"]

#: The window, 4 KiB: a sending client costs twice this memory.
_WINDOW_BITS = 12

_END = b"\x00\x00\xff\xff"


class SharedDeflate(PerMessageDeflate):
    """The extension for one client.

    Args:
        client_forgets: whether the client keeps no context either.
        client_bits: the client's window.
        server_bits: the server's window.
    """

    def __init__(self, client_forgets: bool, client_bits: int, server_bits: int) -> None:
        self.remote_no_context_takeover = client_forgets
        self.local_no_context_takeover = True
        self.remote_max_window_bits = client_bits
        self.local_max_window_bits = server_bits
        self.compress_settings = {}
        self.decode_cont_data = False

    def __getattr__(self, name: str) -> Any:
        if name != "decoder":
            raise AttributeError(name)
        self.decoder = zlib.decompressobj(wbits=-self.remote_max_window_bits)
        return self.decoder

    def inflate(self, data: bytes, max_size: int) -> bytes:
        """Return the message in a whole compressed frame.

        Raises:
            PayloadTooBig: the message is over ``max_size`` bytes.
            ProtocolError: the frame does not hold compressed data.
        """
        if self.remote_no_context_takeover:
            decoder = zlib.decompressobj(wbits=-self.remote_max_window_bits)
        else:
            decoder = self.decoder
        try:
            payload: bytes = decoder.decompress(data + _END, max_size + 1)
        except zlib.error as error:
            raise ProtocolError("decompression failed") from error
        if len(payload) > max_size or decoder.unconsumed_tail:
            raise PayloadTooBig(None, max_size)
        return payload

    def encode(self, each: Frame) -> Frame:
        """Do nothing: messages are compressed earlier, see ``compressed_frame``."""
        assert each.opcode in CTRL_OPCODES
        return each


class SharedDeflateFactory(ServerPerMessageDeflateFactory):
    """A factory that negotiates :class:`SharedDeflate`."""

    def __init__(self) -> None:
        super().__init__(
            server_no_context_takeover=True,
            server_max_window_bits=_WINDOW_BITS,
            client_max_window_bits=_WINDOW_BITS,
        )

    def process_request_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> tuple[list[ExtensionParameter], PerMessageDeflate]:
        """Return the parameters of the response, and the extension; raise NegotiationError as the base class does."""
        answer, agreed = super().process_request_params(params, accepted_extensions)
        if agreed.remote_max_window_bits > _WINDOW_BITS and not agreed.remote_no_context_takeover:
            # If the client cannot limit its window, it must keep no context.
            answer.append(("client_no_context_takeover", None))
            agreed.remote_no_context_takeover = True
        extension = SharedDeflate(
            agreed.remote_no_context_takeover, agreed.remote_max_window_bits, agreed.local_max_window_bits
        )
        return answer, extension
