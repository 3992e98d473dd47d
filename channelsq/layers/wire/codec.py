"""Messages as bytes: msgpack, checked before sending, never pickle.

A message may contain the types of ASGI 1.0: a dict with str keys of None, bool, int (signed 64 bit), float, str,
bytes, list or tuple, and dict.  https://asgi.readthedocs.io (legacy: channel layers)
"""

from __future__ import annotations

from typing import Any

import msgpack

from channelsq.exceptions import MessageTooLarge

#: How deep a message may nest; this also stops a dict that contains itself.
MAX_DEPTH = 64

_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1
_SCALARS = (str, bytes, bool, float, type(None))
_EXACT = frozenset(_SCALARS)

#: The initial size of a packer's buffer, in bytes; it grows.  Most messages are small, and to allocate msgpack's own
#: 256 KiB takes longer than to fill them.
_BUFFER = 1024


def _is_plain(value: Any, depth: int) -> bool:
    """Return whether ``value`` can certainly be sent; False also if it needs a full check, as subclasses do."""
    kind = type(value)
    if kind in _EXACT:
        return True
    if kind is int:
        return _INT_MIN <= value <= _INT_MAX  # type: ignore[no-any-return]
    if depth > MAX_DEPTH:
        return False
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str or (type(item) not in _EXACT and not _is_plain(item, depth + 1)):
                return False
        return True
    if kind is list or kind is tuple:
        for item in value:  # noqa: SIM110 - all() of a generator takes half as long again
            if type(item) not in _EXACT and not _is_plain(item, depth + 1):
                return False
        return True
    return False


def _check_message(message: Any) -> None:
    if not isinstance(message, dict):
        remedy = '; to a WebSocket write {"text": …}' if isinstance(message, str) else ""
        raise TypeError(f"a message must be a dict, not {type(message).__name__}: {_short(message)}{remedy}")
    for key, value in message.items():
        if not isinstance(key, str):
            raise TypeError(f"message key {key!r} must be a str, not {type(key).__name__}")
        _check(value, repr(key), 1)


def _check(value: Any, path: str, depth: int) -> None:
    if isinstance(value, _SCALARS):
        return
    if isinstance(value, int):
        if not _INT_MIN <= value <= _INT_MAX:
            raise TypeError(f"message key {path}: {_short(value)} does not fit in a signed 64 bit integer")
        return
    if depth > MAX_DEPTH:
        raise TypeError(f"message key {path[:80]}…: nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"message key {path}: the key {key!r} must be a str, not {type(key).__name__}")
            _check(item, f"{path}[{key!r}]", depth + 1)
    elif isinstance(value, (list, tuple)) and not isinstance(value, msgpack.ExtType):
        for index, item in enumerate(value):
            _check(item, f"{path}[{index}]", depth + 1)
    else:
        raise TypeError(
            f"message key {path}: a {type(value).__name__} cannot be sent ({_short(value)}); "
            "use None, bool, int, float, str, bytes, list, tuple or dict"
        )


def _short(value: Any) -> str:
    try:
        return f"{value!r:.80}"
    except Exception:  # an int of thousands of digits, or a repr() that fails
        return f"<{type(value).__name__}>"


def _unsendable_key(message: dict[str, Any]) -> str:
    for key, value in message.items():
        try:
            dumps({key: value})
        except UnicodeEncodeError:
            return repr(key)
    return "?"


def pack(message: dict[str, Any], limit: int) -> bytes:
    """Return ``message`` as bytes.

    Raises:
        TypeError: it is not a dict, or contains a value that cannot be sent; the text names the key.
        MessageTooLarge: the result would be over ``limit`` bytes.
    """
    if type(message) is not dict or not _is_plain(message, 0):
        _check_message(message)
    try:
        packed = dumps(message)
    except UnicodeEncodeError as error:
        raise TypeError(
            f"message key {_unsendable_key(message)}: the text of a message must be valid UTF-8: {error}"
        ) from None
    if len(packed) > limit:
        raise MessageTooLarge(len(packed), limit)
    return packed


def unpack(packed: bytes) -> dict[str, Any]:
    """Return the message in ``packed``, the result of :func:`pack`; raise :class:`ValueError` for anything else."""
    message = loads(packed)
    if type(message) is not dict:
        raise ValueError(f"not a packed message, but a {type(message).__name__}")
    for key in message:
        if type(key) is not str:
            raise ValueError(f"not a packed message, as its key {_short(key)} is not a str")
    return message


def dumps(value: Any) -> bytes:
    """Return any plain value as msgpack, with str and bytes distinguished."""
    return msgpack.Packer(buf_size=_BUFFER).pack(value)  # type: ignore[no-any-return]


def _refuse_extension(code: int, data: bytes) -> Any:
    raise ValueError(f"extension type {code}, which messages do not contain")


def loads(packed: bytes) -> Any:
    """Return the value in ``packed``; raise :class:`ValueError` for anything that is not msgpack."""
    try:
        return msgpack.unpackb(packed, ext_hook=_refuse_extension)
    except (msgpack.UnpackException, ValueError) as error:
        raise ValueError(f"not msgpack: {error}") from error
