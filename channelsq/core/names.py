"""Rules for names of channels and groups, and the meaning of their parts.

A name is ASCII letters, digits, ``-``, ``_`` and ``.``, shorter than 100 characters.  A channel
name may hold one type character (ASGI 1.0 channel-layer specification, "Channels"):

``?``  a *single-reader* channel, such as ``http.request.body?Kx81``;
``!``  a *process-specific* channel, such as ``websocket.send.9f3ab2!c41``: the part before the ``!`` names the one
       queue of the process that owns it, the part after it a client of that process.
"""

from __future__ import annotations

import itertools
import os
import re
import secrets
from functools import lru_cache

MAX_LENGTH = 99

_CHANNEL = re.compile(r"[A-Za-z0-9_.-]+(?:[?!][A-Za-z0-9_.-]+)?")
_GROUP = re.compile(r"[A-Za-z0-9_.-]+")

HTTP_REQUEST = "http.request"
HTTP_DISCONNECT = "http.disconnect"
WEBSOCKET_CONNECT = "websocket.connect"
WEBSOCKET_RECEIVE = "websocket.receive"
WEBSOCKET_DISCONNECT = "websocket.disconnect"

#: The stream of the browser library that live tasks use, and the beginning of its frames to the server.
LIVE_STREAM = "channelsq.task"
LIVE_FRAME = f'{{"stream":"{LIVE_STREAM}",'

#: The same of live pages.
PAGE_STREAM = "channelsq.page"
PAGE_FRAME = f'{{"stream":"{PAGE_STREAM}",'
#: The frame by which a page asks for a sign of life.
PAGE_PING = f'{PAGE_FRAME}"payload":{{"join":[]}}}}'

#: The prefix of the reply channels of gateways, before their process.
GATEWAY_SEND = "gateway.send"

#: The subprotocol without a meaning: a browser that offers several, such as a token, requires a choice among them.
SUBPROTOCOL = "channelsq"
#: The prefix of the subprotocol that carries a token; see :mod:`channelsq.security.tokens`.
TOKEN_SUBPROTOCOL = "channelsq.token."  # noqa: S105 - no secret


#: Names that were checked before: each name is checked several times on its way.
_good: set[str] = set()
_MOST_GOOD = 4096


def _is_channel_name(name: str) -> bool:
    if _CHANNEL.fullmatch(name) is None:
        return False
    if len(_good) >= _MOST_GOOD:
        _good.clear()
    _good.add(name)
    return True


@lru_cache(maxsize=4096)
def _is_group_name(name: str) -> bool:
    return _GROUP.fullmatch(name) is not None


def check_channel_name(name: object, *, receive: bool = False) -> str:
    """Return ``name`` if it is a channel name, else raise :class:`TypeError` with the name.

    Args:
        name: a value that should be a channel name.
        receive: also allow ``"prefix!"``, which stands for all channels of that process.
    """
    if type(name) is str and name in _good:
        return name
    if not isinstance(name, str):
        raise TypeError(f"a channel name must be a str, not {type(name).__name__}: {name!r}")
    if len(name) > MAX_LENGTH or not (
        _is_channel_name(name) or (receive and name[-1:] == "!" and _is_group_name(name[:-1]))
    ):
        raise TypeError(
            f"{name!r} is not a channel name: use ASCII letters, digits, '-', '_' and '.', fewer than "
            "100 characters, and at most one '?' or '!' with something on both sides of it"
        )
    return name


def check_group_name(name: object) -> str:
    """Return ``name`` if it is a group name, else raise :class:`TypeError` with the name."""
    if not isinstance(name, str):
        raise TypeError(f"a group name must be a str, not {type(name).__name__}: {name!r}")
    if len(name) > MAX_LENGTH or not _is_group_name(name):
        raise TypeError(
            f"{name!r} is not a group name: use ASCII letters, digits, '-', '_' and '.', fewer than 100 characters"
        )
    return name


def is_short_name(value: str) -> bool:
    """Return whether ``value`` can be part of any name: at most 32 of the characters that names consist of."""
    return len(value) <= 32 and _is_group_name(value)


def is_process_channel(name: str) -> bool:
    """Return whether ``name`` is process-specific (has a ``!``)."""
    return "!" in name


def is_single_reader(name: str) -> bool:
    """Return whether ``name`` is a single-reader channel (has a ``?``)."""
    return "?" in name


def process_part(name: str) -> str:
    """Return the part of a ``!`` channel that names its process, with the ``!``: ``"a.b!"`` of ``"a.b!c"``."""
    return name[: name.index("!") + 1]


def new_channel_name(pattern: object, process: str) -> str:
    """Return a new, unique channel name made from ``pattern``.

    Args:
        pattern: a channel name that ends with ``!`` or ``?``.
        process: the identity of this process, placed before the ``!``.

    Raises:
        TypeError: the pattern does not end with a type character, or is not a channel name.
    """
    if not isinstance(pattern, str) or pattern[-1:] not in ("!", "?"):
        raise TypeError(f"{pattern!r} is not a pattern for a new channel: it must end with '!' or '?'")
    stem, kind = pattern[:-1], pattern[-1]
    token = secrets.token_urlsafe(9)
    name = f"{stem}.{process}!{token}" if kind == "!" else f"{stem}?{token}"
    if not _GROUP.fullmatch(stem) or len(name) > MAX_LENGTH:
        raise TypeError(
            f"{pattern!r} is not a pattern for a new channel: before its {kind!r} use ASCII letters, digits, '-', "
            f"'_' and '.', at most {MAX_LENGTH - len(name) + len(stem)} characters"
        )
    return name


_numbers = itertools.count()
_process: tuple[int, str] = (0, "")


def new_id() -> str:
    """Return an id that is unique among messages and their runs; it is cheaper than a UUID."""
    global _process
    pid, identity = _process
    if pid != os.getpid():
        identity = secrets.token_hex(8)
        _process = os.getpid(), identity
    return f"{identity}-{next(_numbers):x}"
