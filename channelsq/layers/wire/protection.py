"""The protection of a layer's messages on their way: encryption, then a signature; each may be off."""

from __future__ import annotations

from typing import Any

from channelsq.layers.wire.encryption import Encryption
from channelsq.layers.wire.signing import Signing, without_signature


class Protection:
    """Encrypts and signs the messages of a layer; verifies and decrypts what arrives.

    Args:
        signing: the layer's signatures; None without them.
        encryption: the layer's encryption, which may be off.
    """

    __slots__ = ("encryption", "is_on", "signing")

    def __init__(self, signing: Signing | None = None, encryption: Encryption | None = None) -> None:
        self.signing = signing
        self.encryption = encryption or Encryption("")
        #: True if messages are changed on their way; otherwise senders need not call the methods.
        self.is_on = signing is not None or self.encryption.encrypts

    def bare(self, queue: str, body: bytes, lifetime_ms: float) -> bytes:
        """Return an envelope, or the message of a ``?`` channel, as it is sent.

        Args:
            queue: the name of the destination queue.
            body: the envelope, or the packed content.
            lifetime_ms: the time for which a signature is valid.
        """
        if self.encryption.encrypts:
            body = self.encryption.bare(queue, body)
        return body if self.signing is None else self.signing.bare(queue, body, lifetime_ms)

    def open_bare(self, queue: str, body: bytes) -> bytes:
        """Return the body that :meth:`bare` was called with.

        Raises:
            Refused: the message has no valid signature, or is not encrypted as the layer asks for.
        """
        opened = without_signature(body) if self.signing is None else self.signing.open_bare(queue, body)
        return self.encryption.open_bare(queue, opened)

    def task(self, queue: str, identity: str, start: bytes, packed: bytes, lifetime_ms: float) -> bytes:
        """Return the body of a channel's message, ``[[channel, content], {}, {}]``, as it is sent.

        Args:
            queue: the name of the channel's queue.
            identity: the message's id.
            start: the body before the content.
            packed: the packed content.
            lifetime_ms: the time for which a signature is valid.
        """
        if self.encryption.encrypts:
            packed = self.encryption.content(queue, packed)
        head = start + packed + b"\x80"
        return head + b"\x80" if self.signing is None else self.signing.task(queue, identity, head, lifetime_ms)

    def check_task(self, queue: str, identity: object, body: bytes) -> None:
        """Verify the signature of a channel's message; raise Refused if it must be valid and is not."""
        if self.signing is not None:
            self.signing.check_task(queue, identity, body)

    def open_content(self, queue: str, content: dict[str, Any]) -> dict[str, Any]:
        """Return the content of a channel's message; see :meth:`Encryption.open_content`."""
        return self.encryption.open_content(queue, content)


#: The protection of layers whose messages stay in one process.
NONE = Protection()
