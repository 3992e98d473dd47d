"""Signatures on messages between a site's processes: access to the broker does not suffice to forge messages.

A signature is an HMAC-SHA256 under a key that is derived from ``SECRET_KEY`` and the layer's prefix.  It covers the
processed bytes, their expiry, and their purpose: the queue, or the task.  So an attacker cannot create or change a
message, or move a recorded one to another queue.  A recorded message can be replayed until it expires.

::

    a channel's message    [[channel, content], {}, {"channelsq": expires + signature}]
    envelope, ? channel    0xC1 + expires + signature + the unsigned body
    a consumer's task      the header channelsq_signature: expires + signature, in hexadecimal

``expires`` is in ms since 1970, 8 bytes.  No msgpack starts with 0xC1.  Readers that do not check signatures skip
them, so that signing can be switched on while processes run.
"""

from __future__ import annotations

import functools
import hmac
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgpack

from channelsq import conf
from channelsq.exceptions import InvalidChannelLayerError

logger = logging.getLogger("channelsq.layers.signing")

#: The header of a task message that holds the signature of a consumer's task.
HEADER = "channelsq_signature"

#: Seconds by which clocks of a site's machines may differ.
SKEW = 60

#: Seconds after its expiry for which a message to a worker is valid: after its worker's death it is redelivered.
REDELIVERY = 86_400

_SIGNED = 0xC1
_EXPIRES, _MAC = 8, 32
_SIZE = _EXPIRES + _MAC
#: The start of the signature of a channel's message: the embed of a Celery task message (protocol 2), a map of one.
_MARK = b"\x81\xa9channelsq\xc4" + bytes([_SIZE])
_TAIL = len(_MARK) + _SIZE

#: Seconds between two log lines about accepted messages without a signature.
_LOG_EVERY = 60.0


class Refused(ValueError):
    """A message that is not signed or encrypted as the layer asks for; the text says why.  It has been logged.

    Args:
        problem: the reason.
        reason: the reason as a dead letter has it; by default that of a missing signature.
    """

    def __init__(self, problem: str, reason: str | None = None) -> None:
        super().__init__(problem)
        self.reason = reason or f"{problem}, where CONFIG['signing'] asks for it"


@functools.cache
def _keys(prefix: str) -> list[bytes]:
    """Return the key to sign with, followed by the other keys that verify (``SECRET_KEY_FALLBACKS``)."""
    use = b"channelsq.layers.signing:" + prefix.encode()
    return [hmac.digest(secret, use, "sha256") for secret in conf.secrets()]


def forget_keys() -> None:
    """Drop the cached keys, because the settings have changed."""
    _keys.cache_clear()


def _message(use: bytes, name: str, expires: bytes, body: bytes) -> bytes:
    # Names do not contain NUL.
    return b"%b\0%b\0%b%b" % (use, name.encode(), expires, body)


def _expires(lifetime_ms: float) -> bytes:
    return int(time.time() * 1000 + lifetime_ms).to_bytes(_EXPIRES, "big")


def sign_bare(prefix: str, queue: str, body: bytes, lifetime_ms: float) -> bytes:
    """Return an envelope, or a message of a ``?`` channel, with its signature.

    Args:
        prefix: the layer's.
        queue: the name of the destination queue.
        lifetime_ms: the time for which the signature is valid.
    """
    expires = _expires(lifetime_ms)
    mac = hmac.digest(_keys(prefix)[0], _message(b"bare", queue, expires, body), "sha256")
    return b"\xc1%b%b%b" % (expires, mac, body)


def without_signature(body: bytes) -> bytes:
    """Return the body of a signed message, without a check; a body without a signature is returned unchanged."""
    return body[1 + _SIZE :] if body[:1] == b"\xc1" else body


class Signing:
    """Creates and verifies the signatures of a layer.

    Args:
        prefix: the layer's.
        required: whether unsigned messages are refused; otherwise they are only logged.
    """

    def __init__(self, prefix: str, *, required: bool) -> None:
        self.prefix = prefix
        self.required = required
        #: How many messages this process has refused, or would have refused if signatures were required.
        self.refused = 0
        #: Called for each of these messages, in any thread.
        self.listener: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self._logged_at = float("-inf")

    # -- signing

    def bare(self, queue: str, body: bytes, lifetime_ms: float) -> bytes:
        """See :func:`sign_bare`."""
        return sign_bare(self.prefix, queue, body, lifetime_ms)

    def task(self, queue: str, identity: str, head: bytes, lifetime_ms: float) -> bytes:
        """Return the signed body of a channel's message.

        Args:
            queue: the name of the channel's queue.
            identity: the message's id.
            head: the body without its last part, the embed.
            lifetime_ms: the time for which the signature is valid.
        """
        expires = _expires(lifetime_ms)
        signed = _message(b"task", f"{queue}\0{identity}", expires, head)
        return b"%b%b%b%b" % (head, _MARK, expires, hmac.digest(_keys(self.prefix)[0], signed, "sha256"))

    def call(self, task: str, identity: str, args: Sequence[Any], kwargs: Mapping[str, Any], delay: float = 0.0) -> str:
        """Return the value of :data:`HEADER` for a consumer's task.

        Args:
            task: the task's name.
            identity: the task's id.
            delay: seconds until the task may run; the signature is valid for :data:`REDELIVERY` after that.
        """
        expires = _expires((delay + REDELIVERY) * 1000)
        signed = _message(b"call", f"{task}\0{identity}", expires, _arguments(args, kwargs))
        return (expires + hmac.digest(_keys(self.prefix)[0], signed, "sha256")).hex()

    # -- verifying

    def open_bare(self, queue: str, body: bytes) -> bytes:
        """Return the body that :meth:`bare` was called with.

        Raises:
            Refused: the signature is missing, wrong, for another queue, or has expired.
        """
        if body[:1] != b"\xc1":
            self._refuse(queue, "it is not signed")
            return body
        expires, mac, inner = body[1 : 1 + _EXPIRES], body[1 + _EXPIRES : 1 + _SIZE], body[1 + _SIZE :]
        problem = self._problem(_message(b"bare", queue, expires, inner), mac)
        if problem is None and int.from_bytes(expires, "big") < (time.time() - SKEW) * 1000:
            problem = "it has expired (or the clocks of two machines differ by more than a minute)"
        if problem is not None:
            self._refuse(queue, problem)
        return inner

    def is_signed(self, queue: str, identity: str, body: bytes) -> bool:
        """Return whether :meth:`check_task` would accept the message."""
        return self._problem_of_task(queue, identity, body) is None

    def check_task(self, queue: str, identity: object, body: bytes) -> None:
        """Verify a channel's message.

        Raises:
            Refused: :meth:`task` has not signed it for this queue and id, or the signature has expired.
        """
        problem = self._problem_of_task(queue, identity, body)
        if problem is not None:
            self._refuse(queue, problem)

    def _problem_of_task(self, queue: str, identity: object, body: bytes) -> str | None:
        if len(body) <= _TAIL or not body.startswith(_MARK, len(body) - _TAIL):
            return "it is not signed"
        expires, mac = body[-_SIZE:-_MAC], body[-_MAC:]
        problem = self._problem(_message(b"task", f"{queue}\0{identity}", expires, body[:-_TAIL]), mac)
        if problem is None and int.from_bytes(expires, "big") < (time.time() - REDELIVERY) * 1000:
            problem = "it expired over a day ago"
        return problem

    def is_call(
        self, task: str, identity: object, args: Sequence[Any], kwargs: Mapping[str, Any], signature: object
    ) -> bool:
        """Return whether :meth:`check_call` would accept the task."""
        return self._problem_of_call(task, identity, args, kwargs, signature) is None

    def check_call(
        self, task: str, identity: object, args: Sequence[Any], kwargs: Mapping[str, Any], signature: object
    ) -> None:
        """Verify a consumer's task.

        Raises:
            Refused: the signature is not that of :meth:`call` for this task.
        """
        problem = self._problem_of_call(task, identity, args, kwargs, signature)
        if problem is not None:
            self._refuse(task, problem)

    def _problem_of_call(
        self, task: str, identity: object, args: Sequence[Any], kwargs: Mapping[str, Any], signature: object
    ) -> str | None:
        if not isinstance(signature, str):
            return "it is not signed"
        try:
            given = bytes.fromhex(signature)
        except ValueError:
            given = b""
        signed = _message(b"call", f"{task}\0{identity}", given[:_EXPIRES], _arguments(args, kwargs))
        problem = self._problem(signed, given[_EXPIRES:])
        if problem is None and int.from_bytes(given[:_EXPIRES], "big") < time.time() * 1000:
            problem = "it expired over a day ago"
        return problem

    def _problem(self, signed: bytes, mac: bytes) -> str | None:
        for key in _keys(self.prefix):
            if hmac.compare_digest(hmac.digest(key, signed, "sha256"), mac):
                return None
        return "its signature is wrong"

    def _refuse(self, where: str, problem: str) -> None:
        """Count and log a message; raise Refused if signatures are required."""
        with self._lock:
            self.refused += 1
            now = time.monotonic()
            is_due = self.required or now - self._logged_at >= _LOG_EVERY
            if is_due:
                self._logged_at = now
        if self.listener is not None:
            self.listener()
        if self.required:
            text = "a message for %s was refused: %s (%d so far)"
            logger.error(text, where, problem, self.refused, extra={"action": "unsigned_refused"})
            raise Refused(problem)
        if is_due:
            text = "a message for %s was accepted although %s (%d so far; CONFIG['signing'] is 'sign')"
            logger.warning(text, where, problem, self.refused, extra={"action": "unsigned_taken"})


def _arguments(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
    """Return bytes that are the same before and after any of Celery's serializers."""
    return msgpack.packb([list(args or ()), dict(kwargs or {})], default=str)  # type: ignore[no-any-return]


def is_required(value: object) -> bool | None:
    """Return whether ``CONFIG["signing"]`` requires signatures; None for no signing.

    Raises:
        InvalidChannelLayerError: the value is invalid.
    """
    if value is None or value is False:
        return None
    if value is True or value == "require":
        return True
    if value == "sign":
        return False
    raise InvalidChannelLayerError(
        f"CHANNEL_LAYERS CONFIG['signing'] must be True (unsigned messages are refused), 'sign' (they are logged) or "
        f"False, not {value!r}"
    )
