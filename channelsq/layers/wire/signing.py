"""Signatures on what travels between a site's processes: who can write to the broker cannot speak for them.

A signature is an HMAC-SHA256 under a key that follows from ``SECRET_KEY`` and the layer's prefix.  It covers the bytes
that are acted upon, when they expire, and what they are for: the queue, or the task.  So neither can a message be made
or changed, nor can one that was recorded be moved elsewhere; replayed it can be for a while.

::

    a channel's message    [[channel, content], {}, {"channelsq": expires + signature}]
    envelope, ? channel    0xC1 + expires + signature + what an unsigned one is
    a consumer's task      the header channelsq_signature: expires + signature, in hexadecimal

``expires`` is in ms since 1970, 8 bytes.  0xC1 begins nothing in msgpack.  Whoever does not look at signatures reads
past them, so that they can be switched on while processes run.
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

#: Seconds after its expiry for which a message to a worker is good: one that its worker died with comes again.
REDELIVERY = 86_400

_SIGNED = 0xC1
_EXPIRES, _MAC = 8, 32
_SIZE = _EXPIRES + _MAC
#: How the signature of a channel's message begins: the embed of a Celery task message (protocol 2), a map of one.
_MARK = b"\x81\xa9channelsq\xc4" + bytes([_SIZE])
_TAIL = len(_MARK) + _SIZE

#: Seconds between two lines about messages that were taken although they are not signed.
_TOLD_EVERY = 60.0


class Refused(ValueError):
    """A message that is not signed as it must be; the text says what is wrong with it.  It has been logged."""


@functools.cache
def _keys(prefix: str) -> list[bytes]:
    """The key to sign with, and those that signatures may be under besides (``SECRET_KEY_FALLBACKS``)."""
    use = b"channelsq.layers.signing:" + prefix.encode()
    return [hmac.digest(secret, use, "sha256") for secret in conf.secrets()]


def forget_keys() -> None:
    """Have the keys made again: the settings have changed."""
    _keys.cache_clear()


def _message(use: bytes, name: str, expires: bytes, body: bytes) -> bytes:
    # No name has a NUL.
    return b"%b\0%b\0%b%b" % (use, name.encode(), expires, body)


def _expires(lifetime_ms: float) -> bytes:
    return int(time.time() * 1000 + lifetime_ms).to_bytes(_EXPIRES, "big")


def sign_bare(prefix: str, queue: str, body: bytes, lifetime_ms: float) -> bytes:
    """An envelope, or a message of a ``?`` channel, with its signature.

    Args:
        prefix: the layer's.
        queue: the name of the queue that it goes to.
        lifetime_ms: how long it is good for.
    """
    expires = _expires(lifetime_ms)
    mac = hmac.digest(_keys(prefix)[0], _message(b"bare", queue, expires, body), "sha256")
    return b"\xc1%b%b%b" % (expires, mac, body)


def without_signature(body: bytes) -> bytes:
    """What :func:`sign_bare` was given, for who does not look at signatures; also of what has none."""
    return body[1 + _SIZE :] if body[:1] == b"\xc1" else body


class Signing:
    """Signs for a layer, and looks at what comes.

    Args:
        prefix: the layer's.
        required: whether what is not signed is refused; else it is only told of.
    """

    def __init__(self, prefix: str, *, required: bool) -> None:
        self.prefix = prefix
        self.required = required
        #: How many messages this process has refused, or, where none need be signed, would have.
        self.refused = 0
        #: Is called for each of them, in any thread.
        self.listener: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self._told = float("-inf")

    # -- signing ----------------------------------------------------------------------------

    def bare(self, queue: str, body: bytes, lifetime_ms: float) -> bytes:
        """See :func:`sign_bare`."""
        return sign_bare(self.prefix, queue, body, lifetime_ms)

    def task(self, queue: str, identity: str, head: bytes, lifetime_ms: float) -> bytes:
        """The body of a channel's message.

        Args:
            queue: the name of the channel's queue.
            identity: the message's id.
            head: the body without its last part, the embed.
            lifetime_ms: how long it is good for.
        """
        expires = _expires(lifetime_ms)
        signed = _message(b"task", f"{queue}\0{identity}", expires, head)
        return b"%b%b%b%b" % (head, _MARK, expires, hmac.digest(_keys(self.prefix)[0], signed, "sha256"))

    def call(self, task: str, identity: str, args: Sequence[Any], kwargs: Mapping[str, Any], delay: float = 0.0) -> str:
        """What stands in :data:`HEADER` of a consumer's task.

        Args:
            task: its name.
            identity: its id.
            delay: seconds until it may run; it is good for :data:`REDELIVERY` after that.
        """
        expires = _expires((delay + REDELIVERY) * 1000)
        signed = _message(b"call", f"{task}\0{identity}", expires, _arguments(args, kwargs))
        return (expires + hmac.digest(_keys(self.prefix)[0], signed, "sha256")).hex()

    # -- looking ----------------------------------------------------------------------------

    def open_bare(self, queue: str, body: bytes) -> bytes:
        """What :meth:`bare` was given.

        Raises:
            Refused: it is none of that, or for another queue, or too old.
        """
        if body[:1] != b"\xc1":
            self._refuse(queue, "it is not signed")
            return body
        expires, mac, inner = body[1 : 1 + _EXPIRES], body[1 + _EXPIRES : 1 + _SIZE], body[1 + _SIZE :]
        problem = self._problem(_message(b"bare", queue, expires, inner), mac)
        if problem is None and int.from_bytes(expires, "big") < (time.time() - SKEW) * 1000:
            problem = "its time was over (or the clocks of two machines differ by more than a minute)"
        if problem is not None:
            self._refuse(queue, problem)
        return inner

    def is_signed(self, queue: str, identity: str, body: bytes) -> bool:
        """Whether :meth:`check_task` would have nothing to say."""
        return self._problem_of_task(queue, identity, body) is None

    def check_task(self, queue: str, identity: object, body: bytes) -> None:
        """Look at a channel's message.

        Raises:
            Refused: :meth:`task` has not made it for this queue and id, or it is too old.
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
            problem = "its time was over a day ago"
        return problem

    def is_call(
        self, task: str, identity: object, args: Sequence[Any], kwargs: Mapping[str, Any], signature: object
    ) -> bool:
        """Whether :meth:`check_call` would have nothing to say."""
        return self._problem_of_call(task, identity, args, kwargs, signature) is None

    def check_call(
        self, task: str, identity: object, args: Sequence[Any], kwargs: Mapping[str, Any], signature: object
    ) -> None:
        """Look at a consumer's task.

        Raises:
            Refused: the signature is not what :meth:`call` made for it.
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
            problem = "its time was over a day ago"
        return problem

    def _problem(self, signed: bytes, mac: bytes) -> str | None:
        for key in _keys(self.prefix):
            if hmac.compare_digest(hmac.digest(key, signed, "sha256"), mac):
                return None
        return "its signature is wrong"

    def _refuse(self, where: str, problem: str) -> None:
        """Count and log it; raises Refused unless no message need be signed."""
        with self._lock:
            self.refused += 1
            now = time.monotonic()
            tell = self.required or now - self._told >= _TOLD_EVERY
            if tell:
                self._told = now
        if self.listener is not None:
            self.listener()
        if self.required:
            text = "a message for %s was refused: %s (%d so far)"
            logger.error(text, where, problem, self.refused, extra={"action": "unsigned_refused"})
            raise Refused(problem)
        if tell:
            text = "a message for %s was taken although %s (%d so far; CONFIG['signing'] is 'sign')"
            logger.warning(text, where, problem, self.refused, extra={"action": "unsigned_taken"})


def _arguments(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
    """The same bytes before and after a serializer of Celery's has had them."""
    return msgpack.packb([list(args or ()), dict(kwargs or {})], default=str)  # type: ignore[no-any-return]


def is_required(value: object) -> bool | None:
    """What ``CONFIG["signing"]`` means: whether signatures are required; None for no signing.

    Raises:
        InvalidChannelLayerError: it means nothing.
    """
    if value is None or value is False:
        return None
    if value is True or value == "require":
        return True
    if value == "sign":
        return False
    raise InvalidChannelLayerError(
        f"CHANNEL_LAYERS CONFIG['signing'] must be True (what is not signed is refused), 'sign' (it is told of) or "
        f"False, not {value!r}"
    )
