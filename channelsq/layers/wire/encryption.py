"""Encryption of messages between a site's processes: access to the broker does not suffice to read them.

Messages are encrypted with AES-256-GCM, under ``CONFIG["symmetric_encryption_keys"]``: the first key encrypts, all of
them decrypt.  The queue's name is authenticated with the message, so that a message cannot be moved to another queue.
Fernet, which asgi_redis used, does not do that; it makes a message a third longer and takes ten times as long.

::

    a channel's message    [[channel, {"channelsq.encrypted": token}], {}, {}]
    envelope, ? channel    token, as msgpack's bin
    token                  version (1 byte) + salt (16) + nonce (12) + ciphertext and tag (16 more than the message)

Each process derives a key of its own from the first key and a random salt, because random nonces under one key are
safe for 2**32 messages only.  Readers derive the same key from the salt, and keep it.

Names stay readable: of queues, and so of channels that workers consume and of processes; in an encrypted envelope the
names of clients' channels and of groups are encrypted, too.  Groups themselves are in Redis with their members' names.
"""

from __future__ import annotations

import hmac
import logging
import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from channelsq.exceptions import InvalidChannelLayerError
from channelsq.layers.wire import codec
from channelsq.layers.wire.signing import Refused

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

logger = logging.getLogger("channelsq.layers.encryption")

#: The key of ``CONFIG``.
SETTING = "symmetric_encryption_keys"

#: The only key of the content of an encrypted message to a channel that workers consume.
KEY = "channelsq.encrypted"

#: The fewest characters (or bytes) of a key: 32 hexadecimal digits are 128 bits.
SHORTEST = 32

_VERSION = b"\x01"
_SALT, _NONCE, _TAG = 16, 12, 16
_HEAD = 1 + _SALT
_SHORTEST_TOKEN = _HEAD + _NONCE + _TAG

#: The start of a content with nothing but :data:`KEY`.
_CONTENT = b"\x81" + codec.dumps(KEY)

#: The first bytes of msgpack's bin.  Neither an envelope (a list) nor a content (a map) begins with them.
_BINS = (b"\xc4", b"\xc5", b"\xc6")

#: Messages that are encrypted under one derived key.
_MOST_MESSAGES = 2**30

#: Derived keys that are kept, one for each process that messages came from.
_MOST_SALTS = 1024

_MISSING = "it is encrypted, and CONFIG['symmetric_encryption_keys'] is missing here"
_PLAIN = "it is not encrypted, where CONFIG['symmetric_encryption_keys'] asks for it"
_WRONG = (
    "it cannot be decrypted: none of CONFIG['symmetric_encryption_keys'] is its key, or it was changed, or it is for "
    "another queue"
)


class _OwnKey:
    """The derived key of this process.

    Args:
        cipher: the cipher with the key.
        salt: the salt of the key.
    """

    __slots__ = ("cipher", "head", "left", "pid")

    def __init__(self, cipher: AESGCM, salt: bytes) -> None:
        self.cipher = cipher
        self.head = _VERSION + salt
        self.left = _MOST_MESSAGES
        self.pid = os.getpid()


class Encryption:
    """Encrypts and decrypts the messages of a layer.

    Args:
        prefix: the layer's; layers with different prefixes have different derived keys.
        keys: the result of :func:`checked_keys`; empty for no encryption, then encrypted messages are refused.
    """

    def __init__(self, prefix: str, keys: Sequence[bytes] = ()) -> None:
        #: True if messages are encrypted.
        self.encrypts = bool(keys)
        #: How many messages this process has refused.
        self.refused = 0
        #: Called for each of these messages, in any thread.
        self.listener: Callable[[], None] | None = None
        self._keys = tuple(keys)
        self._use = b"channelsq.layers.encryption:" + prefix.encode() + b"\0"
        self._own: _OwnKey | None = None
        self._ciphers: dict[bytes, AESGCM] = {}
        self._lock = threading.Lock()

    # -- encrypting

    def content(self, queue: str, packed: bytes) -> bytes:
        """Return the packed content of an encrypted message to a channel that workers consume.

        Args:
            queue: the name of the channel's queue.
            packed: the packed content.
        """
        return _CONTENT + codec.dumps(self._encrypted(b"task", queue, packed))

    def sealed_content(self, queue: str, content: dict[str, Any]) -> dict[str, Any]:
        """Return the encrypted content of a message; see :meth:`content`."""
        return {KEY: self._encrypted(b"task", queue, codec.dumps(content))}

    def bare(self, queue: str, body: bytes) -> bytes:
        """Return an encrypted envelope, or the encrypted message of a ``?`` channel.

        Args:
            queue: the name of the destination queue.
            body: the envelope, or the packed content.
        """
        return codec.dumps(self._encrypted(b"bare", queue, body))

    def _encrypted(self, use: bytes, queue: str, body: bytes) -> bytes:
        own = self._own
        if own is None or own.left <= 0 or own.pid != os.getpid():
            own = self._own = self._new_key()
        own.left -= 1  # threads may miss some, and the limit is far from what is unsafe
        nonce = os.urandom(_NONCE)
        return b"%b%b%b" % (own.head, nonce, own.cipher.encrypt(nonce, body, _bound_to(use, queue)))

    def _new_key(self) -> _OwnKey:
        salt = os.urandom(_SALT)
        return _OwnKey(self._cipher(self._keys[0], salt), salt)

    def _cipher(self, key: bytes, salt: bytes) -> AESGCM:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # not at the top: it is an extra

        return AESGCM(hmac.digest(key, self._use + salt, "sha256"))

    # -- decrypting

    def open_bare(self, queue: str, body: bytes) -> bytes:
        """Return the body that :meth:`bare` was called with; without encryption, an unencrypted body unchanged.

        Raises:
            Refused: the message is not encrypted, or cannot be decrypted.
        """
        if body[:1] not in _BINS:
            if self.encrypts:
                self._refuse(queue, _PLAIN)
            return body
        try:
            opened = self._decrypted(b"bare", queue, codec.loads(body))
        except ValueError:  # it was cut
            opened = None
        if opened is None:
            self._refuse(queue, _WRONG if self.encrypts else _MISSING)
        return opened

    def open_content(self, queue: str, content: dict[str, Any]) -> dict[str, Any]:
        """Return the content that was encrypted; without encryption, an unencrypted content unchanged.

        Raises:
            Refused: the message is not encrypted, or cannot be decrypted.
        """
        opened = self.content_of(queue, content)
        if opened is None:
            problem = _PLAIN if not is_sealed(content) else _WRONG if self.encrypts else _MISSING
            self._refuse(queue, problem)
        return opened

    def content_of(self, queue: str, content: dict[str, Any]) -> dict[str, Any] | None:
        """Return the result of :meth:`open_content`; None if that would raise Refused."""
        if not is_sealed(content):
            return None if self.encrypts else content
        packed = self._decrypted(b"task", queue, content[KEY])
        return None if packed is None else codec.unpack(packed)

    def _decrypted(self, use: bytes, queue: str, token: bytes) -> bytes | None:
        if not self.encrypts or len(token) < _SHORTEST_TOKEN or token[:1] != _VERSION:
            return None
        from cryptography.exceptions import InvalidTag

        salt, nonce, body = token[1:_HEAD], token[_HEAD : _HEAD + _NONCE], token[_HEAD + _NONCE :]
        bound_to = _bound_to(use, queue)
        known = self._ciphers.get(salt)
        for cipher in (known,) if known is not None else (self._cipher(key, salt) for key in self._keys):
            try:
                opened = cipher.decrypt(nonce, body, bound_to)
            except InvalidTag:
                continue
            if known is None:
                self._keep(salt, cipher)
            return opened
        return None

    def _keep(self, salt: bytes, cipher: AESGCM) -> None:
        with self._lock:
            while len(self._ciphers) >= _MOST_SALTS:
                del self._ciphers[next(iter(self._ciphers))]
            self._ciphers[salt] = cipher

    def _refuse(self, queue: str, problem: str) -> NoReturn:
        """Count and log a message, and raise Refused."""
        with self._lock:
            self.refused += 1
        if self.listener is not None:
            self.listener()
        text = "a message for %s was refused: %s (%d so far)"
        logger.error(text, queue, problem, self.refused, extra={"action": "undecrypted_refused"})
        raise Refused(problem, problem)


def is_sealed(content: Any) -> bool:
    """Return whether a content is that of an encrypted message."""
    return type(content) is dict and len(content) == 1 and type(content.get(KEY)) is bytes


def _bound_to(use: bytes, queue: str) -> bytes:
    # Names do not contain NUL.
    return b"%b\0%b" % (use, queue.encode())


def checked_keys(value: object) -> list[bytes]:
    """Return the keys of ``CONFIG["symmetric_encryption_keys"]``; empty for None or an empty list.

    Raises:
        InvalidChannelLayerError: the value is no list of keys, or the package ``cryptography`` is missing.
    """
    if value is None:
        return []
    if not isinstance(value, (list, tuple)):
        raise _invalid(f"must be a list of keys, not a {type(value).__name__}")
    keys: list[bytes] = []
    for place, key in enumerate(value):
        if not isinstance(key, (str, bytes)):
            raise _invalid(f"[{place}] must be a str or bytes, not a {type(key).__name__}")
        if len(key) < SHORTEST:
            raise _invalid(f"[{place}] has {len(key)} characters; a key needs at least {SHORTEST} random ones")
        keys.append(key.encode() if isinstance(key, str) else key)
    if len(set(keys)) < len(keys):
        raise _invalid("has a key twice; leave the second one out")
    if keys:
        try:
            import cryptography  # noqa: F401
        except ImportError as error:
            raise InvalidChannelLayerError(
                f"CHANNEL_LAYERS CONFIG[{SETTING!r}] needs the package cryptography ({error}); "
                'install it with pip install "channelsq[encryption]"'
            ) from error
    return keys


def _invalid(problem: str) -> InvalidChannelLayerError:
    """Return the error for invalid keys; it contains no key."""
    space = "" if problem.startswith("[") else " "
    return InvalidChannelLayerError(
        f"CHANNEL_LAYERS CONFIG[{SETTING!r}]{space}{problem}; "
        'python -c "import secrets; print(secrets.token_urlsafe(32))" makes one'
    )
